"""Local data as people have it: what `datasets` opens, what is zipped, and images in arrays."""

import gzip
import math
import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plumbing.cli import InputError

SPLITS = {  # how their names are recognised; the others are of training images
    "test": re.compile(r"(?<![a-z])(test|testing|t10k)(?![a-z])", re.IGNORECASE),
    "validation": re.compile(r"(?<![a-z])(valid|validation|val|dev)(?![a-z])", re.IGNORECASE),
}
IDX_IMAGES = re.compile(r"(train|t10k|test)-images[-.]idx3-ubyte(\.gz)?")
MAGIC = re.compile(r"[*?[\]{}$]|::")  # `datasets` sees patterns, variables and chains in them
POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass
class Arrays:
    """A split whose images need no decoding; its classes have no names but their numbers."""

    images: np.ndarray  # uint8 [N, 28, 28]
    labels: np.ndarray  # [N]

    def __post_init__(self):
        shape, dtype = self.images.shape, self.images.dtype
        if self.labels.ndim != 1 or (shape, dtype) != ((len(self), 28, 28), np.uint8):
            raise ValueError(
                f"images {shape} of {dtype} and labels {self.labels.shape}, where (N, 28, 28) of "
                "uint8 and (N,) are needed"
            )

    def __len__(self):
        return len(self.labels)


def open_splits(path, folder):
    """{name: a datasets.Dataset or Arrays}, the splits of a local file or folder (absolute Path).

    What has to be unpacked or converted is in the scratch `folder`: the cache of `datasets` itself
    may take an old version of a file for the current one. Raises what its readers raise.
    """
    source = _unpack(path, folder)
    inner = _inner(source)
    splits = _read_arrays(inner)
    if not splits:
        splits = _load_saved(inner) if _is_saved(inner) else _load(source, folder)
    # One split without a name of its own has that of the path.
    names = [inside.name for inside in _visible(inner)] if inner.is_dir() else []
    named = any("train" in name.lower() for name in (*inner.relative_to(source).parts, *names))
    return {_split(path): splits["train"]} if list(splits) == ["train"] and not named else splits


def check_pointers(path):
    """InputError where git has left a pointer of git-lfs in the place of a file."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file() and file.stat().st_size < 1024 and POINTER in file.read_bytes():
            raise InputError(
                f"{file} is a pointer of git-lfs and not the file itself, type `git lfs pull` in "
                "its repository"
            )


def _split(path):
    return next((split for split, name in SPLITS.items() if name.search(path.name)), "train")


def _visible(folder):
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__"))]


def _unpack(path, folder):
    """Where the zip files are unpacked that a path is, or that are all it holds; or the path."""
    archives = _visible(path) if path.is_dir() else [path]
    if {archive.suffix.lower() for archive in archives} != {".zip"}:
        return path
    unpacked = folder / "unpacked"
    for archive in archives:
        where = unpacked / archive.stem if len(archives) > 1 else unpacked
        shutil.unpack_archive(archive, where, "zip")
    return unpacked


def _inner(path):
    """The first folder, from the path down, that holds more than another folder."""
    while path.is_dir() and [inside.is_dir() for inside in _visible(path)] == [True]:
        (path,) = _visible(path)
    return path


def _read_arrays(path):
    files = [file for file in (_visible(path) if path.is_dir() else [path]) if file.is_file()]
    suffixes = [file.suffix.lower() for file in files]
    if suffixes == [".npz"]:
        return _read_npz(files[0])
    tables = [file for file in files if file.suffix.lower() == ".csv" and _columns(file)]
    readers = {file: _read_idx_pair for file in files if IDX_IMAGES.fullmatch(file.name)}
    if path in readers:
        raise ValueError("its labels are in another file, so name the folder of both")
    splits, readers = {}, readers | dict.fromkeys(tables, _read_csv)
    for file, read in readers.items():
        if file.suffix != ".gz" or file.with_suffix("") not in readers:
            if _split(file) in splits:
                raise ValueError(f"{file.name} is not the only file of {_split(file)} images")
            splits[_split(file)] = read(file)
    return splits


def _read_npz(path):
    """The splits in an .npz file with the names that Keras gives them."""
    with np.load(path, allow_pickle=False) as arrays:
        splits = [s for s in ("train", "test") if {f"x_{s}", f"y_{s}"} <= set(arrays)]
        if not splits:
            raise ValueError(
                f"its arrays are {', '.join(arrays)[:100]}, where x_train, y_train, x_test and "
                "y_test are needed"
            )
        return {split: Arrays(arrays[f"x_{split}"], arrays[f"y_{split}"]) for split in splits}


def _read_idx_pair(path):
    labels = path.name.replace("images", "labels").replace("idx3", "idx1")
    return Arrays(_read_idx(path), _read_idx(path.with_name(labels)))


def _read_idx(path):
    """The array uint8 of a file in MNIST's own format: type, sizes (big-endian), values."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        content = file.read()
    if content[:3] != bytes([0, 0, 8]):
        raise ValueError(f"{path.name} holds no bytes in the format IDX")
    start = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:start], ">u4")
    if len(content) != start + math.prod(shape.tolist()):
        raise ValueError(f"{path.name} is cut short or damaged, get it once more")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()  # one to write to


