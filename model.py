"""The network, its evaluation and its checkpoint."""

import io
import pickletools
import platform
import stat
import warnings
import zipfile
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

import torch
from torch import nn

import data
from cli import InputError
from files import replacing

EVALUATION_BATCH = 1000  # images: small enough for the caches of a CPU


class MLP(nn.Module):
    """784-128-10: from images [N, 1, 28, 28] in [0, 1] to logits [N, 10]; 101,770 parameters."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(28 * 28, 128), nn.ReLU(), nn.Linear(128, 10)
        )

    def forward(self, images):
        return self.layers(images)


class Evaluation(NamedTuple):
    """How a model does on a set of images."""

    errors: int
    logits: torch.Tensor  # float32 [N, 10]

    @property
    def accuracy(self):
        return (len(self.logits) - self.errors) / len(self.logits)


@torch.inference_mode()
def evaluate(model, images, labels):
    """The Evaluation of a model on images uint8 [N, 28, 28] and labels int64 [N] on its device."""
    # One tensor for all, because many small ones between large ones that come and go would scatter
    # over the memory and keep it from being used again.
    logits = torch.empty(len(images), 10, device=images.device)
    for part, batch in zip(*(t.split(EVALUATION_BATCH) for t in (logits, images)), strict=True):
        part.copy_(model(data.to_float(batch)))
    return Evaluation((logits.argmax(1) != labels).sum().item(), logits)


@dataclass
class Checkpoint:
    """What a training run leaves: plain tensors and plain values, enough to explain itself."""

    weights: dict  # the state_dict of an MLP, on the CPU
    dataset: str
    class_names: list  # ten strings
    recipe: dict  # "recipe", its name, and the settings by name
    seed: int
    epoch: int
    history: list  # a dict per epoch: epoch, loss, test_accuracy, errors, seconds
    test_accuracy: float
    optimizer: dict  # of an unfinished run: what its optimizer knows, tensors by name
    versions: dict

    @property
    def summary(self):
        return (
            f"{self.epoch} epochs of recipe {self.recipe['recipe']}, seed {self.seed}, "
            f"on {self.dataset}{', unfinished' if self.optimizer else ''}"
        )


def snapshot(model, **facts):
    """The Checkpoint of a model as it is now."""
    weights = {name: copy_to_cpu(tensor) for name, tensor in model.state_dict().items()}
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    return Checkpoint(weights=weights, versions=versions, **facts)


def copy_to_cpu(tensor):
    return tensor.detach().to("cpu", copy=True)


def save_checkpoint(path, checkpoint):
    """Write a Checkpoint; OSError leaves what stood at path untouched."""
    # By way of memory, because torch.save reports a full disk as anything but an OSError.
    buffer = io.BytesIO()
    torch.save(asdict(checkpoint), buffer)
    with replacing(path) as file:
        file.write(buffer.getbuffer())


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


def load_checkpoint(path):
    """(model on the CPU, Checkpoint); InputError where the file is missing or anything else.

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
        checkpoint = Checkpoint(**state)
        if not all(isinstance(getattr(checkpoint, f.name), f.type) for f in fields(Checkpoint)):
            raise TypeError("a value of another type")
        if [type(name) for name in checkpoint.class_names] != [str] * 10:
            raise TypeError("class names other than ten strings")
        if type(checkpoint.recipe["recipe"]) is not str:
            raise TypeError("a recipe without a name")
        if not {type(value) for value in checkpoint.recipe.values()} <= {str, int, float}:
            raise TypeError("settings other than plain values")
        if {type(entry) for entry in checkpoint.history} != {dict}:
            raise TypeError("a history of anything but epochs")
        epochs = [entry["epoch"] for entry in checkpoint.history]
        if checkpoint.epoch != len(epochs) or epochs != [*range(1, len(epochs) + 1)]:
            raise ValueError("a history of other epochs")
        if type(checkpoint.history[-1]["errors"]) is not int:
            raise TypeError("a number of errors that is none")
        if not 0 <= checkpoint.test_accuracy <= 1:
            raise ValueError("an accuracy that is none")
    except Exception as error:  # What is no checkpoint fails in many ways.
        raise InputError(
            f"checkpoint {path}: damaged, or not written by train.py; train anew (make train) "
            "or give another --checkpoint"
        ) from error
    model = MLP()
    try:
        model.load_state_dict(checkpoint.weights)
    except Exception as error:
        raise InputError(
            f"checkpoint {path}: its weights are not those of a 784-128-10 network"
        ) from error
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError(f"checkpoint {path}: some of its weights are not finite numbers")
    return model, checkpoint


def load_with_test_split(path, dataset=None):
    """(model on the CPU, Checkpoint, test data.Split) of the dataset, or of the checkpoint's own.

    InputError where one of them cannot be used, or where their classes differ.
    """
    model, checkpoint = load_checkpoint(path)
    dataset = dataset or checkpoint.dataset
    test = data.load(dataset, "test")
    if test.class_names != checkpoint.class_names:
        raise InputError(
            f"dataset {dataset!r} has the classes {', '.join(test.class_names)}, and checkpoint "
            f"{path} was trained on {', '.join(checkpoint.class_names)}"
        )
    return model, checkpoint, test
