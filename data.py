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
POOL = 5  # drawn digits for each one of an epoch, from which these are chosen


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
    """One split of a dataset; `pool` drawn digits may stand at its end."""

    images: torch.Tensor  # uint8 [N, 28, 28], light on dark
    labels: torch.Tensor  # int64 [N], 0 to 9
    class_names: list  # ten strings
    inverted: bool = False  # whether the images are dark on light in the dataset
    name: str = "train"  # or "test", or "validation", which stands in for it
    pool: int = 0  # POOL times as many as an epoch takes of them

    @property
    def own(self):
        """The images of the dataset, without the pool."""
        return self.images[: len(self.images) - self.pool]

    @property
    def epoch(self):
        """The number of images of an epoch."""
        return len(self.own) + self.pool // POOL

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
        name = "validation" if split == "test" else split
        return whole._replace(images=whole.images[part], labels=whole.labels[part], name=name)
    if dataset == "synthetic":
        return Split(*synthetic.generate(*synthetic.SPLITS[split]), DIGITS, name=split)
    known = KNOWN_MNIST if dataset == MNIST else None
    images, labels, class_names, inverted = sources.load(dataset, split, known)
    unused = [f"output {index}" for index in range(len(class_names), 10)]
    names = class_names + unused if class_names else DIGITS
    return Split(torch.from_numpy(images), torch.from_numpy(labels), names, inverted, split)


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
    """A training Split of digits with a pool from which an epoch takes `count` drawn digits."""
    if not count:
        return split
    if split.class_names != DIGITS:
        raise InputError(
            f"dataset {dataset!r} is not of digits, so no drawn digits can be added: choose "
            "another recipe (RECIPE=accurate, without --drawn)"
        )
    drawn = synthetic.generate_pool(POOL * count)
    images, labels = (torch.cat(pair) for pair in zip(split[:2], drawn, strict=True))
    return split._replace(images=images, labels=labels, pool=POOL * count)


def to_float(images):
    """uint8 [N, 28, 28] to float32 [N, 1, 28, 28] in [0, 1], as torchvision's ToTensor does."""
    return images.unsqueeze(1).float().div_(255)


@dataclass
class Batches:
    """One epoch of shuffled and distorted batches; it stands where a DataLoader would.

    All that is random is drawn on the CPU from the seed in recipes.Settings and the epoch alone, so
    it is the same on every device and needs no saved state. Yields float32 [B, 1, 28, 28] in [0, 1]
    and int64 [B]; the last batch may be smaller.
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
        distortions = distort.distortions(len(order), size, self.settings, generator, images.device)
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
