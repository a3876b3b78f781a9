"""The checkpoint: what a training run leaves, in a file that explains itself and runs no code."""

import io
import os
import pickle
import pickletools
import platform
import stat
import struct
import warnings
import zipfile
from dataclasses import asdict, dataclass, fields

import torch

from plumbing.cli import InputError
from plumbing.files import replacing


@dataclass
class Checkpoint:
    """What a training run leaves: plain tensors and plain values, enough to explain itself."""

    weights: dict  # the state_dict of the network, on the CPU
    dataset: str
    class_names: list  # ten strings
    frame: dict  # how things lie in the images, as digits/frame.py measures it
    settings: dict  # recipes.Settings
    epoch: int
    history: list  # a dict per epoch: epoch, loss, test_accuracy, errors, seconds
    test_accuracy: float
    optimizer: dict  # of an unfinished run, what its Adam knows, tensors by name; else empty
    versions: dict

    @property
    def summary(self):
        count = self.validation(self.dataset)
        without = f" without {count:,} validation images" if count else ""
        earlier = self.settings["earlier_epochs"]
        after = f" after {earlier} of another run" if earlier else ""
        return (
            f"{self.epoch} epochs of recipe {self.settings['recipe']}{after}, seed {self.seed}, "
            f"on {self.dataset}{without}{self.taken_out}"
            f"{', unfinished' if self.optimizer else ''}"
        )

    @property
    def taken_out(self):
        """Which moments are taken out of images, in words after a comma."""
        words = "", ", slant taken out", ", slant and half of width and height taken out"
        return words[self.settings["moments"]]

    @property
    def seed(self):
        return self.settings["seed"]

    @property
    def judged_by(self):
        """The kind of images that were read after each epoch: "test" or "validation"."""
        held_out = self.settings["validation"] or self.settings["by_validation"]
        return "validation" if held_out else "test"

    def validation(self, dataset):
        """How many training images of a dataset it was judged by, in place of test images."""
        return self.settings["validation"] if dataset == self.dataset else 0


def snapshot(model, optimizer, history, **facts):
    """The Checkpoint of a run as it is now, with what its Adam knows if the run is unfinished.

    facts are the dataset, the class_names, the frame and the settings.
    """
    unfinished = len(history) < facts["settings"]["epochs"]
    return Checkpoint(
        weights=_copy_to_cpu(model.state_dict().items()),
        epoch=len(history),
        history=list(history),
        test_accuracy=history[-1]["test_accuracy"],
        optimizer=_copy_to_cpu(optimizer.tensors()) if unfinished else {},
        versions={"python": platform.python_version(), "torch": str(torch.__version__)},
        **facts,
    )


def _copy_to_cpu(tensors):
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors}


def save(path, checkpoint):
    """Write a Checkpoint, safe from a power cut once it is there; OSError leaves what was there."""
    # By way of memory, because torch.save reports a full disk as anything but an OSError.
    buffer = io.BytesIO()
    torch.save(asdict(checkpoint), buffer)
    with replacing(path) as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def read(path, complete):
    """The Checkpoint in a file; InputError where it is missing or no valid checkpoint.

    complete(state) returns the dict in the file with what those of earlier versions lack; it raises
    ValueError where it cannot. Code is never run: weights_only=True refuses a pickle with any.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device may never end
            raise OSError(None, "a directory or no regular file")
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"checkpoint {path}: there is none, train first (make train)") from None
    except OSError as error:
        raise InputError(f"checkpoint {path}: cannot be read ({error.strerror})") from error
    try:
        state = complete(_load(content))
        _check(state)
    except ValueError as error:
        raise InputError(
            f"checkpoint {path}: damaged, or not written by train.py ({error}); train anew (make "
            "train) or give another --checkpoint"
        ) from error
    return Checkpoint(**state)


# All that the pickle in a checkpoint refers to. Of what else weights_only=True lets pass, bytearray
# may take any amount of memory.
GLOBALS = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage"}
# What zipfile, pickletools and torch.load raise on what is no checkpoint.
DAMAGE = (
    *(zipfile.BadZipFile, pickle.UnpicklingError, EOFError, RuntimeError, NotImplementedError),
    *(LookupError, AttributeError, TypeError, OSError, OverflowError, struct.error),
)


def _load(content):
    """The dict in the bytes of a checkpoint, names to values; ValueError where they are none."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("compressed")
            if damaged := archive.testzip():  # torch.load looks at no checksum
                raise ValueError(f"damaged: {damaged}")
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            for opcode, argument, _ in pickletools.genops(archive.read(name)):
                if opcode.name == "GLOBAL" and argument not in GLOBALS:
                    raise ValueError(f"it refers to {argument}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a pickle that is refused anyway
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except DAMAGE as error:
        raise ValueError("not a file as torch.save writes it") from error
    if not (isinstance(state, dict) and all(isinstance(name, str) for name in state)):
        raise ValueError("no names of values")
    return state


def _check(state):
    """ValueError unless every value of a Checkpoint is there and of its kind; not its settings."""

    def check(holds, problem):
        if not holds:
            raise ValueError(problem)

    later = state.keys() - {field.name for field in fields(Checkpoint)}
    check(not later, f"a later version saves {', '.join(sorted(later))}: get that with git pull")
    for field in fields(Checkpoint):
        value = state.get(field.name)
        check(isinstance(value, field.type), f"its {field.name} is no {field.type.__name__}")
    for name, value in (*state["weights"].items(), *state["optimizer"].items()):
        check(torch.is_tensor(value) and type(name) is str, f"its {name} is not a tensor")
        # One that is not contiguous may be of any size, whatever the size of the file.
        finite = value.is_contiguous() and value.isfinite().all()
        check(finite, f"its {name} has other than finite numbers")
    names, history = state["class_names"], state["history"]
    check([*map(type, names)] == [str] * 10, "its class names are not ten strings")
    check({*map(type, history)} == {dict}, "its history is not a list of dicts")
    epochs = [entry.get("epoch") for entry in history]
    check(epochs == [*range(1, len(history) + 1)], "its history has other epochs")
    check(state["epoch"] == len(history), "its history has another number of epochs")
    for entry in history:
        loss, accuracy, errors = map(entry.get, ("loss", "test_accuracy", "errors"))
        numbers = type(loss) is type(accuracy) is float and 0 <= loss < 1e39 and 0 <= accuracy <= 1
        check(numbers, "its history has a loss or an accuracy that cannot be")
        check(type(errors) is int, "its history has no number of errors")
    check(0 <= state["test_accuracy"] <= 1, "its accuracy is not between 0 and 1")
