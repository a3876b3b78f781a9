"""What the command lines of all scripts share: flags, the device, and one sentence per error."""

import argparse
import math
import os
import signal
import sys
from pathlib import Path


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one sentence that says what to do."""


def _excepthook(kind, error, traceback):
    """Spare the traceback where Ctrl-C cuts an import short: PyTorch's takes two seconds."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _excepthook
sys.stderr = sys.stderr or open(os.devnull, "w")  # None where the shell has closed it: `2>&-`
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
for number in SIGNALS[1:]:  # as Ctrl-C, unless they are ignored (by nohup)
    if signal.getsignal(number) == signal.SIG_DFL:
        signal.signal(number, signal.default_int_handler)


def ignore_signals():
    """Let nothing interrupt what remains to be done after an interrupt.

    A second Ctrl-C is common, and a terminal that is closed sends SIGHUP twice.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


NAMED = "the one that the checkpoint names"


def parser(description, default_dataset=NAMED, checkpoints="one", reads_dataset=True):
    """An ArgumentParser with the flags of every script; a bad flag raises InputError.

    `default_dataset` says in words what is read without --dataset, whose value then is None;
    `checkpoints` tells how many --checkpoint takes: "one", "several" (a list) or "none". A script
    that reads no dataset has neither --dataset nor, for want of work, --device.
    """
    parser = argparse.ArgumentParser(description=description)

    def error(message):
        raise InputError(f"{message} (see {parser.prog} --help)")

    parser.error = error
    if reads_dataset:
        parser.add_argument(
            "--dataset",
            help="id on the Hugging Face Hub, local folder or file, or synthetic for drawn digits "
            f"(default: {default_dataset})",
        )
    several = checkpoints == "several"
    if checkpoints != "none":
        parser.add_argument(
            "--checkpoint",
            type=Path,
            nargs="+" if several else None,
            default=[Path("checkpoint.pt")] if several else Path("checkpoint.pt"),
            help=f"file{'s' if several else ''} with the trained network (default: checkpoint.pt)",
        )
    if reads_dataset:
        parser.add_argument(
            "--device",
            default="auto",
            help="auto (an accelerator if PyTorch has one, else the CPU), cpu, cuda, cuda:1, mps "
            "(default: %(default)s)",
        )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the closing summary as one JSON object on the last line of standard output",
    )
    return parser


def whole_number(low, high=10**9):
    """The argparse type of an int from low to high."""

    def parse(text):
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return number

    return parse


def _float(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


def positive_number(text):
    """The argparse type of a float above zero."""
    if not 0 < (number := _float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def number(low, high):
    """The argparse type of a float from low to high."""

    def parse(text):
        if not low <= (number := _float(text)) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return number

    return parse


def choose_device(name):
    """The torch.device that --device names; InputError when PyTorch does not see it."""
    import torch

    devices = {"auto": torch.device("cpu"), "cpu": torch.device("cpu")}
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type
        devices["auto"] = devices[kind] = torch.device(kind)
        for index in range(torch.accelerator.device_count()):
            devices[f"{kind}:{index}"] = torch.device(kind, index)
    if name not in devices:
        raise InputError(
            f"--device {name} is not available: PyTorch {torch.__version__} sees "
            f"{', '.join(device for device in devices if device != 'auto')} on this machine"
        )
    return devices[name]


def describe_device(device):
    """The device in words: `cuda (NVIDIA H200)`, `cpu (8 threads)`."""
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def sentence(error):
    """What is wrong on one line, because messages of libraries may have many, and be long."""
    return " ".join(str(error).split())[:500]


def complain(error):
    """Say in one sentence on standard error what is wrong."""
    print(f"{Path(sys.argv[0]).name}: {sentence(error)}", file=sys.stderr)


def run(main):
    """Call main(), which may return an exit code; exit 2 on bad input, 1 on a failed run, 130 on
    Ctrl-C, without a traceback.
    """
    import torch

    if sys.stdout:  # None where the shell has closed it: `train.py >&-`
        sys.stdout.reconfigure(errors="backslashreplace")  # class names in any locale
    try:
        code = main()
        if sys.stdout:
            sys.stdout.flush()
        if code:
            sys.exit(code)
        return
    except InputError as error:
        code, problem = 2, error
    except (MemoryError, torch.OutOfMemoryError) as error:
        code, problem = 1, f"not enough memory: {error}"
    except BrokenPipeError as error:
        # The reader has gone (`train.py | head`): what Python flushes at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code, problem = 1, error
    except (OSError, FloatingPointError) as error:
        code, problem = 1, error
    except KeyboardInterrupt as error:
        code, problem = 130, str(error) or "interrupted"
    complain(problem)
    sys.exit(code)
