"""From the name of a dataset to its pixels: local files, the Hub, and a cache of both."""

import functools
import hashlib
import io
import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from plumbing import formats, hub
from plumbing.cli import InputError
from plumbing.files import PICTURE_FORMATS, replacing, scratch_folder

CACHE = Path(".cache")
DIGITS = list("0123456789")  # the classes where they have no names


class Pixels(NamedTuple):
    """A split of a dataset."""

    images: np.ndarray  # uint8 [N, 28, 28], light on dark
    labels: np.ndarray  # int64 [N], 0 to 9
    class_names: list  # ten strings
    turned: bool  # whether the images are dark on light in the dataset


def load(dataset, split, known=None):
    """The Pixels of a split, "train" or "test", of a dataset.

    `dataset` is a local file or folder that formats.open_splits() opens, or the id of a dataset on
    the Hugging Face Hub, of which something may be `known` (a hub.Known): see hub.load(). Both
    splits are decoded at once and kept in CACHE: those of a Hub dataset until CACHE is removed, the
    others until their source changes. Raises InputError for a dataset that is not there or does not
    hold 28 x 28 grey images of at most ten classes.
    """
    name, fingerprint = _identify(dataset)
    try:
        return _read_cache(CACHE / f"{name}-{split}.npz", fingerprint)
    except Exception:  # Missing, outdated, or damaged in one of many ways: made anew below.
        pass
    decode = functools.partial(_decode, dataset, split)
    if fingerprint == HUB:
        splits = hub.load(dataset, known, decode)
    else:
        path = Path(os.path.abspath(dataset))  # `datasets` gives names such as "parquet" a meaning
        try:
            with scratch_folder() as folder:
                splits = decode(path, folder)
        except InputError:
            formats.check_pointers(path)
            raise
    if _dark_on_light(next(iter(splits.values())).images):  # the training images, if there are any
        for each, pixels in splits.items():
            splits[each] = pixels._replace(images=255 - pixels.images, turned=True)
    try:
        CACHE.mkdir(exist_ok=True)
        for each, pixels in splits.items():
            with replacing(CACHE / f"{name}-{each}.npz") as file:
                np.savez(file, fingerprint=fingerprint, **pixels._asdict())
    except OSError as error:
        print(f"the next run will decode {dataset} again: {error}", file=sys.stderr)
    return splits[split]


def _dark_on_light(images):
    """Whether most pixels at the border of images uint8 [N, 28, 28] are rather light.

    Of MNIST's 0.02 % are, of Fashion-MNIST's, many of which touch the border, 4 %, and of those of
    any one of its classes 7 % at most.
    """
    border = np.ones((28, 28), bool)
    border[1:-1, 1:-1] = False
    return np.median(images[:, border]) > 127


# The fingerprint of all that is on the Hub, where asking for another would take a connection.
HUB = "Hub"


def _identify(dataset):
    """(a file name that no other source has, a fingerprint that changes when the source does)."""
    try:
        path = Path(os.path.realpath(dataset))
        exists = dataset and path.exists()
    except (OSError, ValueError) as error:  # too long, or with characters that no name has
        raise InputError(f"dataset {dataset!r}: no name of a dataset: {error}") from error
    if exists:
        files = [path]
        if path.is_dir():
            found = os.walk(path, followlinks=True)
            files = sorted(Path(folder, name) for folder, _, names in found for name in names)
            files = filter(Path.is_file, files)
        stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        name = f"{path.stem}-{hashlib.sha256(bytes(path)).hexdigest()[:8]}"
        return name, hashlib.sha256(repr(stats).encode()).hexdigest()
    if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", dataset):
        return dataset.replace("/", "--"), HUB
    raise InputError(f"dataset {dataset!r}: there is no such file or folder")


def _read_cache(path, fingerprint):
    if not path.is_file():  # a pipe or a device may never end
        raise ValueError("no file")
    # An .npz file carries a CRC-32 of each array, and reading an array fails where it differs.
    with np.load(path, allow_pickle=False) as arrays:
        if any(member.compress_type for member in arrays.zip.infolist()):
            raise ValueError("compressed, so of any size")
        if arrays["fingerprint"] != fingerprint:
            raise ValueError("outdated")
        images, labels, class_names, turned = (arrays[name] for name in Pixels._fields)
    count = len(labels)
    if (
        (images.dtype, images.shape) != (np.uint8, (count, 28, 28))
        or (labels.dtype, labels.shape) != (np.int64, (count,))
        or (class_names.dtype.kind, class_names.shape) != ("U", (10,))
        or not 0 <= labels.min() <= labels.max() <= 9
        or (turned.dtype, turned.shape) != (bool, ())
    ):
        raise ValueError("not as it was written")
    return Pixels(images, labels, class_names.tolist(), bool(turned))


