"""From the name of a dataset to tensors, and from tensors to batches."""

import functools
import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from digits import distort, synthetic
from digits import nothing as no_digit
from plumbing import hub, sources
from plumbing.cli import InputError, sentence

MNIST = "ylecun/mnist"
DIGITS = list("0123456789")  # the names of the classes
WORDS = "zero one two three four five six seven eight nine".split()
HELD_OUT = 7  # one of them is for validation where a dataset has no test images, as in MNIST
POOL = 3  # drawn images for each one of an epoch, from which these are chosen


KNOWN_MNIST = hub.Known(
    checksums={  # SHA-256 of the decoded images and labels: uint8, C order
        "train": (
            "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        ),
        "test": (
            "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
            "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
        ),
    },
    aliases=["mnist"],  # as it was called when it had no owner
    mirrors=["https://ossci-datasets.s3.amazonaws.com/mnist/"],  # PyTorch's own
    files=[
        f"{s}-{kind}-ubyte.gz" for s in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ],
)


class Split(NamedTuple):
    """One split of a dataset; a pool of drawn images may stand at its end."""

    images: torch.Tensor  # uint8 [N, 28, 28], light on dark
    labels: torch.Tensor  # int64 [N], 0 to 9; with images of no digit float32 [N, 10]
    class_names: list  # ten strings
    inverted: bool = False  # whether the images are dark on light in the dataset
    name: str = "train"  # or "test", or "validation", which stands in for it
    scaled: bool = False  # whether its pixels are from 0 to 1
    validation: int = 0  # the number of training images that were held out, if any,
    stratified: bool = False  # and whether they were drawn from each class
    pool: int = 0  # POOL times as many as an epoch takes of them

    @property
    def classes(self):
        """What the classes are, in words."""
        if self.class_names == DIGITS:
            return "0 to 9, taken for digits (or else: --things)"
        return ", ".join(self.class_names)

    @property
    def own(self):
        """The images of the dataset, without the pool."""
        return self.images[: len(self.images) - self.pool]

    @property
    def checksum(self):
        """A CRC-32 of the images and their labels."""
        return zlib.crc32(self.labels.numpy(), zlib.crc32(self.own.numpy()))

    @property
    def epoch(self):
        """The number of images of an epoch."""
        return len(self.own) + self.pool // POOL

    def to(self, device):
        return self._replace(images=self.images.to(device), labels=self.labels.to(device))


def load(dataset, split, validation=0, things=False):
    """The split ("train" or "test") of a dataset, as a Split on the CPU.

    `dataset` is "synthetic" for drawn digits, a local folder or file, or the id of a dataset on the
    Hugging Face Hub. `validation` training images are left out, and stand in for the test images:
    see hold_out(). Raises InputError for a dataset that is not there or does not hold 28 x 28 grey
    images of at most ten classes, or has no more training images than that.

    Classes without names, and those whose names all stand for digits, are taken for digits and
    named so, unless they are said to be `things`.
    """
    if validation:
        whole = load(dataset, "train", things=things)
        if validation >= len(whole.images):
            raise InputError(
                f"{validation} validation images leave none of the {len(whole.images)} training "
                f"images of dataset {dataset!r}"
            )
        stratified = sha256(whole.labels) != KNOWN_MNIST.checksums["train"][1]
        chosen = hold_out(whole.labels, validation, stratified)
        name, chosen = ("validation", chosen) if split == "test" else (split, ~chosen)
        images, labels = whole.images[chosen], whole.labels[chosen]
        facts = {"name": name, "validation": validation, "stratified": stratified}
        return whole._replace(images=images, labels=labels, **facts)
    if dataset == "synthetic":
        return Split(*synthetic.generate(*synthetic.SPLITS[split]), DIGITS, name=split)
    known = KNOWN_MNIST if dataset == MNIST else None
    images, labels, class_names, inverted, scaled, name = sources.load(dataset, split, known)
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    numbers = None if things else read_digits(class_names or DIGITS)
    if numbers:
        return Split(images, torch.tensor(numbers)[labels], DIGITS, inverted, name, scaled)
    named = class_names and class_names != DIGITS
    names = class_names if named else [f"class {index}" for index in range(10)]
    names = names + [f"output {index}" for index in range(len(names), 10)]
    return Split(images, labels, names, inverted, name, scaled)


def read_digits(class_names):
    """The digits that names of classes stand for ("3", "three", "3 - three"), a list, or None."""
    digits = []
    for name in class_names:
        words = set(re.findall("[a-z]+|[0-9]+", name.lower())) - {"digit", "number"}
        found = {DIGITS.index(word) for word in words & {*DIGITS}}
        found |= {WORDS.index(word) for word in words & {*WORDS}}
        if len(found) != 1 or not words <= {*DIGITS, *WORDS}:
            return None
        digits += found
    return digits if len(set(digits)) == len(digits) else None


def sha256(labels):
    return hashlib.sha256(labels.byte().numpy()).hexdigest()


def hold_out(labels, count, stratified):
    """Which images of labels int64 [N] are for validation, bool [N]: always the same `count`.

    Where they are stratified each class gives its share, drawn with a fixed seed; else they are the
    last ones: those of MNIST, on which the recipes were chosen.
    """
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    order = order[labels[order].argsort(stable=True)]  # class by class
    at_equal_distances = order[torch.arange(count) * len(labels) // count]
    chosen[at_equal_distances if stratified else slice(-count, None)] = True
    return chosen


def load_splits(dataset=None, validation=0, things=False):
    """(name of the dataset, its training Split, its test Split, a warning or None); see load().

    Without a name it is MNIST, from the first source that has it (hub.load), or else drawn digits,
    and the warning says why. A dataset that is named is never replaced. Of one without test images
    one in HELD_OUT training images is held out for validation.
    """

    def both(name, count):
        return [load(name, split, count, things) for split in ("train", "test")]

    name, warning = MNIST if dataset is None else dataset, None
    try:
        splits = both(name, validation)
    except sources.MissingSplit:
        held_out = len(load(name, "train").images) // HELD_OUT
        if not held_out:
            raise
        splits = both(name, held_out)
    except hub.Unreachable as error:
        if dataset is not None:
            raise
        name, warning = "synthetic", f"drawn digits in place of MNIST: {sentence(error)}"
        splits = both(name, validation)
    return name, *splits, warning


def add_drawn(split, drawn, nothing, dataset):
    """A training Split of digits with a pool from which an epoch takes some images.

    These are `drawn` digits and images of `nothing`, of no digit, so many of each on average. Where
    there are any of the latter labels are probabilities: theirs are the same for all ten digits.
    """
    if not drawn + nothing:
        return split
    if split.class_names != DIGITS:
        raise InputError(
            f"dataset {dataset!r} is not of digits, so no drawn digits can be added: choose "
            "another recipe (RECIPE=accurate, without --drawn)"
        )
    pool = synthetic.generate_pool(POOL * drawn)
    images, labels = (torch.cat(pair) for pair in zip(split[:2], pool, strict=True))
    if nothing:
        images = torch.cat([images, no_digit.generate(POOL * nothing)])
        uniform = torch.full((POOL * nothing, 10), 0.1)
        labels = torch.cat([F.one_hot(labels, 10).float(), uniform])
    return split._replace(images=images, labels=labels, pool=POOL * (drawn + nothing))


def to_float(images):
    """uint8 [N, 28, 28] to float32 [N, 1, 28, 28] in [0, 1], as torchvision's ToTensor does."""
    return images.unsqueeze(1).float().div_(255)


@functools.lru_cache(maxsize=1)  # They are the same in each epoch.
def own_moments(images):
    """distort.measure_moments() of images uint8 [N, 28, 28], in float32."""
    # One tensor for all, because many small ones between large ones would scatter over the memory.
    moments = [torch.empty(len(images), *shape, device=images.device) for shape in ((2,), (2, 2))]
    for *parts, some in zip(*(tensor.split(1000) for tensor in (*moments, images)), strict=True):
        for part, measured in zip(parts, distort.measure_moments(to_float(some)), strict=True):
            part.copy_(measured)
    return moments


@dataclass
class Batches:
    """One epoch of shuffled and distorted batches; it stands where a DataLoader would.

    All that is random is drawn on the CPU from the seed in recipes.Settings and the epoch alone, so
    it is the same on every device and needs no saved state. Yields what the layers of a network
    see, with the moments taken out, float32 [B, 1, 28, 28] in [0, 1], and int64 [B]; the last batch
    may be smaller.
    """

    split: Split
    settings: object  # recipes.Settings
    epoch: int

    def __len__(self):
        return -(-self.split.epoch // self.settings.batch_size)

    def __iter__(self):
        images, labels, size = self.split.images, self.split.labels, self.settings.batch_size
        # A seed sequence mixes both numbers well: neighbouring seeds share no epoch's order.
        (state,) = np.random.SeedSequence((self.settings.seed, self.epoch)).generate_state(1)
        generator = torch.Generator().manual_seed(int(state))
        order = self.order(generator).to(images.device)
        moments = self.settings.moments and [part[order] for part in own_moments(images)]
        distortions = distort.distortions(
            len(order), size, self.settings, generator, images.device, moments
        )
        for indices, distorted in zip(order.split(size), distortions, strict=True):
            # index_select is up to 30 times faster than images[indices] on a CPU.
            batch = to_float(images.index_select(0, indices))
            yield distorted(batch), labels.index_select(0, indices)

    def order(self, generator):
        """The indices of the images of the epoch, int64: all but the pool, and some of that."""
        count, pool = self.split.epoch, self.split.pool
        order = torch.randperm(count, generator=generator)
        if not pool:
            return order
        own = len(self.split.own)
        chosen = torch.randperm(pool, generator=generator)[: count - own]
        return torch.cat([torch.arange(own), own + chosen])[order]
