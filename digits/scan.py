"""From a picture of handwritten digits to the 28 x 28 images that the network reads.

"As MNIST was made" below: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning
applied to document recognition", 1998, section III.A. page.html has the same `fit` in JavaScript.
"""

import logging
import math
import re
import struct
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError, features
from scipy import ndimage

from digits import frame as frames
from digits.traits import measure_thickness
from plumbing.cli import InputError
from plumbing.files import PICTURE_FORMATS

LARGEST = 36_000_000  # pixels: an A4 page at 600 dpi has 35 million
SIDE = 512  # pixels: a picture larger than this squared is reduced; noise does not survive that
GRID = 128  # cells, at a side, that are enough for the light on the paper and for what surrounds it
GAP = 0.01  # of the height of the tallest stroke: gaps as small do not part a digit
CONTRAST = 0.05  # of black to white: what differs less from the paper is no ink
SMALLEST = 8  # pixels: what is smaller is no digit
FAINT = 0.2  # of the ink's darkness: paper in a photo may differ that much
PIECE = 0.03  # of the largest piece's ink: smaller ones are specks
EVEN = 0.25  # of a picture's pixels: so many that are all as dark, or bright, as any are paper
TALL = 0.7  # of the tallest piece's height: so tall a piece is a digit, or a large part of one,
SMALL = 0.5, 0.2  # or so tall and with so much of the largest one's ink
MOST = 40  # pieces of the height of a digit: more are rather letters
THIN = 2.2  # pixels of an image: thinner strokes are thickened by half of what they lack
# How files begin in which people have pictures that Pillow cannot read, AVIF not everywhere.
OTHER_FORMATS = {"AVIF": rb".{4}ftypavi", "HEIC": rb".{4}ftyp(he|mif1|msf1)", "PDF": rb"%PDF"}
# What Pillow raises where a picture is damaged; SyntaxError and RuntimeError are of its plugins.
DAMAGED = OSError, SyntaxError, ValueError, RuntimeError, struct.error, Image.DecompressionBombError
TRANSPOSE = dict(zip(range(2, 9), (0, 3, 1, 5, 4, 6, 2), strict=True))  # by EXIF's Orientation
NO_LOG = logging.NullHandler()  # for Pillow, which else reports damaged files in words of its own
TIE = 1e-6  # is added before rounding, so that halves round alike in Python and JavaScript


def read(path, frame=frames.MNIST, digits=True):
    """The images uint8 [28, 28] of the digits in a picture file, line by line: a list of lists.

    Ink may be darker or lighter than the paper, and the light uneven. Without `digits` the picture
    is of one thing, whatever it is. InputError says why nothing can be read in it.
    """
    image, lossless = decode(path)
    ink, even = find_ink(to_grey(image), lossless, digits)
    lines = find_digits(ink, even) if digits else [[ink]]
    return [[fit(ink, frame, digits) for ink in line] for line in lines]


def decode(path):
    """(a picture file's PIL image, of mode F, RGB or RGBA; whether the file keeps all pixels).

    PNG, JPEG, BMP, GIF, TIFF or WebP, and AVIF where Pillow has it, of any colour and transparency
    and up to LARGEST pixels, rotated as its EXIF data tell; of an animation the first picture.
    """
    logging.getLogger("PIL").addHandler(NO_LOG)
    # Pillow's own decoder of uncompressed TIFF files misreads YCbCr and garbles rotated images.
    TiffImagePlugin.READ_LIBTIFF = features.check("libtiff")
    try:
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")  # of Pillow, about what can be read all the same
            image = Image.open(file, formats=PICTURE_FORMATS + ("AVIF",) * features.check("avif"))
            lossless = image.format in ("PNG", "BMP", "GIF", "TIFF")
            if not image.info.get("progressive"):  # such a JPEG file must be decoded as a whole
                image.draft("RGB", (SIDE, SIDE))  # a lower resolution, if that will do
            width, height = image.size
            if width * height > LARGEST or max(width, height) >= 2**16:
                raise ValueError(f"{width} x {height} pixels are too many, make it smaller")
            image.load()
            # Not exif_transpose(): it also writes the EXIF data anew, and fails where some are bad.
            method = TRANSPOSE.get(image.getexif().get(ExifTags.Base.Orientation))
            image = image if method is None else image.transpose(method)
            alpha = image.getbands()[-1] in "Aa" or "transparency" in image.info
            mode = "F" if image.mode[0] in "IF" else "RGBA" if alpha else "RGB"
            return image if image.mode == mode else image.convert(mode), lossless
    except UnidentifiedImageError:
        raise InputError(other_format(path)) from None
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"cannot be read as a picture: {reason}") from error


