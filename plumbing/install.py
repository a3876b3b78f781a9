"""Install the packages of a requirements file into .venv: `make install`, before there are any.

    python3 -u plumbing/install.py requirements.txt [flags of pip]

uv does it, in seconds, where it can be had and finds all packages, else pip. .venv gets the Python
that runs this. An old one can read this file, too, and is told that it is too old.
"""

import glob
import importlib.util
import os
import re
import shutil
import subprocess
import sys

PYTHON = ".venv/bin/python"
OTHER = "name another Python with PYTHON=..."
MODULES = ["_bz2", "_ctypes", "_lzma", "_ssl", "venv", "zlib"]  # a Python may be built without
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# uv's flags for PyTorch by what CUDA= says, tried in turn; without one it is PyPI's, with CUDA.
BUILDS = {"": [["--torch-backend=auto"], []], "0": [["--torch-backend=cpu"]], "1": [[]]}
HERE = ["--no-user", "--target="]  # whatever the user's settings of pip say
# Says how the PyTorch in .venv was built; one whose installation was interrupted has no version.
BUILD = """import importlib.metadata, torch
importlib.metadata.version("torch")
cuda = f"with CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
print(f"PyTorch {torch.__version__}, built {cuda}")"""


def output(*command):
    """(exit code, what a command wrote, on one line; of an error its message or last cause)."""
    # Nothing is retried for minutes; what uv installs is compiled by the first import.
    settings = dict(os.environ, PIP_RETRIES="1", UV_HTTP_RETRIES="1", PYTHONDONTWRITEBYTECODE="")
    try:
        shown = subprocess.run(command, env=settings, capture_output=True, errors="replace")
    except OSError as error:
        return 1, str(error)
    words = " ".join((shown.stderr + shown.stdout).split())
    return shown.returncode, re.split("Error: |cause: ", words)[-1]


def run(command):
    """The exit code of a command, waited for even after Ctrl-C: then pip removes its files."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    finally:
        process.wait()


def check_python():
    """Exit where this Python cannot run what would be installed."""
    if sys.version_info[1] not in range(10, 15):  # these have a PyTorch of requirements.txt
        sys.exit(f"Python 3.10 to 3.14 is needed, this is {sys.version.split()[0]}: {OTHER}")
    missing = [name.strip("_") for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"{sys.executable} was built without {', '.join(missing)}: {OTHER}")


def make_environment():
    """Make .venv, or what it lacks; the command line of a pip that installs into it."""
    gone, version = output(PYTHON, "--version")
    # Where the Python of the system was upgraded, .venv has no Python, or another than before, for
    # which it has no packages: python3.13, say, beside lib/python3.12.
    minor = version.lower().replace(" ", "").rpartition(".")[0]
    if gone or not glob.glob(f".venv/lib/{minor}*"):
        shutil.rmtree(".venv", ignore_errors=True)
        failed, said = output(sys.executable, "-m", "venv", "--without-pip", ".venv")
        if failed:
            sys.exit(f"{sys.executable} cannot make the folder .venv: {said}")
    elif not os.path.exists(".venv/installed") and version != f"Python {sys.version.split()[0]}":
        sys.exit(f".venv has {version}: type `make remove` first, or keep it: PYTHON={PYTHON}")
    # Where uv was interrupted, a package looks whole to it but for a file that it writes last.
    for info in glob.glob(".venv/lib/python3*/site-packages/*.dist-info"):
        if not os.path.exists(f"{info}/INSTALLER"):
            shutil.rmtree(info)
    pip = [PYTHON, "-m", "pip"]
    # Debian's Python without its package python3-venv has no ensurepip.
    if output(*pip, "--version")[0] and output(PYTHON, "-m", "ensurepip", "--default-pip")[0]:
        pip = [sys.executable, "-m", "pip", "--python", PYTHON]
        failed, said = output(*pip, "--version")
        if failed:
            sys.exit(f"no pip 22.3 or later: {said} (on Debian, apt install python3-venv)")
    return pip


def with_uv(pip, pip_args, requirements, cuda):
    """(the command with which uv installs, what it would); ([], "") where pip has to do it."""
    settings = output(*pip, "config", "list")[1]
    get_uv = [*pip, "install", *HERE, "--only-binary=:all:", "uv"]
    if pip_args or ".no-index=" in settings or output(*get_uv)[0]:
        return [], ""
    command = [".venv/bin/uv", "pip", "install", "--python", PYTHON, "-r", requirements]
    command += ["--index-strategy=unsafe-best-match"]  # the latest version of all, as with pip
    shared = r"\.(index-url|extra-index-url|find-links|constraint)=(['\"])(.*?)\2"
    for name, _, words in re.findall(shared, settings):
        command += [f"--{name}={word}" for word in words.replace("\\n", " ").split()]
    for flags in BUILDS[cuda]:
        failed, said = output(*command, *flags, "--dry-run")
        if not failed:
            return [*command, *flags], said
        print(f"{' '.join(['uv', *flags])} does not find all packages: {said}")
    return [], ""


def with_pip(pip, pip_args, requirements, cuda):
    """The command with which pip installs, after it has got a PyTorch without CUDA if need be."""
    install = [*pip, "install", *HERE, *pip_args]
    gpu = shutil.which("nvidia-smi") or os.path.exists("/dev/nvidiactl")
    if cuda == "0" or not (cuda or pip_args or gpu):
        torch = ["--index-url", CPU_INDEX, "-c", requirements, "torch", "torchvision"]
        if run([*install, *torch]) and cuda:
            sys.exit(f"{CPU_INDEX}, which has PyTorch without CUDA, cannot be used, see above")
    return [*install, "-r", requirements]


def main():
    requirements, *pip_args = sys.argv[1:]
    cuda = os.environ.get("CUDA", "")
    if cuda not in BUILDS:
        sys.exit(f"CUDA={cuda} is neither 1, for PyTorch with CUDA, nor 0, for one without")
    check_python()
    pip = make_environment()
    missing, build = output(PYTHON, "-c", BUILD)
    if not missing:
        if cuda and cuda != ("1" if "with CUDA" in build else "0"):
            sys.exit(f".venv has {build}: type `make remove`, then `make install CUDA={cuda}`")
        cuda = "1"  # which asks for no other build
    command, plan = with_uv(pip, pip_args, requirements, cuda)
    needed, free = 6.5 if "nvidia-" in plan else 1.5, shutil.disk_usage(".venv").free / 1e9
    if missing and free < needed:
        sys.exit(f"the disk of .venv has {free:.1f} GB free, and {needed} GB are needed: make room")
    print(f"installing the packages of {requirements} with {'uv' if command else 'pip'}")
    if run(command or with_pip(pip, pip_args, requirements, cuda)):
        sys.exit("the packages could not be installed, for the reason above")
    missing, build = output(PYTHON, "-c", BUILD)
    if missing:
        problem = f"PyTorch does not work in .venv ({build}): `make remove`, then `make install`"
        sys.exit(f"{problem}; `pip config list` shows settings that send packages elsewhere")
    print(build)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
