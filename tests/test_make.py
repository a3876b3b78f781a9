"""The Makefile, run in a copy of the project whose path has a space."""

import ast
import importlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from processes import heed_ctrl_c, wait_for

from plumbing import install as installer

README = (ROOT / "README.md").read_text()
DOCS = "\n".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.M))
SCRIPTS = {path.stem for path in ROOT.glob("*.py") if "cli.run(main)" in path.read_text()}
PYTHON = shlex.quote(sys.executable)  # for shell scripts: its path may have a space
VARIABLES = set(re.findall(r"\$\((?:value |call [\w,]+,)?([A-Z_]+)\)", MAKEFILE)) - {"PY"}
SHOWN = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


def make(*arguments, **variables):
    """Run make with no setting from outside; a CompletedProcess with all output."""
    outside = ("MAKE", "MFLAGS", "PIP_", *VARIABLES)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(outside)}
    return subprocess.run(["make", *arguments], env=environment | variables, **SHOWN)


def tracked():
    """The files that git tracks, as paths in the project."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, **SHOWN).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project without an environment, as the current folder."""
    folder = tmp_path / "a project"
    for path in tracked():
        (folder / path.parent).mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path)
        os.utime(folder / path, (0, 0))  # older than any environment
    monkeypatch.chdir(folder)


def test_help_is_the_default_and_lists_every_target(project):
    shown = make()
    assert shown.returncode == 0 and shown.stdout == make("help").stdout
    assert set(re.findall(r"^  make ([\w-]+)", shown.stdout, re.M)) == TARGETS
    assert TARGETS == set(re.search(r"^.PHONY: again (.*)", MAKEFILE, re.M)[1].split())


def test_the_docs_name_every_target_variable_and_flag_and_no_other(run):
    text = README + DOCS
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) == TARGETS > SCRIPTS
    assert SCRIPTS <= set(re.findall(r"`(\w+)\.py`", README))
    of_the_environment = {"KILLS", "CASES", "DIGITS", "DEBUG"}
    assert set(re.findall(r"\b([A-Z_]+)=", text)) - of_the_environment == VARIABLES
    known = {"--index-url"}  # which is pip's
    for script in SCRIPTS:
        code, out, _ = run(importlib.import_module(script).main, "--help")
        assert code == 0
        known |= set(re.findall(r"(?<!\S)--[a-z0-9-]+", out))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)) == known - {"--help"}


# A Python that prints what it is to run, and foreign modules that it would see; training leaves a
# checkpoint, and does not go on with one of seed 9.
PRINT = r"""#!/bin/sh
printf '<%s> ' "$@" $PYTHONPATH $PYTHONHOME $PYTHONSAFEPATH; echo
case "$*" in *"--seed 9 --resume") exit 2;; train.py*) touch "$3" || :;; esac"""


def play(code):
    """Write the script that is the Python of .venv."""
    Path(".venv/bin").mkdir(parents=True, exist_ok=True)
    python = Path(".venv/bin/python")
    python.write_text(code)
    python.chmod(0o755)


@pytest.fixture
def played(project):
    """The project with an environment whose Python prints what it is to run."""
    play(PRINT)
    for marker in ("installed", "installed-dev"):
        Path(".venv", marker).touch()


def commands(*arguments, **variables):
    """The words of each command that make runs."""
    shown = make(*arguments, **variables)
    assert shown.returncode == 0, shown.stdout
    lines = [line for line in shown.stdout.splitlines() if line.startswith("<")]
    return [re.findall("<(.*?)> ", line) for line in lines]


