"""What is no digit but lies in an image as a digit does: parts of digits, digits that touch, digits
in boxes, blots, letters, signs and scribbles.

A network that has learnt to find all ten digits alike in these has a way to say that something is
no digit, and says so of other things, too: D. Hendrycks, M. Mazeika and T. Dietterich, "Deep
anomaly detection with outlier exposure" (2019). A bar is a 1 and a ring is a 0: no part is one.
"""

import math

import torch
import torch.nn.functional as F

from digits import distort, synthetic

SEED = 4
BLOCK = 1000  # images that are made at once, which bounds the memory
NARROW = 2.5  # pixels squared: what varies less across its length is a bar
CLOSED = torch.tensor([0, 6, 8, 9])  # digits with rings
MATERIAL = 10_000  # digits, at most, of which the images are made
SCRIBBLES = range(6, 15)  # points through which they go
SIGNS, BOXES = synthetic.parse(synthetic.SIGNS), synthetic.parse(synthetic.BOXES)


def uniform(generator, low, high, *shape):
    """BLOCK random numbers or tensors, float32 [BLOCK, *shape]."""
    return low + (high - low) * torch.rand(BLOCK, *shape, generator=generator)


def extent(profile):
    """Where ink starts and ends in profiles [N, 28], pixels from the middle: float32 [N] both."""
    inked = (profile > 0.05).byte()
    return inked.argmax(1) - 14.0, 14.0 - inked.flip(1).argmax(1)


def fit(ink):
    """Ink [N, 1, 28, 28] as MNIST was made: 20 pixels long, its centre of mass in the middle."""
    middle, _ = distort.measure_moments(ink)
    (left, right), (top, bottom) = extent(ink.amax((1, 2))), extent(ink.amax((1, 3)))
    scale = torch.maximum(right - left, bottom - top)[:, None, None] / 20
    return distort.warp(ink, torch.cat([scale * torch.eye(2), middle[..., None]], 2))


def cut(ink, labels, generator):
    """The parts of digits on one side of a line; fewer than the digits, without those like one."""
    angle = uniform(generator, -math.pi, math.pi, 1, 1, 1)
    across = distort.PIXEL * angle.cos() + distort.PIXEL[:, None] * angle.sin()
    part = ink * (across - uniform(generator, -5, 5, 1, 1, 1) + 0.5).clamp(0, 1)
    share = part.sum((1, 2, 3)) / ink.sum((1, 2, 3))
    variance = torch.linalg.eigvalsh(distort.measure_moments(part)[1])[:, 0]
    ring = torch.isin(labels, CLOSED) & (angle.sin().abs() > 0.6).flatten() | (labels == 8)
    return fit(part[(share > 0.2) & (share < 0.6) & (variance > NARROW) & ~ring])


def join(ink, _, generator):
    """Neighbours that touch, or nearly do; of two in five the left one is cut off, or the right."""
    halves = []
    for side, digit in enumerate((ink, ink.roll(1, 0))):
        low, high = extent(digit.amax((1, 2)))
        scale, gap = uniform(generator, 0.42, 0.6), uniform(generator, -0.6, 0.8)
        right = gap - scale * low if side else -gap - scale * high
        matrices = distort.affine(
            width=scale, height=scale, right=right, down=uniform(generator, -1.5, 1.5)
        )
        halves.append(distort.warp(digit, matrices))
    ink = torch.maximum(*halves)
    for outwards in -distort.PIXEL, distort.PIXEL:  # at most ten pixels or so
        whole = uniform(generator, 0, 1, 1, 1, 1) >= 0.4
        ink = ink * (whole | (outwards < uniform(generator, 2, 6, 1, 1, 1)))
    return fit(ink)


def box(ink, _, generator):
    """Digits in boxes, or beside what is left of these."""
    scale = uniform(generator, 0.4, 0.8)
    matrices = distort.affine(
        width=scale, height=scale, right=uniform(generator, -2, 2), down=uniform(generator, -2, 2)
    )
    each = -(-len(ink) // len(BOXES))
    boxes = torch.cat([synthetic.write(strokes, each, generator) for strokes in BOXES])
    return distort.warp(ink, matrices).maximum(boxes[: len(ink), None] / 255)


def blot(ink, _, generator):
    """Filled shapes, of one shade or of several; of the digits only the number is used."""
    noise = torch.randn(len(ink), 3, 5, 5, generator=generator)
    shape, shade, patches = F.interpolate(noise, size=28, mode="bicubic").split(1, 1)
    across, down = (uniform(generator, 4, 10, 1, 1, 1) for _ in range(2))  # radii in pixels
    distance = (distort.PIXEL / across) ** 2 + (distort.PIXEL[:, None] / down) ** 2
    ink = (4 * (shape + 1.5 - distance)).clamp(0, 1)
    contrast = uniform(generator, 0, 0.4, 1, 1, 1)
    blots = fit(ink * (0.7 + contrast * (shade + patches.sign() / 2)).clamp(0.1, 1))
    return blots[torch.linalg.eigvalsh(distort.measure_moments(blots)[1])[:, 0] > 2 * NARROW]


def write(count, generator):
    """Images uint8 [count, 28, 28] of letters, signs, boxes and, about a third, scribbles."""
    ways = SIGNS + BOXES
    each = -(-count // (len(ways) + 3 * len(SCRIBBLES)))
    for points in SCRIBBLES:
        smooth, corners, parted = 2 * torch.rand(3, each, points, 2, generator=generator) - 1
        ways = [*ways, [smooth], [corners.repeat_interleave(2, 1)], parted.chunk(2, 1)]
    images = torch.cat([synthetic.write(strokes, each, generator) for strokes in ways])
    return images[torch.randperm(len(images), generator=generator)[:count]]


def generate(count, seed=SEED):
    """Images uint8 [count, 28, 28] of no digit: parts, pairs, boxes, blots and what is written, as
    many of each. The same seed draws the same.
    """
    generator = torch.Generator().manual_seed(seed)
    each = -(-count // 5)
    digits, labels = synthetic.generate_pool(min(each, MATERIAL))
    found = [write(each, generator)]
    for kind in cut, join, box, blot:
        missing = each
        while missing:
            chosen = torch.randint(len(digits), (BLOCK,), generator=generator)
            ink = kind(digits[chosen, None].float() / 255, labels[chosen], generator)[:missing, 0]
            found.append((255 * ink / ink.amax((1, 2), keepdim=True)).round().to(torch.uint8))
            missing -= len(ink)
    return torch.cat(found)[:count]
