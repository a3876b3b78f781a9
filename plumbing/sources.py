"""From the name of a dataset to its pixels: local files, the Hub, and a cache of both."""

import functools
import hashlib
import io
import os
import re
import struct
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from plumbing import hub, tables
from plumbing.cli import InputError
from plumbing.files import PICTURE_FORMATS, replacing, scratch_folder
from plumbing.tables import MissingSplit

CACHE = Path(".cache")
HUB = "Hub"  # the fingerprint of all that is there, where asking for one would take a connection
# What Pillow raises for a picture that it cannot read.
NO_PICTURE = (*tables.DAMAGED, TypeError, LookupError, struct.error)


class Pixels(NamedTuple):
    """A split of a dataset."""

    images: np.ndarray  # uint8 [N, 28, 28], light on dark
    labels: np.ndarray  # int64 [N], 0 to 9
    class_names: list  # at most ten strings, none where the classes have numbers alone
    inverted: bool  # whether the images are dark on light in the dataset
    scaled: bool  # whether its pixels are from 0 to 1
    name: str  # that of the split there: "validation" where it stands in for "test"


def load(dataset, split, known=None):
    """The Pixels of a split, "train" or "test", of a dataset.

    `dataset` is a local file or folder that tables.open_splits() opens, or the id of a dataset on
    the Hugging Face Hub; what is `known` of that is for hub.load(). Both splits are decoded at once
    and kept in CACHE: those of a Hub dataset until CACHE is removed, the others until their source
    changes. Raises MissingSplit where the dataset lacks the split, any other InputError where it is
    not there or does not hold 28 x 28 grey images of at most ten classes.
    """
    name, fingerprint = _identify(dataset)
    try:
        pixels = _read_cache(CACHE / f"{name}-{split}.npz", fingerprint)
    except (*tables.DAMAGED, MemoryError, SystemError):  # missing, outdated or damaged: made anew
        pass
    else:
        if not len(pixels.images):
            raise MissingSplit(f"dataset {dataset!r}, split {split!r}: missing, or without labels")
        return pixels
    decode = functools.partial(_decode, dataset, split)
    if fingerprint == HUB:
        splits = hub.load(dataset, known, decode)
    else:
        path = Path(os.path.abspath(dataset))
        try:
            with scratch_folder() as folder:
                splits = decode(path, folder)
        except InputError:
            tables.check_pointers(path)
            raise
    try:
        CACHE.mkdir(exist_ok=True)
        for each, pixels in splits.items():
            names = pixels.class_names + [""] * (10 - len(pixels.class_names))
            arrays = pixels._replace(class_names=names)._asdict()
            with replacing(CACHE / f"{name}-{each}.npz") as file:
                np.savez(file, fingerprint=fingerprint, **arrays)
    except OSError as error:
        print(f"the next run will decode {dataset} again: {error}", file=sys.stderr)
    return splits[split]


def _identify(dataset):
    """(a file name that no other source has, a fingerprint that changes when the source does)."""
    try:
        path = Path(os.path.realpath(dataset))
        exists = dataset and path.exists()
    except (OSError, ValueError) as error:  # too long, or with characters that no name has
        raise InputError(f"dataset {dataset!r}: no name of a dataset: {error}") from error
    if exists:
        files = tables.files_of(path)
        stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        name = f"{path.stem}-{hashlib.sha256(bytes(path)).hexdigest()[:8]}"
        return name, hashlib.sha256(repr(stats).encode()).hexdigest()
    if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", dataset):
        return dataset.replace("/", "--"), HUB
    raise InputError(f"dataset {dataset!r}: there is no such file or folder")


def _read_cache(path, fingerprint):
    """The Pixels in a file; raises one of tables.DAMAGED where they cannot be believed."""
    if not path.is_file():  # a pipe or a device may never end
        raise ValueError("no file")
    # An .npz file carries a CRC-32 of each array, and reading an array fails where it differs.
    with np.load(path, allow_pickle=False) as arrays:
        if any(member.compress_type for member in arrays.zip.infolist()):
            raise ValueError("compressed, so of any size")
        if set(arrays) != {"fingerprint", *Pixels._fields} or arrays["fingerprint"] != fingerprint:
            raise ValueError("outdated")
        found = (np.atleast_1d(arrays[name]) for name in Pixels._fields)
        images, labels, class_names, inverted, scaled, name = found
    count = len(labels)
    if (
        (images.dtype, images.shape) != (np.uint8, (count, 28, 28))
        or (labels.dtype, labels.shape) != (np.int64, (count,))
        or (class_names.dtype.kind, class_names.shape) != ("U", (10,))
        or not np.isin(labels, range(10)).all()
        or any((each.dtype, each.shape) != (bool, (1,)) for each in (inverted, scaled))
        or name.dtype.kind != "U"
        or name.tolist() not in [[each] for each in tables.SPLITS]
    ):
        raise ValueError("not as it was written")
    names = [name for name in class_names.tolist() if name]  # load() adds empty ones.
    return Pixels(images, labels, names, bool(inverted[0]), bool(scaled[0]), str(name[0]))