def _columns(path):
    """The first line of a CSV file, a list, if it is as long as that of a table of pixels."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        columns = [cell.strip('" \n').lower() for cell in file.readline(20_000).split(",")]
    return columns if len(columns) in (784, 785) else None


def _read_csv(path):
    """The Arrays of a table of pixels and labels, in the column called so, else in the first."""
    columns = _columns(path)
    header = int(not re.fullmatch(r"[-.\d]+", columns[0]))
    labels = [i for i, name in enumerate(columns) if name in ("label", "class")]
    if len(columns) != 785 or header and len(labels) != 1:
        raise ValueError(
            f"{path.name} has {len(columns)} columns, where 784 of pixels and one called label "
            "are needed"
        )
    found = np.loadtxt(
        path, np.float32, delimiter=",", skiprows=header, ndmin=2, encoding="utf-8-sig"
    )
    table = found.clip(0, 255).astype(np.uint8)
    if not np.array_equal(table, found):
        raise ValueError(f"{path.name} holds other values than whole numbers from 0 to 255")
    if not header:  # The label is first, or last, where the first is the corner of all images.
        labels = [0 if table[:, 0].any() else 784]
    return Arrays(np.delete(table, labels, 1).reshape(-1, 28, 28), table[:, labels[0]])


def _is_saved(path):
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def _load_saved(path):
    """What Dataset.save_to_disk or DatasetDict.save_to_disk has written."""
    import datasets

    saved = datasets.load_from_disk(str(path))
    return saved if isinstance(saved, dict) else {"train": saved}


def _link(path, folder):
    """A file or folder of links to a path, or to the files in it, whose name is plain."""
    if path.is_dir():
        return Path(shutil.copytree(path, folder, copy_function=os.symlink))
    folder.mkdir()
    link = folder / f"file{path.suffix}"
    link.symlink_to(path)
    return link


def _load(path, folder):
    """What `datasets` itself can open."""
    import datasets

    links = path.is_dir() and any(inside.is_symlink() for inside in _visible(path))
    if links or MAGIC.search(str(path)):  # `datasets` follows no links to folders
        path = _link(path, folder / "links")
    base, name = (path, None) if path.is_dir() else (path.parent, path.name)
    try:
        splits = datasets.load_dataset(str(base), data_files=name, cache_dir=str(folder))
    except FileNotFoundError:  # whose message may name a hundred kinds of files
        raise ValueError(
            "there is no file of a known kind, such as pictures (train/7/name.png), tables "
            "(train.parquet) or MNIST's own files (train-images-idx3-ubyte.gz)"
        ) from None
    # One picture that lies elsewhere, and `datasets` takes no folder's name for a label.
    pictures = [
        Path(image["path"])
        for table in splits.values()
        if list(table.features) == ["image"]
        for image in table.cast_column("image", datasets.Image(decode=False))["image"]
        if image and image["path"] and not image["bytes"]
    ]
    depths = Counter(len(picture.parts) for picture in pictures)
    if len(depths) > 1:
        rare = min(depths, key=depths.get)
        stray = next(picture for picture in pictures if len(picture.parts) == rare)
        raise ValueError(
            f"{stray.relative_to(base)} does not lie in a folder of its class as the other "
            "pictures do, move it away"
        )
    return splits
