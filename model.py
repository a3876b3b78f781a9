"""The network, its evaluation, and how it comes out of a checkpoint."""

import math
from typing import NamedTuple

import torch
from torch import nn

import data
import recipes
from digits import distort
from digits import frame as frames
from plumbing import checkpoint as checkpoints
from plumbing.cli import InputError

EVALUATION_BATCH = 1000  # images: small enough for the caches of a CPU
COVERED = 6  # pixels: wider than a stroke is thick
# Degrees by which a digit in a picture is turned to be read again; chosen on validation images and
# on drawings that strangers made.
TURNS = -20, -10, 0, 10, 20


class MLP(nn.Module):
    """784-128-10: from images [N, 1, 28, 28] in [0, 1] to logits [N, 10]; 101,770 parameters.

    Moments of the images are taken out first, at a level of distort.take_out_moments().
    """

    def __init__(self, moments=0):
        super().__init__()
        self.moments = moments
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(28 * 28, 128), nn.ReLU(), nn.Linear(128, 10)
        )

    def forward(self, images):
        return self.layers(self.preprocess(images))

    def preprocess(self, images):
        """What the layers see of images, float32 [N, 1, 28, 28] both."""
        return distort.take_out_moments(images, self.moments)


class Evaluation(NamedTuple):
    """How a model does on a set of images."""

    errors: int
    logits: torch.Tensor  # float32 [N, 10]

    @property
    def accuracy(self):
        return (len(self.logits) - self.errors) / len(self.logits)

    @property
    def interval(self):
        """The 95 % interval of the accuracy, as if the images were drawn independently.

        E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
        JASA 22 (1927): unlike a standard error it is not zero where there are no errors.
        """
        n, z = len(self.logits), 1.96
        middle = (n - self.errors + z**2 / 2) / (n + z**2)
        half = z / (n + z**2) * math.sqrt(n * self.accuracy * (1 - self.accuracy) + z**2 / 4)
        return max(0.0, middle - half), min(1.0, middle + half)  # but for rounding


@torch.inference_mode()
def evaluate(model, images, labels):
    """The Evaluation of a model on images uint8 [N, 28, 28] and labels int64 [N] on its device."""
    # One tensor for all, because many small ones between large ones that come and go would scatter
    # over the memory and keep it from being used again.
    logits = torch.empty(len(images), 10, device=images.device)
    for part, batch in zip(*(t.split(EVALUATION_BATCH) for t in (logits, images)), strict=True):
        part.copy_(model(data.to_float(batch)))
    return Evaluation((logits.argmax(1) != labels).sum().item(), logits)


@torch.inference_mode()
def judge(model, images, turns=TURNS):
    """The mean of the probabilities, float64 [N, 10], that a model on the CPU gives for images,
    uint8 [N, 28, 28] of NumPy, turned by some degrees.

    So it errs less on digits, and what is no digit is seldom the same one from all sides.
    """
    images = data.to_float(torch.from_numpy(images))
    turned = (distort.warp(images, distort.affine(rotation=float(angle))) for angle in turns)
    return torch.stack([model(each).double().softmax(1) for each in turned]).mean(0).numpy()


@torch.inference_mode()
def activations(model, images):
    """What the hidden layer makes, after ReLU, of images uint8 [N, 28, 28]: float32 [N, 128]."""
    hidden, batches = model.layers[:-1], images.split(EVALUATION_BATCH)
    return torch.cat([hidden(model.preprocess(data.to_float(batch))) for batch in batches])


@torch.inference_mode()
def occlusion_sensitivity(model, images, read, true):
    """Where the ink is for which images uint8 [N, 28, 28] are read as one class and not another.

    read and true: the two classes, int64 [N]. float32 [N, 14, 14]: by how much the first's logit,
    less the other's, falls when COVERED x COVERED pixels around each 2 x 2 are wiped out.
    M. D. Zeiler and R. Fergus, "Visualizing and understanding convolutional networks", 2014.
    """
    distance = (torch.arange(28) - torch.arange(0.5, 28, 2)[:, None]).abs()
    near = (distance < COVERED / 2).float()  # [14, 28]
    kept = 1 - near[:, None, :, None] * near[:, None]  # [14, 14, 28, 28]
    falls = torch.empty(len(images), 14, 14)
    for fall, image, first, second in zip(falls, data.to_float(images), read, true, strict=True):
        logits = model(torch.cat([image[None], (kept * image).view(-1, 1, 28, 28)]))
        lead = logits[:, first] - logits[:, second]
        fall.copy_((lead[0] - lead[1:]).view(14, 14))
    return falls