def other_format(path):
    """What a file is that Pillow does not know, and what to do with it."""
    with open(path, "rb") as file:
        start = file.read(16)
    for name, pattern in OTHER_FORMATS.items():
        if re.match(pattern, start, re.DOTALL):
            return f"{name} cannot be read here, save it as JPEG"
    return f"not a picture ({', '.join(PICTURE_FORMATS)})"


def to_grey(image):
    """The brightness float64 [H, W], 0 to 1 and at most SIDE squared pixels, of a decoded image.

    Of a colour picture it is the mixture of red, green and blue that varies most, so that red ink
    on green paper is seen as well.
    """
    factor = math.ceil(math.sqrt(image.width * image.height) / SIDE)
    if image.mode == "F":
        values = Image.fromarray(np.asarray(image).clip(0)).reduce(factor)
        values = np.asarray(values, np.float64)
        if not np.isfinite(values).all():
            raise InputError("some of its pixels are not finite numbers")
        return values / (values.max() or 1)
    pixels = np.asarray(image.reduce(factor), np.float64) / 255
    colour = pixels[..., :3]
    if image.mode == "RGBA":
        alpha = pixels[..., 3:]
        visible = colour[alpha[..., 0] > 0.5]
        if len(visible) == 0 or np.ptp(visible, axis=0).max() < 0.25:
            return alpha[..., 0]  # ink without paper
        colour = colour * alpha + np.median(visible, axis=0) * (1 - alpha)
    deviation = (colour - colour.mean((0, 1))).reshape(-1, 3)
    axis = np.linalg.eigh(deviation.T @ deviation)[1][:, -1]  # the first principal component
    red, green, blue = axis / np.abs(axis).sum()
    return colour[..., 0] * red + colour[..., 1] * green + colour[..., 2] * blue


def find_ink(grey, lossless, digits=True):
    """(ink float64 [H, W], 0 on paper to 1; whether the paper is perfectly even) of a brightness.

    `lossless` tells whether the file keeps pixels as they were. What is no digit is on even paper,
    with all its shades. InputError where there is no ink.
    """
    counts = {value: np.count_nonzero(grey == value) for value in (grey.min(), grey.max())}
    paper = max(counts, key=counts.get)
    even = not digits or (lossless and counts[paper] > EVEN * grey.size)
    if even:  # Drawn, not photographed: all the rest is ink, and an image of MNIST stays as it is.
        ink, floor = np.abs(grey - paper), 0
        level = ink.max()
    else:
        ink = grey - paper_surface(grey)
        ink *= np.sign((ink * ink * ink).sum())  # what differs most from the paper is ink
        # What differs from the paper the other way is noise, or it is paper where the surface fits
        # badly; but then there is less of what a pixel does not share with its neighbours.
        other_way, mixed = -ink[ink <= 0], np.abs(np.diff(np.diff(grey, axis=0), axis=1)) / 2
        noise = 1.4826 * min(np.median(x) if x.size else 0 for x in (other_way, mixed))
        darkest = np.asarray(Image.fromarray(ink.astype(np.float32)).reduce(2)).max()
        level = np.median(ink[ink >= darkest / 2])
        floor = max(3 * noise, FAINT * level)
    if level < max(CONTRAST, 4 / 3 * floor):
        raise InputError("nothing seems to be written on it")
    return ((ink - floor) / (level - floor)).clip(0, 1), even