def _decode(dataset, split, path, folder):
    """{"train": Pixels, "test": Pixels} of the dataset at a path, or the one of them that it has.

    InputError where the split asked for is missing, or a split cannot be used.
    """
    splits = _open(dataset, path, folder)
    if not splits.get(split):
        sizes = ", ".join(f"{name} ({len(table)} rows)" for name, table in splits.items())
        raise InputError(
            f"dataset {dataset!r}, split {split!r}: missing or empty; this dataset has {sizes}"
        )
    return {
        name: _read(splits[name], f"dataset {dataset!r}, split {name!r}")
        for name in ("train", "test")
        if splits.get(name)
    }


def _read(table, where):
    """The Pixels of a datasets.Dataset or formats.Arrays, checked and decoded."""
    if isinstance(table, formats.Arrays):
        labels = _check_labels(table.labels.tolist(), where)
        return Pixels(table.images, labels, DIGITS, turned=False)
    import datasets
    from tqdm import tqdm

    image_column = _column(table, "Image", where)
    label_column = _column(table, "ClassLabel", where)
    class_names = getattr(table.features[label_column], "names", DIGITS)
    if len(class_names) > 10:
        raise InputError(f"{where}: {len(class_names)} classes, and the network has 10 outputs")
    class_names = class_names + [f"output {index}" for index in range(len(class_names), 10)]
    labels = _check_labels(list(table[label_column]), where)

    encoded = table.cast_column(image_column, datasets.Image(decode=False))
    parts = encoded.select_columns(image_column).with_format("arrow").iter(1000)
    encoded = (image for part in parts for image in part[image_column].to_pylist())
    images = np.empty((len(table), 28, 28), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about what is refused or can be read
        for row, image in enumerate(tqdm(encoded, "decoding", len(table), disable=None)):
            try:
                images[row] = _pixels(image)
            except Exception as error:  # Pillow reports a damaged file in many ways.
                raise InputError(f"{where}, row {row}: not a usable image: {error}") from error
    return Pixels(images, labels, class_names, turned=False)


def _check_labels(labels, where):
    for row, label in enumerate(labels):
        if label not in range(10):
            raise InputError(f"{where}, row {row}: the label is {label}, not 0 to 9")
    return np.array(labels, np.int64)


def _open(dataset, path, folder):
    """formats.open_splits() without a word on the way; InputError where it fails."""
    import datasets
    import huggingface_hub

    datasets.logging.set_verbosity(logging.CRITICAL)
    huggingface_hub.logging.set_verbosity(logging.CRITICAL)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return formats.open_splits(path, folder)
    except Exception as error:  # Its readers report what they cannot read in many ways.
        reason = error.__cause__ or error
        raise InputError(f"dataset {dataset!r}: cannot be read: {reason}") from error


def _column(table, kind, where):
    """The name of the one column of a kind; of the labels it may be the one of whole numbers."""
    kinds = {name: type(feature).__name__ for name, feature in table.features.items()}
    names = [name for name in kinds if kinds[name] == kind]
    if kind == "ClassLabel" and not names:
        numbers = {name: str(getattr(table.features[name], "dtype", "")) for name in kinds}
        names = [name for name in kinds if numbers[name].startswith(("int", "uint"))]
    if len(names) != 1:
        raise InputError(
            f"{where}: needs exactly one {kind} column, and {len(names)} of its columns "
            f"({', '.join(kinds)[:100]}) are"
        )
    return names[0]


def _pixels(encoded):
    """The pixels, uint8 [28, 28], of an image as `datasets` stores it: {"bytes", "path"}."""
    from PIL import Image

    if encoded is None:
        raise ValueError("there is none")
    if not encoded["bytes"] and not os.path.isfile(encoded["path"] or ""):
        raise ValueError("neither bytes nor a file")
    source = io.BytesIO(encoded["bytes"]) if encoded["bytes"] else encoded["path"]
    image = Image.open(source, formats=PICTURE_FORMATS)
    if image.mode == "L" and image.size == (28, 28):
        return np.asarray(image)
    refused = f"{image.width} x {image.height} {image.mode}, and not 28 x 28 grey (L)"
    if image.size != (28, 28) or image.mode[0] in "IF":  # 16 or 32 bits a pixel
        raise ValueError(refused)
    grey = image.convert("L")
    if image.mode != "1":  # Many programs save grey as red, green and blue alike.
        colour, same = (np.asarray(each.convert("RGBA")) for each in (image, grey))
        if not np.array_equal(colour, same):
            raise ValueError(refused)
    return np.asarray(grey)
