"""The Makefile, run in a copy of the project whose path has a space."""

import ast
import http.server
import importlib
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT
from processes import heed_ctrl_c, wait_for

from plumbing import install as installer

README = (ROOT / "README.md").read_text()
DOCS = "\n".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.M))
SCRIPTS = ["train", "analysis", "predict", "draw", "robustness", "benchmark"]
PYTHON = shlex.quote(sys.executable)  # for shell scripts: its path may have a space
VARIABLES = "DATASET DEVICE RECIPE EPOCHS SEED CHECKPOINT IMAGE ARGS CUDA".split()


def make(folder, *arguments, **variables):
    """Run make in the folder with no setting from outside; a CompletedProcess with all output."""
    outside = ("MAKE", "MFLAGS", "PIP_", *VARIABLES)
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
    assert TARGETS == set(re.search(r"^.PHONY: again (.*)", MAKEFILE, re.M)[1].split())


def test_the_docs_name_every_target_variable_and_flag_and_no_other(run):
    text = README + DOCS
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) == TARGETS
    variables = set(re.findall(r"\$\((?:value |call [\w,]+,)?([A-Z_]+)\)", MAKEFILE)) - {"PY"}
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


# All that a shell or make might take for its own.
NAME = """it's [a] "name" (1) $x $(touch bad) `touch bad` a  b & c; d.png"""


def test_names_are_taken_as_they_are_typed(played):
    given = [f"CHECKPOINT={NAME}", f"DATASET={NAME}", f"IMAGE={NAME}", "DEVICE=cpu"]
    train, analysis = commands(make(played, "analysis", *given))
    assert train[:5] == ["train.py", "--checkpoint", NAME, "--dataset", NAME]
    assert analysis[:5] == ["analysis.py", "--checkpoint", NAME, "--dataset", NAME]
    assert len(commands(make(played, "analysis", *given))) == 1
    (played / NAME).touch()  # the picture, too
    assert commands(make(played, "predict", *given))[0][3:] == [NAME]
    assert make(played, "clean", *given).returncode == 0
    assert not (played / NAME).exists() and not (played / "bad").exists()


def test_a_tilde_is_the_home_folder(played):
    home = played / "a home"
    home.mkdir()
    for name in "my  net.pt", "my 7.png":
        (home / name).touch()
    given = ["CHECKPOINT=~/my  net.pt", "DATASET=~/data", "IMAGE=~/my 7.png"]
    (analysis,) = commands(make(played, "analysis", *given, HOME=str(home)))
    assert analysis == [
        *("analysis.py", "--checkpoint", f"{home}/my  net.pt"),
        *("--dataset", f"{home}/data"),
    ]
    assert commands(make(played, "predict", *given, HOME=str(home)))[0][3:] == [f"{home}/my 7.png"]
    assert make(played, "clean", *given, HOME=str(home)).returncode == 0
    assert [path.name for path in home.iterdir()] == ["my 7.png"]


def test_targets_run_one_after_the_other(played):
    python = played / ".venv" / "bin" / "python"
    python.write_text(python.read_text().replace("if", "sleep 1; if"))
    assert [words[0] for words in commands(make(played, "-j2", "train", "analysis"))] == [
        "train.py",
        "analysis.py",
    ]


def test_the_python_of_the_project_sees_no_foreign_modules(played):
    python = played / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\necho seen: $PYTHONPATH $PYTHONHOME $PYTHONSAFEPATH")
    foreign = dict.fromkeys(["PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH"], "/foreign")
    assert "seen:\n" in make(played, "train", **foreign).stdout


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
    assert len(list((project / "demo" / "misclassified_samples").iterdir())) == 14
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


# Installing. Scripts play a python3 that lacks something; no test needs PyTorch's own index.