def load_checkpoint(path):
    """(model on the CPU, Checkpoint); InputError where there is none, or none that is valid."""
    checkpoint = checkpoints.read(path, _complete)
    model = MLP(checkpoint.settings["moments"])
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise InputError(
            f"checkpoint {path}: its weights are not those of a 784-128-10 network"
        ) from error
    return model, checkpoint


def _complete(state):
    """The state in a checkpoint with what those of earlier versions lack, or call otherwise."""
    state = {"optimizer": {}, "frame": frames.MNIST._asdict(), **state}
    frames.check(state["frame"])
    return recipes.complete(state)


def advice(checkpoint):
    """What to say of a network of digits that was not trained for what people write, else None.

    One that was has seen drawn digits, settings["drawn"], beside those of its dataset.
    """
    seen = checkpoint.settings["drawn"] or checkpoint.settings["earlier_epochs"]
    if checkpoint.class_names != data.DIGITS or seen:
        return None
    return (
        "not trained for what people write; the recipe everyday is: make train RECIPE=everyday "
        "CHECKPOINT=everyday.pt, then this with CHECKPOINT=everyday.pt"
    )


def frame_advice(checkpoint, frame):
    """What to say where things lie otherwise in images than a network has learnt them, else None.

    The frame of the images is a dict, as in a Checkpoint.
    """
    if frame == checkpoint.frame:
        return None
    there, here = (
        f"{each['side']} pixels long, their {each['centre']} in the middle"
        for each in (checkpoint.frame, frame)
    )
    return (
        f"the network has learnt things that are {there}; here they are {here}: to have both "
        "alike, train on what predict.py --save-input makes of pictures"
    )


def load_with_test_split(path, dataset=None):
    """(model on the CPU, Checkpoint, test data.Split) of the dataset, or of the checkpoint's own.

    For a network that was trained without some validation images, these are the Split. InputError
    where one of them cannot be used, or where their classes differ.
    """
    model, checkpoint = load_checkpoint(path)
    dataset = dataset or checkpoint.dataset
    things = checkpoint.class_names != data.DIGITS
    test = data.load(dataset, "test", checkpoint.validation(dataset), things)
    if dataset == checkpoint.dataset:
        check_version(path, checkpoint, test)
    check_classes(path, checkpoint, dataset, test)
    return model, checkpoint, test


def check_classes(path, checkpoint, dataset, split):
    """InputError where a data.Split of a dataset has other classes than a Checkpoint."""
    if split.class_names != checkpoint.class_names:
        raise InputError(
            f"dataset {dataset!r} has the classes {', '.join(split.class_names)}, and checkpoint "
            f"{path} was trained on {', '.join(checkpoint.class_names)}"
        )


def check_version(path, checkpoint, split):
    """InputError where an earlier version read a dataset in another way than data.load() does."""
    for name, way in (
        ("inverted", "read dark digits on light paper as they are"),
        ("stratified", "validated on the last training images, which may be of one class"),
    ):
        if checkpoint.settings[name] != getattr(split, name):
            raise InputError(f"checkpoint {path} is of a version that {way}: train anew")


def check_replaceable(path, dataset, reason):
    """InputError where a file holds a run on another dataset, which is not to be replaced."""
    try:
        kept = load_checkpoint(path)[1].dataset
    except InputError:
        return
    if kept != dataset:
        raise InputError(
            f"checkpoint {path} holds a run on {kept}, which is not to be lost: name the dataset "
            f"or another checkpoint (make train DATASET=folder CHECKPOINT=file); {reason}"
        )
