"""Digits drawn as jittered pen strokes: a stand-in for MNIST where there is no connection.

"As MNIST was made" below: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning
applied to document recognition", 1998, section III.A.
"""

import math
from pathlib import Path

import torch

from digits import distort

# Ways of writing digits: those of MNIST's writers, and others. The file says how they are given.
FILE = Path(__file__).with_name("ways.txt").read_text("utf-8")
_, WAYS, OTHER_WAYS, SIGNS, BOXES = FILE.split("\n\n")  # the last two are no digits
POOL_SEEDS = 2, 3  # of digits that are drawn beside other images
SPLITS = {"train": (12_000, 0), "test": (2_000, 1)}  # number of images, seed
POINTS = 12  # points of a curve per pair of control points


def spline(n):
    """The matrix from ``n`` control points to the points of the Catmull-Rom spline through them.

    E. Catmull and R. Rom, "A class of local interpolating splines", 1974.
    """
    knots = torch.eye(n)  # and one more at either end, by reflection
    knots = torch.cat([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    cubic = torch.tensor([[0.0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    basis = (torch.arange(POINTS + 1)[:, None] / POINTS) ** torch.arange(4) @ cubic
    return torch.cat([basis @ knots[i : i + 4] for i in range(n - 1)])


def parse(ways, start=""):
    """The ways in a part of ways.txt that start so, a list of strokes for write() each."""
    found = []
    for line in ways.split("\n"):
        if ":" in line and line.startswith(start):
            strokes = (stroke.split() for stroke in line.split(":")[1].split("/"))
            points = ([[int(v) for v in xy.split(",")] for xy in stroke] for stroke in strokes)
            found.append([torch.tensor(each) / 10 - 1 for each in points])
    return found


def write(strokes, count, generator):
    """``count`` images, uint8 [count, 28, 28], of one way of writing something.

    Its strokes are control points in [-1, 1], float32 [K, 2] each, or [count, K, 2].
    """

    def normal(*shape):
        return torch.randn(count, *shape, generator=generator)

    # A writer's hand: random proportions, turn and slant (a little to the right on average), and a
    # smooth random field of bends, a sum of sines (A. Rahimi and B. Recht, "Random features for
    # large-scale kernel machines", 2007). The box is [-1, 1] here.
    spread = torch.tensor([[0.16, 0.06], [0.21, 0.06]])
    affine = torch.tensor([[1, 0], [-0.03, 1]]) + spread * normal(2, 2)
    wave, phase, sway = 1.5 * normal(2, 8), math.pi * normal(1, 8), 0.08 * normal(8, 2)
    radius = (1.15 + 0.45 * normal()).clamp(0.5, 2.6)  # of the pen, in pixels
    curves = []
    for control in strokes:
        control = control + 0.12 * normal(control.shape[-2], 2)
        control = control @ affine + torch.sin(control @ wave + phase) @ sway
        curves.append(spline(control.shape[1]) @ control)
    start = torch.cat([curve[:, :-1] for curve in curves], 1)
    end = torch.cat([curve[:, 1:] for curve in curves], 1)

    # As MNIST was made: the ink fits a 20 x 20 box, its proportions kept.
    point = torch.cat(curves, 1)
    low, high = point.amin(1, keepdim=True), point.amax(1, keepdim=True)
    scale = (20 - 2 * radius[:, None, None]) / (high - low).amax(2, keepdim=True)
    middle = (low + high) / 2
    ink = distort.pen((start - middle) * scale, (end - middle) * scale, radius)[:, 0]

    # As MNIST was made: the centre of mass goes to the middle, by whole pixels. Otherwise each
    # digit keeps an offset of its own, which a network learns in place of its shape.
    pixel = torch.arange(28.0)
    mass = torch.stack([ink.sum(2) @ pixel, ink.sum(1) @ pixel]) / ink.sum((1, 2))
    row, column = (pixel + (mass - 14).round()[..., None]).long() % 28
    ink = ink[torch.arange(count)[:, None, None], row[:, :, None], column[:, None]]
    return (255 * ink).round().to(torch.uint8)


def generate(count, seed, ways=WAYS):
    """Images uint8 [count, 28, 28] and labels int64 [count], balanced and in random order.

    The same seed draws the same images, whatever else draws random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randperm(count, generator=generator) % 10
    way = torch.rand(count, generator=generator)
    images = torch.empty(count, 28, 28, dtype=torch.uint8)
    for digit in range(10):
        own = parse(ways, str(digit))
        for i, strokes in enumerate(own):
            chosen = (labels == digit) & ((way * len(own)).long() == i)
            for index in chosen.nonzero()[:, 0].split(1000):  # bounds the memory
                images[index] = write(strokes, len(index), generator)
    return images, labels


def generate_pool(count):
    """Images and labels, as generate() returns them, to train on beside those of a dataset.

    Half of them are in ways of MNIST's writers: on MNIST's validation images that is 0.09 points
    better than all ways alike (means of three seeds), on strangers' drawings as good.
    """
    others = count // 2
    parts = [
        generate(count - others, POOL_SEEDS[0]),
        generate(others, POOL_SEEDS[1], OTHER_WAYS),
    ]
    return [torch.cat(pair) for pair in zip(*parts, strict=True)]
