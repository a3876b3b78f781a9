"""What the command lines of all scripts share: flags, signals, and one sentence per error."""

import argparse
import contextlib
import importlib.util
import io
import json
import math
import os
import re
import signal
import sys
import time
import traceback
from pathlib import Path

from plumbing import openmp

# How PyTorch reports that memory is short or a device fails, mostly as a RuntimeError.
MACHINE = re.compile("(CUDA|HIP|XPU|cuDNN) error|CUBLAS_STATUS|out of memory")
MEMORY = "allocate memory"  # of the CPU

# What the scripts import, at once or later.
PACKAGES = ["torch", "datasets", "numpy", "PIL", "scipy", "tqdm"]

# Windows has no SIGHUP.
SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one sentence that says what to do."""


def set_up():
    """Prepare a process; a script calls it before the imports that take long, and then run().

    Ctrl-C, SIGTERM and SIGHUP, unless they are ignored (by nohup), end the process at once while it
    imports: a KeyboardInterrupt might be caught, or shown with a traceback, by a library. A Python
    that lacks what they import, because it is not that of .venv, is left with code 2.
    """
    openmp.set_up()
    sys.stderr = sys.stderr or open(os.devnull, "w")  # None where the shell has closed it: `2>&-`
    # Python 3.6 can read the scripts and the files that are imported before this, but no others.
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing or sys.version_info < (3, 10):
        script = Path(sys.argv[0]).stem
        complain(
            f"{sys.executable} is Python {sys.version.split()[0]}; 3.10 or later is needed, with "
            f"{', '.join(missing or PACKAGES)}: type `make {script}`, or `.venv/bin/python "
            f"{script}.py`; if this is that Python, `make remove` first"
        )
        sys.exit(2)
    if "IPython" in sys.modules:  # `%run train.py`: a notebook has handlers of its own and lives on
        return
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _leave)


def _leave(number, frame):
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(130)


_interrupted = -math.inf  # when it last was


def _interrupt(number, frame):
    """Raise KeyboardInterrupt, but not twice within a second.

    Many press Ctrl-C twice, and a terminal that is closed sends SIGHUP twice: the second one would
    interrupt the handling of the first.
    """
    global _interrupted
    before, _interrupted = _interrupted, time.monotonic()
    if _interrupted - before > 1:
        raise KeyboardInterrupt


def ignore_signals():
    """Let nothing interrupt what remains to be done after an interrupt."""
    for number in SIGNALS:
        if signal.getsignal(number) == _interrupt:
            signal.signal(number, signal.SIG_IGN)


def parser(description):
    """An ArgumentParser with the flag of every script, --json; a bad flag raises InputError."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)

    def error(message):
        raise InputError(f"{message} (see {parser.prog} --help)")

    parser.error = error
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the closing summary as one JSON object on the last line of standard output",
    )
    return parser


def path(text):
    """The argparse type of a file or folder, ~ being the home: not every shell expands X=~/y."""
    if not text:
        raise argparse.ArgumentTypeError("'' names no file")
    return Path(os.path.expanduser(text))


def add_dataset(parser, without="the one that the checkpoint names"):
    """Add --dataset, which is None where it is not given; `without` says what is read then."""
    parser.add_argument(
        "--dataset",
        type=os.path.expanduser,
        help="id on the Hugging Face Hub, local folder or file, or synthetic for drawn digits "
        f"(default: {without})",
    )


def add_checkpoint(parser, help="file of the trained network", **settings):
    """Add --checkpoint, with other settings of argparse than those of one file."""
    settings = {"type": path, "default": Path("checkpoint.pt")} | settings
    parser.add_argument("--checkpoint", help=f"{help} (default: checkpoint.pt)", **settings)


def between(low, high, kind=float):
    """The argparse type of a number from low to high, an int or a float."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            noun = "whole number" if kind is int else "number"
            limits = f"from {low:.10g} to {high:.10g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {noun} {limits}")
        return value

    return parse


def show(**facts):
    """Print a line per fact, its name and what there is to say; None is not printed."""
    for name, fact in facts.items():
        if fact is not None:
            print(f"{name:10}  {fact}", flush=True)


def print_json(wanted, **summary):
    """Print the closing summary of a script where --json wants it."""
    if wanted:
        print(json.dumps(summary))


def sentence(error):
    """What is wrong on one line, because messages of libraries may have many, and be long."""
    return " ".join(str(error).split())[:500]


def complain(problem):
    """Say what is wrong in one sentence on standard error; DEBUG=1 shows the traceback first."""
    if sys.exc_info()[0] and os.environ.get("DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
    print(f"{Path(sys.argv[0]).name}: {sentence(problem)}", file=sys.stderr)


def run(main):
    """Call main(), which may return an exit code, and exit with one sentence where it fails.

    The code is 2 for bad input, 1 for a failed run, 130 for Ctrl-C. A mistake in the program itself
    keeps its traceback.
    """
    for number in SIGNALS:
        if signal.getsignal(number) == _leave:  # From here on there may be something to save.
            signal.signal(number, _interrupt)
    # It is None where the shell has closed it (`train.py >&-`), and may be another's in a notebook.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # class names in any locale
    try:
        code = main()
        if sys.stdout:
            sys.stdout.flush()
    except BaseException as error:
        code, problem = _explain(error)
        if code is None:
            raise
        if isinstance(error, BrokenPipeError):
            # The reader has gone (`train.py | head`): what Python flushes at exit must not fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        complain(problem)
    if code:
        sys.exit(code)


def _explain(error):
    """(exit code, sentence) of what a user or a machine causes; (None, None) of any other error."""
    if isinstance(error, InputError):
        return 2, error
    if isinstance(error, KeyboardInterrupt):
        return 130, str(error) or "interrupted"
    if isinstance(error, (OSError, FloatingPointError)):
        return 1, error
    reason = str(error).split("\n")[0]  # The rest is about debugging PyTorch.
    if isinstance(error, RuntimeError) and MACHINE.search(str(error)):
        return 1, f"{reason}; free the device, or leave it for the CPU (--device cpu)"
    if isinstance(error, MemoryError) or isinstance(error, RuntimeError) and MEMORY in reason:
        return 1, f"not enough memory: {reason}; close other programs, or lower --batch-size"
    return None, None