def paper_surface(grey):
    """The brightness float64 [H, W] of the paper alone: a quadratic surface.

    The sum of the absolute differences is the least, so ink does not count for more because it is
    dark (by reweighted least squares: E. Schlossmacher, 1973). The outer eighth of each side counts
    three times, because ink is mostly in the middle.
    """

    def terms(height, width):
        x = np.linspace(-1, 1, 2 * width + 1)[1::2]
        y = np.linspace(-1, 1, 2 * height + 1)[1::2, None]
        return np.stack([x**i * y**j for i in range(3) for j in range(3 - i)], -1)

    reduced = Image.fromarray(grey.astype(np.float32)).reduce(-(-2 * max(grey.shape) // GRID))
    height, width = reduced.height, reduced.width
    target, basis = np.asarray(reduced, np.float64).ravel(), terms(height, width).reshape(-1, 6)
    outside = np.abs(basis[:, [1, 3]]).max(1) > 0.75
    weight = prior = np.where(outside, 3, 1)
    for _ in range(20):
        root = np.sqrt(weight)
        surface = np.linalg.lstsq(basis * root[:, None], target * root, rcond=None)[0]
        weight = prior / (np.abs(target - basis @ surface) + 1e-3)
    return terms(*grey.shape) @ surface


@dataclass
class Part:
    """A piece of ink, or some that belong together, and the box around them."""

    low: np.ndarray  # its first row and column
    high: np.ndarray  # the row and the column behind it
    pieces: set

    @property
    def size(self):
        """Height and width in pixels."""
        return self.high - self.low

    def add(self, other):
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.pieces |= other.pieces

    def shares(self, other):
        """The shares of the smaller height, and of the smaller width, that both have in common.

        They lie beside each other by the first, above each other by the second.
        """
        common = np.minimum(self.high, other.high) - np.maximum(self.low, other.low)
        return common / np.minimum(self.size, other.size)

    def surrounds(self, other):
        return (self.low < other.low).all() and (self.high > other.high).all()


def find_digits(ink, even):
    """The inks [H, W] of the digits in an ink, by line and from left to right: a list of lists.

    Specks are left out, a frame around the digits, and in a photo what reaches in from outside.
    InputError where there is too little ink for a digit, or where digits cannot be told apart.
    """
    if not even:
        ink = without_surroundings(ink)
    strokes = ndimage.find_objects(ndimage.label(ink > 0.5, np.ones((3, 3)))[0])
    tallest = max((rows.stop - rows.start for rows, _ in strokes), default=1)
    pieces, mass, kept = find_pieces(ink, math.ceil(GAP * tallest))
    most = mass[kept].max(initial=0)
    kept &= even | (mass >= PIECE * most)  # a scan of clean paper has no specks
    parts = [
        Part(*np.transpose([(side.start, side.stop) for side in box]), {number})
        for number, box in enumerate(ndimage.find_objects(pieces), start=1)
        if kept[number]
    ]
    tallest = max((part.size[0] for part in parts), default=0)
    large, small = [], []
    for part in sorted(parts, key=lambda part: part.low[1]):
        (piece,), share = part.pieces, part.size[0] / tallest
        is_digit = share >= TALL or (share >= SMALL[0] and mass[piece] >= SMALL[1] * most)
        (large if is_digit else small).append(part)
    if len(large) > MOST:  # before each gets an ink of its own
        raise InputError("too much is written on it for digits alone: cut out some")
    large = [part for part in large if not any(map(part.surrounds, large))]
    digits = join(large, small)
    if not digits or max(digit.size.max() for digit in digits) < SMALLEST:
        raise InputError("nothing seems to be written on it")
    if len(digits) == 1:
        digits[0].pieces.update(*(part.pieces for part in small))

    def cut_out(digit):
        own = ink * np.isin(pieces, list(digit.pieces))
        strokes = np.diff(own > 0.5, axis=1, prepend=False).sum(1) / 2  # in each row
        height, width = digit.size
        if width > 2.5 * height or np.median(strokes[strokes > 0]) > 5:
            raise InputError("what is written on it cannot be told apart: cut out one digit")
        return own

    return [[cut_out(digit) for digit in line] for line in arrange(digits)]


def join(large, small):
    """The digits, Parts, that large and small parts make up; what belongs to none is left out.

    What lies above or below a part belongs to it if it is near, as the bar of a 5 does.
    """
    digits = []
    for number, part in enumerate(large + small):
        for digit in digits:
            gap = max(part.low[0] - digit.high[0], digit.low[0] - part.high[0])
            height = max(part.size[0], digit.size[0])
            if part.shares(digit)[1] >= 0.5 and gap <= 0.15 * height:
                digit.add(part)
                break
        else:
            if number < len(large):
                digits.append(part)
    return digits


def arrange(digits):
    """The digits by line, from top to bottom, and from left to right: a list of lists."""
    lines = []
    for digit in sorted(digits, key=lambda digit: digit.low[1]):
        for line in lines:
            if digit.shares(line[-1])[0] >= 0.5:
                line.append(digit)
                break
        else:
            lines.append([digit])
    return sorted(lines, key=lambda line: sum(digit.low[0] for digit in line) / len(line))


def without_surroundings(ink):
    """The ink without what reaches into a photo from outside, a table's edge or a cloth, say."""
    pieces, mass, kept = find_pieces(ink, math.ceil(math.sqrt(ink.size) / GRID))
    border = np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]])
    touching = np.bincount(border, minlength=len(mass))  # pixels: a table does it at length
    if mass[kept & (touching == 0)].sum() > PIECE * mass[kept].sum():
        kept &= touching < max(ink.shape) / 4
    return ink * kept[pieces]


