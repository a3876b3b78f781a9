"""What is no digit but lies in an image as a digit does: parts of digits, digits that are joined or
boxed, letters, signs, scribbles and filled shapes.

A network for which none of the ten digits is likelier in these than another has a way to say that
something is no digit, and says so of other things, too: D. Hendrycks, M. Mazeika and T. Dietterich,
"Deep anomaly detection with outlier exposure" (2019). A bar is a 1 and a ring is a 0: none of these
are taken.
"""

import math

import torch
import torch.nn.functional as F

from digits import distort, synthetic
from digits.traits import measure_thickness

SEED = 4
SIDE = 20  # pixels: of the box in which the longer side fits, as in MNIST
THIN = 2.2  # pixels: as in scan.py
MATERIAL = 10_000  # digits, at most, of which parts are taken
BLOCK = 1000  # images that are made at once, which bounds the memory
PIXEL = torch.arange(28.0)
SIGNS = [synthetic.parse(line) for line in synthetic.SIGNS.split("\n") if ":" in line]
SCRIBBLES = range(6, 15)  # points through which they go
CLOSED = torch.tensor([0, 6, 8, 9])  # digits with rings


def averaging(first, step, length, count):
    """The matrices [N, count, length] that average over equal parts of a length, in pixels.

    Part i of image n goes from first[n] + i * step[n] to the next one.
    """
    edges = first[:, None] + step[:, None] * torch.arange(count + 1)
    before = (edges[..., None] - torch.arange(length)).clamp(0, 1)  # how much of each pixel
    return before.diff(dim=1) / step[:, None, None]


def extent(ink):
    """The first row with ink of inks [N, H, W], and the one behind the last: float32 [N] both."""
    inked = (ink.amax(2) > 0.05).byte()
    return inked.argmax(1).float(), inked.shape[1] - inked.flip(1).argmax(1).float()


def fit(ink):
    """Images uint8 [N, 28, 28] of inks [N, H, W], none of them all zero, as scan.fit() makes one."""
    sides = [extent(ink), extent(ink.mT)]
    step = torch.maximum(*(high - low for low, high in sides)) / SIDE
    matrices = []
    for (low, high), profile in zip(sides, (ink.sum(2), ink.sum(1)), strict=True):
        middle = (profile @ (torch.arange(profile.shape[1]) + 0.5)) / profile.sum(1)
        before = (14 - (middle - low) / step).round().clamp(min=0)
        before = before.minimum(28 - ((high - low) / step).ceil())
        matrices.append(averaging(low - before * step, step, profile.shape[1], 28))
    rows, columns = matrices
    ink = rows @ ink @ columns.mT
    ink = ink / ink.amax((1, 2), keepdim=True)
    share = ((THIN - measure_thickness(ink)) / 4).clamp(0, 1)[:, None, None]
    return (255 * ink.lerp(F.max_pool2d(ink, 3, 1, 1), share)).round().to(torch.uint8)


def place(ink, scale, right, down, height, width):
    """Inks [N, height, width]: those of [N, 28, 28], of a scale, moved right and down by pixels."""
    rows = averaging(-down / scale, 1 / scale, 28, height)
    return rows @ ink @ averaging(-right / scale, 1 / scale, 28, width).mT


def cut(ink, labels, between):
    """Parts of digits, on one side of a line; fewer than there are digits, and none are like one."""
    angle = between(-math.pi, math.pi, 1, 1)
    across = (PIXEL - 13.5) * angle.cos() + (PIXEL[:, None] - 13.5) * angle.sin()
    part = ink * (across - between(-5, 5, 1, 1) + 0.5).clamp(0, 1)
    share = part.sum((1, 2)) / ink.sum((1, 2))
    narrow = torch.linalg.eigvalsh(distort.measure_moments(part[:, None])[1])[:, 0]
    ring = torch.isin(labels, CLOSED) & (angle.sin().abs() > 0.6).flatten() | (labels == 8)
    return part[(share > 0.2) & (share < 0.75) & (narrow > 2.5) & ~ring]  # narrow: like a 1


