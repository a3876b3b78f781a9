"""Pictures as users take them: digits on paper of any size, badly lit, blurred and noisy."""

import difflib
import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

import predict
from digits import scan

NOISE = 512  # pixels: the side of the tile of noise that a larger picture repeats
EDGE = 3  # pixels of MNIST around a digit, into which it may be blurred


def sure(images):
    """The probabilities of a judge to which every image is a digit, always the same."""
    return np.eye(10)[np.zeros(len(images), int)]


def read_picture(make, image, index, *, model, threshold=0.0):
    """The image uint8 [28, 28] in the file make(image, index) that a model reads; else all zero."""
    judge = functools.partial(predict.judge, model)
    path = Path(f"{index}.picture")
    path.write_bytes(make(image, index))
    try:
        return only(scan.read(path, judge=judge, threshold=threshold))
    except ValueError:
        return np.zeros((28, 28), np.uint8)
    finally:
        path.unlink()


def only(reading):
    """The only image that scan.read() found; ValueError where there are several."""
    ((image,),) = reading.lines
    return image


def plain(image, index):
    """The PNG file, bytes, of an image uint8 [28, 28]."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def on_paper(image, index):
    """A picture file, bytes, of a digit uint8 [28, 28]; what is random depends on the index.

    The longer side has 20 to 4,000 pixels (a small one is as likely as a large one: its logarithm
    is uniform), the shorter 0.6 to 1 times as many, but 20. The digit is 0.3 to 0.9 times as high
    or wide as that, but 16 pixels, anywhere in the picture. It is dark on light or light on dark,
    in grey or pale colours, at 30 to 100 % contrast; the light falls by up to half from one side to
    the other; the blur's standard deviation is up to 0.8 of MNIST's pixels, 4 % of the digit, and
    that of the noise up to 4 % of white. Half of the files are JPEG of quality 40.
    """
    generator = np.random.default_rng((0, index))
    uniform = generator.uniform
    longer = 20 * 200 ** generator.random()
    size = np.array([longer, max(20, longer * uniform(0.6, 1))]).round().astype(int)
    size = generator.permutation(size).tolist()
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    digit = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = max(16, min(size) * uniform(0.3, 0.9)) / max(digit.shape)
    place = [
        generator.integers(n - round(m * scale) + 1) - round(EDGE * scale)
        for n, m in zip(size, digit.shape[::-1], strict=True)
    ]
    # Blurred at eight times its size, because a large picture would take longer.
    digit = Image.fromarray(np.pad(digit, EDGE))
    shape = [round(n * scale) for n in digit.size]
    digit = digit.resize((8 * digit.width, 8 * digit.height), Image.Resampling.BICUBIC)
    digit = digit.filter(ImageFilter.GaussianBlur(8 * uniform(0, 0.8)))
    cover = Image.new("L", size)
    cover.paste(digit.resize(shape, Image.Resampling.BICUBIC), [int(n) for n in place])

    brightness = [uniform(0, 0.35), uniform(0.65, 1)]
    colours = np.array(generator.permutation(brightness))[:, None] + uniform(-0.1, 0.1, (2, 3))
    ink, paper = (tuple((255 * c).clip(0, 255).astype(int).tolist()) for c in colours)
    picture = Image.composite(Image.new("RGB", size, ink), Image.new("RGB", size, paper), cover)
    corners = 255 - 255 * uniform(0, 0.5) * _plane(uniform(0, 2 * np.pi))
    light = Image.fromarray(corners.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    picture = ImageChops.multiply(picture, Image.merge("RGB", [light] * 3))

    tile = [min(n, NOISE) for n in size[::-1]] + [3]
    noise = 255 * uniform(0, 0.04) * generator.standard_normal(tile, np.float32)
    repeats = [-(-n // m) for n, m in zip(size[::-1], tile, strict=False)] + [1]
    noise = np.tile(noise.round().astype(np.int16), repeats)[: size[1], : size[0]]
    picture = Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))
    file = io.BytesIO()
    settings = {"format": "JPEG", "quality": 40} if generator.random() < 0.5 else {"format": "BMP"}
    picture.save(file, **settings)
    return file.getvalue()


def row(images, index, gaps=(2, 9)):
    """(a picture of two to ten of images uint8 [N, 28, 28] in a row, the indices of these).

    They stand at slightly different heights, with gaps of 2 to 8 of their pixels, or others, dark
    on light and ten times as large; what is random depends on the index.
    """
    generator = np.random.default_rng((1, index))
    chosen = generator.integers(0, len(images), generator.integers(2, 11))
    ink, x = np.zeros((48, 36 * len(chosen) + 8), np.uint8), 4
    for image in images[chosen]:
        columns = np.flatnonzero(image.any(0))
        image = image[:, columns[0] : columns[-1] + 1]
        y = generator.integers(8, 13)
        place = ink[y : y + 28, x : x + image.shape[1]]
        place[:] = np.maximum(place, image)
        x += image.shape[1] + generator.integers(*gaps)
    picture = Image.fromarray(255 - ink[:, : x + 4])
    size = 10 * picture.width, 10 * picture.height
    return picture.resize(size, Image.Resampling.BILINEAR), chosen


KINDS = "rules squared boxes underlined touching sheet shadow table uneven texture faint".split()


def page(images, index, kind):
    """(a JPEG file, bytes, of some of images uint8 [N, 28, 28] on paper of a kind, their indices).

    Digits are about 60 pixels high, two to six in a line; a sheet has six lines of ten. What is
    random depends on the index.
    """
    generator = np.random.default_rng((2, KINDS.index(kind), index))
    uniform = generator.uniform
    rows, columns = (6, 10) if kind == "sheet" else (1, int(generator.integers(2, 7)))
    chosen = generator.integers(0, len(images), rows * columns)
    height, width = 300 + 100 * (rows - 1), 240 + 100 * columns
    picture = Image.new("L", (width, height))  # the ink
    pen, x = ImageDraw.Draw(picture), 60
    for number, image in enumerate(images[chosen]):
        line, column = divmod(number, columns)
        side = round(84 * (uniform(0.65, 1.35) if kind == "uneven" else uniform(0.9, 1.1)))
        digit = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        digit = digit.crop(digit.getbbox())
        x = 60 if column == 0 else x
        y = 190 + 100 * line - digit.height - int(uniform(0, 8))
        ink = Image.new("L", picture.size)
        ink.paste(digit, (x, y))
        picture = ImageChops.lighter(picture, ink)
        if kind == "boxes":
            frame = x - 14, y - 14, x + digit.width + 14, y + digit.height + 14
            pen = ImageDraw.Draw(picture)
            pen.rectangle(frame, outline=255, width=3)
        x += digit.width + int(uniform(-4, 0) if kind == "touching" else uniform(32, 48))
    pen = ImageDraw.Draw(picture)
    if kind == "underlined":
        pen.line((30, 200, x + 10, 200 + uniform(-4, 4)), 255, 3)
    ink = np.asarray(picture, np.float64) / 255

    paper = 235 - 20 * uniform() * np.linspace(0, 1, width) + np.zeros((height, 1))
    across, down = np.arange(width), np.arange(height)[:, None]
    ruled = ((down + index) % 70 < 3) & (across >= 0)
    if kind == "rules":
        paper[ruled] -= 60
    if kind == "squared":
        paper[ruled | ((across + index) % 70 < 3)] -= 60
    if kind == "texture":
        paper += 12 * np.sin(across / 3 + 2 * np.sin(down / 15)) - 50
    paper -= ink * (16 if kind == "faint" else paper - uniform(20, 60))
    if kind == "shadow":
        angle = uniform(0, 2 * np.pi)
        side = (across - width / 2) * np.cos(angle) + (down - height / 2) * np.sin(angle)
        paper *= 1 - 0.4 / (1 + np.exp(-side / uniform(2, 20)))
    if kind == "table":
        paper = np.pad(paper, 80, constant_values=uniform(80, 130))
    paper += generator.normal(0, 0.7 if kind == "faint" else 3, paper.shape)
    file = io.BytesIO()
    picture = Image.fromarray(paper.clip(0, 255).astype(np.uint8))
    picture.filter(ImageFilter.GaussianBlur(0.7)).save(file, "jpeg", quality=80)
    return file.getvalue(), chosen


def in_place(truth, read):
    """How many characters of a truth are in place in what was read: those of the common parts."""
    blocks = difflib.SequenceMatcher(None, truth, read, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks)


def _plane(angle):
    """From 0 at one corner to 1 at the opposite one, by direction; float64 [64, 64]."""
    x = np.linspace(-1, 1, 64)
    plane = x * np.cos(angle) + x[:, None] * np.sin(angle)
    return (plane / plane.max() + 1) / 2
