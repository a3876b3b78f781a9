"""From the brightness of a picture to its ink: the paper under it, and what is rules and boxes."""

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage

CONTRAST = 0.05  # of black to white: what differs less from the paper is no ink
EVEN = 0.25  # of a picture's pixels: so many that are all as dark, or bright, as any are paper
TWO = 0.75  # of the variance of the brightness: what two levels explain are ink and paper
# Of the longer side: how thick strokes may be, and how thick those are by which ink is told from
# paper; on a page, and where a picture is of one digit.
PAGE, ONE = (0.2, 0.09), (0.27, 0.27)
GRID = 48  # cells, at the longer side, that are enough to tell whether ink is darker than paper
OTHER = 2  # how doubtful, as evidence, it is that ink is what does not differ most from the paper
FAINT = 0.3, 0.5  # of the ink's darkness: paper in a photo, and rules, may differ that much
NOISY = 0.4  # of the ink's darkness: what is more is ink, however much noise there is
OUTSIDE = 0.25  # of the longer side: so far along the border goes what reaches in from outside,
INSIDE = 0.02  # if elsewhere is so much of the largest piece's ink
RULE = 0.02  # of the ink's darkness, above that of paper: that much have rules
LONG, SHORT = 0.7, 0.06  # of the picture: so long are rules, and straight pieces of them
THIN = 8  # times as long as thick are rules at least
REACH = 3  # pixels from the end of a rule to what it ends on


def is_even(grey):
    """Whether many pixels of a brightness [H, W] are as dark, or as bright, as any are."""
    return max(np.count_nonzero(grey == edge) for edge in (grey.min(), grey.max())) > (
        EVEN * grey.size
    )


def drawn_ink(grey):
    """The ink [H, W] on even paper, 0 on it to 1, of a brightness [H, W]; None if there is none.

    All that is not paper is ink, so that an image of MNIST stays as it is.
    """
    paper = max(grey.min(), grey.max(), key=lambda edge: np.count_nonzero(grey == edge))
    ink = np.abs(grey - paper)
    return ink / ink.max() if ink.max() >= CONTRAST else None


