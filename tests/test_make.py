"""The Makefile, run in a copy of the project whose path has a space."""

import ast
import importlib
import inspect
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from processes import heed_ctrl_c, wait_for

import train
from plumbing import install as installer

README = (ROOT / "README.md").read_text()
DOCS = "\n".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.M))
SCRIPTS = {path.stem for path in ROOT.glob("*.py") if "cli.run(main)" in path.read_text()}
PYTHON = shlex.quote(sys.executable)  # for shell scripts: its path may have a space
SHOWN = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


def make(*arguments, **variables):
    """Run make with no setting from outside; a CompletedProcess with all output."""
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR")}
    environment["PYTHON"] = "false"  # which installs nothing, where a test names no other
    return subprocess.run(["make", *arguments], env=environment | variables, **SHOWN)


def settings(*targets):
    """The settings of targets that make names where it refuses one."""
    refused = make("-f", ROOT / "Makefile", *targets, "nonsense=1")
    assert refused.returncode == 2
    return set(re.search(r" nonsense, only ([A-Z0-9_ ]+);", refused.stdout)[1].split())


OF_MAKE = {"PYTHON", "CUDA", "PIP_ARGS", "DEBUG", "ARGS", "IMAGE"}  # and no flags


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


def flags(run, script):
    """The flags in the --help of a script."""
    code, out, _ = run(importlib.import_module(script).main, "--help")
    assert code == 0
    return set(re.findall(r"(?<!\S)--[a-z0-9-]+", out)) - {"--help"}


def test_the_docs_name_every_target_setting_and_flag_and_no_other(run):
    text = README + DOCS
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) == TARGETS > SCRIPTS
    assert SCRIPTS <= set(re.findall(r"`(\w+)\.py`", README))
    of_the_environment = {"KILLS", "CASES"}
    named = set(re.findall(r"\b([A-Z][A-Z0-9_]+)=", text)) - of_the_environment
    assert OF_MAKE <= named <= settings(*TARGETS)
    known = {"--index-url"}.union(*(flags(run, script) for script in SCRIPTS))  # pip's is one
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)) == known


