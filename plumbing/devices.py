"""What a network is trained on: the device, and how many threads of the CPU."""

import os
import warnings

import torch
import torch.nn.functional as F

from plumbing import cli
from plumbing.optimizer import Adam


def add_flags(parser):
    """Add --device and --threads, which choose() takes."""
    parser.add_argument(
        "--device",
        default="auto",
        help="auto (an accelerator if PyTorch can use one, else the CPU), cpu, cuda, cuda:1, mps "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=cli.between(1, 1024, int),
        help="number of CPU threads (default: one per core, or what a container's quota allows)",
    )


def choose(name, threads=None):
    """The torch.device that --device names, tried out; PyTorch uses the given number of threads.

    Raises cli.InputError where PyTorch does not see the device or cannot use it; with "auto" this
    is said, and the device is the CPU.
    """
    if threads:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of processes that this one starts
    names = ["cpu"]
    with warnings.catch_warnings(record=True) as warned:  # of an outdated driver, say
        warnings.simplefilter("always")
        if torch.accelerator.is_available():
            kind, count = torch.accelerator.current_accelerator(), torch.accelerator.device_count()
            names = [kind.type, *(f"{kind.type}:{index}" for index in range(count)), "cpu"]
        if name not in ("auto", *names):
            raise cli.InputError(
                f"--device {name} is not available: PyTorch {torch.__version__} sees "
                f"{', '.join(names)} on this machine"
            )
        device = torch.device(names[0] if name == "auto" else name)
        problem = _problem(device)
    if problem and name != "auto":
        raise cli.InputError(f"--device {name} cannot be used: {problem}; type --device cpu")
    if problem:
        cli.complain(f"{device} cannot be used, so this runs on the CPU: {problem}")
        return torch.device("cpu")
    if device.type == "cpu" and name == "auto" and warned:
        cli.complain(f"this runs on the CPU: {warned[0].message}")
    return device


def _problem(device):
    """Why a device is of no use, in a few words, or None: it is tried where it is not the CPU."""
    if device.type == "cpu":
        return None
    try:
        differences = (a - b for a, b in zip(_try(device), _try(torch.device("cpu")), strict=True))
        if max(difference.abs().mean().item() for difference in differences) < 1e-4:
            return None
        return "it does not compute what the CPU computes"
    except RuntimeError as error:  # The rest of the message is about debugging PyTorch.
        return str(error).split("\n")[0]


def _try(device):
    """What a device makes of images that are warped, and of weights after two steps of Adam."""
    generator = torch.Generator().manual_seed(0)
    images, grid = (torch.rand(64, *n, generator=generator) for n in ((1, 28, 28), (28, 28, 2)))
    model = torch.nn.Linear(784, 10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator))
    model.to(device)
    optimizer = Adam(model, beta1=0.9, beta2=0.999)
    warped = F.grid_sample(images.to(device), grid.to(device), align_corners=False)
    for _ in range(2):
        optimizer.zero_grad()
        model(warped.flatten(1)).square().mean().backward()
        optimizer.step(0.01)
    return [tensor.detach().cpu() for tensor in (warped, *model.parameters())]


def describe(device):
    """The device in words: `cpu (8 threads), ...` or `cuda (NVIDIA H200, 8 threads), ...`."""
    name = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return f"{device} ({name}{torch.get_num_threads()} threads), PyTorch {torch.__version__}"