def play_python(folder, cases="", before="", free=1e12):
    """PYTHON=... of a script: cases of arguments that it treats in its own way, code that runs
    before plumbing/install.py, and the bytes that every disk seems to have free.
    """
    script = folder / "a python"
    code = f"""import runpy, shutil, sys, types
sys.executable, sys.argv = {str(script)!r}, sys.argv[2:]
shutil.disk_usage = lambda folder: types.SimpleNamespace(free={free})
{before}
runpy.run_path(sys.argv[0], run_name="__main__")"""
    script.write_text(f"""#!/bin/sh
case "$*" in
  {cases}
  *plumbing/install.py*) exec {PYTHON} -u -c {shlex.quote(code)} "$@";;
  *) exec {PYTHON} "$@";;
esac""")
    script.chmod(0o755)
    return f"PYTHON={script}"


def test_a_python_too_old_or_too_new_gets_a_sentence(project, tmp_path):
    ast.parse((ROOT / "plumbing" / "install.py").read_text(), feature_version=(3, 7))
    for minor in 9, 15:
        before = f"sys.version_info, sys.version = (3, {minor}), '3.{minor}.1 (main)'"
        shown = make(project, "install", play_python(tmp_path, before=before))
        assert shown.returncode == 2
        assert f"Python 3.10 to 3.14 is needed, this is 3.{minor}.1: name another" in shown.stdout
        assert not (project / ".venv").exists()


def test_a_python_built_without_a_library_gets_a_sentence(project, tmp_path):
    for module in "bz2", "ctypes", "lzma", "ssl", "venv", "zlib":
        shown = make(
            project, "install", play_python(tmp_path, before=f"sys.modules[{module!r}] = None")
        )
        assert shown.returncode == 2 and f"was built without {module}: name" in shown.stdout
        assert not (project / ".venv").exists()


# As on Debian without python3-venv: ensurepip is missing. The pip is made up.
NO_ENSUREPIP = f"""
  "-m venv .venv") {PYTHON} -m venv --without-pip .venv; exit 1;;
  "-m pip"*) %s;;"""
# A pip that installs packages of these names.
A_PIP = (
    'case "$*" in *" install "*) cd .venv/lib/python*/site-packages && mkdir torch && '
    'echo \'__version__ = "2"; version = type("", (), {"cuda": "13.0"})\' >torch/__init__.py && '
    "touch torchvision.py;; esac"
)


def test_without_ensurepip_the_pip_of_the_system_installs(project, tmp_path):
    python = play_python(tmp_path, NO_ENSUREPIP % f'echo "$@" >>"{tmp_path}/pip"; {A_PIP}')
    shown = make(project, "install", python, "CUDA=1", "PIP_ARGS=--no-index --proxy 'a b'")
    assert shown.returncode == 0, shown.stdout
    assert (tmp_path / "pip").read_text().splitlines()[-1] == (
        "-m pip --python .venv/bin/python install --no-user --target= --no-index --proxy a b"
        " -r requirements.txt"
    )
    assert "PyTorch 2, built with CUDA 13.0\n" in shown.stdout
    assert (project / ".venv" / "installed").exists()


@pytest.mark.parametrize(
    "pip, sentence",
    [
        ("echo no module >&2; exit 1", "has no pip that works (no module): install one first"),
        (
            'case "$*" in *--python*) exit 2;; esac; echo pip 22.0.2 from here',
            "pip 22.3 or later is needed (pip 22.0.2 from here): install one first (Debian",
        ),
    ],
)
def test_without_a_pip_that_can_install_a_sentence_names_the_package(
    project, tmp_path, pip, sentence
):
    shown = make(project, "install", play_python(tmp_path, NO_ENSUREPIP % pip), "CUDA=1")
    assert shown.returncode == 2 and sentence in shown.stdout
    assert "apt install python3-venv" in shown.stdout
    assert not (project / ".venv" / "installed").exists()


@pytest.mark.parametrize(
    "pip, sentence",
    [
        ('case "$*" in *" install "*) exit 1;; esac', "pip could not install the packages"),
        ("exit 0", "PyTorch does not work in .venv (No module named 'torch')"),
    ],
)
def test_an_installation_that_failed_is_not_taken_for_a_whole_one(project, tmp_path, pip, sentence):
    shown = make(project, "install", play_python(tmp_path, NO_ENSUREPIP % pip), "CUDA=1")
    assert shown.returncode == 2 and sentence in shown.stdout
    assert (project / ".venv").exists() and not (project / ".venv" / "installed").exists()


