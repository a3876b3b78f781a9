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
    of_the_tests = {"KILLS", "CASES", "DIGITS", "DEBUG"}
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
    """The project with a Python that prints what it is to run; training leaves a checkpoint, and
    does not go on with one of seed 9.
    """
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        "#!/bin/sh\nprintf '<%s> ' \"$@\"; echo\n"
        'case "$*" in *"--seed 9 --resume") exit 2;; train.py*) touch "$3" || :;; esac\n'
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
    given = ["DATASET=my data", "DEVICE=cuda:1", "CHECKPOINT=my net.pt"]
    given += ["ARGS=--json --beta1 0.5", "RECIPE=quick", "EPOCHS=3", "SEED=4"]
    net, data = ["--checkpoint", "my net.pt"], ["--dataset", "my data"]
    device, args = ["--device", "cuda:1"], ["--json", "--beta1", "0.5"]
    schedule = ["--recipe", "quick", "--epochs", "3", "--seed", "4"]
    assert commands(make(played, "train", *given)) == [
        ["train.py", *net, *data, *device, *schedule, *args]
    ]
    assert commands(make(played, "demo", *given)) == [
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
        assert commands(make(played, target, *given[:4])) == [[f"{target}.py", *flags]]
    assert commands(make(played, "train")) == [["train.py", "--checkpoint", "checkpoint.pt"]]


@pytest.mark.parametrize(
    "target, recipe",
    [
        ("analysis", []),
        ("robustness", []),
        ("draw", ["--recipe", "everyday"]),
        ("predict", ["--recipe", "everyday"]),
    ],
)
def test_a_checkpoint_is_trained_or_is_of_the_settings_that_were_typed(played, target, recipe):
    """The README's own order: train, then draw, with another recipe perhaps."""
    words, net = [target, "IMAGE=7.png"], ["train.py", "--checkpoint", "checkpoint.pt"]
    first, second = commands(make(played, *words, "EPOCHS=2"))
    assert first == [*net, *recipe, "--epochs", "2"] or first == [*net, "--epochs", "2", *recipe]
    assert second[:3] == [f"{target}.py", "--checkpoint", "checkpoint.pt"]
    assert len(commands(make(played, *words))) == 1  # whatever that checkpoint is
    first, _ = commands(make(played, *words, "EPOCHS=3"))
    assert first == [*net, "--epochs", "3", "--resume"]
    first, _ = commands(make(played, *words, "DATASET=my data", RECIPE="quick"))
    assert first == [*net, "--dataset", "my data", "--recipe", "quick", "--resume"]
    refused = make(played, *words, "SEED=9")
    assert refused.returncode == 2 and f"<{target}.py>" not in refused.stdout
    # What ARGS names is not the one that make could train.
    (played / "checkpoint.pt").unlink()
    assert len(commands(make(played, *words, "ARGS=--checkpoint a.pt", "SEED=1"))) == 1
    first, _ = commands(make(played, *words, "RECIPE=quick"))
    assert first == [*net, "--recipe", "quick"]


def test_an_empty_name_of_a_checkpoint_is_for_train_to_judge(played):
    for target in "train", "analysis":
        assert commands(make(played, target, "CHECKPOINT="))[0] == ["train.py", "--checkpoint", ""]
    for name in "", ".":
        assert make(played, "clean", f"CHECKPOINT={name}").returncode == 0


def test_pictures_are_named_by_a_variable(played):
    (played / "checkpoint.pt").touch()
    pictures = "IMAGE='my digit.png' 8.png"
    (command,) = commands(make(played, "predict", pictures, "ARGS=--save-input seen"))
    assert command[3:] == ["my digit.png", "8.png", "--save-input", "seen"]
    shown = make(played, "predict")
    assert shown.returncode == 2 and "IMAGE=" in shown.stdout


# All that a shell or make might take for its own.
NAME = """it's [a] "name" (1) $x $(touch bad) `touch bad` a  b & c; d.png"""


def test_names_are_taken_as_they_are_typed(played):
    given = [f"CHECKPOINT={NAME}", f"DATASET={NAME}", f"IMAGE={NAME}", "DEVICE=cpu"]
    for words in commands(make(played, "analysis", *given)):
        assert words[1:5] == ["--checkpoint", NAME, "--dataset", NAME]
    (played / NAME).touch()  # the picture, too
    assert commands(make(played, "predict", *given))[0][3:] == [NAME]
    (played / NAME.replace(".png", "-12.png")).touch()  # of --seeds
    assert make(played, "clean", *given).returncode == 0
    assert not [*played.glob("it*"), *played.glob("bad")]


def test_a_tilde_is_the_home_folder(played):
    home = played / "a home"
    home.mkdir()
    for name in "my  net.pt", "my  net-0.pt", "my 7.png":
        (home / name).touch()
    given = ["CHECKPOINT=~/my  net.pt", "DATASET=~/data", "IMAGE=~/my 7.png"]
    (analysis,) = commands(make(played, "analysis", *given, HOME=str(home)))
    net = ["--checkpoint", f"{home}/my  net.pt"]
    assert analysis == ["analysis.py", *net, "--dataset", f"{home}/data"]
    assert commands(make(played, "predict", *given, HOME=str(home)))[0][3:] == [f"{home}/my 7.png"]
    assert make(played, "clean", *given, HOME=str(home)).returncode == 0
    assert [path.name for path in home.iterdir()] == ["my 7.png"]


def test_targets_run_one_after_the_other(played):
    python = played / ".venv" / "bin" / "python"
    python.write_text(python.read_text().replace("case", "sleep 1; case"))
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
    mine = ["checkpoint-old.pt", "checkpoint-2024-05.pt"]
    left = ["checkpoint.pt", "checkpoint-0.pt", "checkpoint-12.pt", "draw.html", ".784-128-10-left"]
    for name in left + mine + ["robustness.png"]:
        (project / name).touch()
    pictures = project / "misclassified_samples"
    shutil.copytree(project / "demo" / pictures.name, pictures, dirs_exist_ok=True)
    (pictures / "mine.png").touch()

    assert make(project, "clean").returncode == 0
    (project / ".venv").unlink()
    left = {path.relative_to(project) for path in project.rglob("*")}
    assert left == before | {Path("misclassified_samples/mine.png"), *map(Path, mine)}
    shutil.rmtree(pictures)
    assert make(project, "clean").returncode == 0
    (project / ".venv").mkdir()
    assert make(project, "remove").returncode == 0 and not (project / ".venv").exists()


# Installing. A script plays a Python whose pip and uv, and what they reach, are as a test says.

PYTORCH = """cd .venv/lib/python*/site-packages && if [ ! -d torch-2.dist-info ]; then
mkdir -p torch torch-2.dist-info && touch torch-2.dist-info/INSTALLER
echo 'Metadata-Version: 2.1\nName: torch\nVersion: 2' >torch-2.dist-info/METADATA
case "$*" in *cpu*|*auto*) cuda=None;; *) cuda="'13.0'";; esac
echo "__version__ = '2'; version = type('', (), {'cuda': $cuda})" >torch/__init__.py; fi"""


@pytest.fixture
def python(tmp_path):
    """python(...): PYTHON=... of a script, which writes what installs into the file `installed`.

    Of that machine: whether uv can be had, whether PyTorch's own index can be reached, pip's
    settings, what an installation does, pip's other answers, whether nvidia-smi is there, code
    that runs before plumbing/install.py, and the bytes that are free.
    """

    def play(uv=1, index=1, settings="", install=PYTORCH, pip="", gpu=0, before="", free=1e12):
        script, log = tmp_path / "a python", shlex.quote(f"{tmp_path}/installed")
        reach = "true" if index else "echo cause: no route; exit 1"
        (tmp_path / "uv").write_text(f"""#!/bin/sh
case "$*" in *--torch-backend*) {reach};; *) echo + nvidia-cublas;; esac
case "$*" in *--dry-run) exit;; esac
echo uv "$@" >>{log}
{install}""")
        (tmp_path / "uv").chmod(0o755)
        code = f"""import os, runpy, shutil, sys, types
sys.executable, sys.argv = {str(script)!r}, sys.argv[2:]
shutil.disk_usage = lambda folder: types.SimpleNamespace(free={free})
shutil.which, exists = lambda name: {gpu}, os.path.exists
os.path.exists = lambda path: path != "/dev/nvidiactl" and exists(path)
{before}
runpy.run_path(sys.argv[0], run_name="__main__")"""
        script.write_text(f"""#!/bin/sh
case "$*" in
  "-m venv .venv") {PYTHON} -m venv --without-pip .venv; exit 1;; # Debian's, without ensurepip
  {pip}
  "-m pip"*" config list") printf %s {shlex.quote(settings)};;
  "-m pip"*" uv") {f"cp '{tmp_path}/uv' .venv/bin/uv" if uv else "exit 1"};;
  "-m pip"*--index-url*) echo pip "$@" >>{log}; {reach}; {install};;
  "-m pip"*" install "*) echo pip "$@" >>{log}; {install};;
  "-m pip"*) ;;
  *plumbing/install.py*) exec {PYTHON} -u -c {shlex.quote(code)} "$@";;
  *) exec {PYTHON} "$@";;
esac""")
        script.chmod(0o755)
        return f"PYTHON={script}"

    return play


UV = "uv pip install --python .venv/bin/python -r requirements.txt"
UV += " --index-strategy=unsafe-best-match"
PIP = "pip -m pip --python .venv/bin/python install --no-user --target="
CPU = f" --index-url {installer.CPU_INDEX} -c requirements.txt torch torchvision"
ALL = " -r requirements.txt"
INDEXES = "global.extra-index-url='\\na\\nb'\nglobal.timeout='9'\n:env:.index-url='c'"


@pytest.mark.parametrize(
    "arguments, machine, ran, cuda",
    [
        ([], {}, [f"{UV} --torch-backend=auto"], False),
        ([], {"index": 0}, [UV], True),
        (["CUDA=0"], {}, [f"{UV} --torch-backend=cpu"], False),
        (["CUDA=0"], {"index": 0}, [PIP + CPU], None),
        (["CUDA=1"], {}, [UV], True),
        ([], {"uv": 0}, [PIP + CPU, PIP + ALL], False),
        ([], {"uv": 0, "index": 0}, [PIP + CPU, PIP + ALL], True),
        ([], {"uv": 0, "gpu": 1}, [PIP + ALL], True),
        (["PIP_ARGS=--proxy 'a b'"], {}, [f"{PIP} --proxy a b{ALL}"], True),
        (["CUDA=1"], {"settings": ":env:.no-index='1'"}, [PIP + ALL], True),
        (
            ["CUDA=1"],
            {"settings": INDEXES},
            [f"{UV} --extra-index-url=a --extra-index-url=b --index-url=c"],
            True,
        ),
    ],
)
def test_uv_or_pip_installs_the_build_that_is_asked_for(
    project, python, tmp_path, arguments, machine, ran, cuda
):
    shown = make(project, "install", python(**machine), *arguments)
    installed = (tmp_path / "installed").read_text().replace(".venv/bin/uv", "uv").splitlines()
    assert installed == ran
    assert (project / ".venv" / "installed").exists() == (cuda is not None)
    if cuda is None:
        assert shown.returncode == 2 and installer.CPU_INDEX in shown.stdout
        return
    assert shown.stdout.endswith("built with CUDA 13.0\n" if cuda else "built without CUDA\n")
    # Another build needs another environment.
    assert make(project, "install", python(**machine), f"CUDA={1 - cuda}").returncode == 2
    assert make(project, "install", python(**machine), f"CUDA={int(cuda)}").returncode == 0


MISSING = f"sys.modules.update(dict.fromkeys({installer.MODULES}))"


@pytest.mark.parametrize(
    "machine, arguments, named",
    [
        ({"before": "sys.version_info, sys.version = (3, 9), '3.9.1 (main)'"}, [], ["3.9.1"]),
        ({"before": "sys.version_info, sys.version = (3, 15), '3.15.1 (main)'"}, [], ["3.15.1"]),
        ({"before": MISSING}, [], ["bz2", "ctypes", "lzma", "ssl", "venv", "zlib"]),
        ({}, ["CUDA=yes"], ["CUDA=yes"]),
        ({"pip": '"-m pip"*) echo no module; exit 1;;'}, [], ["(no module)", "python3-venv"]),
        ({"free": 6.4e9}, ["CUDA=1"], ["6.4 GB"]),
        ({"free": 1.4e9}, [], ["1.4 GB"]),
        ({"install": "exit 1"}, [], ["could not be installed"]),
        ({"install": "exit 0"}, [], ["No module named 'torch'"]),
    ],
)
def test_what_prevents_an_installation_is_said(project, python, machine, arguments, named):
    shown = make(project, "install", python(**machine), *arguments)
    assert shown.returncode == 2 and "Traceback" not in shown.stdout
    assert all(name in shown.stdout for name in named)
    assert not (project / ".venv" / "installed").exists()


def test_an_old_python_can_read_the_file_that_refuses_it():
    ast.parse((ROOT / "plumbing" / "install.py").read_text(), feature_version=(3, 6))


def test_an_environment_whose_python_is_gone_is_made_anew(project, python, tmp_path):
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to(tmp_path / "gone")
    (project / ".venv" / "installed").touch()
    assert make(project, "install", python()).returncode == 0
    assert (project / ".venv" / "bin" / "python").exists()


def test_an_unfinished_environment_of_another_python_is_not_used(project, python):
    other = project / ".venv" / "bin" / "python"
    other.parent.mkdir(parents=True)
    other.write_text("#!/bin/sh\necho 3.10.1 of another")
    other.chmod(0o755)
    shown = make(project, "install", python())
    assert shown.returncode == 2 and "3.10.1 of another" in shown.stdout
    assert "of another" in other.read_text()


def test_a_package_in_which_uv_was_interrupted_is_installed_again(project, python):
    shown = make(project, "install", python(install=f"({PYTORCH}); exit 1"), "CUDA=1")
    assert shown.returncode == 2 and not (project / ".venv" / "installed").exists()
    (packages,) = (project / ".venv" / "lib").glob("python3*/site-packages")
    (packages / "half-1.dist-info").mkdir()
    assert make(project, "install", python()).stdout.endswith("with CUDA 13.0\n")  # it was whole
    assert not (packages / "half-1.dist-info").exists()
    (packages / "torch-2.dist-info" / "INSTALLER").unlink()
    assert make(project, "install", python(), "CUDA=0").stdout.endswith("without CUDA\n")


def test_an_interrupted_pip_may_remove_its_files(project, python):
    code = """import pathlib, time
try:
    pathlib.Path("started").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    pathlib.Path("removed").touch()"""
    process = subprocess.Popen(
        ["make", "install", "CUDA=1", python(uv=0, install=f"exec {PYTHON} -c '{code}'")],
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


def test_cuda_asks_again_which_build_there_is(played, python):
    asking = python(before="sys.exit('asked ' + os.environ['CUDA'])")
    assert "asked" not in make(played, "install", asking).stdout
    assert "asked 0" in make(played, "train", asking, "CUDA=0").stdout


def write_wheel(index, name, version, text=""):
    """A package of one module in an index."""
    info = f"{name}-{version}.dist-info"
    path = index / name / f"{name}-{version}-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    (path.parent / "index.html").write_text(f'<a href="{path.as_uri()}">{path.name}</a>')
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", text)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
        wheel.writestr(f"{info}/RECORD", "")


def test_the_real_pip_installs_the_cpu_build_whatever_is_set(project, tmp_path):
    pypi, cpu = tmp_path / "pypi", tmp_path / "cpu"
    for index, version, cuda in (pypi, "2.14.2", "'13.0'"), (cpu, "2.14.1+cpu", None):
        torch = f"__version__ = {version!r}\nclass version: cuda = {cuda}"
        write_wheel(index, "torch", version, torch)
        write_wheel(index, "torchvision", "0.29.1")
    (project / "requirements.txt").write_text("torch<2.16\ntorchvision\n")
    os.utime(project / "requirements.txt", (0, 0))
    (tmp_path / "pip.conf").write_text("[install]\nuser = true\ntarget = elsewhere\n")
    (tmp_path / "torch.py").write_text("raise ImportError('the one of another project')")
    source = project / "plumbing" / "install.py"
    source.write_text(source.read_text().replace(installer.CPU_INDEX, cpu.as_uri()))
    settings = dict.fromkeys(["HOME", "XDG_CONFIG_HOME", "PYTHONPATH", "PYTHONHOME"], str(tmp_path))
    settings |= {"PIP_CONFIG_FILE": f"{tmp_path}/pip.conf", "PIP_INDEX_URL": pypi.as_uri()}
    python = f"PYTHON={sys.executable}"
    shown = make(project, "install", "CUDA=0", python, **settings, PIP_USER="1")
    assert shown.returncode == 0, shown.stdout
    assert shown.stdout.endswith("PyTorch 2.14.1+cpu, built without CUDA\n")
