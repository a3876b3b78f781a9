"""How things lie in the images of a dataset: how large they are, and what is in the middle."""

from typing import NamedTuple

import torch


class Frame(NamedTuple):
    """Where a thing lies in its image."""

    side: int  # pixels: the longer side of the box around its ink
    centre: str  # what is in the middle of the image: the "mass" of the ink, or the "box"


MNIST = Frame(20, "mass")
SAMPLE = 10_000  # images, at most


def measure(images):
    """The Frame of images uint8 [N, 28, 28], of which blank ones do not count.

    It is the median of their sides; what varies less from image to image is in the middle.
    """
    ink = images[:: -(-len(images) // SAMPLE) or 1]  # spread, because classes may come in turn
    ink = ink[ink.amax((1, 2)) > 0].double()
    if not len(ink):
        return MNIST
    pixel = torch.arange(28.0).double()
    sides, spreads = [], {"mass": 0.0, "box": 0.0}
    for profile in (ink.sum(2), ink.sum(1)):  # by row, by column
        inked = (profile > 0).byte()
        first, last = inked.argmax(1), 27 - inked.flip(1).argmax(1)
        sides.append(last - first + 1)
        spreads["mass"] += (profile @ pixel / profile.sum(1)).var(correction=0).item()
        spreads["box"] += ((first + last) / 2).var(correction=0).item()
    side = int(torch.maximum(*sides).median())
    return Frame(side, min(spreads, key=spreads.get))


def check(frame):
    """The values of a Frame, a dict, as they are; ValueError where they cannot be."""
    frames = [Frame(side, c)._asdict() for side in range(1, 29) for c in ("mass", "box")]
    # Types first: a tensor, of a damaged checkpoint, is not to be compared.
    types = [type(value) for value in frame.values()] if isinstance(frame, dict) else []
    if types != [int, str] or frame not in frames:
        raise ValueError("its frame is not one of 1 to 28 pixels about the mass or the box")
    return frame
