"""Digits drawn as jittered pen strokes: a stand-in for MNIST where there is no connection.

"As MNIST was made" below: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning
applied to document recognition", 1998, section III.A.
"""

import math

import torch

from digits import distort

# Ways of writing each digit: strokes, each the control points x,y that the pen visits, in MNIST's
# 20 x 20 pixel box, x to the right and y down; a point that stands twice is a corner. First those
# of MNIST's writers, then others that schools in Europe, Asia and the Americas teach, and what
# people make of these. All ways of a digit are equally likely.
WAYS = """
0 leaning: 13,0 6,4 2,11 4,18 9,20 15,16 18,8 16,2 11,0
0 leaning more: 15,1 7,5 2,12 3,18 9,20 16,14 19,7 17,2 12,1
0 round: 13,2 7,1 2,7 2,14 9,20 16,17 18,9 15,3 9,2
0 narrow: 11,0 7,3 5,10 6,17 10,20 14,16 15,9 13,3 10,0
0 curled inside: 11,2 5,6 3,15 9,20 15,16 17,7 13,1 9,3 11,6
0 open at the top: 6,1 2,7 2,14 7,20 14,18 18,11 17,4 13,1
0 open at the right: 16,1 7,2 2,9 3,17 10,20 17,15 17,7 13,2
1 bar: 12,0 10,10 8,20
1 slanted bar: 15,0 10,10 5,20
1 upright bar: 10,0 10,10 10,20
1 with flag: 8,3 10,0 10,10 10,20
1 bar to the left: 8,0 10,10 12,20
1 with flag and base: 4,6 11,0 10,10 9,20 / 2,20 9,20 17,19
2 flat base: 6,4 9,0 14,3 13,9 8,15 2,18 4,18 10,17 17,19
2 small loop: 8,3 11,0 15,3 15,9 11,15 5,19 3,16 6,13 11,15 17,18
2 big loop: 4,3 8,0 13,4 13,10 10,16 5,20 1,16 4,12 9,14 15,18
2 wide loop: 7,4 10,0 14,4 14,10 9,16 2,19 1,16 6,13 12,13 18,13
2 like a Z: 2,2 8,1 14,2 12,8 7,13 4,18 6,19 12,18 18,17
2 low and wide: 1,2 7,0 11,3 7,8 1,12 2,13 10,11 20,12
3 round: 4,3 9,0 14,3 12,7 8,9 13,10 17,14 12,19 3,20
3 small top: 4,5 8,1 13,1 12,6 7,9 12,9 16,14 13,19 3,20
3 upturned tail: 5,3 11,0 16,3 13,7 8,9 14,9 17,14 11,20 3,19 1,16
3 even bowls: 3,3 7,0 13,0 15,4 12,8 7,9 14,10 17,14 14,19 8,20 2,18
3 deep waist: 3,2 10,0 15,4 11,9 5,10 12,10 17,14 11,20 2,18
3 flat top: 3,1 9,1 14,1 11,5 8,8 14,10 16,15 10,20 3,18
3 low and wide: 0,6 4,2 11,2 12,6 6,9 12,10 19,14 16,19 8,19
3 with loop: 4,3 10,0 14,4 9,9 6,10 8,8 13,10 16,15 9,20 2,17
4 open: 6,3 4,7 3,11 9,10 16,10 / 13,0 11,10 9,20
4 wide: 4,1 1,8 1,12 8,12 15,11 / 14,0 14,10 15,20
4 slanted: 8,5 3,10 4,11 10,10 14,10 / 17,0 10,9 4,19
4 closed: 13,0 8,6 2,13 10,13 18,12 / 13,0 13,10 13,20
4 short stem: 6,1 4,6 5,10 10,10 15,8 / 14,2 13,11 12,20
5 bar apart: 6,1 5,9 10,9 14,14 11,19 5,20 4,17 / 6,1 10,1 14,0
5 like an S: 15,0 8,2 5,7 11,8 15,13 11,18 4,20 2,17
5 low and wide: 19,1 11,2 6,7 11,8 12,11 8,14 0,13
5 long bar: 20,1 10,1 6,2 5,8 11,12 11,18 7,19 1,18
5 big bowl: 2,2 2,8 10,7 17,11 16,17 9,19 0,16 / 2,2 9,2 16,0
5 bar above: 7,4 5,9 10,8 15,12 12,18 3,19 / 7,2 12,2 18,1
6 small bowl: 13,0 7,6 4,13 4,18 8,20 12,16 11,13 7,14 5,17
6 round bowl: 9,0 5,6 3,13 6,18 12,19 16,15 14,11 10,12 7,17
6 wide bowl: 8,0 3,7 2,14 5,19 11,20 17,15 17,9 13,8 8,13 7,18
6 long stem: 15,0 8,6 3,13 2,17 6,19 12,17 14,13 10,12 6,16
6 curled stem: 15,2 10,0 5,6 4,14 8,20 14,18 14,12 9,11 5,15
6 closed bowl: 11,0 6,5 4,12 6,19 12,19 15,13 11,9 5,13
7 plain: 2,1 8,2 14,1 13,6 11,13 9,20
7 slanted: 3,5 5,3 10,1 17,2 14,7 8,13 2,20
7 wide: 1,3 8,2 16,2 18,6 16,13 14,20
7 rising bar: 4,6 8,3 15,1 15,5 12,13 10,20
7 serif: 3,7 4,2 10,2 16,2 13,10 10,20
7 crossbar: 3,2 9,2 15,1 14,6 12,13 10,20 / 7,11 11,11 16,10
7 long crossbar: 4,3 10,2 16,2 12,9 8,20 / 5,11 11,11 17,10
8 upright: 14,2 9,1 4,4 6,8 12,12 14,17 10,20 7,15 10,9 14,3 12,0
8 narrow: 16,3 10,0 6,5 9,10 12,15 7,20 3,17 8,11 14,7 16,3 13,1
8 slanted: 18,3 12,0 7,4 10,9 11,15 5,20 1,17 7,12 16,6 18,3
8 flat top: 17,1 8,2 6,6 12,9 15,14 11,19 6,18 5,13 11,9 17,3
8 open top: 16,3 8,1 4,6 9,10 10,17 6,20 3,15 9,9 17,5 19,0
8 two circles: 10,0 6,2 6,7 10,9 14,7 14,2 10,0 / 10,9 5,12 5,18 10,20 15,17 14,11 9,9
8 round: 15,4 10,0 5,3 6,8 13,12 15,17 9,20 4,16 8,11 14,7 15,3
9 leaning: 14,4 12,0 8,1 6,6 8,10 12,8 14,4 12,11 8,20
9 upright: 13,4 11,0 7,1 5,5 7,9 11,8 13,4 13,11 13,20
9 round: 13,5 11,0 6,0 3,5 6,10 11,9 13,5 13,12 14,20
9 slanted: 16,4 15,1 10,1 7,5 7,9 11,8 16,4 12,11 6,20
9 low bowl: 14,4 11,0 6,2 4,9 8,11 12,8 14,4 13,12 12,20
9 open bowl: 16,3 10,1 5,4 4,10 9,11 14,8 15,5 14,12 11,20
9 curled tail: 14,4 11,0 6,2 6,8 11,8 14,4 14,12 9,20 4,18
"""
OTHER_WAYS = """
0 slashed: 13,2 7,1 2,7 2,14 9,20 16,17 18,9 15,3 9,2 / 4,19 10,10 16,1
0 wide: 12,3 5,4 1,10 4,16 12,17 19,12 17,5 10,3
0 circle: 11,0 4,2 0,9 3,17 10,20 18,16 20,9 16,2 9,0
0 pear: 9,0 7,6 3,13 6,19 13,20 17,15 13,7 9,0
1 with long flag: 4,9 8,5 12,0 12,0 12,10 12,20
1 with longer flag: 4,12 8,6 12,0 12,1 12,11 12,20
1 with flag, leaning: 5,8 10,4 15,0 15,0 11,10 7,20
1 with level flag: 3,5 8,4 14,1 14,1 12,10 9,20
1 with flag, leaning back: 5,9 8,4 10,0 10,0 13,10 15,20
1 with hooked flag: 5,5 9,5 12,0 12,1 12,10 12,20
1 with short flag: 7,5 11,0 11,0 11,10 11,20
1 with long flag and base: 4,8 8,4 11,0 11,0 11,10 11,20 / 4,20 11,20 18,20
1 with base: 10,0 10,10 10,20 / 4,20 10,20 16,19
1 with flag below the top: 10,0 10,10 10,20 / 6,8 8,6 10,3
1 with flag on a leaning stem: 13,0 11,10 9,20 / 5,7 9,6 13,3
2 with a corner: 4,4 8,0 14,2 13,8 8,14 3,20 3,20 10,20 17,20
2 like a swan: 5,5 9,0 14,2 13,8 8,14 5,19 9,19 14,19 17,15
2 with a rising end: 3,5 8,0 13,3 11,10 6,17 8,20 13,18 18,12
2 narrow: 7,3 10,0 13,3 11,9 6,19 6,19 11,19 15,19
2 angular: 4,2 14,1 14,1 14,8 4,13 4,19 4,19 16,19
2 with a loop: 4,4 9,0 14,4 10,12 5,17 3,20 3,16 7,15 12,19 18,19
2 with a long rising end: 3,8 5,1 9,4 7,13 3,19 8,17 13,18 17,10 19,2
3 with a corner: 3,1 9,1 16,1 16,1 8,8 8,8 15,10 17,15 11,20 3,18
3 pointed: 3,3 9,0 15,3 7,9 7,9 16,12 14,18 8,20 2,18
3 angular: 3,1 14,1 15,2 8,8 8,8 16,11 16,16 9,20 2,19
3 with a straight waist: 4,2 11,0 15,4 11,9 6,9 6,9 13,10 16,15 10,20 3,18
4 low: 6,0 5,8 4,15 4,15 10,15 17,14 / 14,9 14,15 14,20
4 low, leaning: 12,0 7,8 2,15 2,15 9,15 17,14 / 13,9 12,15 11,20
4 like an L: 6,0 6,8 5,17 5,17 10,16 16,14 / 14,11 14,16 14,20
4 with a low corner: 14,0 8,9 2,18 2,18 9,18 16,17 / 13,9 12,15 12,20
4 with a leaning stem: 8,0 5,7 3,13 3,13 10,13 17,12 / 16,5 12,13 9,20
4 of one stroke: 12,20 12,10 12,0 12,0 7,7 2,13 2,13 10,13 18,13
4 upright: 5,0 5,6 4,12 4,12 10,12 17,12 / 13,0 13,10 13,20
4 wide open: 3,2 3,7 4,12 4,12 10,12 18,11 / 15,2 14,11 13,20
4 like a fish: 14,0 8,4 4,8 4,8 10,11 16,14 / 14,0 11,10 8,20
4 with a falling bar: 13,0 8,5 3,9 3,9 10,12 17,16 / 13,0 12,10 10,20
4 with a long stem: 12,0 7,4 4,8 4,8 10,9 16,10 / 12,0 11,10 10,20
5 with corners: 15,1 5,1 5,1 5,8 5,8 11,7 16,12 13,18 4,19
5 with a corner, leaning: 17,1 8,1 8,1 6,8 6,8 12,8 15,12 11,18 3,19
5 pointed: 14,0 5,0 5,0 7,8 7,8 13,9 17,14 11,18 4,20
5 with a flat bowl: 16,1 6,1 6,1 5,9 5,9 12,9 16,14 15,19 3,19
5 with a hook: 17,3 10,1 8,6 13,9 15,14 10,20 3,17
5 with a curl: 17,4 12,0 9,5 13,10 15,15 9,20 2,15
6 with a wide bowl: 15,2 10,0 6,4 4,11 5,17 11,20 17,16 16,10 10,7 5,11
6 with a big bowl: 13,0 7,2 3,8 2,14 7,20 14,19 18,13 15,7 9,6 4,10
6 like a b: 6,0 6,7 5,14 6,19 12,20 16,16 15,10 10,8 6,12
6 like a b, leaning back: 3,0 4,8 6,17 11,20 17,17 16,10 10,8 5,12
6 with a hook: 17,3 13,0 7,2 4,9 4,16 9,20 14,17 13,12 8,11 4,15
6 with an angular bowl: 13,0 8,6 4,13 6,19 6,19 14,19 15,12 15,12 5,12
6 with a wide hook: 18,7 14,1 7,1 3,8 4,16 10,20 16,18 15,12 9,10 5,14
7 crossed: 3,2 10,2 17,1 17,1 13,10 9,20 / 6,11 11,11 17,10
7 crossed, with a serif: 3,6 3,2 10,2 17,2 17,2 12,11 9,20 / 6,11 11,11 16,11
7 crossed, steep: 3,1 10,1 16,1 16,1 14,10 12,20 / 8,10 13,10 18,10
7 crossed, wavy: 2,4 6,1 11,3 17,1 13,9 8,20 / 5,12 10,10 16,10
7 with a corner: 2,1 9,1 17,1 17,1 12,10 7,20
7 with a serif: 4,8 4,2 10,2 16,2 16,2 13,10 11,20
7 leaning back: 4,1 8,0 12,0 12,0 14,10 15,20
7 like a Y: 3,3 7,6 12,6 17,2 17,0 12,9 8,20
7 with a hooked bar: 3,4 5,7 10,5 16,2 16,2 11,11 9,20
8 with a small top: 10,7 6,5 7,1 12,1 13,5 10,7 4,12 4,18 11,20 16,16 15,10 10,7
8 of two circles, small top: 11,0 7,1 7,6 11,7 14,4 11,0 / 10,7 4,10 4,17 10,20 16,17 16,10 10,7
8 angular: 4,1 16,1 16,1 4,19 4,19 16,19 16,19 4,1
8 from the middle: 10,9 5,5 8,0 14,2 13,7 7,12 5,17 11,20 15,15 10,9
8 open: 15,4 10,0 5,3 8,8 14,13 13,19 6,19 5,14 10,10 16,6
8 with a big bowl: 11,0 6,4 7,8 14,11 16,16 10,20 5,16 7,10 13,4 11,0
8 like a bow: 3,8 6,11 12,8 14,2 10,0 9,6 12,13 13,19 8,20 8,15 14,10
9 with a hook: 15,3 10,0 5,4 7,9 13,8 15,3 15,11 13,18 8,20 4,17
9 with a wide hook: 16,4 11,0 5,2 5,8 11,10 16,5 17,12 15,18 9,20 2,18
9 with a straight stem: 15,3 9,0 4,4 6,9 12,9 15,5 / 15,1 15,11 15,20
9 angular: 15,1 6,1 6,1 6,9 6,9 15,9 / 15,0 15,10 15,20
9 like a g: 15,2 9,0 4,4 6,9 12,9 15,4 15,14 12,20 5,19
9 with a leaning stem: 16,3 11,0 6,3 6,8 11,9 16,4 13,12 8,20
9 closed by a bar: 14,1 6,2 6,2 6,10 6,10 15,10 / 13,0 13,10 13,20
"""
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


def write(strokes, count, generator):
    """``count`` images, uint8 [count, 28, 28], of one way of writing a digit."""

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
    for stroke in strokes.split("/"):
        control = torch.tensor([[int(v) for v in xy.split(",")] for xy in stroke.split()])
        control = control / 10 - 1 + 0.12 * normal(len(control), 2)
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
        own = [line.split(":")[1] for line in ways.split("\n") if line.startswith(str(digit))]
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