def test_variables_become_flags_and_may_have_spaces(played):
    given = ["DATASET=my data", "DEVICE=cuda:1", "CHECKPOINT=my net.pt"]
    given += ["ARGS=--json --beta1 0.5", "RECIPE=quick", "EPOCHS=3", "SEED=4"]
    net, data = ["--checkpoint", "my net.pt"], ["--dataset", "my data"]
    device, args = ["--device", "cuda:1"], ["--json", "--beta1", "0.5"]
    schedule = ["--recipe", "quick", "--epochs", "3", "--seed", "4"]
    assert commands("train", *given) == [["train.py", *net, *data, *device, *schedule, *args]]
    assert commands("demo", *given) == [
        ["train.py", "--dataset", "synthetic", "--occlusion", "0.3", "--extra-writing", "0.3"]
        + ["--checkpoint", "demo/checkpoint.pt", *device, *schedule],
        ["analysis.py", "--checkpoint", "demo/checkpoint.pt", "--output"]
        + ["demo/misclassified_samples", *device],
    ]
    for target, flags in {
        "analysis": [*net, *data, *device, *args],
        "draw": [*net, *args],
        "robustness": [*net, *data, *device, *args],
        "benchmark": [*data, *device, *args],
    }.items():
        assert commands(target, *given[:4]) == [[f"{target}.py", *flags]]
    foreign = dict.fromkeys(["PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH"], "/foreign")
    assert commands("train", **foreign) == [["train.py", "--checkpoint", "checkpoint.pt"]]


@pytest.mark.parametrize("target", ["analysis", "robustness", "draw", "predict"])
def test_a_checkpoint_is_trained_or_is_of_the_settings_that_were_typed(played, target):
    """The README's own order: train, then draw, with another recipe perhaps."""
    words, net = [target, "IMAGE=7.png"], ["train.py", "--checkpoint", "checkpoint.pt"]
    recipe = ["--recipe", "everyday"] if target in ("draw", "predict") else []
    first, second = commands(*words, "EPOCHS=2")
    assert first == [*net, "--epochs", "2", *recipe]
    assert second[:3] == [f"{target}.py", "--checkpoint", "checkpoint.pt"]
    assert len(commands(*words)) == 1  # whatever that checkpoint is
    assert commands(*words, "EPOCHS=3")[0] == [*net, "--epochs", "3", "--resume"]
    first, _ = commands(*words, "DATASET=my data", RECIPE="quick")
    assert first == [*net, "--dataset", "my data", "--recipe", "quick", "--resume"]
    refused = make(*words, "SEED=9")
    assert refused.returncode == 2 and f"<{target}.py>" not in refused.stdout
    # What ARGS names is not the one that make could train.
    Path("checkpoint.pt").unlink()
    assert len(commands(*words, "ARGS=--checkpoint a.pt", "SEED=1")) == 1
    assert commands(*words, "RECIPE=quick")[0] == [*net, "--recipe", "quick"]


def test_an_empty_name_of_a_checkpoint_is_for_train_to_judge(played):
    shown = make("analysis", "CHECKPOINT=").stdout
    assert shown.startswith("<train.py> <--checkpoint> <> ")  # and nothing before
    for name in "", ".":
        assert make("clean", f"CHECKPOINT={name}").returncode == 0


def test_pictures_are_named_by_a_variable(played):
    Path("checkpoint.pt").touch()
    pictures = "IMAGE='my digit.png' 8.png"
    (command,) = commands("predict", pictures, "ARGS=--save-input seen")
    assert command[3:] == ["my digit.png", "8.png", "--save-input", "seen"]
    shown = make("predict")
    assert shown.returncode == 2 and "IMAGE=" in shown.stdout


# All that a shell or make might take for its own.
NAME = """it's [a] "name" (1) $x $(touch bad) `touch bad` a  b & c; d.png"""


@pytest.mark.parametrize("typed", [NAME, "~/a  b.png"])
def test_names_are_taken_as_they_are_typed_but_for_the_home_folder(played, typed):
    home = os.getcwd()
    name = typed.replace("~", home)
    given = [f"CHECKPOINT={typed}", f"DATASET={typed}", f"IMAGE={typed}", "DEVICE=cpu"]
    train, _ = commands("analysis", *given, HOME=home)
    assert train == ["train.py", "--checkpoint", name, "--dataset", name, "--device", "cpu"]
    # Now there is that file: a checkpoint, and a picture, too.
    (analysis,) = commands("analysis", *given, HOME=home)
    assert analysis == ["analysis.py", *train[1:]]
    assert commands("predict", *given, HOME=home)[0][3:] == [name]
    Path(name.replace(".png", "-12.png")).touch()  # of --seeds
    assert make("clean", *given, HOME=home).returncode == 0
    assert not [*Path().glob("*.png"), *Path().glob("bad")]


def test_targets_run_one_after_the_other(played):
    play(PRINT.replace("case", "sleep 0.3; case"))
    scripts = [words[0] for words in commands("-j2", "train", "analysis")]
    assert scripts == ["train.py", "analysis.py"]


