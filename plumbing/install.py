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
MINORS = range(10, 15)  # Python 3.10 to 3.14 have a PyTorch that requirements.txt allows
MODULES = ["_bz2", "_ctypes", "_lzma", "_ssl", "venv", "zlib"]  # a Python may be built without
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# uv's flags for PyTorch by what CUDA= says, tried in turn; without one it is PyPI's, with CUDA.
BUILDS = {"": [["--torch-backend=auto"], []], "0": [["--torch-backend=cpu"]], "1": [[]]}
HERE = ["--no-user", "--target="]  # whatever the user's settings of pip say


def output(*command):
    """(exit code, what a command wrote, on one line; of an error its message or last cause)."""
    settings = dict(os.environ, PIP_RETRIES="1", UV_HTTP_RETRIES="1")  # not for minutes
    settings.pop("PYTHONDONTWRITEBYTECODE", None)  # uv compiles nothing, the first import does
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "errors": "replace"}
    try:
        shown = subprocess.run(command, env=settings, **streams)
    except OSError as error:
        return 1, str(error)
    return shown.returncode, re.split("Error: |cause: ", " ".join(shown.stdout.split()))[-1]


def run(command):
    """The exit code of a command, waited for even after Ctrl-C: then pip removes its files."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def check_python():
    """Exit where this Python cannot run what would be installed."""
    if sys.version_info[1] not in MINORS:
        known = f"Python 3.{MINORS[0]} to 3.{MINORS[-1]}"
        version = sys.version.split()[0]
        sys.exit(f"{known} is needed, this is {version}: name another one with PYTHON=...")
    missing = [name.strip("_") for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"{sys.executable} was built without {', '.join(missing)}"
        sys.exit(f"{problem}: build it anew with these, or name another one with PYTHON=...")


def built():
    """(whether the PyTorch in .venv has CUDA, its build in words); (None, why) where none works."""
    code = "import torch, importlib.metadata; importlib.metadata.version('torch'); "
    code += "print(torch.__version__, torch.version.cuda)"
    failed, said = output(PYTHON, "-c", code)
    if failed:
        return None, said
    version, cuda = said.split()[-2:]
    if cuda == "None":
        return False, f"PyTorch {version}, built without CUDA"
    return True, f"PyTorch {version}, built with CUDA {cuda}"


def make_environment():
    """Make .venv, or what it lacks; the command line of a pip that installs into it."""
    if not os.access(PYTHON, os.X_OK):  # or its Python is gone: it was upgraded, say
        shutil.rmtree(".venv", ignore_errors=True)
    elif not os.path.exists(".venv/installed"):
        version = output(PYTHON, "-c", "import sys; print(sys.version)")[1]
        if version != " ".join(sys.version.split()):
            problem = f".venv has another Python, {version}"
            sys.exit(f"{problem}: type `make remove` first, or keep it with PYTHON={PYTHON}")
    # Where uv was interrupted, a package looks whole to it but for a file that it writes last.
    for info in glob.glob(".venv/lib/python3*/site-packages/*.dist-info"):
        if not os.path.exists(f"{info}/INSTALLER"):
            shutil.rmtree(info)
    make, pip = [sys.executable, "-m", "venv", ".venv"], [PYTHON, "-m", "pip"]
    # Debian's Python without its package python3-venv makes environments without a pip.
    if output(*pip, "--version")[0] and output(*make)[0]:
        pip = [sys.executable, "-m", "pip", "--python", PYTHON]
        for command in [*make, "--without-pip"], [*pip, "--version"]:
            failed, said = output(*command)
            if failed:
                problem = f"{sys.executable} can make no .venv with a pip, 22.3 or later ({said})"
                sys.exit(f"{problem}: install one first (Debian, Ubuntu: apt install python3-venv)")
    return pip


def with_uv(pip, requirements, cuda):
    """(the command with which uv installs, what it would); (None, "") where it cannot."""
    settings = output(*pip, "config", "list")[1]
    get_uv = [*pip, "install", *HERE, "--only-binary=:all:", "uv"]
    if ".no-index=" in settings or output(*get_uv)[0]:
        return None, ""
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
    return None, ""


def with_pip(pip, requirements, pip_args, cuda):
    """The command with which pip installs, after it has got a PyTorch without CUDA if need be."""
    install = [*pip, "install", *HERE, *pip_args, "-r", requirements]
    gpu = shutil.which("nvidia-smi") or os.path.exists("/dev/nvidiactl")
    if cuda == "0" or not (cuda or pip_args or gpu):
        torch = [*pip, "install", *HERE, *pip_args, "--index-url", CPU_INDEX, "-c", requirements]
        if run([*torch, "torch", "torchvision"]) and cuda:
            sys.exit(f"{CPU_INDEX}, which has PyTorch without CUDA, cannot be used, see above")
    return install


def main():
    requirements, *pip_args = sys.argv[1:]
    cuda = os.environ.get("CUDA", "")
    if cuda not in BUILDS:
        sys.exit(f"CUDA={cuda} is neither 1, for PyTorch with CUDA, nor 0, for one without")
    check_python()
    pip = make_environment()
    has_cuda, build = built()
    if cuda and has_cuda not in (None, cuda == "1"):
        sys.exit(f".venv has {build}: type `make remove`, then `make install CUDA={cuda}`")
    if has_cuda is not None:
        cuda = "1"  # which asks for no other build
    command, plan = (None, "") if pip_args else with_uv(pip, requirements, cuda)
    needed, free = 6.5 if "nvidia-" in plan else 1.5, shutil.disk_usage(".venv").free / 1e9
    if has_cuda is None and free < needed:
        sys.exit(f"the disk of .venv has {free:.1f} GB free, and {needed} GB are needed: make room")
    print(f"installing the packages of {requirements} with {'uv' if command else 'pip'}")
    if run(command or with_pip(pip, requirements, pip_args, cuda)):
        sys.exit("the packages could not be installed, for the reason above")
    has_cuda, build = built()
    if has_cuda is None:
        problem = f"PyTorch does not work in .venv ({build}): `make remove`, then `make install`"
        sys.exit(f"{problem}; `pip config list` shows settings that send packages elsewhere")
    print(build)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
