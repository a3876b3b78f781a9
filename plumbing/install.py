"""Install the packages of a requirements file into .venv: `make install`, before there are any.

    python3 -u plumbing/install.py requirements.txt [flags of pip]

.venv gets the Python that runs this. An old one can be told so: nothing here that Python 3.6 cannot
read, and only its own library.
"""

import importlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile

PYTHON = ".venv/bin/python"
# For Python 3.10 to 3.14 there is a PyTorch, with its torchvision, that requirements.txt allows.
MINORS = range(10, 15)
MODULES = ["bz2", "ctypes", "lzma", "ssl", "venv", "zlib"]  # a Python may be built without them
# PyPI's PyTorch for Linux brings CUDA. Where pip sees this index, too, it takes the build without:
# 2.14.1+cpu counts as later than 2.14.1.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# GB of all packages, and of the files that pip downloads for them and keeps until the end.
WITH_CUDA, WITHOUT_CUDA = (6.5, 3.5), (1.5, 0.5)
# One of these is there where NVIDIA's driver is, the last one in WSL.
DRIVER = ["/dev/nvidiactl", "/proc/driver/nvidia", "/usr/lib/wsl/lib/nvidia-smi"]


def output(*command, timeout=None):
    """(exit code, what a command wrote, on one line, of a traceback only the message)."""
    try:
        shown = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            timeout=timeout,
        )
    except OSError as error:
        return 1, str(error)
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {timeout} seconds"
    return shown.returncode, " ".join(shown.stdout.split()).split("Error: ")[-1]


def check_python():
    """Exit where this Python cannot run what would be installed."""
    if sys.version_info[1] not in MINORS:
        sys.exit(
            f"Python 3.{MINORS[0]} to 3.{MINORS[-1]} is needed, this is {sys.version.split()[0]}: "
            "name another one with PYTHON=..."
        )
    missing = []
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        sys.exit(
            f"{sys.executable} was built without {', '.join(missing)}: name another Python with "
            "PYTHON=..., or build it again with the headers of these libraries"
        )


def built():
    """(whether the PyTorch in .venv has CUDA, its build in words); (None, why) where none works."""
    code = "import torch, torchvision; print(torch.__version__, torch.version.cuda)"
    failed, said = output(PYTHON, "-c", code)
    if failed:
        return None, said
    version, cuda = said.split()[-2:]
    if cuda == "None":
        return False, f"PyTorch {version}, built without CUDA"
    return True, f"PyTorch {version}, built with CUDA {cuda}"


def unreachable():
    """Why CPU_INDEX cannot be read, or None; takes seconds, where pip would try for minutes."""
    # In another process, because no timeout of urllib's ends the search for the server's address.
    code = (
        "import urllib.request as r; "
        f"r.urlopen(r.Request('{CPU_INDEX}/torch/', headers={{'User-Agent': 'pip'}}), timeout=5)"
    )
    failed, said = output(sys.executable, "-c", code, timeout=8)
    return said.strip("<>") if failed else None


def choose_build(cuda, pip_args):
    """Say which build of PyTorch is taken, and why; pip's flags for it.

    cuda is "1", "0", or "", which leaves it to pip_args and to what the machine has.
    """
    own_index = any("index" in arg or arg.startswith(("-i", "-f", "--find")) for arg in pip_args)
    gpu = shutil.which("nvidia-smi") or any(map(os.path.exists, DRIVER))
    if platform.system() != "Linux" or cuda == "1" or (cuda == "" and (own_index or gpu)):
        return []
    problem = unreachable()
    if problem and cuda == "0":
        sys.exit(f"{CPU_INDEX}, which has PyTorch without CUDA, cannot be reached: {problem}")
    if problem:
        print(f"{CPU_INDEX} cannot be reached ({problem}): taking PyTorch with CUDA, 6 GB")
        return []
    why = "CUDA=0" if cuda else "no NVIDIA GPU is seen; CUDA=1 takes the build with CUDA, 6 GB"
    print(f"taking PyTorch's CPU build, 0.2 GB, from {CPU_INDEX} ({why})")
    return ["--extra-index-url", CPU_INDEX]


