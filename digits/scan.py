"""From a picture of one handwritten digit to the 28 x 28 image that the network reads.

"As MNIST was made" below: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning
applied to document recognition", 1998, section III.A. page.html has the same `fit` in JavaScript.
"""

import logging
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from plumbing.files import PICTURE_FORMATS

LARGEST = 36_000_000  # pixels: an A4 page at 600 dpi has 35 million
SIDE = 512  # pixels: a larger picture is reduced first; strokes survive that, noise does not
GRID = 128  # cells, along the longer side, in which pieces of ink are told apart
CONTRAST = 0.05  # of black to white: what differs less from the paper is no ink
SMALLEST = 8  # pixels: what is smaller is no digit
FAINT = 0.2  # of the ink's darkness: paper in a photo may differ that much
PIECE = 0.03  # of the largest piece's ink: smaller ones are specks
DIGIT = 0.2  # of the largest piece's ink: so large a piece that stands apart is another digit
NO_LOG = logging.NullHandler()  # for Pillow, which else reports damaged files in words of its own
TIE = 1e-6  # is added before rounding, so that halves round alike in Python and JavaScript


def read(path):
    """The image uint8 [28, 28] of the digit in a picture file; ValueError says why there is none.

    PNG, JPEG, BMP, GIF, TIFF or WebP, of any colour and transparency and up to LARGEST pixels,
    turned as its EXIF data tell; of an animation the first picture. Ink may be darker or lighter
    than the paper, and the light uneven.
    """
    logging.getLogger("PIL").addHandler(NO_LOG)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about what can be read all the same
            # As a file, because Pillow garbles turned TIFF files that it opens itself.
            with open(path, "rb") as file, Image.open(file, formats=PICTURE_FORMATS) as image:
                lossless = image.format in ("PNG", "BMP", "GIF", "TIFF")
                grey = to_grey(image)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not a picture ({', '.join(PICTURE_FORMATS)})") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow reports a damaged file in many ways.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"{path}: not a picture that can be read: {reason}") from error
    try:
        return fit(one_digit(*find_ink(grey, lossless)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def to_grey(image):
    """The brightness float64 [H, W], 0 to 1 and at most SIDE pixels long, of a PIL image.

    Of a colour picture it is the mixture of red, green and blue that varies most, so that red ink
    on green paper is seen as well.
    """
    if not image.info.get("progressive"):  # or else its JPEG file must be decoded as a whole
        image.draft("RGB", (SIDE, SIDE))  # a lower resolution, if that will do
    if image.width * image.height > LARGEST or max(image.size) >= 2**16:
        raise ValueError(f"{image.width} x {image.height} pixels are too many, make it smaller")
    ImageOps.exif_transpose(image, in_place=True)
    factor = -(-max(image.size) // SIDE)
    if image.mode[0] in "IF":  # 16 or 32 bits a pixel
        values = np.asarray(image).astype(np.float32).clip(0)
        values = np.asarray(Image.fromarray(values).reduce(factor), np.float64)
        if not np.isfinite(values).all():
            raise ValueError("some of its pixels are not finite numbers")
        return values / (values.max() or 1)
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode != mode:  # else it would be copied
        image = image.convert(mode)
    pixels = np.asarray(image.reduce(factor), np.float64) / 255
    colour = pixels[..., :3]
    if mode == "RGBA":
        alpha = pixels[..., 3:]
        visible = colour[alpha[..., 0] > 0.5]
        if len(visible) == 0 or np.ptp(visible, axis=0).max() < 0.25:
            return alpha[..., 0]  # ink without paper
        colour = colour * alpha + np.median(visible, axis=0) * (1 - alpha)
    deviation = (colour - colour.mean((0, 1))).reshape(-1, 3)
    axis = np.linalg.eigh(deviation.T @ deviation)[1][:, -1]  # the first principal component
    red, green, blue = axis / np.abs(axis).sum()
    return colour[..., 0] * red + colour[..., 1] * green + colour[..., 2] * blue


def find_ink(grey, lossless):
    """(ink float64 [H, W], 0 on paper to 1; whether the paper is perfectly even) of a brightness.

    `lossless` tells whether the file keeps pixels as they were. ValueError where there is no ink.
    """
    values, counts = np.unique(grey, return_counts=True)
    paper = values[counts.argmax()]
    even = lossless and 2 * counts.max() > grey.size and paper in (values[0], values[-1])
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
        raise ValueError("nothing seems to be written on it")
    return ((ink - floor) / (level - floor)).clip(0, 1), even


def paper_surface(grey):
    """The brightness float64 [H, W] of the paper alone: a quadratic surface.

    The sum of the absolute differences is the least, so ink does not count for more because it is
    dark (by reweighted least squares: E. Schlossmacher, 1973). Nor does it for lying in the middle:
    the outer eighth of each side counts three times.
    """

    def terms(height, width):
        x = np.linspace(-1, 1, 2 * width + 1)[1::2]
        y = np.linspace(-1, 1, 2 * height + 1)[1::2, None]
        return np.stack([x**i * y**j for i in range(3) for j in range(3 - i)], -1)

    reduced = Image.fromarray(grey.astype(np.float32)).reduce(-(-2 * max(grey.shape) // GRID))
    height, width = reduced.height, reduced.width
    target, basis = np.asarray(reduced, np.float64).ravel(), terms(height, width).reshape(-1, 6)
    outside = np.abs(basis[:, [1, 3]]).max(1) > 0.75
    prior = np.where(outside, 3, 1)
    weight = prior
    for _ in range(20):
        root = np.sqrt(weight)
        surface = np.linalg.lstsq(basis * root[:, None], target * root, rcond=None)[0]
        weight = prior / (np.abs(target - basis @ surface) + 1e-3)
    return terms(*grey.shape) @ surface


def one_digit(ink, even):
    """The ink without specks, and without what reaches into a photo from outside.

    Where the paper is even, all ink counts. ValueError where it is too little for a digit, or looks
    like more than one.
    """
    pieces, count = find_pieces(ink > 0)
    mass = np.bincount(pieces.ravel(), ink.ravel(), count)
    kept = np.bincount(pieces[ink > 0.5], minlength=count) > 0
    if not even:
        border = np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]])
        touching = np.bincount(border, minlength=count)  # pixels: a table does it at length
        if mass[kept & (touching == 0)].sum() > PIECE * mass[kept].sum():
            kept &= touching < max(ink.shape) / 4
        kept &= mass >= PIECE * mass[kept].max(initial=0)
        ink = ink * kept[pieces]

    large = kept & (mass >= DIGIT * mass[kept].max(initial=0))
    rows, columns = (np.flatnonzero(large[pieces].any(axis)) for axis in (1, 0))
    if max(len(rows), len(columns)) < SMALLEST:
        raise ValueError("nothing seems to be written on it")
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    strokes = np.diff(ink > 0.5, axis=1, prepend=False).sum(1) / 2  # in each row
    if (
        np.diff(columns).max(initial=1) - 1 > 0.05 * width
        or np.diff(rows).max(initial=1) - 1 > 0.1 * height
        or width > 2.5 * height
        or np.median(strokes[strokes > 0]) > 5
    ):
        raise ValueError("more than one digit seems to be written on it: cut out one")
    return ink


def find_pieces(mask):
    """(the number int [H, W] of the connected piece that each pixel is in, 0 outside; how many).

    What lies in neighbouring cells of the coarse grid is connected.
    """
    cell = -(-max(mask.shape) // GRID)
    height, width = mask.shape
    cells = np.pad(mask, ((0, -height % cell), (0, -width % cell)))
    cells = cells.reshape(cells.shape[0] // cell, cell, -1, cell).any((1, 3))
    piece, count = ndimage.label(cells, np.ones((3, 3)))
    return piece.repeat(cell, 0).repeat(cell, 1)[:height, :width], count + 1


def fit(ink):
    """The image uint8 [28, 28], as MNIST was made, of an ink [H, W] of any scale, not all zero.

    It fits a 20 x 20 box, its proportions kept; then its centre of mass goes to the middle, by
    whole pixels, as far as the box stays within the image. An image of MNIST comes out as it went
    in, but that its darkest pixel becomes 255.
    """
    rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, _round(n * 20 / max(ink.shape))) for n in ink.shape)
    ink = _averaging(ink.shape[0], height) @ ink @ _averaging(ink.shape[1], width).T
    ink = _round(255 * ink / ink.max())
    top = _round(14 - ink.sum(1) @ np.arange(height) / ink.sum())
    left = _round(14 - ink.sum(0) @ np.arange(width) / ink.sum())
    top, left = min(max(top, 0), 28 - height), min(max(left, 0), 28 - width)
    image = np.zeros((28, 28), np.uint8)
    image[top : top + height, left : left + width] = ink
    return image


def _averaging(length, shorter):
    """The matrix [shorter, length] that averages over equal parts of a length."""
    edges = np.arange(shorter + 1)[:, None] * length / shorter
    pixel = np.arange(length)
    covered = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return covered.clip(0) * shorter / length


def _round(values):
    return np.floor(values + 0.5 + TIE).astype(int)