def test_an_environment_whose_python_is_gone_is_made_anew(project, tmp_path):
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to(tmp_path / "gone")
    (project / ".venv" / "installed").touch()
    python = play_python(tmp_path, NO_ENSUREPIP % A_PIP)
    assert make(project, "install", python, "CUDA=1").returncode == 0
    assert (project / ".venv" / "bin" / "python").exists()


def test_an_unfinished_environment_of_another_python_is_not_used(project, tmp_path):
    other = project / ".venv" / "bin" / "python"
    other.parent.mkdir(parents=True)
    other.write_text("#!/bin/sh\necho 3.10.1 of another")
    other.chmod(0o755)
    shown = make(project, "install", play_python(tmp_path, NO_ENSUREPIP % A_PIP), "CUDA=1")
    assert shown.returncode == 2 and ".venv has another Python, 3.10.1 of another" in shown.stdout


def test_too_small_a_disk_or_temporary_folder_gets_a_sentence(project, tmp_path):
    shown = make(project, "install", play_python(tmp_path, free=5.9e9), "CUDA=1")
    assert shown.returncode == 2 and "has 5.9 GB free, and " in shown.stdout
    assert "TMPDIR=/folder make install" in shown.stdout
    before = "import tempfile\ndef gettempdir(): raise OSError('none is usable')\n"
    python = play_python(tmp_path, before=before + "tempfile.gettempdir = gettempdir")
    shown = make(project, "install", python, "CUDA=1")
    assert shown.returncode == 2 and "none is usable: make room, or name a folder" in shown.stdout
    assert not (project / ".venv").exists()


def test_an_interrupted_pip_may_remove_its_files(project, tmp_path):
    code = """import pathlib, time
try:
    pathlib.Path("started").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    pathlib.Path("removed").touch()"""
    pip = f"""case "$*" in *" install "*) exec {PYTHON} -c '{code}';; esac"""
    process = subprocess.Popen(
        ["make", "install", "CUDA=1", play_python(tmp_path, NO_ENSUREPIP % pip)],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )
    wait_for((project / "started").exists)
    os.killpg(process.pid, signal.SIGINT)
    process.wait()
    removed = (project / "removed").exists()
    shown = process.communicate()[0]
    assert removed and not (project / ".venv" / "installed").exists()
    assert "interrupted\n" in shown and "Traceback" not in shown


@pytest.fixture
def install(monkeypatch, capsys):
    """install(...): run plumbing/install.py's main on a machine with other circumstances; what pip
    is given before -r, None where it is not run, and what is said.
    """

    def install(cuda, *pip_args, held=None, came=False, gpu=False, system="Linux", problem=None):
        given = []
        states = iter([(held, "PyTorch 1, held"), (came, "PyTorch 2, come")])
        monkeypatch.setenv("CUDA", cuda)
        monkeypatch.setattr(sys, "argv", ["install.py", "requirements.txt", *pip_args])
        monkeypatch.setattr(platform, "system", lambda: system)
        monkeypatch.setattr(shutil, "which", {"nvidia-smi": "here"}.get if gpu else lambda _: None)
        monkeypatch.setattr(installer, "DRIVER", [])
        monkeypatch.setattr(installer, "built", lambda: next(states))
        monkeypatch.setattr(installer, "unreachable", lambda: problem)
        monkeypatch.setattr(installer, "check_space", lambda *space: None)
        monkeypatch.setattr(installer, "make_environment", lambda: None)
        monkeypatch.setattr(installer, "find_pip", lambda: ["pip"])
        monkeypatch.setattr(installer, "run_pip", given.extend)
        said = ""
        try:
            installer.main()
        except SystemExit as end:
            said = end.code
        return given[4:-2] if given else None, capsys.readouterr().out + said

    return install


