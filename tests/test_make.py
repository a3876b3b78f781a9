"""The Makefile, run in a copy of the project whose path has a space."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()
DOCS = "\n".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.M))
SCRIPTS = ["train", "analysis", "predict", "draw", "robustness", "benchmark"]
PYTHON = shlex.quote(sys.executable)  # for shell scripts: its path may have a space
VARIABLES = "DATASET DEVICE RECIPE EPOCHS SEED CHECKPOINT IMAGE ARGS".split()


def make(folder, *arguments, **variables):
    """Run make in the folder with no setting from outside; a CompletedProcess with all output."""
    outside = ("MAKE", "MFLAGS", *VARIABLES)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(outside)}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def tracked():
    """The files that git tracks, as paths in the project."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture
def project(tmp_path):
    """A copy of the project without an environment."""
    folder = tmp_path / "a project"
    for path in tracked():
        (folder / path.parent).mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path)
        os.utime(folder / path, (0, 0))  # older than any environment
    return folder


def test_help_is_the_default_and_lists_every_target(project):
    shown = make(project)
    assert shown.returncode == 0 and shown.stdout == make(project, "help").stdout
    assert set(re.findall(r"^  make ([\w-]+)", shown.stdout, re.M)) == TARGETS
    assert TARGETS == set(re.search(r"^.PHONY: broken (.*)", MAKEFILE, re.M)[1].split())


def test_the_docs_name_every_target_variable_and_flag_and_no_other(run):
    text = README + DOCS
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) == TARGETS
    variables = set(re.findall(r"\$\((?:if \$\()?([A-Z_]+)\)", MAKEFILE)) - {"PY"}
    of_the_tests = {"KILLS", "CASES", "DIGITS"}
    assert set(re.findall(r"\b([A-Z_]+)=", text)) - of_the_tests == variables
    known = set()
    for script in SCRIPTS:
        code, out, _ = run(importlib.import_module(script).main, "--help")
        assert code == 0
        known |= set(re.findall(r"(?<!\S)--[a-z0-9-]+", out)) - {"--help"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)) - {"--help"} == known


def test_every_script_has_a_target_and_a_place_in_the_readme():
    assert {f"{script}.py" for script in SCRIPTS} == {
        path.name for path in ROOT.glob("*.py") if "cli.run(main)" in path.read_text()
    }
    assert set(SCRIPTS) < TARGETS
    assert all(f"`{script}.py`" in README for script in SCRIPTS)


@pytest.fixture
def played(project):
    """The project with a Python that prints what it is to run; training leaves a checkpoint."""
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/bin/sh\nprintf \'<%s> \' "$@"; echo\nif [ "$1" = train.py ]; then touch "$3"; fi\n'
    )
    python.chmod(0o755)
    for marker in ("installed", "installed-dev"):
        (project / ".venv" / marker).touch()
    return project


def commands(shown):
    """The words of each command that was run."""
    assert shown.returncode == 0, shown.stdout
    lines = [line for line in shown.stdout.splitlines() if line.startswith("<")]
    return [re.findall("<(.*?)> ", line) for line in lines]


def test_variables_become_flags_and_may_have_spaces(played):
    given = ["DATASET=my data", "DEVICE=cuda:1", "RECIPE=quick", "EPOCHS=3", "SEED=4"]
    given += ["CHECKPOINT=my net.pt", "ARGS=--json --beta1 0.5"]
    shown = {
        target: commands(make(played, target, *given)) for target in SCRIPTS if target != "predict"
    }
    net, data = ["--checkpoint", "my net.pt"], ["--dataset", "my data"]
    device, args = ["--device", "cuda:1"], ["--json", "--beta1", "0.5"]
    schedule = ["--recipe", "quick", "--epochs", "3", "--seed", "4"]
    assert shown == {
        "train": [["train.py", *net, *data, *device, *schedule, *args]],
        "analysis": [["analysis.py", *net, *data, *device, *args]],
        "draw": [["draw.py", *net, *args]],
        "robustness": [["robustness.py", *net, *data, *device, *args]],
        "benchmark": [["benchmark.py", *data, *device, *args]],
    }
    assert commands(make(played, "demo", *given)) == [
        ["train.py", "--dataset", "synthetic", "--occlusion", "0.3", "--extra-writing", "0.3"]
        + ["--checkpoint", "demo/checkpoint.pt", *device, *schedule],
        ["analysis.py", "--checkpoint", "demo/checkpoint.pt", "--output"]
        + ["demo/misclassified_samples", *device],
    ]
    assert commands(make(played, "train")) == [["train.py", "--checkpoint", "checkpoint.pt"]]


