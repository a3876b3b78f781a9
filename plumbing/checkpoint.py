"""The checkpoint: what a training run leaves, in a file that explains itself and runs no code."""

import io
import os
import pickletools
import platform
import stat
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
    settings: dict  # "recipe", its name, and its numbers by name
    seed: int
    epoch: int
    history: list  # a dict per epoch: epoch, loss, test_accuracy, errors, seconds
    test_accuracy: float
    optimizer: dict  # of an unfinished run: what its optimizer knows, tensors by name
    versions: dict

    @property
    def summary(self):
        count = self.validation(self.dataset)
        without = f" without its last {count:,} training images" if count else ""
        return (
            f"{self.epoch} epochs of recipe {self.settings['recipe']}, seed {self.seed}, "
            f"on {self.dataset}{without}{', slant taken out' * self.settings['deslant']}"
            f"{', unfinished' if self.optimizer else ''}"
        )

    @property
    def judged_by(self):
        """The images that it was judged by after each epoch: "validation" or "test"."""
        return "validation" if self.settings["validation"] else "test"

    def validation(self, dataset):
        """How many of the last training images of a dataset it was judged by, in place of test."""
        return self.settings["validation"] if dataset == self.dataset else 0


def snapshot(model, optimizer, history, **facts):
    """The Checkpoint of a run as it is now; optimizer is the Adam of an unfinished one, else None.

    facts are the dataset, the class_names, the frame, the settings and the seed.
    """
    return Checkpoint(
        weights={name: _copy_to_cpu(tensor) for name, tensor in model.state_dict().items()},
        epoch=len(history),
        history=list(history),
        test_accuracy=history[-1]["test_accuracy"],
        optimizer={n: _copy_to_cpu(t) for n, t in optimizer.tensors()} if optimizer else {},
        versions={"python": platform.python_version(), "torch": str(torch.__version__)},
        **facts,
    )


def _copy_to_cpu(tensor):
    return tensor.detach().to("cpu", copy=True)


def save(path, checkpoint):
    """Write a Checkpoint, safe from a power cut once it is there; OSError leaves what was there."""
    # By way of memory, because torch.save reports a full disk as anything but an OSError.
    buffer = io.BytesIO()
    torch.save(asdict(checkpoint), buffer)
    with replacing(path) as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def read(path):
    """The Checkpoint in a file; InputError where it is missing or no valid checkpoint.

    Code is never run: weights_only=True refuses a pickle that holds any.
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
        _check_archive(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a pickle that is refused anyway
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if "recipe" in state:
            state = _upgrade(**state)
        names = {field.name for field in fields(Checkpoint)}
        if names < set(state):
            later = ", ".join(set(state) - names)
            raise InputError(f"written by a later version of this project, which saves {later}")
        checkpoint = Checkpoint(**state | {"settings": EARLIER | state["settings"]})
        _check_values(checkpoint)
    except InputError as error:
        raise InputError(f"checkpoint {path}: {error}; get that version (git pull)") from None
    except Exception as error:  # What is no checkpoint fails in many ways.
        raise InputError(
            f"checkpoint {path}: damaged, or not written by train.py; train anew (make train) "
            "or give another --checkpoint"
        ) from error
    return checkpoint


# Settings that earlier versions did not have, as what they did.
EARLIER = {"validation": 0, "turned": 0, "threads": 0, "deslant": 0}


def _upgrade(recipe, optimizer=None, **state):
    """The values of a Checkpoint from those of earlier versions, which called its settings recipe.

    At first that held a name and its distortion apart, and there was no optimizer to resume with.
    """
    settings = {"drawn": 0, "beta1": 0.9, "beta2": 0.999, **recipe}
    settings |= settings.pop("distortion", {})
    settings.setdefault("recipe", settings.pop("name", None))
    frame = {"side": 20, "centre": "mass"}  # MNIST's
    return {"settings": settings, "frame": frame, "optimizer": optimizer or {}, **state}


def keep_others(path, dataset, reason):
    """InputError where the file holds a run on another dataset, which is not to be replaced."""
    try:
        kept = read(path).dataset
    except InputError:
        return
    if kept != dataset:
        raise InputError(
            f"checkpoint {path} holds a run on {kept}, which is not to be lost: name the dataset "
            f"or another checkpoint (make train DATASET=folder CHECKPOINT=file); {reason}"
        )


# All that the pickle in a checkpoint refers to. Of what else weights_only=True lets pass, bytearray
# may take any amount of memory.
GLOBALS = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch FloatStorage"}


def _check_archive(content):
    """An error unless it is a zip file as torch.save writes it: undamaged, not compressed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("compressed")
        if damaged := archive.testzip():  # torch.load looks at no checksum
            raise ValueError(damaged)
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        for opcode, argument, _ in pickletools.genops(archive.read(name)):
            if opcode.name == "GLOBAL" and argument not in GLOBALS:
                raise ValueError(argument)


def _check_values(checkpoint):
    """An error unless every value of a Checkpoint is of its kind."""

    def check(holds, problem):
        if not holds:
            raise ValueError(problem)

    for field in fields(Checkpoint):
        value = getattr(checkpoint, field.name)
        check(isinstance(value, field.type), f"{field.name} is of another type")
    side, centre = checkpoint.frame["side"], checkpoint.frame["centre"]
    check(len(checkpoint.frame) == 2 and type(side) is int and 1 <= side <= 28, "no such frame")
    check(centre in ("mass", "box"), "the frame has no such centre")
    names, settings, history = checkpoint.class_names, checkpoint.settings, checkpoint.history
    check([type(name) for name in names] == [str] * 10, "the class names are not ten strings")
    check(type(settings["recipe"]) is str, "the recipe has no name")
    plain = {type(value) for value in settings.values()} <= {str, int, float}
    check(plain, "the settings are not plain values")
    check(type(settings["epochs"]) is int and 1 <= settings["epochs"] <= 1e9, "no such epochs")
    check(0 < settings["learning_rate"] <= 1e38, "no such learning rate")
    for name, highest in ("validation", 1e9), ("turned", 1), ("threads", 1e9), ("deslant", 1):
        check(type(settings[name]) is int and 0 <= settings[name] <= highest, f"no such {name}")
    check({type(entry) for entry in history} == {dict}, "the history is not a list of dicts")
    epochs = [entry["epoch"] for entry in history]
    check(checkpoint.epoch == len(epochs), "the history has another number of epochs")
    check(epochs == [*range(1, len(epochs) + 1)], "the history has other epochs")
    for entry in history:
        loss, accuracy = entry["loss"], entry["test_accuracy"]
        numbers = type(loss) is type(accuracy) is float and 0 <= loss < 1e39 and 0 <= accuracy <= 1
        check(numbers, "the history has a loss or an accuracy that cannot be")
    check(type(history[-1]["errors"]) is int, "the number of errors is not a whole number")
    check(0 <= checkpoint.test_accuracy <= 1, "the accuracy is not between 0 and 1")
