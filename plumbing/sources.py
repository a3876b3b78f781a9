"""From the name of a dataset to its pixels: local files, the Hub, and a cache of both."""

import hashlib
import io
import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np

from plumbing import hub
from plumbing.cli import InputError
from plumbing.files import PICTURE_FORMATS, replacing, scratch_folder

CACHE = Path(".cache")


def load(dataset, split, checksums=None):
    """A split of a dataset: images uint8 [N, 28, 28], labels int64 [N], and ten class names.

    `dataset` is a local folder or file that `datasets.load_dataset` opens, or the id of a dataset
    on the Hugging Face Hub, whose splits have the SHA-256 `checksums`, if given (see hub.load).
    The images are decoded once and kept in CACHE: those of a Hub dataset until CACHE is removed,
    the others until their source changes. Raises InputError for a dataset that is not there or does
    not hold 28 x 28 grey images of at most ten classes.
    """
    name, fingerprint = _identify(dataset)
    cache = CACHE / f"{name}-{split}.npz"
    try:
        return _read_cache(cache, fingerprint)
    except Exception:  # Missing, outdated, or damaged in one of many ways: made anew below.
        pass
    if fingerprint == HUB:
        found = hub.load(dataset, split, checksums, _decode)
    else:
        with scratch_folder() as folder:
            found = {split: _decode(dataset, split, folder)}
    try:
        CACHE.mkdir(exist_ok=True)
        for each, (images, labels, class_names) in found.items():
            with replacing(CACHE / f"{name}-{each}.npz") as file:
                arrays = {"images": images, "labels": labels, "class_names": class_names}
                np.savez(file, fingerprint=fingerprint, **arrays)
    except OSError as error:
        print(f"the next run will decode {dataset} again: {error}", file=sys.stderr)
    return found[split]


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
        files = sorted(filter(Path.is_file, path.rglob("*"))) if path.is_dir() else [path]
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
        images, labels, class_names = (arrays[n] for n in ("images", "labels", "class_names"))
    count = len(labels)
    if (
        (images.dtype, images.shape) != (np.uint8, (count, 28, 28))
        or (labels.dtype, labels.shape) != (np.int64, (count,))
        or (class_names.dtype.kind, class_names.shape) != ("U", (10,))
        or not 0 <= labels.min() <= labels.max() <= 9
    ):
        raise ValueError("not as it was written")
    return images, labels, class_names.tolist()


def _decode(dataset, split, folder):
    """Read a split with the `datasets` library, check it and decode its images."""
    import datasets
    from tqdm import tqdm

    where = f"dataset {dataset!r}, split {split!r}"
    splits = _open(dataset, folder)
    if not splits.get(split):
        sizes = ", ".join(f"{name} ({len(table)} rows)" for name, table in splits.items())
        raise InputError(f"{where}: missing or empty; this dataset has {sizes}")
    table = splits[split]

    image_column = _column(table, datasets.Image, where)
    label_column = _column(table, datasets.ClassLabel, where)
    class_names = table.features[label_column].names
    if len(class_names) > 10:
        raise InputError(f"{where}: {len(class_names)} classes, and the network has 10 outputs")
    class_names = class_names + [f"output {index}" for index in range(len(class_names), 10)]

    labels = list(table[label_column])
    for row, label in enumerate(labels):
        if label not in range(10):
            raise InputError(f"{where}, row {row}: the label is {label}, not 0 to 9")

    encoded = table.cast_column(image_column, datasets.Image(decode=False))[image_column]
    images = np.empty((len(table), 28, 28), np.uint8)
    for row, image in enumerate(tqdm(encoded, f"decoding {split}", disable=None)):
        try:
            images[row] = _pixels(image)
        except Exception as error:  # Pillow reports a damaged file in many ways.
            raise InputError(f"{where}, row {row}: not a usable image: {error}") from error
    return images, np.array(labels), class_names


def _open(dataset, folder):
    """All splits of a local or Hub dataset, as a datasets.DatasetDict.

    What is local is converted in `folder`, where hub.py saves the others: the cache of `datasets`
    itself may take an old version of a file for the current one.
    """
    import datasets
    import huggingface_hub

    datasets.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    path = Path(dataset).resolve()  # `datasets` gives relative names such as "parquet" a meaning
    try:
        if path.is_dir():
            return datasets.load_dataset(str(path), cache_dir=str(folder))
        if path.exists():
            split = "test" if re.search(r"(?<![a-z])test(?![a-z])", path.name) else "train"
            files = {split: path.name}
            return datasets.load_dataset(str(path.parent), data_files=files, cache_dir=str(folder))
        return datasets.load_from_disk(str(folder / hub.SAVED))
    except Exception as error:  # It reports a dataset that it cannot read in many ways.
        reason = error.__cause__ or error
        raise InputError(f"dataset {dataset!r}: cannot be read: {reason}") from error


def _column(table, kind, where):
    names = [name for name, feature in table.features.items() if isinstance(feature, kind)]
    if len(names) != 1:
        raise InputError(
            f"{where}: needs exactly one {kind.__name__} column, and {len(names)} of its columns "
            f"({', '.join(table.features)}) are"
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about what is refused or can be read
        image = Image.open(source, formats=PICTURE_FORMATS)
        if image.size != (28, 28) or image.mode not in ("L", "1"):
            size = f"{image.width} x {image.height}"
            raise ValueError(f"{size} {image.mode}, and not 28 x 28 grey (L)")
        return np.asarray(image.convert("L"))