def _decode(dataset, split, path, folder):
    """{"train": Pixels, "test": Pixels} of the dataset at a path; one that is missing has 0 images.

    InputError where the split asked for is missing, or a split cannot be used.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            splits, class_names = tables.open_splits(path, folder)
    except tables.DAMAGED as error:
        raise InputError(f"dataset {dataset!r}: cannot be read: {error}") from error
    sizes = {name: len(next(iter(columns.values()), ())) for name, columns in splits.items()}
    its_names = {"train": "train", "test": next(filter(sizes.get, ("test", "validation")), "test")}
    found, pixels = {}, {}
    for each, name in its_names.items():
        where = f"dataset {dataset!r}, split {name!r}"
        try:
            if not sizes.get(name):
                shown = ", ".join(f"{name} ({size} rows)" for name, size in sizes.items())
                raise MissingSplit(f"{where}: missing or empty; this dataset has {shown}")
            found[each] = where, *tables.find(splits[name], class_names, where)
        except InputError as error:
            if each == split:  # The other one may have no labels, and is not asked for.
                raise
            if isinstance(error, MissingSplit):
                nothing = np.empty((0, 28, 28), np.uint8), np.empty(0, np.int64)
                pixels[each] = Pixels(*nothing, [], inverted=False, scaled=False, name=name)
    # Texts are of classes in alphabetical order, the same in both splits.
    labels = np.concatenate([labels for _, _, labels, _ in found.values()])
    texts = sorted(set(map(str, labels))) if labels.dtype.kind in "OU" else []
    scaled = inverted = None  # The training images decide, if there are any.
    for each, (where, images, labels, names) in found.items():
        names = names or texts
        if len(names) > 10:
            raise InputError(f"{where}: {len(names)} classes, and the network has 10 outputs")
        names = [name.rstrip("\0") or f"class {index}" for index, name in enumerate(names)]
        labels = _number(labels, texts, where)
        if not isinstance(images, np.ndarray):
            images = _decode_pictures(images, where)
        if scaled is None:
            scaled = bool(images.max() <= 1)
        images = _to_bytes(images, scaled, where)
        if inverted is None:
            inverted = bool(_dark_on_light(images))
        images = 255 - images if inverted else images
        pixels[each] = Pixels(images, labels, names, inverted, scaled, its_names[each])
    return pixels


def _to_bytes(images, scaled, where):
    """Images of numbers as uint8 from 0 to 255; `scaled` if they are from 0 to 1."""
    if scaled and 0 <= images.min() <= images.max() <= 1:
        return np.rint(np.multiply(images, 255, dtype=np.float32)).astype(np.uint8)
    if scaled or images.dtype != np.uint8:
        raise InputError(
            f"{where}: its pixels are not all whole numbers from 0 to 255, nor all from 0 to 1"
        )
    return images


def _dark_on_light(images):
    """Whether most pixels at the border of images uint8 [N, 28, 28] are rather light.

    Of light writing on dark 0.02 % are, of things that touch the border 4 %, and of those of one
    class 7 % at most.
    """
    border = np.ones((28, 28), bool)
    border[1:-1, 1:-1] = False
    return np.median(images[:, border]) > 127


def _number(labels, texts, where):
    """Labels as int64 [N]; those that are not numbers count the texts, which are sorted."""
    numbers = np.searchsorted(texts, labels.astype(str)) if texts else labels.astype(float)
    for row, (number, label) in enumerate(zip(numbers.tolist(), labels.tolist(), strict=True)):
        if number not in range(10) or label in ("", None):
            raise InputError(f"{where}, row {row}: the label is {label}, not 0 to 9")
    return numbers.astype(np.int64)


def _decode_pictures(column, where):
    """The pixels uint8 [N, 28, 28] of a pyarrow.ChunkedArray of pictures."""
    from tqdm import tqdm

    images = np.empty((len(column), 28, 28), np.uint8)
    parts = (column[start : start + 1000].to_pylist() for start in range(0, len(column), 1000))
    pictures = (picture for part in parts for picture in part)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about what is refused or can be read
        for row, picture in enumerate(tqdm(pictures, "decoding", len(column), disable=None)):
            try:
                images[row] = _pixels(picture)
            except InputError as error:
                file = picture.get("path") if isinstance(picture, dict) else None
                place = os.path.realpath(file) if os.path.isfile(file or "") else f"row {row}"
                raise InputError(f"{where}, {place}: not a usable image: {error}") from error
    return images


def _pixels(picture):
    """The pixels, uint8 [28, 28], of a picture: bytes, or {"bytes", "path"}; else InputError."""
    from PIL import Image

    encoded, file = picture, None
    if isinstance(picture, dict):
        encoded, file = picture["bytes"], picture.get("path")
    if not encoded and not os.path.isfile(file or ""):
        raise InputError("there is none")
    try:
        image = Image.open(io.BytesIO(encoded) if encoded else file, formats=PICTURE_FORMATS)
        if image.size == (28, 28) and image.mode == "L":
            return np.asarray(image)
        if image.size == (28, 28) and image.mode[0] not in "IF":  # of 16 or 32 bits a pixel
            grey = image.convert("L")
            # Many programs save grey as red, green and blue alike.
            colours, same = (np.asarray(each.convert("RGBA")) for each in (image, grey))
            if image.mode == "1" or np.array_equal(colours, same):
                return np.asarray(grey)
    except (*NO_PICTURE, Image.DecompressionBombError) as error:
        raise InputError(error) from error
    raise InputError(f"{image.width} x {image.height} {image.mode}, and not 28 x 28 grey (L)")
