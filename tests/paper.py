"""Pictures as users take them: digits on paper of any size, badly lit, blurred and noisy."""

import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter

import predict
from digits import scan

NOISE = 512  # pixels: the side of the tile of noise that a larger picture repeats
EDGE = 3  # pixels of MNIST around a digit, into which it may be blurred


def sure(images):
    """The probabilities of a judge to which every image is a digit, always the same."""
    return np.eye(10)[np.zeros(len(images), int)]


def read_picture(make, image, index, *, model, threshold=0.0):
    """The image uint8 [28, 28] in the file make(image, index) that a model reads; or None."""
    judge = functools.partial(predict.judge, model)
    path = Path(f"{index}.picture")
    path.write_bytes(make(image, index))
    try:
        return only(scan.read(path, judge=judge, threshold=threshold))
    except ValueError:
        return None
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


def _plane(angle):
    """From 0 at one corner to 1 at the opposite one, by direction; float64 [64, 64]."""
    x = np.linspace(-1, 1, 64)
    plane = x * np.cos(angle) + x[:, None] * np.sin(angle)
    return (plane / plane.max() + 1) / 2
