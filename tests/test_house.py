"""The house: who may import whom, what importing does, and which files there are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_make import tracked

SOURCES = [path for path in tracked() if path.suffix == ".py" and path.parts[0] != "tests"]
FLOORS = {
    "plumbing": 0,
    "digits": 1,
    "data": 2,
    "model": 3,
    "recipes": 3,
    "docs": 5,
}  # all others: scripts
SCRIPTS = 4


def module(path):
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def floor(name):
    return FLOORS.get(name.split(".")[0], SCRIPTS)


def imported(path):
    """The modules of the project that one of its files imports, wherever in it that stands."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names & {module(path) for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_go_down(path):
    for name in imported(path) - {"plumbing", "digits"}:
        same_folder = len(path.parts) == 2 and name.startswith(f"{path.parts[0]}.")
        allowed = floor(name) < floor(module(path)) or same_folder
        assert allowed or (path.name, name) == ("benchmark.py", "train"), name


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
NOUNS = [module(path) for path in SOURCES if floor(module(path)) < SCRIPTS]


def test_importing_a_noun_changes_nothing_in_the_process():
    code = f"{STATE}\nimport {', '.join(NOUNS)}\nassert state() == before"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "")
    changed = f"{STATE}\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nassert state() == before"
    assert subprocess.run([sys.executable, "-c", changed], capture_output=True).returncode == 1


def test_without_what_only_posix_has_it_trains_saves_and_resumes(dataset):
    code = """
import signal, sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGKILL"):
    delattr(signal, name)
import train
from plumbing import cli, resume
cli.set_up()
resume.SAVE_EVERY = 0
save = train.checkpoints.snapshot
def interrupt(*args, **facts):
    if len(args[2]) == 3:
        raise KeyboardInterrupt
    return save(*args, **facts)
train.checkpoints.snapshot = interrupt
sys.argv = ["train.py", "--dataset", "digits", "--epochs", "4"]
try:
    cli.run(train.main)
except SystemExit as end:
    assert end.code == 130
train.checkpoints.snapshot = save
sys.argv = ["train.py", "--resume"]
cli.run(train.main)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "2 of 4 epochs are saved" in shown.stderr and "after 2 epochs" in shown.stdout
    assert Path("checkpoint.pt").exists()


def test_the_files_in_front_are_few():
    named = "Makefile README.md requirements.txt requirements-dev.txt ruff.toml"
    scripts = "train analysis predict draw robustness benchmark model data recipes"
    folders = {"digits", "plumbing", "docs", "tests", "misclassified_samples", ".ci", ".gitignore"}
    names = {*named.split(), *(f"{name}.py" for name in scripts.split())}
    assert {path.parts[0] for path in tracked()} == names | folders


def test_the_readme_can_be_read_in_one_go():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150 and max(map(len, lines)) <= 110


def test_no_main_is_longer_than_a_screen():
    for path in SOURCES:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "main":
                assert node.end_lineno - node.lineno < 50, path


def test_the_pictures_in_the_project_are_known():
    kinds = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".npz"}
    pictures = {str(path) for path in tracked() if path.suffix.lower() in kinds}
    assert pictures == {"docs/demo.png", "docs/page.png", "docs/robustness.png"}
