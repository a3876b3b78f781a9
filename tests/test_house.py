"""The house: who may import whom, what importing does, and what is not in it."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT
from test_make import tracked

SOURCES = [path for path in tracked() if path.suffix == ".py" and path.parts[0] != "tests"]
FLOORS = {"plumbing": 0, "digits": 1, "data": 2, "model": 3, "recipes": 2, "docs": 5}
SCRIPTS = 4  # the floor of all others


def module(path):
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def floor(name):
    return FLOORS.get(name.split(".")[0], SCRIPTS)


def nodes(path, *kinds):
    tree = ast.walk(ast.parse((ROOT / path).read_text()))
    return [node for node in tree if isinstance(node, kinds)]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_go_down(path):
    names = {alias.name for node in nodes(path, ast.Import) for alias in node.names}
    for node in nodes(path, ast.ImportFrom):
        names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    for name in names & {module(path) for path in SOURCES} - {"plumbing", "digits"}:
        same_folder = len(path.parts) == 2 and name.startswith(f"{path.parts[0]}.")
        allowed = floor(name) < floor(module(path)) or same_folder
        assert allowed or (path.name, name) == ("benchmark.py", "train"), name


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


# Whatever another module of the process could notice.
STATE = """
import logging, os, signal, sys, warnings
def state():
    import torch
    return (
        [signal.getsignal(number) for number in signal.valid_signals()], sys.excepthook,
        sys.stdin, sys.stdout, sys.stderr, os.getcwd(), dict(os.environ), list(warnings.filters),
        logging.root.handlers[:], logging.getLogger("PIL").handlers[:], torch.get_num_threads(),
        torch.get_rng_state().tolist(), torch.is_grad_enabled(), torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
    )
import torch, numpy, PIL.Image, scipy.ndimage, tqdm  # which may change what they like
before = state()
"""


def test_importing_a_noun_changes_nothing_in_the_process():
    nouns = [module(path) for path in SOURCES if floor(module(path)) < SCRIPTS]
    shown = python(f"{STATE}\nimport {', '.join(nouns)}\nassert state() == before")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "")
    change = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    assert python(f"{STATE}\n{change}\nassert state() == before").returncode == 1


def test_without_what_only_posix_has_it_trains_saves_and_resumes(dataset):
    shown = python("""
import signal, sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGKILL"):
    delattr(signal, name)
import train
from plumbing import cli, resume
cli.set_up()
evaluate, epochs = train.evaluate, []
def interrupted(*args):
    epochs.append(0)
    if len(epochs) == 3:
        raise KeyboardInterrupt
    return evaluate(*args)
train.evaluate = interrupted
resume.SAVE_EVERY = 0
def run(*flags):
    sys.argv = ["train.py", *flags]
    try:
        cli.run(train.main)
    except SystemExit as end:
        return end.code
assert run("--dataset", "digits", "--epochs", "4") == 130
assert not run("--resume")
""")
    assert shown.returncode == 0, shown.stderr
    assert "2 of 4 epochs are saved" in shown.stderr and "after 2 epochs" in shown.stdout


def test_no_function_is_longer_than_a_screen():
    for path in SOURCES:
        for node in nodes(path, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 50, (path, node.name)


def test_the_pictures_in_the_project_are_known():
    kinds = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".npz"}
    pictures = {str(path) for path in tracked() if path.suffix.lower() in kinds}
    names = "demo learning_curve pages resistance units-quick units-robust".split()
    assert pictures == {"docs/page.gif", *(f"docs/{name}.png" for name in names)}