def check_space(packages, downloads):
    """Exit where the disks of .venv and of temporary files have not so many GB free."""
    try:
        temporary = tempfile.gettempdir()
    except OSError as error:
        sys.exit(f"{error}: make room, or name a folder that has some: TMPDIR=/folder make install")
    place = os.path.realpath(".venv" if os.path.isdir(".venv") else ".")
    if os.stat(temporary).st_dev == os.stat(place).st_dev:
        packages += downloads
    for folder, needed in (place, packages), (temporary, downloads):
        free = shutil.disk_usage(folder).free / 1e9
        if free < needed:
            sys.exit(
                f"{folder} has {free:.1f} GB free, and {needed:.1f} GB are needed: make room, or "
                "name a folder for temporary files on another disk: TMPDIR=/folder make install"
            )


def make_environment():
    """Make .venv, anew where its Python is gone (it was upgraded, say); exit if it has another."""
    if not os.access(PYTHON, os.X_OK):
        shutil.rmtree(".venv", ignore_errors=True)
    if os.path.exists(".venv/installed"):
        return
    # Debian's Python without its package python3-venv makes environments without a pip.
    if output(sys.executable, "-m", "venv", ".venv")[0]:
        failed, said = output(sys.executable, "-m", "venv", "--without-pip", ".venv")
        if failed:
            sys.exit(f".venv cannot be made: {said}")
    version = output(PYTHON, "-c", "import sys; print(sys.version)")[1]
    if version != " ".join(sys.version.split()):
        sys.exit(
            f".venv has another Python, {version}: type `make remove` first, or keep it with "
            f"PYTHON={PYTHON}"
        )


def find_pip():
    """The command line of a pip that installs into .venv; exits where there is none."""
    outside = [sys.executable, "-m", "pip"]
    for pip in [PYTHON, "-m", "pip"], [*outside, "--python", PYTHON]:
        if output(*pip, "--version")[0] == 0:
            return pip
    failed, said = output(*outside, "--version")
    if failed:
        problem = f"{sys.executable} has no pip that works ({said})"
    else:
        problem = f"pip 22.3 or later is needed ({said})"
    sys.exit(f"{problem}: install one first (Debian, Ubuntu: apt install python3-venv)")


def run_pip(command):
    """Run pip, and wait for it even after Ctrl-C: then it removes its temporary files."""
    process = subprocess.Popen(command)
    try:
        failed = process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    if failed:
        sys.exit(
            "pip could not install the packages, for the reason above; where it found no version, "
            "there is none for "
            f"Python {sys.version.split()[0]} on {platform.system()} {platform.machine()}, or the "
            "index cannot be reached"
        )


def main():
    requirements, *pip_args = sys.argv[1:]
    cuda = os.environ.get("CUDA", "")
    if cuda not in ("", "0", "1"):
        sys.exit(f"CUDA={cuda} is neither 1, for PyTorch with CUDA, nor 0, for one without")
    check_python()
    has_cuda, build = built()
    flags = []
    if has_cuda is None:
        flags = choose_build(cuda, pip_args)
        check_space(*WITHOUT_CUDA if flags or platform.system() != "Linux" else WITH_CUDA)
    elif cuda and has_cuda != (cuda == "1"):
        sys.exit(f".venv has {build}: type `make remove`, then `make install CUDA={cuda}`")
    make_environment()
    pip = find_pip()
    print(f"installing the packages of {requirements}")
    here = ["--no-user", "--target="]  # whatever the user's settings of pip say
    run_pip([*pip, "install", *here, *flags, *pip_args, "-r", requirements])
    has_cuda, build = built()
    if has_cuda is None:
        sys.exit(
            f"PyTorch does not work in .venv ({build}): `make remove` and `make install` set it "
            "up anew; `pip config list` shows settings that send packages elsewhere"
        )
    print(build)
    if flags and has_cuda:
        print(f"pip takes the latest version of all, and {CPU_INDEX} has not this one")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
