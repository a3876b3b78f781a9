"""What is unusual about an image: its traits, against the training images of its class.

An image shows a trait when it lies beyond the outer TAIL of its class. So a trait is a matter of
degree, and what is common in a class is no trait: a digit that leant to the left may lean to the
right as many do once it is slanted by 30 degrees, and a narrowed 1 is like one of a thinner pen.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from digits.distort import affine, measure_moments, measure_slant, warp

TRAITS = {  # and how a value of it is written
    "slant": "{:+.0f} degrees",
    "proportion": "{:.2f}",
    "thickness": "{:.1f} px",
    "missing ink": "{:.0f} px",
    "extra ink": "{:.0f} px",
    "ink": "{:.0f} px",
    "pieces": "{:.0f}",
}
# Ink and pieces follow from the others (little ink from a thin pen, more pieces from a gap), so
# they are counted but do not stand out by themselves.
NAMED = 5  # the first of TRAITS, which can stand out
ONE_SIDED = ["missing ink", "extra ink", "pieces"]  # too little of them is nothing unusual
TAIL = 0.05  # of a class, at either side
FEWEST = 20  # training images of a class: with fewer there is no outer twentieth
REFERENCES = 1000  # training images of a class to compare with, at most
NEIGHBOURS = 5


class Comparison(NamedTuple):
    """Images against the training images of their class, a column for each of TRAITS."""

    values: torch.Tensor  # float32 [N, 7], in the units of measure()
    shares: torch.Tensor  # float32 [N, 7], of the class that has a lower value
    scores: torch.Tensor  # float32 [N, 7], 0 at the median and 1 where the outer TAIL begins


class Frequency(NamedTuple):
    """How often a trait is seen in the mistakes, compared with the images that are read right."""

    trait: str
    mistakes: float  # share of the mistakes that show it
    correct: float
    ratio: float  # of the two shares, with its interval
    low: float
    high: float


def measure(images):
    """The measures of images uint8 [N, 28, 28], by name, each float32 [N].

    slant: degrees from upright, clockwise; see distort.measure_slant().
    proportion: width over height of the middle 98 % of the ink, once the slant is taken out.
    thickness: pixels; see measure_thickness().
    ink: pixels, a grey one counting in part.
    pieces: of ink that is connected, corners included, and larger than a speck of two pixels.
    """
    ink = images.float() / 255
    slant = measure_slant(measure_moments(ink[:, None])[1]).atan().rad2deg()
    upright = warp(ink[:, None], affine(slant=-slant))[:, 0]
    proportion = _extent(upright.sum(1)) / _extent(upright.sum(2))
    pieces = torch.cat([_pieces(batch) for batch in images.split(1000)])  # bounds the memory
    return {
        "slant": slant,
        "proportion": proportion,
        "thickness": measure_thickness(ink),
        "ink": ink.sum((1, 2)),
        "pieces": pieces.float(),
    }


def measure_thickness(ink):
    """Pixels [N]: the width of the rectangle with the area and the perimeter of ink [N, H, W]."""
    framed = F.pad(ink, (1, 1, 1, 1))
    right, down = framed.diff(dim=2)[:, :-1], framed.diff(dim=1)[:, :, :-1]
    perimeter = torch.hypot(right, down).sum((1, 2))  # the total variation
    return (perimeter - (perimeter**2 - 16 * ink.sum((1, 2))).clamp(min=0).sqrt()) / 4


def _extent(profile):
    """Pixels [N] between the outer 1 % at either end of a profile [N, 28] of ink."""
    sums = profile.cumsum(1)
    first, last = (
        # Sums up how much of each pixel lies before the place that has this share before it.
        ((share * sums[:, -1:] - sums + profile) / profile.clamp(min=1e-6)).clamp(0, 1).sum(1)
        for share in (0.01, 0.99)
    )
    return (last - first).clamp(min=0.5)


def _pieces(images):
    """The number of pieces, int64 [N]."""
    touching = np.zeros((3, 3, 3))
    touching[1] = 1  # around a pixel, but not from one image to the next
    piece, count = ndimage.label(images.numpy() > 127, touching)
    image = np.zeros(count + 1, int)  # in which each piece is
    image[piece] = np.arange(len(images))[:, None, None]
    size = np.bincount(piece.ravel(), minlength=count + 1)
    size[0] = 0  # no piece, but all that is not ink
    return torch.from_numpy(np.bincount(image[size > 2], minlength=len(images)))


def compare(images, labels, references, reference_labels):
    """The Comparison of images uint8 [N, 28, 28], labels int64 [N], with training images.

    Its "missing ink" and "extra ink" are the pixels that an image lacks, or has besides, compared
    with the mean of the NEIGHBOURS nearest to it in its class; it is tried as it is and with the
    median slant and proportion of its class, and the smaller difference counts. An image of a
    class with fewer than FEWEST training images shows no trait.
    """
    values = torch.zeros(len(images), len(TRAITS))
    shares, scores = torch.zeros_like(values), torch.zeros_like(values)
    for label in labels.unique():
        chosen, known = labels == label, references[reference_labels == label]
        if len(known) < FEWEST:
            continue
        known = known[:: -(-len(known) // REFERENCES)]
        own, usual = measure(images[chosen]), measure(known)
        middle = usual["slant"].median(), usual["proportion"].median()
        forms, known_forms = _forms(images[chosen], own, *middle), _forms(known, usual, *middle)
        own |= _differences(forms, known_forms)
        usual |= _differences(known_forms, known_forms)

        own, usual = (torch.stack([m[trait] for trait in TRAITS], 1) for m in (own, usual))
        low, median, high = usual.quantile(torch.tensor([TAIL, 0.5, 1 - TAIL]), 0)
        # The limit of 0.001 is for a class without any variety.
        above = (own - median) / (high - median).clamp(min=1e-3)
        below = (median - own) / (median - low).clamp(min=1e-3)
        below[:, [trait in ONE_SIDED for trait in TRAITS]] = 0
        lower = torch.searchsorted(usual.sort(0).values.T.contiguous(), own.T.contiguous()).T
        values[chosen], shares[chosen] = own, lower / len(known)
        scores[chosen] = torch.maximum(above, below)
    return Comparison(values, shares, scores)


def reshape(images, measures, slant, proportion):
    """Images uint8 [N, 28, 28], of known measures, given a slant and a proportion, tensors [N] or
    []: float32 [N, 1, 28, 28]. The width changes by a factor of two at most.
    """
    width = (proportion / measures["proportion"]).clamp(0.5, 2)
    tan = slant.deg2rad().tan() - width * measures["slant"].deg2rad().tan()
    ink = images[:, None].float() / 255
    return warp(ink, affine(slant=tan.atan().rad2deg(), width=width))


def _forms(images, measures, slant, proportion):
    """Images as they are, and given a slant and a proportion: both float32 [N, 1, 28, 28]."""
    return images[:, None].float() / 255, reshape(images, measures, slant, proportion)


def _differences(forms, reference_forms):
    """Missing and extra ink; what is compared with itself is not its own reference."""
    missing, extra = [], []
    for images, references in zip(forms, reference_forms, strict=True):
        # Half the resolution finds neighbours that are as good, in a quarter of the time.
        a, b = (F.avg_pool2d(ink, 2).flatten(1) for ink in (images, references))
        nearness = a @ b.T - (b**2).sum(1) / 2  # orders as the Euclidean distance does
        if images is references:
            nearness.fill_diagonal_(-math.inf)
        nearest = references[nearness.topk(NEIGHBOURS).indices].mean(1)
        missing.append(_uncovered(nearest, images))
        extra.append(_uncovered(images, nearest))
    return {"missing ink": torch.minimum(*missing), "extra ink": torch.minimum(*extra)}


def _uncovered(ink, cover):
    """Pixels [N] of ink beyond a cover, which is spread by a pixel and made half as dark again.

    So neither a small shift nor a paler pen makes a difference.
    """
    return (ink - 1.5 * F.max_pool2d(cover, 3, 1, 1)).clamp(min=0).sum((1, 2, 3))


def outstanding(comparison):
    """The index in TRAITS, int64 [N], of the trait that stands out most; -1 where none does."""
    score, trait = comparison.scores[:, :NAMED].max(1)
    return torch.where(score > 1, trait, -1)


def describe(comparison, index):
    """What stands out most in the image at an index, in words, or "none"."""
    trait = outstanding(comparison)[index]
    if trait < 0:
        return "none"
    name, value = list(TRAITS)[trait], comparison.values[index, trait].item()
    share = comparison.shares[index, trait].item()
    side, share = ("more", share) if share > 0.5 else ("less", 1 - share)
    return f"{name} {TRAITS[name].format(value)}, {side} than {min(share, 0.99):.0%} of its class"


def frequencies(comparison, wrong):
    """A Frequency for each of TRAITS, and for images in which one of the NAMED stands out.

    wrong, bool [N], marks the mistakes. With a probability of 95 % all intervals hold together
    (Bonferroni), for images that have nothing to do with one another.
    """
    named = outstanding(comparison) >= 0
    shown = torch.cat([comparison.scores > 1, named[:, None]], 1)
    n, m = wrong.sum().item(), (~wrong).sum().item()
    names = [*TRAITS, "one stands out"]
    counts = zip(names, shown[wrong].sum(0).tolist(), shown[~wrong].sum(0).tolist(), strict=True)
    level = 1 - 0.05 / len(names)
    return [
        Frequency(name, a / max(n, 1), b / max(m, 1), *ratio_interval(a, n, b, m, level))
        for name, a, b in counts
    ]


def ratio_interval(a, n, b, m, level=0.95):
    """The ratio of the shares a / n and b / m, and its interval of that level by its logarithm.

    D. Katz, J. Baptista, S. P. Azen and M. C. Pike, "Obtaining confidence intervals for the risk
    ratio in cohort studies", 1978. Where a group has no image with the trait or none without
    it, half an image is added to each of the four counts, so that all is finite.
    """
    if 0 in (a, n - a, b, m - b):
        a, n, b, m = a + 0.5, n + 1, b + 0.5, m + 1
    ratio = (a / n) / (b / m)
    z = NormalDist().inv_cdf((1 + level) / 2)
    factor = math.exp(z * math.sqrt(1 / a - 1 / n + 1 / b - 1 / m))
    return ratio, ratio / factor, ratio * factor