def test_the_tests_are_run_with_and_without_the_browser(played):
    for target, more in ("test", ["-m", "not browser"]), ("test-all", []):
        lint, tests = commands(target)
        assert lint == ["-m", "ruff", "check", "."]
        assert tests[:2] == ["-m", "pytest"] and tests[tests.index("tests") + 1 :] == more


@pytest.mark.skipif(
    not (Path(sys.prefix) / "installed").exists(), reason="needs the environment of `make install`"
)
def test_demo_clean_and_remove(project):
    before = set(Path().rglob("*"))
    Path(".venv").symlink_to(sys.prefix)
    shown = make("demo", "EPOCHS=1", "DEVICE=cpu")
    assert shown.returncode == 0, shown.stdout
    written, pictures = Path("demo/misclassified_samples"), Path("misclassified_samples")
    assert len(list(written.iterdir())) == 14
    shutil.copytree(written, pictures, dirs_exist_ok=True)
    mine = {pictures / "mine.png", Path("checkpoint-old.pt"), Path("checkpoint-2024-05.pt")}
    left = ["checkpoint.pt", "checkpoint-0.pt", "checkpoint-12.pt", "draw.html", ".784-128-10-left"]
    for path in [*mine, *left, "robustness.png"]:
        Path(path).touch()

    assert make("clean").returncode == 0
    Path(".venv").unlink()
    assert set(Path().rglob("*")) == before | mine
    shutil.rmtree(pictures)
    assert make("clean").returncode == 0
    Path(".venv").mkdir()
    assert make("remove").returncode == 0 and not Path(".venv").exists()


# Installing. A script plays a Python whose pip and uv, and what they reach, are as a test says.

PYTORCH = """cd .venv/lib/python*/site-packages && if [ ! -d torch-2.dist-info ]; then
mkdir -p torch torch-2.dist-info && touch torch-2.dist-info/INSTALLER
echo 'Metadata-Version: 2.1\nName: torch\nVersion: 2' >torch-2.dist-info/METADATA
case "$*" in *cpu*|*auto*) cuda=None;; *) cuda="'13.0'";; esac
echo "__version__ = '2'; version = type('', (), {'cuda': $cuda})" >torch/__init__.py; fi"""


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """An environment to copy, of a Python that has no ensurepip, like Debian's."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    python.replace(folder / "bin" / "python3")
    python.write_text('#!/bin/sh\n[ "$2" = ensurepip ] && exit 1; exec "${0}3" "$@"')
    python.chmod(0o755)
    return folder


@pytest.fixture
def python(environment, tmp_path):
    """python(...): PYTHON=... of a script, which writes what installs into the file `installed`.

    Of that machine: whether uv can be had, whether PyTorch's own index can be reached, pip's
    settings, what an installation does, pip's other answers, whether nvidia-smi is there, code
    that runs before plumbing/install.py, and the bytes that are free.
    """

    def play(uv=1, index=1, settings="", install=PYTORCH, pip="", gpu=0, before="", free=1e12):
        script, log = tmp_path / "a python", shlex.quote(f"{tmp_path}/installed")
        reach = "true" if index else "echo cause: no route; exit 1"
        code = f"""import os, runpy, shutil, sys, types
sys.executable, sys.argv = {str(script)!r}, sys.argv[2:]
shutil.disk_usage = lambda folder: types.SimpleNamespace(free={free})
shutil.which, exists = lambda name: {gpu}, os.path.exists
os.path.exists = lambda path: path != "/dev/nvidiactl" and exists(path)
{before}
runpy.run_path(sys.argv[0], run_name="__main__")"""
        script.write_text(f"""#!/bin/sh
case "$*" in *--dry-run|*" uv") ;; *" install "*) echo "$@" >>{log};; esac
case "$*" in *--torch-backend*|*"--index-url http"*) {reach};;
  *--dry-run) echo + nvidia-cublas;; esac
case "$*" in
  "-m venv "*) cp -R {shlex.quote(str(environment))} .venv;;
  {pip}
  *" config list") printf %s {shlex.quote(settings)};;
  *" uv") {f"ln -sf {shlex.quote(str(script))} .venv/bin/uv" if uv else "exit 1"};;
  *--dry-run) ;;
  *" install "*) {install};;
  "-m pip"*) ;;
  *) exec {PYTHON} -u -c {shlex.quote(code)} "$@";;