def test_without_an_nvidia_gpu_pytorch_comes_without_cuda(install, tmp_path, monkeypatch):
    index = ["--extra-index-url", installer.CPU_INDEX]
    given, said = install("")
    assert given == index
    assert "taking PyTorch's CPU build, 0.2 GB" in said and "no NVIDIA GPU is seen" in said
    assert "PyTorch 2, come\n" in said and "latest version" not in said
    assert install("0", gpu=True)[0] == index
    assert install("", "--proxy", "here")[0] == [*index, "--proxy", "here"]
    for without_index in (
        install("1", came=True),
        install("", gpu=True, came=True),
        install("", system="Darwin"),
    ):
        assert without_index == (
            [],
            "installing the packages of requirements.txt\nPyTorch 2, come\n",
        )
    own = ["--index-url", "https://here"]
    assert install("", *own)[0] == own
    assert "CUDA=yes is neither 1" in install("yes")[1]


def test_the_driver_of_an_nvidia_gpu_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(installer, "unreachable", lambda: None)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    device = tmp_path / "nvidiactl"
    monkeypatch.setattr(installer, "DRIVER", ["/nowhere", str(device)])
    assert installer.choose_build("", []) != []
    device.touch()
    assert installer.choose_build("", []) == []


def test_where_the_index_cannot_be_reached_the_default_is_taken(install):
    given, said = install("", came=True, problem="no route")
    assert given == [] and "cannot be reached (no route): taking PyTorch with CUDA" in said
    given, said = install("0", problem="no route")
    assert given is None and said.endswith("cannot be reached: no route")


def test_a_later_version_with_cuda_is_said_to_be_one(install):
    assert "pip takes the latest version of all" in install("", came=True)[1]


def test_another_build_takes_another_environment(install):
    for cuda, held in ("1", False), ("0", True):
        given, said = install(cuda, held=held)
        assert given is None
        assert said == (
            f".venv has PyTorch 1, held: type `make remove`, then `make install CUDA={cuda}`"
        )
    assert install("1", held=True)[0] == install("", held=False)[0] == []


def test_cuda_asks_again_which_build_there_is(played, tmp_path):
    python = play_python(tmp_path, '*plumbing/install.py*) echo "asked $CUDA";;')
    assert "asked" not in make(played, "install", python).stdout
    assert "asked 0" in make(played, "train", python, "CUDA=0").stdout


def test_an_index_that_does_not_answer_takes_seconds(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(installer, "CPU_INDEX", f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        assert "timed out" in installer.unreachable()
        assert time.monotonic() - start < 9
    assert "refused" in installer.unreachable()


def write_wheel(folder, name, version, code):
    """A package of one module, in an index of pip's."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / name / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        )
        wheel.writestr(f"{info}/RECORD", "")


def test_pip_takes_the_cpu_build_whatever_the_user_has_set(project, tmp_path):
    torch = "__version__ = '{}'\nclass version: cuda = {}"
    write_wheel(tmp_path / "pypi", "torch", "2.14.1", torch.format("2.14.1", "'13.0'"))
    write_wheel(tmp_path / "pypi", "torchvision", "0.29.1", "")
    write_wheel(tmp_path / "cpu", "torch", "2.14.1+cpu", torch.format("2.14.1+cpu", None))
    (project / "requirements.txt").write_text("torch<2.16\ntorchvision\n")
    os.utime(project / "requirements.txt", (0, 0))
    (tmp_path / "pip.conf").write_text("[install]\nuser = true\ntarget = elsewhere\n")
    (tmp_path / "torchvision.py").write_text("raise ImportError('the one of another project')")
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    source = (project / "plumbing" / "install.py").read_text()
    (project / "plumbing" / "install.py").write_text(
        source.replace(installer.CPU_INDEX, f"{here}/cpu")
    )
    settings = {"PIP_CONFIG_FILE": f"{tmp_path}/pip.conf", "PIP_INDEX_URL": f"{here}/pypi"}
    settings |= {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path), "PIP_USER": "1"}
    shown = make(project, "install", "CUDA=0", play_python(tmp_path), **settings)
    server.shutdown()
    server.server_close()
    assert shown.returncode == 0, shown.stdout
    assert f"CPU build, 0.2 GB, from {here}/cpu (CUDA=0)\ninstalling the packages" in shown.stdout
    assert shown.stdout.endswith("PyTorch 2.14.1+cpu, built without CUDA\n")
    shown = make(project, "install", "CUDA=1", play_python(tmp_path))
    assert shown.returncode == 2 and "type `make remove`, then" in shown.stdout