def test_without_a_checkpoint_it_trains_first(played):
    for target, recipe in ("analysis", []), ("draw", ["--recipe", "everyday"]):
        first, second = commands(make(played, target, f"CHECKPOINT={target}.pt", "EPOCHS=2"))
        assert first == ["train.py", "--checkpoint", f"{target}.pt", *recipe, "--epochs", "2"]
        assert second == [f"{target}.py", "--checkpoint", f"{target}.pt"]
        assert len(commands(make(played, target, f"CHECKPOINT={target}.pt"))) == 1
    first, _ = commands(make(played, "draw", "CHECKPOINT=other.pt", "RECIPE=quick"))
    assert first == ["train.py", "--checkpoint", "other.pt", "--recipe", "quick"]


def test_pictures_are_named_by_a_variable(played):
    (played / "checkpoint.pt").touch()
    pictures = "IMAGE='my digit.png' 8.png"
    (command,) = commands(make(played, "predict", pictures, "ARGS=--save-input seen"))
    assert command[3:] == ["my digit.png", "8.png", "--save-input", "seen"]
    shown = make(played, "predict")
    assert shown.returncode == 2 and "name a picture: make predict IMAGE=photo.jpg" in shown.stdout


def test_the_tests_are_run_with_and_without_the_browser(played):
    for target, more in ("test", ["-m", "not browser"]), ("test-all", []):
        lint, tests = commands(make(played, target))
        assert lint == ["-m", "ruff", "check", "."]
        assert tests[:2] == ["-m", "pytest"] and tests[tests.index("tests") + 1 :] == more


@pytest.mark.skipif(
    not (Path(sys.prefix) / "installed").exists(), reason="needs the environment of `make install`"
)
def test_demo_clean_and_remove(project):
    before = {path.relative_to(project) for path in project.rglob("*")}
    (project / ".venv").symlink_to(sys.prefix)
    shown = make(project, "demo", "EPOCHS=1", "DEVICE=cpu")
    assert shown.returncode == 0, shown.stdout
    assert len(list((project / "demo" / "misclassified_samples").iterdir())) == 11
    assert make(project, "train", "ARGS=--epochs 0").returncode != 0
    for name in ("checkpoint.pt", "draw.html", "robustness.png", ".784-128-10-left"):
        (project / name).touch()
    pictures = project / "misclassified_samples"
    shutil.copytree(project / "demo" / pictures.name, pictures, dirs_exist_ok=True)
    (pictures / "mine.png").write_text("mine")

    assert make(project, "clean").returncode == 0
    (project / ".venv").unlink()
    left = {path.relative_to(project) for path in project.rglob("*")}
    assert left == before | {Path("misclassified_samples/mine.png")}
    (project / ".venv").mkdir()
    assert make(project, "remove").returncode == 0 and not (project / ".venv").exists()


# Pythons that cannot make an environment; each is a script that plays python3.


def play_python(folder, script):
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return f"PYTHON={python}"


def test_an_old_python_gets_a_sentence(project, tmp_path):
    code = "sys.version_info, sys.version = (3, 9), '3.9.1 (main)'"
    python = play_python(
        tmp_path, f'[ "$1" = -c ] && exec {PYTHON} -c "import sys; {code}; $2"; exit 9'
    )
    shown = make(project, "install", python)
    assert shown.returncode == 2
    assert "Python 3.10 or later is needed, this is 3.9.1" in shown.stdout
    assert not (project / ".venv").exists()


# As on Debian without python3-venv: ensurepip is missing.
NO_ENSUREPIP = f"""case "$*" in
  "-m venv .venv") {PYTHON} -m venv --without-pip .venv; exit 1;;
  "-m pip"*) %s;;
  *) exec {PYTHON} "$@";;
esac"""


def test_without_ensurepip_the_pip_of_the_system_installs(project, tmp_path):
    python = play_python(tmp_path, NO_ENSUREPIP % f'echo "$@" >>"{tmp_path}/pip"')
    shown = make(project, "install", python, "PIP_ARGS=--no-index")
    assert shown.returncode == 0, shown.stdout
    assert (tmp_path / "pip").read_text().splitlines()[-1] == (
        "-m pip --python .venv/bin/python install --no-index -r requirements.txt"
    )
    assert (project / ".venv" / "installed").exists()


def test_without_any_pip_a_sentence_names_the_package(project, tmp_path):
    python = play_python(tmp_path, NO_ENSUREPIP % "exit 1")
    shown = make(project, "install", python)
    assert shown.returncode == 2 and "apt install python3-venv" in shown.stdout
    assert not (project / ".venv" / "installed").exists()


def test_an_installation_that_failed_is_not_taken_for_a_whole_one(project, tmp_path):
    python = play_python(tmp_path, NO_ENSUREPIP % 'case "$*" in *install*) exit 1;; esac')
    assert make(project, "install", python).returncode == 2
    assert (project / ".venv").exists() and not (project / ".venv" / "installed").exists()


def test_an_environment_whose_python_is_gone_is_made_anew(project, tmp_path):
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to(tmp_path / "gone")
    (project / ".venv" / "installed").touch()
    python = play_python(tmp_path, NO_ENSUREPIP % "exit 0")
    assert make(project, "install", python).returncode == 0
    assert (project / ".venv" / "bin" / "python").exists()
