"""Print docs/settings.md: what --help says of every flag.

In the folder of the project:

    .venv/bin/python -m docs.settings > docs/settings.md
"""

import contextlib
import importlib
import io
import os
import re
import sys

SCRIPTS = "train", "analysis", "predict", "draw", "robustness", "benchmark"
HEAD = """# All settings

Every flag of a script is a setting of its target: `train.py --batch-size 64` is
`make train BATCH_SIZE=64`, and a flag that takes no value is `1` or `0`; those without a flag, at
the end, are of the Makefile. `make demo` takes the settings of train and analysis but for the
dataset, and what trains where there is no checkpoint takes train's. A setting that a target does
not have is refused, with those that it has. Of the environment DATASET, DEVICE, RECIPE, EPOCHS and
SEED count, too.

| setting | of | meaning |
|---|---|---|"""
OF_MAKE = [
    ("IMAGE=", "predict", "pictures, folders; with a space: `IMAGE=\"'my 7.jpg' 8.png\"`"),
    ("ARGS=", "all", 'flags as they are, for several values: `ARGS="--checkpoint a.pt b.pt"`'),
    ("PYTHON=", "install", "the Python of `.venv` (default: python3)"),
    ("CUDA=", "install", "1 or 0: PyTorch with CUDA or without (default: where a GPU is seen)"),
    ("PIP_ARGS=", "install", "flags with which pip installs, in place of uv"),
    ("DEBUG=", "all", "1: the traceback of an error, too"),
]


def ask(script):
    """[(flag, what its --help says of it)] of a script."""
    os.environ["COLUMNS"] = "1000"  # so that nothing is wrapped
    shown, sys.argv = io.StringIO(), [f"{script}.py", "--help"]
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        importlib.import_module(script).main()
    return re.findall(r"^  (--[a-z0-9-]+)(?: \S+)*?(?: {2,}|\n +)(.+)$", shown.getvalue(), re.M)


def table():
    """Yield the lines of docs/settings.md."""
    yield HEAD
    rows = {}
    for script in SCRIPTS:
        for flag, meaning in ask(script):
            rows.setdefault((flag, meaning), []).append(script)
    for (flag, meaning), scripts in rows.items():
        setting = flag[2:].upper().replace("-", "_")
        of = "all" if len(scripts) == len(SCRIPTS) else ", ".join(scripts)
        yield f"| `{setting}=`, `{flag}` | {of} | {meaning} |"
    for setting, of, meaning in OF_MAKE:
        yield f"| `{setting}` | {of} | {meaning} |"


if __name__ == "__main__":
    print(*table(), sep="\n")