def beside(ink, share, between):
    """The left share of digits, to the right of the middle of inks [N, 40, 80] or a little over."""
    low, high = extent(ink.mT)
    kept = ((low + share * (high - low))[:, None] - PIXEL).clamp(0, 1)
    scale, right, down = between(0.85, 1.2), between(-1.2, 1.5), between(-3, 3)
    return place(
        ink * kept[:, None], scale, 40 + right - low * scale, 20 + down - 14 * scale, 40, 80
    )


def join(ink, _, between):
    """Neighbours that touch, or nearly do: two digits, one and a part of another, or two parts."""
    left, right = torch.where(between(0, 1, 2) < 0.6, 1, between(0.25, 0.65, 2)).unbind(1)
    first = beside(ink.flip(2), left, between).flip(2)
    return first.maximum(beside(ink.roll(1, 0), right, between))


def box(ink, _, between):
    """Digits in boxes, or in what is left of these."""
    scale = between(0.4, 0.85)
    middle = 14 - 14 * scale
    ink = place(ink, scale, middle + between(-2, 2), middle + between(-2, 2), 28, 28)
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
    corners = corners * between(8.5, 10.5, 1, 2) + between(-0.5, 0.5, 5, 2)
    along, radius = torch.linspace(0, 1, 37)[:, None], between(0.4, 1.2)
    for i in range(4):
        line = corners[:, i, None].lerp(corners[:, i + 1, None], along)
        side = distort.pen(line[:, :-1], line[:, 1:], radius)[:, 0]
        ink = ink.maximum(side * (between(0, 1, 1, 1) < 0.85))
    return ink


def fill(ink, _, between):
    """Filled shapes in as many images, half of them alike on both sides, evenly or in patches."""

    def noise(places, fastest):  # a sum of sines, of a deviation of 1 and 4 at most
        wave, phase = fastest * between(-1, 1, 8, 2), between(-math.pi, math.pi, 8, 1)
        return (wave @ places + phase).sin().sum(1) / 2

    x, y = (PIXEL - 13.5).repeat(28) / 14, (PIXEL - 13.5).repeat_interleave(28) / 14
    across = torch.where(between(0, 1, 1) < 0.5, x, x.abs())
    places = torch.stack([across, y.expand_as(across)], 1)
    from_middle = ((places / between(0.3, 1, 2, 1)).abs() ** between(1.5, 6, 1, 1)).sum(1)
    outline = (1 + between(0, 0.4, 1) * noise(places, 4)).clamp(min=0.3)
    shade = (1 - between(0, 0.6, 1) * (1 + noise(places, between(1, 16, 1, 1)))).clamp(min=0.1)
    return (((outline - from_middle) * 6).clamp(0, 1) * shade).view(ink.shape)


def write(count, generator):
    """``count`` images uint8 [count, 28, 28] of letters, signs and scribbles, at least."""
    each = -(-count // (len(SIGNS) + 3 * len(SCRIBBLES)))
    images = []
    for strokes in SIGNS if each else []:
        care = 1.3 * torch.rand(each, generator=generator) - 0.3
        images.append(synthetic.write(strokes, each, generator, care))
    for points in SCRIBBLES if each else []:
        path = 2 * torch.rand(3 * each, points, 2, generator=generator) - 1
        smooth, corners, parted = path.split(each)
        for strokes in ([smooth], [corners.repeat_interleave(2, 1)], parted.chunk(2, 1)):
            images.append(synthetic.write(strokes, each, generator))
    return torch.cat(images) if images else torch.empty(0,28,28,dtype=torch.uint8)


KINDS = (0.25, cut), (0.25, join), (0.13, box), (0.13, fill)  # and their shares; the rest is written


def generate(count, seed=SEED):
    """Images uint8 [count, 28, 28] of no digit, kind after kind; the same seed draws the same."""
    generator = torch.Generator().manual_seed(seed)
    digits, labels = synthetic.generate_pool(min(count, MATERIAL))
    found = []
    for share, kind in KINDS:
        missing = round(share * count)
        while missing > 0:
            chosen = torch.randint(len(digits), (BLOCK,), generator=generator)

            def between(low, high, *shape):
                part = torch.rand(BLOCK, *shape, generator=generator)
                return low + (high - low) * part

            images = fit(kind(digits[chosen].float() / 255, labels[chosen], between))[:missing]
            found.append(images)
            missing -= len(images)
    written = count - sum(map(len, found))
    return torch.cat([*found, write(written, generator)[:written]])