def two_levels(grey):
    """The ink [H, W] of a brightness [H, W] that has two levels, or None.

    N. Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    counts, edges = np.histogram(grey, 256)
    centres = (edges[1:] + edges[:-1]) / 2
    below, sums = counts.cumsum()[:-1], (counts * centres).cumsum()
    above = grey.size - below
    dark, light = sums[:-1] / below.clip(1), (sums[-1] - sums[:-1]) / above.clip(1)
    between = below * above * (light - dark) ** 2 / grey.size**2
    best = between.argmax()
    dark, light = dark[best], light[best]
    if light - dark >= CONTRAST and between[best] > TWO * grey.var():
        bright = grey > (dark + light) / 2
        border = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
        if border.mean() + bright.mean() < 1:  # paper is mostly more, and around
            dark, light = light, dark
        return ((light - grey) / (light - dark)).clip(0, 1)
    return None


def inks(grey, thick, usual):
    """Yield (an ink [H, W], 0 on paper to 1, how doubtful it is) that a brightness [H, W] may mean.

    Of a photo or a scan: the paper may be uneven, in a shadow or on a table, and noisy. Likely ones
    come first. How thick strokes may be, and are, is PAGE or ONE.
    """
    smooth, length = ndimage.gaussian_filter(grey, 1), round(thick * max(grey.shape)) // 2 * 2 + 1
    likely = 1 if is_ink_dark(grey, usual) else -1
    for sign, doubt in (likely, 0), (-likely, OTHER):
        paper = close(sign * smooth, length)
        ink = paper - sign * grey
        if sign > 0 and grey.min() >= 0:  # A share of the light: what is in a shadow is as dark.
            ink /= paper.clip(2 * CONTRAST)
        ink -= np.median(ink)  # because a closing takes the brightest of the noise
        noise = 1.4826 * np.median(np.abs(ink))  # its standard deviation, if it is normal
        darkest = np.asarray(Image.fromarray(ink.astype(np.float32)).reduce(2)).max()
        level = np.median(ink[ink >= darkest / 2])
        if level >= max(CONTRAST, 4 * noise):
            for faint in FAINT:
                floor = max(min(3 * noise, NOISY * level), faint * level)
                part = ((ink - floor) / (level - floor)).clip(0, 1)
                yield without_surroundings(part), doubt + faint - FAINT[0]


def without_surroundings(ink):
    """The ink [H, W] without what reaches in from outside at length, if there is more than that."""
    label, count = ndimage.label(ink > 0, np.ones((3, 3)))
    border = np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]])
    touching = np.bincount(border, minlength=count + 1)
    mass = np.bincount(label.ravel(), ink.ravel(), count + 1)
    inside = touching < OUTSIDE * max(ink.shape)
    return ink * inside[label] if mass[inside].max(initial=0) > INSIDE * mass.max() else ink


def close(grey, length):
    """A brightness [H, W] where all that is darker and less than `length` pixels wide is filled.

    A morphological closing: edges, of a shadow or of paper on a table, stay where they are.
    """
    reach = length // 2 + 1
    grey = np.pad(grey, reach, mode="edge")
    for extreme in ndimage.maximum_filter1d, ndimage.minimum_filter1d:
        for axis in 0, 1:
            grey = extreme(grey, length, axis, mode="nearest")
    return grey[reach:-reach, reach:-reach]


def is_ink_dark(grey, stroke):
    """Whether ink is darker than its paper.

    It is what differs from the median of its surroundings, and is no edge, which a closing keeps.
    """
    cells = Image.fromarray(grey.astype(np.float32)).reduce(-(-max(grey.shape) // GRID))
    length = round(stroke * max(cells.size)) * 2 + 1
    median = np.asarray(cells.filter(ImageFilter.MedianFilter(length)), np.float64)
    cells = np.asarray(cells, np.float64)
    dark, light = (
        np.minimum(close(sign * cells, length), sign * median) - sign * cells for sign in (1, -1)
    )
    return (dark.clip(0) ** 3).sum() > (light.clip(0) ** 3).sum()


def without_rules(ink):
    """The ink [H, W] without rules and boxes, or None where there are none; what crosses stays."""
    mask = ink > RULE
    along, across = straight_runs(mask), straight_runs(mask.T)
    before = -1
    while (count := along.sum() + across.sum()) != before:  # a side without its neighbours is none
        before = count
        along, across = find_rules(along, across.T), find_rules(across, along.T)
    across = across.T
    if not before:
        return None
    return ink * ~(stretches(along, mask & ~across) | stretches(across.T, mask.T & ~along.T).T)


def straight_runs(mask):
    """Where runs along the rows of a mask bool [H, W] are, which may slope a little."""
    length = max(30, int(SHORT * max(mask.shape))) // 2 * 2 + 1
    thick = shrink(spread(spread(mask, 3, 0), 5, 1), 5, 1)  # over gaps, and over steps
    return spread(shrink(thick, length, 1), length, 1) & mask


def find_rules(runs, others):
    """Those of the runs along the rows, bool [H, W], that are rules, or sides of boxes.

    They are thin; and they are long, or end on other runs, which are across, or on the border.
    """
    label, count = ndimage.label(runs, np.ones((3, 3)))
    sizes = np.bincount(label.ravel(), minlength=count + 1)
    width = 2 * REACH + 1
    stops = np.pad(spread(spread(others, width, 0), width, 1), 1, constant_values=True)
    kept = np.zeros(count + 1, bool)
    for number, (rows, columns) in enumerate(ndimage.find_objects(label), start=1):
        length = columns.stop - columns.start
        if sizes[number] * THIN <= length**2:
            nearby = stops[rows.start + 1 : rows.stop + 1]
            ends = [
                nearby[:, max(0, x - REACH) : x + REACH + 2].any()
                for x in (columns.start, columns.stop)
            ]
            kept[number] = all(ends) or length > LONG * runs.shape[1]
    return kept[label]


def stretches(rules, mask):
    """Where rules along the rows and their edges are, and nothing of a mask that crosses them."""
    if not rules.any():
        return rules
    thickness = rules.sum() / rules.any(0).sum() / max(1, ndimage.label(rules.any(1))[1])
    length = int(1.5 * thickness) + 3
    return spread(rules, 3, 0) & ~spread(shrink(mask, length, 0), length, 0)


def spread(mask, length, axis):
    """A mask bool [H, W] that is wider by half a length, in pixels, to either side."""
    return ndimage.maximum_filter1d(mask.view(np.uint8), length, axis, mode="constant").view(bool)


def shrink(mask, length, axis):
    return ndimage.minimum_filter1d(mask.view(np.uint8), length, axis, mode="constant").view(bool)
