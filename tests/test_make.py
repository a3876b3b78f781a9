"""The Makefile, run in a copy of the project whose path has a space."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

import synthetic

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, re.M))
PYTHON = shlex.quote(sys.executable)  # for shell scripts: its path may have a space
SCRIPTS = ["train.py", "analysis.py", "predict.py", "draw.py", "robustness.py", "benchmark.py"]


def make(folder, *arguments, **variables):
    """Run make in the folder with no setting from outside; a CompletedProcess with all output."""
    outside = (
        "MAKE",
        "MFLAGS",
        "DATASET",
        "DEVICE",
        "RECIPE",
        "EPOCHS",
        "SEED",
        "CHECKPOINT",
        "IMAGE",
        "ARGS",
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(outside)}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def project(tmp_path):
    """A copy of the project without an environment."""
    folder = tmp_path / "a project"
    names = [
        "Makefile",
        "requirements.txt",
        "requirements-dev.txt",
        "page.html",
        *ROOT.glob("*.py"),
    ]
    folder.mkdir()
    for name in names:
        shutil.copy2(ROOT / name, folder)
        os.utime(folder / Path(name).name, (0, 0))  # older than any environment
    (folder / "misclassified_samples").mkdir()
    return folder


def test_help_is_the_default_and_lists_every_target(project):
    shown = make(project)
    assert shown.returncode == 0 and shown.stdout == make(project, "help").stdout
    assert set(re.findall(r"^  make (\w+)", shown.stdout, re.M)) == TARGETS
    assert TARGETS == set(re.search(r"^.PHONY: broken (.*)", MAKEFILE, re.M)[1].split())


def test_the_readme_names_every_target_variable_and_flag_and_no_other():
    assert set(re.findall(r"\bmake ([a-z]+)", README)) == TARGETS
    variables = set(re.findall(r"\$\((?:if \$\()?([A-Z_]+)\)", MAKEFILE)) - {"PY"}
    of_the_tests = {"KILLS", "CASES"}
    assert set(re.findall(r"\b([A-Z_]+)=", README)) - of_the_tests == variables
    known = set()
    for script in SCRIPTS:
        shown = subprocess.run(
            [sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True
        )
        known |= set(re.findall(r"(?<!\S)--[a-z-]+", shown.stdout)) - {"--help"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) - {"--index-url", "--help"} == known


@pytest.mark.skipif(
    not (Path(sys.prefix) / "installed").exists(), reason="needs the environment of `make install`"
)
def test_train_analysis_demo_clean_and_remove(project):
    (project / ".venv").symlink_to(sys.prefix)
    shown = make(project, "analysis", "DATASET=synthetic", "EPOCHS=1", "DEVICE=cpu", "SEED=4")
    assert shown.returncode == 0, shown.stdout
    assert "training first" in shown.stdout and "seed 4" in shown.stdout
    pictures = list((project / "misclassified_samples").iterdir())
    assert len(pictures) == 11
    before = (project / "checkpoint.pt").read_bytes()

    shown = make(project, "analysis", "ARGS=--json")
    assert shown.returncode == 0 and "training first" not in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("{")

    Image.fromarray(synthetic.draw(1, seed=0)[0][0].numpy()).save(project / "my digit.png")
    shown = make(project, "predict", "IMAGE='my digit.png'", "ARGS=--save-input seen")
    assert shown.returncode == 0 and shown.stdout.endswith("%  my digit.png\n"), shown.stdout
    assert (project / "seen" / "01_my digit_28x28.png").exists()
    shown = make(project, "predict")
    assert shown.returncode == 2 and "name a picture: make predict IMAGE=photo.jpg" in shown.stdout
    shutil.rmtree(project / "seen")
    (project / "my digit.png").unlink()
    shown = make(project, "draw")
    assert shown.returncode == 0 and (project / "draw.html").exists(), shown.stdout

    shown = make(project, "robustness")
    assert shown.returncode == 0 and (project / "robustness.png").exists(), shown.stdout

    shutil.copy(project / "checkpoint.pt", project / "my checkpoint.pt")
    shown = make(project, "analysis", "CHECKPOINT=my checkpoint.pt")
    assert shown.returncode == 0 and "training first" not in shown.stdout
    (project / "my checkpoint.pt").unlink()

    shown = make(project, "demo", "EPOCHS=1")
    assert shown.returncode == 0, shown.stdout
    assert len(list((project / "demo" / "misclassified_samples").iterdir())) == 11
    assert (project / "checkpoint.pt").read_bytes() == before

    assert make(project, "train", "ARGS=--epochs 0").returncode != 0
    assert (project / "checkpoint.pt").read_bytes() == before

    (project / "misclassified_samples" / "mine.png").write_text("mine")
    assert make(project, "clean").returncode == 0
    left = {
        str(path.relative_to(project)) for path in project.rglob("*") if ".venv" not in str(path)
    }
    assert left == {
        *("Makefile", "requirements.txt", "requirements-dev.txt", "page.html"),
        *(path.name for path in ROOT.glob("*.py")),
        *("misclassified_samples", "misclassified_samples/mine.png"),
    }
    (project / ".venv").unlink()
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
