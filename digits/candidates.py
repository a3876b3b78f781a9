"""What digits an ink is of: pieces of it, runs of these, and the best path through them.

After section V of Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied
to document recognition", 1998: the ink is cut into pieces too many, a network judges runs of
neighbouring ones, and the cheapest path through a line of them is what is written there. Costs are
negative logarithms of probabilities.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

GAP = 0.01  # of the height of the tallest stroke: gaps as small do not part a piece
SMALLEST = 8  # pixels: what is smaller is no digit
MOST = 300  # pieces: more are rather a text, or a texture
LEAST = 0.2  # of the height of digits has one
RUN = 6  # pieces that one digit may be in
WIDE = 2  # times as wide as high a digit is at most; what is wider than high may be two
SURE = -math.log(0.8)  # where no digit costs more, no other ink need be looked at
LOW = 0.5  # what it costs that a digit has half the height of others
APART = 4  # what it costs that parts of a digit are as far apart as it is high
CUT = 0.2, 0.1  # what a cut costs, and what across each stroke of the usual thickness
STROKES = 2.5  # such strokes that a cut goes across at most
FINE = 48  # pixels: ways through a piece are sought at no more than that height
REACH, DENSE = 0.2, 0.12  # of the height: how far aside a way goes, how near each other cuts are
BEND = 0.1  # what a step aside costs, as ink that it crosses


class Reading(NamedTuple):
    """What was found in an ink."""

    lines: list  # of lists of images uint8 [28, 28]; without any digit of one image of all the ink
    evidence: float  # how much cheaper than leaving out all of the digits; 0 or less: it is none
    sure: bool  # whether nothing is in doubt, and little is left out


class Piece(NamedTuple):
    """A connected part of an ink, or a part of one that was cut."""

    low: np.ndarray  # its first row and column
    high: np.ndarray  # the row and the column behind it
    number: int  # of it in the map of pieces
    cut: float = 0  # what the cut on its left costs

    @property
    def size(self):
        """Height and width in pixels."""
        return self.high - self.low


class Path(NamedTuple):
    """What some Pieces are, read from left to right."""

    cost: float
    digits: list  # of images uint8 [28, 28]
    skipped: float  # pieces that are left out, each as a share of a digit's height
    sure: bool  # whether no digit is in doubt

    def then(self, other):
        """The path through these and through others."""
        sums = (mine + others for mine, others in zip(self[:3], other[:3], strict=True))
        return Path(*sums, self.sure and other.sure)


def read(ink, fit, judge, threshold):
    """The Reading of an ink [H, W], or None where it has too little.

    fit(ink) is the image of a part of it; judge(images) gives probabilities [N, 10], all below the
    threshold where an image is of no digit.
    """
    pieces, found = find_pieces(ink)
    if not found:
        return None

    def look(runs):
        """The images of runs of pieces, and the cost of each as a digit."""
        images = [fit(cut_out(ink, pieces, run)) for run in runs]
        return images, -np.log(judge(np.stack(images)).max(1)) if images else []

    if len(found) > MOST:
        return Reading([], -math.inf, False)
    skip = -math.log(threshold)
    (image,), (cost,) = look([found])
    whole = Reading([[image]], skip - cost, cost < SURE)
    is_one, gaps = may_be_one(found), apart(found)
    if is_one and whole.sure and not gaps:
        return whole
    found = [piece for piece in found if not surrounds(piece, found)]
    scale = np.average([p.size[0] for p in found], weights=[np.prod(p.size) for p in found])
    parts = functools.partial(cut, pieces=pieces, ink=ink)
    paths = [read_line(line, scale, look, parts, skip) for line in arrange(found)]
    total = sum(path.cost for path in paths)
    count = sum(len(path.digits) for path in paths)
    if is_one and cost + APART * gaps <= total:
        return whole
    if not count:
        return Reading([[image]], -total, False)
    sure = sum(path.skipped for path in paths) < 0.2 * count and all(path.sure for path in paths)
    return Reading([path.digits for path in paths if path.digits], skip * count - total, sure)


def read_as_one(ink, fit, judge, threshold):
    """The Reading of an ink [H, W] as one digit, which is sure, or None."""
    pieces, found = find_pieces(ink)
    if not found or apart(found) or not may_be_one(found):
        return None
    image = fit(cut_out(ink, pieces, found))
    cost = -np.log(judge(image[None]).max())
    return Reading([[image]], -math.log(threshold) - cost, True) if cost < SURE else None


def around(run):
    """The first row and column of Pieces, and those behind them: int [2] both."""
    return np.min([piece.low for piece in run], 0), np.max([piece.high for piece in run], 0)


def apart(run):
    """The width of the gaps between Pieces, beside each other, as a share of their height."""
    low, high = around(run)
    covered = np.zeros(high[1] - low[1], bool)
    for piece in run:
        covered[piece.low[1] - low[1] : piece.high[1] - low[1]] = True
    return (~covered).sum() / (high[0] - low[0])


def may_be_one(run):
    """Whether Pieces are few and narrow enough to be one digit."""
    low, high = around(run)
    return len(run) <= 2 * RUN and high[1] - low[1] <= WIDE * (high[0] - low[0])


def cut_out(ink, pieces, run):
    """The part of an ink [H, W] that a run of Pieces is, in the box around it."""
    low, high = around(run)
    box = slice(low[0], high[0]), slice(low[1], high[1])
    return ink[box] * np.isin(pieces[box], [piece.number for piece in run])


def find_pieces(ink):
    """(the number int [H, W] of the piece each pixel is in, the Pieces that are dark).

    A piece may have small gaps: what lies in neighbouring cells of a grid is connected. It is dark
    if any of its pixels is more ink than paper; faint ones are none. None is found where all are
    smaller than a digit.
    """
    strokes = ndimage.find_objects(ndimage.label(ink > 0.5, np.ones((3, 3)))[0])
    tallest = max((rows.stop - rows.start for rows, _ in strokes), default=1)
    cell = math.ceil(GAP * tallest)
    height, width = ink.shape
    cells = np.pad(ink > 0, ((0, -height % cell), (0, -width % cell)))
    cells = cells.reshape(cells.shape[0] // cell, cell, -1, cell).any((1, 3))
    piece, count = ndimage.label(cells, np.ones((3, 3)))
    pieces = piece.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    dark = np.bincount(pieces[ink > 0.5], minlength=count + 1) > 0
    found = [
        Piece(*np.transpose([(side.start, side.stop) for side in box]), number)
        for number, box in enumerate(ndimage.find_objects(pieces), start=1)
        if dark[number]
    ]
    return pieces, found if any(max(piece.size) >= SMALLEST for piece in found) else []


def surrounds(piece, others):
    """Whether a piece is a frame around others that may be digits."""
    return any(
        (piece.low < other.low).all()
        and (piece.high > other.high).all()
        and other.size[0] > 0.3 * piece.size[0]
        for other in others
    )


def arrange(found):
    """The Pieces by line, from top to bottom, and from left to right: a list of lists.

    In one line with a piece is what is beside it and nearest on the right, or above or below and
    near, as the bar of a 5 is.
    """
    low, high = (np.array([side(p) for p in found]) for side in (lambda p: p.low, lambda p: p.high))
    size, middle = high - low, low + high
    common = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    beside, above = np.moveaxis(common >= 0.5 * np.minimum(size[:, None], size), 2, 0)
    linked = above & (-common[..., 0] <= 0.15 * np.maximum(size[:, None, 0], size[:, 0]))
    right = (middle[:, 1] - middle[:, None, 1]).astype(float)
    right[~beside | (right <= 0)] = np.inf
    linked[np.arange(len(found)), right.argmin(1)] |= np.isfinite(right.min(1))
    linked |= linked.T | np.eye(len(found), dtype=bool)
    line, before = np.arange(len(found)), None
    while not np.array_equal(line, before):  # its number spreads through all that is linked
        line, before = np.where(linked, line, len(found)).min(1), line
    lines = [[found[i] for i in np.flatnonzero(line == number)] for number in np.unique(line)]
    lines.sort(key=lambda line: np.mean([piece.low[0] + piece.high[0] for piece in line]))
    return [from_left(line) for line in lines]


def from_left(line):
    return sorted(line, key=lambda piece: piece.low[1] + piece.high[1])


def read_line(line, scale, look, parts, skip):
    """The cheapest Path through a line of Pieces, where digits are `scale` pixels high.

    parts(piece) gives the Pieces that one may be cut into.
    """
    paths = judge_runs(line, scale, look, skip)
    for piece in line:
        if scale * LEAST < piece.size[0] <= piece.size[1]:
            pieces = parts(piece)
            path = best_path(pieces, scale, judge_runs(pieces, scale, look, skip), skip)
            whole = paths.get((piece.number,))
            if path.digits and (whole is None or path.cost < whole.cost):
                paths[piece.number,] = path
    return best_path(line, scale, paths, skip)


def judge_runs(line, scale, look, skip):
    """{the numbers of the Pieces of a run in a line: the Path that takes it for a digit}."""
    runs = list(find_runs(line, scale))
    paths = {}
    for run, image, cost in zip(runs, *look(runs), strict=True):
        if cost < skip:
            low, high = around(run)
            lower = math.log2(max(1, scale / (high[0] - low[0])))
            total = cost + LOW * lower**2 + APART * apart(run) + run[0].cut
            numbers = tuple(piece.number for piece in run)
            paths[numbers] = Path(total, [image], 0.0, cost < SURE)
    return paths


def find_runs(line, scale):
    """Yield each run of Pieces in a line that may be a digit."""
    for start in range(len(line)):
        for stop in range(start + 1, min(start + RUN, len(line)) + 1):
            run = line[start:stop]
            low, high = around(run)
            height, width = high - low
            if width > WIDE * max(scale, height) or height > 2 * scale:
                break
            if height >= LEAST * scale and width <= WIDE * height:
                yield run


def best_path(line, scale, paths, skip):
    """The cheapest Path through a line of Pieces by those of its runs, by dynamic programming."""
    best = [Path(0.0, [], 0.0, True)]
    for stop in range(1, len(line) + 1):
        piece = line[stop - 1]
        own = paths.get((piece.number,))
        share = min(1, max(piece.size) / scale) * (len(own.digits) if own else 1)
        ways = [best[-1].then(Path(skip * share, [], share, True))]
        for start in range(max(0, stop - RUN), stop):
            path = paths.get(tuple(piece.number for piece in line[start:stop]))
            if path:
                ways.append(best[start].then(path))
        best.append(min(ways, key=lambda path: path.cost))
    return best[-1]


def cut(piece, pieces, ink):
    """The Pieces that a piece falls into where a way from top to bottom crosses little ink.

    The map of pieces is changed in place.
    """
    height, width = piece.size
    box = slice(piece.low[0], piece.high[0]), slice(piece.low[1], piece.high[1])
    own = pieces[box] == piece.number
    part = ink[box] * own
    step = math.ceil(height / FINE)
    part = np.pad(part, ((0, -height % step), (0, -width % step)))
    part = part.reshape(len(part) // step, step, -1, step).mean((1, 3))
    ways, costs = find_ways(part)
    depth = ndimage.distance_transform_edt(part > 0.5)
    thickness = 4 * np.median(depth[depth > 0]) if depth.any() else 1  # half is within a quarter
    space, chosen = DENSE * len(part), []
    for column in costs.argsort(kind="stable"):
        if costs[column] > STROKES * thickness:
            break
        if all(abs(column - other) > space for other in [*chosen, 0, part.shape[1]]):
            chosen.append(column)
    side, prices = np.zeros(own.shape, int), [0.0]
    for column in sorted(chosen):
        prices.append(CUT[0] + CUT[1] * costs[column] / thickness)
        way = (ways[:, column] * step).repeat(step)[:height]
        side += np.arange(width) >= way[:, None]
    parts, number = [], pieces.max()
    for index, price in enumerate(prices):
        mine = own & (side == index)
        if (ink[box][mine] > 0.5).any():
            number += 1
            pieces[box][mine] = number
            edges = [np.flatnonzero(mine.any(axis))[[0, -1]] + [0, 1] for axis in (1, 0)]
            parts.append(Piece(*(piece.low + np.transpose(edges)), number, price))
    return parts


def find_ways(ink):
    """(the columns int [H, W] that the cheapest way down goes through that stays near each column
    of an ink [H, W], the ink that each crosses: float64 [W]).

    By dynamic programming, as S. Avidan and A. Shamir, "Seam carving for content-aware image
    resizing", 2007, find theirs.
    """
    height, width = ink.shape
    reach = round(REACH * height)
    near = sliding_window_view(np.pad(ink, ((0, 0), (reach, reach))), 2 * reach + 1, axis=1)
    cost, steps = near[0], []
    for row in near[1:]:
        padded = np.pad(cost, ((0, 0), (1, 1)), constant_values=np.inf)
        before = np.stack([padded[:, :-2] + BEND, padded[:, 1:-1], padded[:, 2:] + BEND])
        steps.append(before.argmin(0) - 1)
        cost = row + before.min(0)
    column = np.arange(width)
    ways = [cost.argmin(1)]
    for step in reversed(steps):
        ways.append(ways[-1] + step[column, ways[-1]])
    return np.stack(ways[::-1]) + column - reach, cost.min(1)
