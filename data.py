"""From the name of a dataset to tensors, and from tensors to batches."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from digits import distort, synthetic
from plumbing import hub, sources
from plumbing.cli import InputError, sentence

MNIST = "ylecun/mnist"
DIGITS = list("0123456789")  # the names of the classes
# SHA-256 of MNIST's decoded images and labels: uint8, C order.
MNIST_SHA256 = {
    "train": (
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    ),
    "test": (
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
}
BLOCK = 2**16  # images whose distortions are drawn at once
POOL = 5  # drawn digits for each one of an epoch, from which these are chosen


class Split(NamedTuple):
    """One split of a dataset."""

    images: torch.Tensor  # uint8 [N, 28, 28]
    labels: torch.Tensor  # int64 [N], 0 to 9
    class_names: list  # ten strings
    turned: bool = False  # whether the images, light on dark here, are dark on light in the dataset

    def to(self, device):
        return self._replace(images=self.images.to(device), labels=self.labels.to(device))


def load(dataset, split, validation=0):
    """The split ("train" or "test") of a dataset, as a Split on the CPU.

    `dataset` is "synthetic" for drawn digits, a local folder or file, or the id of a dataset on the
    Hugging Face Hub. The last `validation` training images are left out, and stand in for the test
    images. Raises InputError for a dataset that is not there or does not hold 28 x 28 grey images
    of at most ten classes, or has no more training images than that.
    """
    if validation:
        whole = load(dataset, "train")
        if validation >= len(whole.images):
            raise InputError(
                f"{validation} validation images leave none of the {len(whole.images)} training "
                f"images of dataset {dataset!r}"
            )
        part = slice(-validation, None) if split == "test" else slice(-validation)
        return whole._replace(images=whole.images[part], labels=whole.labels[part])
    if dataset == "synthetic":
        return Split(*synthetic.generate(*synthetic.SPLITS[split]), DIGITS)
    known = MNIST_SHA256 if dataset == MNIST else None
    images, labels, class_names, inverted = sources.load(dataset, split, known)
    unused = [f"output {index}" for index in range(len(class_names), 10)]
    names = class_names + unused if class_names else DIGITS
    return Split(torch.from_numpy(images), torch.from_numpy(labels), names, inverted)


def load_splits(dataset=None, validation=0):
    """(name of the dataset, its training Split, its test Split, a warning or None); see load().

    Without a name it is MNIST, from the first source that has it (hub.load), or else drawn digits,
    and the warning says why. A dataset that is named is never replaced.
    """
    warning = None
    if dataset is None:
        try:
            return MNIST, *(load(MNIST, split, validation) for split in ("train", "test")), None
        except hub.Unreachable as error:
            dataset, warning = "synthetic", f"drawn digits in place of MNIST: {sentence(error)}"
    return dataset, *(load(dataset, split, validation) for split in ("train", "test")), warning


def add_drawn(split, count, dataset):
    """A training Split of digits with POOL times as many drawn digits behind them as told."""
    if not count:
        return split
    if split.class_names != DIGITS:
        raise InputError(
            f"dataset {dataset!r} is not of digits, so no drawn digits can be added: choose "
            "another recipe (RECIPE=accurate, without --drawn)"
        )
    # Half of them in ways of MNIST's writers: on the validation images that is 0.09 points better
    # than all ways alike (means of three seeds), on strangers' drawings as good.
    others = POOL * count // 2
    parts = [
        (split.images, split.labels),
        synthetic.generate(POOL * count - others, synthetic.POOL_SEED),
        synthetic.generate(others, synthetic.POOL_SEED + 1, synthetic.OTHER_WAYS),
    ]
    images, labels = map(torch.cat, zip(*parts, strict=True))
    return split._replace(images=images, labels=labels)


def to_float(images):
    """uint8 [N, 28, 28] to float32 [N, 1, 28, 28] in [0, 1], as torchvision's ToTensor does."""
    return images.unsqueeze(1).float().div_(255)


@dataclass
class Batches:
    """One epoch of shuffled and distorted batches; it stands where a DataLoader would.

    All that is random is drawn on the CPU from (seed, epoch) alone, so it is the same on every
    device and needs no saved state. Yields float32 [B, 1, 28, 28] in [0, 1] and int64 [B]; the last
    batch may be smaller.
    """

    images: torch.Tensor  # uint8 [N, 28, 28]
    labels: torch.Tensor  # int64 [N]
    batch_size: int
    distortion: distort.Distortion
    seed: int
    epoch: int
    drawn: int = 0  # of an epoch, out of POOL times as many at the end of the images

    def __len__(self):
        return -(-self.count // self.batch_size)

    @property
    def count(self):
        """The images of an epoch."""
        return len(self.images) - (POOL - 1) * self.drawn

    def __iter__(self):
        # An order of all images, in blocks; for each block random distortions; for each batch of it
        # the images, as floats and distorted, and their labels.
        #
        # A seed sequence mixes both numbers well: neighbouring seeds share no epoch's order.
        (state,) = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)
        generator = torch.Generator().manual_seed(int(state))
        order = torch.randperm(self.count, generator=generator)
        if self.drawn:
            pool = torch.randperm(POOL * self.drawn, generator=generator)[: self.drawn]
            first = self.count - self.drawn
            order = torch.cat([torch.arange(first), first + pool])[order]
        # What is random is drawn for many batches at once, which is faster, but not for all of a
        # large dataset, which would take more memory than its images.
        for indices in order.split(max(1, BLOCK // self.batch_size) * self.batch_size):
            block = [indices]
            if self.distortion != distort.Distortion():
                drawn = distort.draw_parameters(len(indices), self.distortion, generator)
                block += [tensor for tensor in drawn if tensor is not None]  # None comes last
            batches = (tensor.to(self.images.device).split(self.batch_size) for tensor in block)
            for index, *parameters in zip(*batches, strict=True):
                # index_select is up to 30 times faster than images[index] on a CPU.
                images = to_float(self.images.index_select(0, index))
                if parameters:
                    # The images come in random order, so which of them these are is random, too.
                    patches = round(self.distortion.occlusion * len(index))
                    strokes = round(self.distortion.extra_writing * len(index))
                    parameters = distort.Parameters(*parameters)
                    images = distort.apply(images, parameters, patches, strokes)
                yield images, self.labels.index_select(0, index)