def find_pieces(ink, cell):
    """(the number int [H, W] of the piece each pixel is in, 0 outside; the masses; which are dark).

    A piece may have small gaps: what lies in neighbouring cells of a grid is connected, `cell`
    pixels at a side. It is dark if any of its pixels is more ink than paper; faint ones are none.
    """
    height, width = ink.shape
    cells = np.pad(ink > 0, ((0, -height % cell), (0, -width % cell)))
    cells = cells.reshape(cells.shape[0] // cell, cell, -1, cell).any((1, 3))
    piece, count = ndimage.label(cells, np.ones((3, 3)))
    pieces = piece.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    mass = np.bincount(pieces.ravel(), ink.ravel(), count + 1)
    return pieces, mass, np.bincount(pieces[ink > 0.5], minlength=count + 1) > 0


def fit(ink, frame=frames.MNIST, digits=True):
    """The image uint8 [28, 28], in a frame, of an ink [H, W] of any scale, not all zero.

    As MNIST was made: the longer side of the ink's box becomes that of the frame, its proportions
    kept; then its centre of mass (or the box's) goes to the middle, by whole pixels, as far as the
    box stays within the image. The strokes of `digits` are not left thinner than any of MNIST's. An
    ink that is as large as the frame already comes out as it went in, but that its darkest pixel
    becomes 255: so do MNIST's own images.
    """
    rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    fits = max(ink.shape) == frame.side
    height, width = (max(1, _round(n * frame.side / max(ink.shape))) for n in ink.shape)
    ink = _averaging(ink.shape[0], height) @ ink @ _averaging(ink.shape[1], width).T
    ink = _round(255 * ink / ink.max())
    if digits and not fits:
        ink = _thicken(ink)
    middle = height / 2, width / 2
    if frame.centre == "mass":
        middle = (ink.sum(1) @ np.arange(height), ink.sum(0) @ np.arange(width)) / ink.sum()
    top, left = (_round(14 - middle[axis]) for axis in (0, 1))
    top, left = min(max(top, 0), 28 - height), min(max(left, 0), 28 - width)
    image = np.zeros((28, 28), np.uint8)
    image[top : top + height, left : left + width] = ink
    return image


def _thicken(ink):
    """A digit's ink, 0 to 255, with thicker strokes if they are THIN; its box stays as it is.

    A ballpoint's line on a large sheet becomes one pale pixel where MNIST has two white ones.
    """
    thickness = measure_thickness(torch.from_numpy(ink / 255)[None]).item()
    # The darkest of a pixel's neighbours: a stroke that is two pixels thicker.
    thicker = ndimage.maximum_filter(ink, 3, mode="constant")
    share = np.clip((THIN - thickness) / 4, 0, 1)
    return _round(ink + share * (thicker - ink))


def _averaging(length, shorter):
    """The matrix [shorter, length] that averages over equal parts of a length."""
    edges = np.arange(shorter + 1)[:, None] * length / shorter
    pixel = np.arange(length)
    covered = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return covered.clip(0) * shorter / length


def _round(values):
    return np.floor(values + 0.5 + TIE).astype(int)
