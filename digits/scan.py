"""From a picture of handwritten digits to the 28 x 28 images that the network reads.

"As MNIST was made" below: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning
applied to document recognition", 1998, section III.A. page.html has the same `fit` in JavaScript.
"""

import itertools
import logging
import math
import re
import struct
import warnings

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError, features
from scipy import ndimage

from digits import candidates, paper
from digits import frame as frames
from digits.candidates import Reading
from digits.traits import measure_thickness
from plumbing.cli import InputError
from plumbing.files import PICTURE_FORMATS

LARGEST = 36_000_000  # pixels: an A4 page at 600 dpi has 35 million
SIDE = 512  # pixels: a picture larger than this squared is reduced; noise does not survive that
USUAL = 0.22  # threshold for parts of a picture, of a network that has learnt none
RULED = 0.5  # by which what is left without rules must be likelier
THIN = 2.2  # pixels of an image: thinner strokes are thickened by half of what they lack
# How files begin in which people have pictures that Pillow cannot read, AVIF not everywhere.
OTHER_FORMATS = {"AVIF": rb".{4}ftypavi", "HEIC": rb".{4}ftyp(he|mif1|msf1)", "PDF": rb"%PDF"}
# What Pillow raises where a picture is damaged; SyntaxError and RuntimeError are of its plugins.
DAMAGED = OSError, SyntaxError, ValueError, RuntimeError, struct.error, Image.DecompressionBombError
TRANSPOSE = dict(zip(range(2, 9), (0, 3, 1, 5, 4, 6, 2), strict=True))  # by EXIF's Orientation
NO_LOG = logging.NullHandler()  # for Pillow, which else reports damaged files in words of its own
TIE = 1e-6  # is added before rounding, so that halves round alike in Python and JavaScript


def read(path, frame=frames.MNIST, judge=None, threshold=0.0):
    """The candidates.Reading of a picture file: the images uint8 [28, 28] of its digits, by line.

    Ink may be darker or lighter than the paper, and the light uneven. `judge` gives the
    probabilities [N, 10] of images uint8 [N, 28, 28]; the threshold is what none reaches where an
    image is of no digit, 0 of a network that has not learnt that. Without a judge the picture is of
    one thing, whatever it is. InputError says why nothing can be read in it.
    """
    image, lossless = decode(path)
    grey = to_grey(image)
    found, most = None, 0
    if judge is None:
        ink = paper.drawn_ink(grey)
        readings = [] if ink is None else [(Reading([[fit(ink, frame, False)]], 0, True), 0)]
    else:
        readings = read_all(grey, lossless, lambda ink: fit(ink, frame), judge, threshold)
    for reading, doubt in readings:
        if reading and (found is None or reading.evidence - doubt > most):
            found, most = reading, reading.evidence - doubt
            if found.sure:
                break
    if found is None:
        raise InputError("nothing seems to be written on it")
    if not found.lines:
        raise InputError("too much is written on it for digits alone: cut out some")
    return found


def read_all(grey, lossless, fit, judge, threshold):
    """(A Reading or None, how doubtful it is) of each ink that a brightness [H, W] may mean.

    Paper that is perfectly even leaves no doubt. Of thick strokes that fill a picture its two
    levels tell more than what surrounds them; but only a network that has learnt what is no digit
    can tell whether that was so, with others it is the last resort, and one digit is more likely.
    """

    def two_levels():
        ink = paper.two_levels(grey)
        if ink is not None:
            yield candidates.read_as_one(ink, fit, judge, threshold or USUAL), 0

    def all_inks(inks):
        for ink, doubt in inks:
            yield candidates.read(ink, fit, judge, threshold or USUAL), doubt
            rest = paper.without_rules(ink)
            if rest is not None:
                yield candidates.read(rest, fit, judge, threshold or USUAL), doubt + RULED

    drawn = paper.drawn_ink(grey) if lossless and paper.is_even(grey) else None
    if drawn is not None:
        return all_inks([(drawn, 0)])
    strokes = paper.PAGE if threshold else paper.ONE
    readings = two_levels(), all_inks(paper.inks(grey, *strokes))
    return itertools.chain(*(readings if threshold else reversed(readings)))


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
    red, green, blue = axis / np.abs(axis).sum() * (1 if axis.sum() > 0 else -1)
    return colour[..., 0] * red + colour[..., 1] * green + colour[..., 2] * blue


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