def test_the_settings_are_those_of_help_and_the_loop_in_the_readme_is_that_of_train():
    shown = subprocess.run([sys.executable, "-m", "docs.settings"], **SHOWN, cwd=ROOT)
    assert shown.stdout == (ROOT / "docs" / "settings.md").read_text()
    (loop,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert loop.startswith("for epoch in")
    assert inspect.getsource(train.train).endswith("\n" + textwrap.indent(loop, "    "))


# A Python that prints what it is to run, and foreign modules that it would see; training leaves a
# checkpoint, and does not go on with one of seed 9.
PRINT = r"""#!/bin/sh
if [ "$1" = -V ]; then echo Python 3.10.1; exit; fi
printf '<%s> ' "$@" $PYTHONPATH $PYTHONHOME $PYTHONSAFEPATH; echo
case "$*" in *"--seed 9 --resume") exit 2;; train.py*) touch "$3" || :;; esac"""


def play(code):
    """Write the script that is the Python of .venv."""
    for folder in "bin", "lib/python3.10":
        Path(".venv", folder).mkdir(parents=True, exist_ok=True)
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


FIRST = ["analysis", "robustness", "draw", "predict"]  # train where there is no checkpoint


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_every_flag_of_a_script_is_a_setting_of_its_target(played, run, script):
    own = flags(run, script)
    training = (
        flags(run, "train") - {"--seeds", "--start", "--things", "--resume", "--json"}
        if script in FIRST
        else set()
    )
    names = {flag[2:].upper().replace("-", "_") for flag in own | training}
    assert settings(script) - OF_MAKE == names
    typed = [f"{name}=1" for name in names] + ["IMAGE=7.png"] * (script == "predict")
    *trained, (name, *words) = commands(script, *typed)
    assert name == f"{script}.py"
    assert {word for word in words if word.startswith("--")} == own
    assert words.count("1") == len(own - {"--json", "--resume", "--things"})  # which take no value
    if training:
        assert {word for word in trained[0][1:] if word not in ("1", "everyday")} == training


def test_settings_become_flags(played):
    given = ["DEVICE=cuda:1", "RECIPE=quick", "EPOCHS=3", "BATCH_SIZE=64", "RESUME=1", "JSON=0"]
    schedule = ["--recipe", "quick", "--epochs", "3", "--batch-size", "64"]
    device, net = ["--device", "cuda:1"], ["train.py", "--checkpoint", "checkpoint.pt"]
    arguments = ["--beta1", "0.5", "--beta2", "0.5"]
    assert commands("train", *given, f"ARGS={' '.join(arguments)}") == [
        [*net, *device, *schedule, "--resume", *arguments]
    ]
    assert commands("train", "JSON=no") == [[*net, "--json=no"]]  # for train.py to refuse
    assert commands("demo", *given[:4], "COUNT=3") == [
        ["train.py", "--dataset", "synthetic", "--occlusion", "0.3", "--extra-writing", "0.3"]
        + ["--checkpoint", "demo/checkpoint.pt", *device, *schedule],
        ["analysis.py", "--checkpoint", "demo/checkpoint.pt", "--output"]
        + ["demo/misclassified_samples", *device, "--count", "3"],
    ]
    # Of the environment these count, and others do not.
    foreign = dict.fromkeys(["PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "COUNT", "EPOCH"], "9")
    assert commands("train", EPOCHS="3", **foreign) == [[*net, "--epochs", "3"]]
    assert commands("train", "analysis", "COUNT=2")[1][3:] == ["--count", "2"]


@pytest.mark.parametrize(
    "words, named",
    [
        ("train EPOCH=3", "EPOCH EPOCHS"),
        ("train batch-size=3", "batch-size BATCH_SIZE"),
        ("train COUNT=20", "COUNT"),
        ("analysis Count=20", "Count COUNT BATCH_SIZE"),
        ("draw SEEDS=3", "SEEDS SEED"),
        ("demo DATASET=x", "DATASET"),
        ("analysis SEED=1 ARGS=--checkpoint=a.pt", "SEED"),
        ("benchmark EPOCHS=3", "EPOCHS"),
        ("install DEVICE=cpu", "DEVICE CUDA"),
        ("EPOCHS=3", "EPOCHS"),
    ],
)
def test_a_setting_that_the_target_has_not_is_refused_with_those_that_it_has(played, words, named):
    shown = make(*words.split())
    assert shown.returncode == 2 and shown.stdout.count("\n") == 1
    assert set(named.split()) <= set(re.findall(r"[\w-]+", shown.stdout))


@pytest.mark.parametrize("target", FIRST)
def test_a_checkpoint_is_trained_or_is_of_the_settings_that_were_typed(played, target):
    """The README's own order: train, then draw, with another recipe perhaps."""
    words = [target, "IMAGE=7.png"][: 1 + (target == "predict")]
    net, data = ["train.py", "--checkpoint", "checkpoint.pt"], ["--dataset", "my data"]
    judges = target in ("draw", "predict")  # whose scripts do not read test images
    recipe = ["--recipe", "everyday"] if judges else []
    first, second = commands(*words, "EPOCHS=2", "DEVICE=cpu")
    assert first == [*net, "--device", "cpu", "--epochs", "2", *recipe]
    assert second[:3] == [f"{target}.py", "--checkpoint", "checkpoint.pt"]
    assert len(commands(*words, "DEVICE=cpu")) == 1  # whatever that checkpoint is
    assert commands(*words, "SLANT=3")[0] == [*net, "--slant", "3", "--resume"]
    first, *second = commands(*words, "DATASET=my data")
    assert first == [*net, *data, "--resume"] if judges else first[3:] == data and not second
    first, _ = commands(*words, "DATASET=my data", RECIPE="quick")
    assert first == [*net, *data, "--recipe", "quick", "--resume"]
    refused = make(*words, "SEED=9")
    assert refused.returncode == 2 and f"<{target}.py>" not in refused.stdout
    # What ARGS names is not the one that make could train.
    Path("checkpoint.pt").unlink()
    assert len(commands(*words, "ARGS=--checkpoint a.pt", SEED="1")) == 1
    assert commands(*words, "RECIPE=quick")[0] == [*net, "--recipe", "quick"]


def test_an_empty_name_of_a_checkpoint_is_for_train_to_judge(played):
    shown = make("analysis", "CHECKPOINT=").stdout
    assert shown.startswith("<train.py> <--checkpoint> <> ")  # and nothing before
    for name in "", ".":
        assert make("clean", f"CHECKPOINT={name}").returncode == 0


def test_pictures_are_named_by_a_variable(played):
    Path("checkpoint.pt").touch()
    pictures = "IMAGE='my digit.png' 8.png"
    (command,) = commands("predict", pictures, "ARGS=--json")
    assert command[3:] == ["my digit.png", "8.png", "--json"]
    shown = make("predict")
    assert shown.returncode == 2 and "IMAGE=" in shown.stdout


# All that a shell or make might take for its own.
NAME = """it's [a] "name" (1) $x $(touch bad) `touch bad` a  b & c; d.png"""


@pytest.mark.parametrize("typed", [NAME, "~/a  b.png"])
def test_names_are_taken_as_they_are_typed_but_for_the_home_folder(played, typed):
    home = os.getcwd()
    name = typed.replace("~", home)
    net = f"CHECKPOINT={typed}"
    train, analysis = commands("analysis", net, f"DATASET={typed}", f"TRUE={typed}", HOME=home)
    assert train == ["train.py", "--checkpoint", name, "--dataset", name]
    assert analysis == ["analysis.py", *train[1:], "--true", name]
    # Now there is that file: a checkpoint, and a picture, too.
    (predict,) = commands("predict", net, f"IMAGE={typed}", HOME=home)
    assert predict == ["predict.py", *train[1:3], name]
    Path(name.replace(".png", "-12.png")).touch()  # of --seeds
    assert make("clean", net, HOME=home).returncode == 0
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
    assert len(list(written.iterdir())) == 15
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


REFUSING = ["plumbing/install", "plumbing/__init__", "plumbing/cli", "plumbing/openmp"]


@pytest.mark.parametrize("name", [*REFUSING, *sorted(SCRIPTS)])
def test_an_old_python_can_read_the_files_that_refuse_it(name):
    ast.parse((ROOT / f"{name}.py").read_text(), feature_version=(3, 6))


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_another_python_than_that_of_the_environment_is_told_of_it(script):
    command = [sys.executable, "-S", ROOT / f"{script}.py"]  # -S: without packages
    shown = subprocess.run(command, **SHOWN)
    assert shown.returncode == 2 and shown.stdout.count("\n") == 1
    for name in "torch", sys.executable, f"`make {script}`", f".venv/bin/python {script}.py":
        assert name in shown.stdout


@pytest.mark.parametrize("change", ["gone", "3.9.1", "3.11.0"])
def test_an_environment_whose_python_was_upgraded_is_made_anew(played, python, change):
    """It has packages for 3.10."""
    Path(".venv/bin/python").unlink()
    if change == "gone":
        Path(".venv/bin/python").symlink_to("gone")
    else:
        play(f"#!/bin/sh\necho Python {change}")
    Path(".venv/old").touch()
    assert "installing" in make("install", python()).stdout
    assert Path(".venv/bin/python").exists() and not Path(".venv/old").exists()
    assert "installing" not in make("install", python()).stdout


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
