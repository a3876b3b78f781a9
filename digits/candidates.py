"""What digits an ink is of: pieces of it, runs of these, and the best path through them.

After section V of Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied
to document recognition", 1998: the ink is cut into pieces too many, a network judges runs of
neighbouring ones, and the cheapest path through a line of them is what is written there. Costs are
negative logarithms of probabilities.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.sparse import csgraph

GAP = 0.01  # of the height of the tallest stroke: gaps as small do not part a piece
SMALLEST = 8  # pixels: what is smaller is no digit
MOST = 300  # pieces: more are rather a text, or a texture
RUN = 5  # pieces that one digit may be in
WIDE = 2  # times as wide as high a digit is at most
SURE = -math.log(0.8)  # a piece that costs less need not be cut, nor another ink be looked at
SKIP = -math.log(0.3)  # what it costs to leave out a piece as long as a digit is high
LOW = 0.5  # what it costs that a digit has half the height of others
APART = 3  # what it costs that parts of a digit are as far apart as it is high
CUT = 0.2, 0.1  # what a cut costs, and what across each stroke of the usual thickness
BEND = 0.1  # what it costs that a cut goes aside by a pixel, as ink that it crosses


class Reading(NamedTuple):
    """What was found in an ink."""

    lines: list  # of lists of images uint8 [28, 28]
    evidence: float  # how much cheaper than leaving out all of the digits
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


class Candidate(NamedTuple):
    """A run of pieces as a digit."""

    image: np.ndarray  # uint8 [28, 28]
    cost: float  # of its most likely class
    total: float  # with that of its height and of the cut on its left


class Path(NamedTuple):
    """What the pieces of a line are, up to one of them."""

    cost: float
    digits: list  # of Candidates
    skipped: float  # pieces that are left out, each as a share of a digit's height


def read(ink, fit, judge):
    """The Reading of an ink [H, W], or None where it has too little.

    fit(ink) is the image of a part of it; judge(images) gives probabilities [N, 10].
    """
    pieces, found = find_pieces(ink)
    if not found:
        return None
    if len(found) > MOST:
        return Reading([], 0.0, False)

    def look(runs):
        """The images of runs of pieces, and the cost of each as a digit."""
        images = [fit(cut_out(ink, pieces, run)) for run in runs]
        return images, -np.log(judge(np.stack(images)).max(1))

    whole, cost = None, SKIP
    low, high = around(found)
    if len(found) <= 2 * RUN and high[1] - low[1] <= WIDE * (high[0] - low[0]):
        (image,), (cost,) = look([found])  # perhaps all of it is one digit
        whole = Reading([[image]], SKIP - cost, cost < SURE)
        if whole.sure and not apart(found):
            return whole
    found = [piece for piece in found if not surrounds(piece, found)]
    scale = np.average([p.size[0] for p in found], weights=[np.prod(p.size) for p in found])
    paths = [read_line(line, scale, pieces, ink, look) for line in arrange(found)]
    total, skipped = sum(path.cost for path in paths), sum(path.skipped for path in paths)
    if whole and cost < SKIP and cost + APART * apart(found) <= total:
        return whole
    digits = [digit for path in paths for digit in path.digits]
    return Reading(
        [[digit.image for digit in path.digits] for path in paths if path.digits],
        SKIP * len(digits) - total,
        skipped < 0.2 * len(digits) and max(digit.cost for digit in digits) < SURE,
    )


def read_as_one(ink, fit, judge):
    """The Reading of an ink [H, W] as one digit, which is sure, or None."""
    pieces, found = find_pieces(ink)
    if not 0 < len(found) <= MOST:
        return None
    low, high = around(found)
    if apart(found) or high[1] - low[1] > WIDE * (high[0] - low[0]):
        return None
    image = fit(cut_out(ink, pieces, found))
    cost = -np.log(judge(image[None]).max())
    return Reading([[image]], SKIP - cost, True) if cost < SURE else None


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
    count, line = csgraph.connected_components(linked, directed=False)
    lines = [[found[i] for i in np.flatnonzero(line == number)] for number in range(count)]
    lines.sort(key=lambda line: np.mean([piece.low[0] + piece.high[0] for piece in line]))
    return [from_left(line) for line in lines]


def from_left(line):
    return sorted(line, key=lambda piece: piece.low[1] + piece.high[1])


def read_line(line, scale, pieces, ink, look):
    """The cheapest Path through a line of Pieces of an ink, where digits are `scale` pixels high.

    Those that are no digit, or so wide that they may be two, are cut in the map of pieces.
    """
    judged = judge_runs(line, scale, look, {})
    parts = []
    for piece in line:
        candidate, (height, width) = judged.get((piece.number,)), piece.size
        sure = candidate and candidate.cost < SURE and width < height
        parts += [piece] if sure or height < 0.4 * scale else cut(piece, pieces, ink)
    if len(parts) > len(line):
        line = from_left(parts)
        judged = judge_runs(line, scale, look, judged)
    return best_path(line, scale, judged)


def judge_runs(line, scale, look, judged):
    """{the numbers of the pieces of a run: its Candidate}, of those of a line and those judged."""
    runs = {key: run for key, run in find_runs(line, scale) if key not in judged}
    if not runs:
        return judged
    for (key, run), image, cost in zip(runs.items(), *look(list(runs.values())), strict=True):
        low, high = around(run)
        lower = math.log2(max(1, scale / (high[0] - low[0])))
        total = cost + LOW * lower**2 + APART * apart(run) + run[0].cut
        judged[key] = Candidate(image, cost, total)
    return judged


def find_runs(line, scale):
    """Yield the numbers, a tuple, and the Pieces of each run in a line that may be a digit."""
    for start in range(len(line)):
        for stop in range(start + 1, min(start + RUN, len(line)) + 1):
            run = line[start:stop]
            low, high = around(run)
            height, width = high - low
            if width > WIDE * max(scale, height) or height > 2 * scale:
                break
            if height >= 0.2 * scale and width <= WIDE * height:
                yield tuple(piece.number for piece in run), run


def best_path(line, scale, judged):
    """The cheapest Path through a line of Pieces, by dynamic programming."""
    paths = [Path(0.0, [], 0.0)]
    for stop in range(1, len(line) + 1):
        before, share = paths[-1], min(1, max(line[stop - 1].size) / scale)
        ways = [Path(before.cost + SKIP * share, before.digits, before.skipped + share)]
        for start in range(max(0, stop - RUN), stop):
            digit = judged.get(tuple(piece.number for piece in line[start:stop]))
            if digit and digit.cost < SKIP:
                before = paths[start]
                cost = before.cost + digit.total
                ways.append(Path(cost, before.digits + [digit], before.skipped))
        paths.append(min(ways, key=lambda path: path.cost))
    return paths[-1]


def cut(piece, pieces, ink):
    """The Pieces that a piece falls into where a way from top to bottom crosses little ink.

    The ways are found by dynamic programming, as S. Avidan and A. Shamir, "Seam carving for
    content-aware image resizing", 2007, do it. The map of pieces is changed in place.
    """
    height, width = piece.size
    if width < 0.5 * height:
        return [piece]
    box = slice(piece.low[0], piece.high[0]), slice(piece.low[1], piece.high[1])
    own = pieces[box] == piece.number
    part = ink[box] * own
    depth = ndimage.distance_transform_edt(part > 0.5)
    thickness = 4 * np.median(depth[depth > 0]) if depth.any() else 1  # half is within a quarter
    cost, steps = part[0], []
    for row in part[1:]:
        left, right = np.r_[np.inf, cost[:-1]], np.r_[cost[1:], np.inf]
        ways = np.stack([left + BEND, cost, right + BEND])
        steps.append(ways.argmin(0) - 1)
        cost = row + ways.min(0)
    ends = []
    for column in cost.argsort(kind="stable"):
        if cost[column] > 2.5 * thickness or len(ends) >= 4 * width / height + 2:
            break
        if all(abs(column - other) > 0.15 * height for other in ends):
            ends.append(column)
    side, costs = np.zeros(part.shape, int), [0.0]
    for column in sorted(ends):
        costs.append(CUT[0] + CUT[1] * cost[column] / thickness)
        way = [column]
        for step in reversed(steps):
            way.append(way[-1] + step[way[-1]])
        side += np.arange(width) >= np.array(way[::-1])[:, None]
    parts, number = [], pieces.max()
    for index, price in enumerate(costs):
        mine = own & (side == index)
        if (part[mine] > 0.5).any():
            number += 1
            pieces[box][mine] = number
            edges = [np.flatnonzero(mine.any(axis))[[0, -1]] + [0, 1] for axis in (1, 0)]
            parts.append(Piece(*(piece.low + np.transpose(edges)), number, price))
    return parts