esac""")
        script.chmod(0o755)
        return f"PYTHON={script}"

    return play


UV = "pip install --python .venv/bin/python -r requirements.txt"
UV += " --index-strategy=unsafe-best-match"
PIP = "-m pip --python .venv/bin/python install --no-user --target="
CPU = f" --index-url {installer.CPU_INDEX} -c requirements.txt torch torchvision"
ALL = " -r requirements.txt"
SETTINGS = "global.extra-index-url='\\na\\nb'\nglobal.timeout='9'\n:env:.index-url='c'"
INDEXES = " --extra-index-url=a --extra-index-url=b --index-url=c"


@pytest.mark.parametrize(
    "arguments, machine, ran, cuda",
    [
        ([], {}, [f"{UV} --torch-backend=auto"], False),
        ([], {"index": 0}, [UV], True),
        (["CUDA=0"], {"free": 2e9}, [f"{UV} --torch-backend=cpu"], False),
        (["CUDA=0"], {"index": 0}, [PIP + CPU], None),
        (["CUDA=1"], {}, [UV], True),
        ([], {"uv": 0}, [PIP + CPU, PIP + ALL], False),
        ([], {"uv": 0, "index": 0}, [PIP + CPU, PIP + ALL], True),
        ([], {"uv": 0, "gpu": 1}, [PIP + ALL], True),
        (["PIP_ARGS=--proxy 'a b'"], {}, [f"{PIP} --proxy a b{ALL}"], True),
        (["CUDA=1"], {"settings": ":env:.no-index='1'"}, [PIP + ALL], True),
        (["CUDA=1"], {"settings": SETTINGS}, [UV + INDEXES], True),
    ],
)
def test_uv_or_pip_installs_the_build_that_is_asked_for(
    project, python, tmp_path, arguments, machine, ran, cuda
):
    shown = make("install", python(**machine), *arguments)
    assert (tmp_path / "installed").read_text().splitlines() == ran
    assert Path(".venv/installed").exists() == (cuda is not None)
    end = {True: "with CUDA 13.0\n", False: "without CUDA\n", None: "Error 1\n"}[cuda]
    assert shown.stdout.endswith(end)
    assert (f"{installer.CPU_INDEX}, " in shown.stdout) == (cuda is None)


@pytest.mark.parametrize("index", [0, 1])
def test_another_build_needs_another_environment(project, python, tmp_path, index):
    machine = python(index=index)  # so the build for CUDA={index} is not the one that comes
    assert "installing" in make("install", machine).stdout
    assert "installing" not in make("install", machine).stdout
    refused = make("train", machine, f"CUDA={index}")
    assert refused.returncode == 2 and "make remove" in refused.stdout
    assert make("install", machine, f"CUDA={1 - index}").returncode == 0
    assert (tmp_path / "installed").read_text().endswith(f"{UV}\n")  # whatever build is there


MISSING = f"sys.modules.update(dict.fromkeys({installer.MODULES}))"


@pytest.mark.parametrize(
    "machine, arguments, named",
    [
        ({"before": "sys.version_info, sys.version = (3, 9), '3.9.1 (main)'"}, [], ["3.9.1"]),
        ({"before": "sys.version_info, sys.version = (3, 15), '3.15.1 (main)'"}, [], ["3.15.1"]),
        ({"before": MISSING}, [], ["bz2", "ctypes", "lzma", "ssl", "venv", "zlib"]),
        ({}, ["CUDA=yes"], ["CUDA=yes"]),
        ({"pip": '"-m pip"*) echo no module; exit 1;;'}, [], ["no module", "python3-venv"]),
        ({"free": 6.4e9}, ["CUDA=1"], ["6.4 GB"]),
        ({"free": 1.4e9}, [], ["1.4 GB"]),
        ({"install": "exit 1"}, [], ["could not be installed"]),
        ({"install": "exit 0"}, [], ["No module named 'torch'"]),
    ],
)
def test_what_prevents_an_installation_is_said(project, python, machine, arguments, named):
    shown = make("install", python(**machine), *arguments)
    assert shown.returncode == 2 and "Traceback" not in shown.stdout
    assert all(name in shown.stdout for name in named)
    assert not Path(".venv/installed").exists()


def test_an_old_python_can_read_the_file_that_refuses_it():
    ast.parse((ROOT / "plumbing" / "install.py").read_text(), feature_version=(3, 6))


def test_an_environment_whose_python_is_gone_is_made_anew(played, python):
    Path(".venv/bin/python").unlink()
    Path(".venv/bin/python").symlink_to("gone")
    assert make("install", python()).returncode == 0
    assert Path(".venv/bin/python").exists()


def test_an_unfinished_environment_of_another_python_is_not_used(project, python):
    play("#!/bin/sh\necho Python 3.10.1 of another")
    shown = make("install", python())
    assert shown.returncode == 2 and "3.10.1 of another" in shown.stdout
    assert "of another" in Path(".venv/bin/python").read_text()


def test_a_package_in_which_uv_was_interrupted_is_installed_again(project, python):
    shown = make("install", python(install=f"({PYTORCH}); exit 1"), "CUDA=1")
    assert shown.returncode == 2 and not Path(".venv/installed").exists()
    (packages,) = Path(".venv/lib").glob("python3*/site-packages")
    (packages / "half-1.dist-info").mkdir()
    assert make("install", python()).stdout.endswith("with CUDA 13.0\n")  # it was whole
    assert not (packages / "half-1.dist-info").exists()
    (packages / "torch-2.dist-info" / "INSTALLER").unlink()
    assert make("install", python(), "CUDA=0").stdout.endswith("without CUDA\n")


def test_an_interrupted_pip_may_remove_its_files(project, python):
    clean = "trap 'sleep 1; touch removed; exit 1' INT; touch started"
    install = f"{clean}; while :; do sleep 0.1; done"
    words = ["make", "install", "CUDA=1", python(uv=0, install=install)]
    process = subprocess.Popen(words, start_new_session=True, preexec_fn=heed_ctrl_c, **SHOWN)
    wait_for(Path("started").exists)
    os.killpg(process.pid, signal.SIGINT)
    process.wait()
    removed = Path("removed").exists()
    shown = process.communicate()[0]
    assert removed and not Path(".venv/installed").exists()
    assert "interrupted\n" in shown and "Traceback" not in shown


def write_wheel(index, name, version, text=""):
    """A package of one module in an index."""
    path = index / name / f"{name}-{version}-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    (path.parent / "index.html").write_text(f'<a href="{path.as_uri()}">{path.name}</a>')
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        "WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any",
        "RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", text)
        for file, words in files.items():
            wheel.writestr(f"{name}-{version}.dist-info/{file}", words)


def test_the_real_pip_installs_the_cpu_build_whatever_is_set(project, tmp_path):
    pypi, cpu = tmp_path / "pypi", tmp_path / "cpu"
    for index, version, cuda in (pypi, "2.14.2", "'13.0'"), (cpu, "2.14.1+cpu", None):
        torch = f"__version__ = {version!r}\nclass version: cuda = {cuda}"
        write_wheel(index, "torch", version, torch)
        write_wheel(index, "torchvision", "0.29.1")
    Path("requirements.txt").write_text("torch<2.16\ntorchvision\n")
    os.utime("requirements.txt", (0, 0))
    (tmp_path / "pip.conf").write_text("[install]\nuser = true\ntarget = elsewhere\n")
    (tmp_path / "torch.py").write_text("raise ImportError('the one of another project')")
    source = Path("plumbing/install.py")
    source.write_text(source.read_text().replace(installer.CPU_INDEX, cpu.as_uri()))
    settings = dict.fromkeys(["HOME", "XDG_CONFIG_HOME", "PYTHONPATH", "PYTHONHOME"], str(tmp_path))
    settings |= {"PIP_CONFIG_FILE": f"{tmp_path}/pip.conf", "PIP_INDEX_URL": pypi.as_uri()}
    shown = make("install", "CUDA=0", f"PYTHON={sys.executable}", PIP_USER="1", **settings)
    assert shown.returncode == 0, shown.stdout
    assert shown.stdout.endswith("PyTorch 2.14.1+cpu, built without CUDA\n")
