"""The one reader of local data: it opens files, and finds images and labels by what they are."""

import contextlib
import gzip
import logging
import math
import os
import re
import shutil
import sys
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from plumbing.cli import InputError

SPLITS = {  # the words in the names of files, folders and arrays that stand for a split
    "test": {"t10k", "test", "testing"},
    "validation": {"valid", "validation", "val", "dev"},
    "train": {"train", "training"},
}
WORD = re.compile("t10k|[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
LABEL = re.compile("label|class|y|digit|target", re.IGNORECASE)
PICTURE = re.compile(r"\.(png|jpe?g|bmp|gif|tiff?|webp|pgm)$", re.IGNORECASE)
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
# What Python, NumPy and PyArrow raise where a file is missing, damaged or of another kind.
DAMAGED = (OSError, ValueError, EOFError, RuntimeError, SyntaxError, OverflowError)
DAMAGED += (tokenize.TokenError, zipfile.BadZipFile, zlib.error)


class MissingSplit(InputError):
    """A split is not there, or empty, or has no labels."""


def files_of(path):
    """{file: the names of folders down to it, and its own} of a folder, links followed; or a file.

    Left out is what begins with a dot or two underscores, as other programs leave it in folders.
    """
    if not path.is_dir():
        return {path: (path.name,)}
    files = {}
    for folder, _, names in os.walk(path, followlinks=True):
        parents = Path(folder).relative_to(path).parts
        for name in names:
            file, inside = Path(folder, name), (*parents, name)
            if file.is_file() and not any(part.startswith((".", "__")) for part in inside):
                files[file] = inside
    return dict(sorted(files.items()))


def check_pointers(path):
    """InputError where git has left a pointer of git-lfs in the place of a file."""
    for file in files_of(path):
        if file.stat().st_size < 1024 and b"https://git-lfs.github.com/spec/" in file.read_bytes():
            raise InputError(
                f"{file} is a pointer of git-lfs and not the file itself, type `git lfs pull` in "
                "its repository"
            )


def open_splits(path, folder):
    """({split: columns}, class names) of a local file or folder (absolute Path).

    Columns are {name: array [N, ...] or pyarrow.ChunkedArray of N values}, class names {name of a
    column: list of strings} where there are any. What is unpacked or converted is in the scratch
    `folder`: the cache of `datasets` itself may take an old version of a file for the current one.
    Raises one of DAMAGED for what cannot be read.
    """
    files = files_of(path)
    if {file.suffix.lower() for file in files} == {".zip"}:
        for file in files:
            where = file.stem if len(files) > 1 else ""
            shutil.unpack_archive(file, folder / "unpacked" / where, "zip")
        files = files_of(folder / "unpacked")
    files = {file: (path.name, *inside) for file, inside in files.items()}
    if splits := _read_arrays(files):
        return splits, {}
    pictures = {file: names for file, names in files.items() if PICTURE.search(file.name)}
    if 2 * len(pictures) > len(files) and not any(file.stem == "metadata" for file in files):
        return _list_pictures(pictures), {}
    return _load(files, folder / "links")


def _split(*names):
    """The split that a word in a name stands for, of the last such name; or None."""
    for name in reversed(names):
        words = {word.lower() for word in WORD.findall(name)}
        for split, its_words in SPLITS.items():
            if words & its_words:
                return split
    return None


def _read_arrays(files):
    """{split: columns} of the arrays and the tables of pixels in files, {file: names}."""
    splits = {}
    for file, names in files.items():
        if file.suffix == ".gz" and file.with_suffix("") in files:
            continue
        for name, columns in _read_file(file).items():
            split = splits.setdefault(_split(*names, name) or "train", {})
            if split.keys() & columns.keys():
                raise InputError(f"{file.name} is not the only table of its split")
            split.update(columns)
    return splits


def _read_file(file):
    """{a name, which may say the split: columns} of a file with arrays or a table of pixels."""
    kind = Path(file.name.lower().removesuffix(".gz")).suffix
    if re.search(r"[-.]idx\d-", file.name):
        return {"": {file.name: _read_idx(file)}}
    if kind in (".csv", ".tsv"):
        return _read_csv(file)
    if kind not in (".npz", ".npy"):
        return {}
    with open(file, "rb") as opened:
        arrays = np.load(opened, allow_pickle=False)
        arrays = {"": arrays} if isinstance(arrays, np.ndarray) else arrays
        return {name: {f"{file.name} {name}": np.atleast_1d(arrays[name])} for name in arrays}


def _read_idx(path):
    """The array in a file of MNIST's own format: type, sizes (big-endian), values."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        content = file.read()
    if len(content) < 4 or content[:2] != bytes(2) or content[2] not in IDX_TYPES:
        raise InputError(f"{path.name} is not in the format IDX")
    start, dtype = 4 + 4 * content[3], np.dtype(IDX_TYPES[content[2]])
    shape = np.frombuffer(content[4:start], ">u4").tolist()
    if len(content) != start + math.prod(shape) * dtype.itemsize:
        raise InputError(f"{path.name} is cut short or damaged, get it once more")
    array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    if array.shape[1:] == (8,):  # QMNIST has a label, and seven facts about the writer.
        return array[:, 0]
    # EMNIST has the columns of an image where the others have its rows.
    return np.moveaxis(array.T, -1, 0) if "emnist" in path.name.lower() else array


def _read_csv(file):
    """{"": columns} of a table of text, or {} where it is not wide enough for pixels."""
    import pyarrow
    from pyarrow import csv

    with pyarrow.input_stream(str(file)) as stream:  # It unpacks .gz, and so does read_csv.
        first = stream.read(100_000).decode("utf-8-sig", "replace").split("\n")[0]
    separator = max(",;\t ", key=first.count)
    cells = first.split(separator)
    if len(cells) < 784:
        return {}
    # Names are all different, and so many pixels, of 256 values each, are not.
    reading = csv.ReadOptions(autogenerate_column_names=len(set(cells)) < len(cells))
    options = str(file), reading, csv.ParseOptions(delimiter=separator)
    with csv.open_csv(*options) as reader:
        kinds = dict.fromkeys(reader.schema.names, pyarrow.uint8())
    try:  # Pixels and labels from 0 to 255 take an eighth of the memory of other numbers.
        table = csv.read_csv(*options, csv.ConvertOptions(column_types=kinds))
    except pyarrow.ArrowInvalid:
        table = csv.read_csv(*options)
    if "emnist" in file.name.lower() and len(cells) == 785:  # a label, and columns as above
        table = table.select([0, *np.arange(1, 785).reshape(28, 28).T.ravel().tolist()])
    return {"": _columns(table)}


def _list_pictures(files):
    """{split: columns} of picture files, {file: names}, each in a folder of its class."""
    import pyarrow

    splits = {}
    for file, names in files.items():
        *around, label, _ = ("", *names)
        if len(names) < 3 or _split(label):
            raise InputError(
                f"{'/'.join(names)} does not lie in a folder of its class, as train/7/name.png "
                "does: move it there or away"
            )
        columns = splits.setdefault(_split(*around) or "train", {"image": [], "label": []})
        columns["image"].append({"bytes": None, "path": str(file)})
        columns["label"].append(label)
    return {split: _columns(pyarrow.table(columns)) for split, columns in splits.items()}


def _columns(table):
    return dict(zip(table.column_names, table.columns, strict=True))


def _load(files, folder):
    """What open_splits() returns, of what `datasets` can open of files, {file: names}."""
    import datasets
    import huggingface_hub

    datasets.logging.set_verbosity(logging.CRITICAL)
    huggingface_hub.logging.set_verbosity(logging.CRITICAL)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    saved = [each.parent for each in files if each.name in ("state.json", "dataset_dict.json")]
    try:
        if saved:
            splits = datasets.load_from_disk(str(min(saved, key=lambda each: len(each.parts))))
            splits = splits if isinstance(splits, dict) else {"train": splits}
        else:
            _link(files, folder)
            splits = datasets.load_dataset(str(folder), cache_dir=str(folder.parent))
    except FileNotFoundError as error:  # whose message may name a hundred kinds of files
        raise InputError(
            "there is no file of a known kind, such as pictures (train/7/name.png), tables "
            "(train.parquet), arrays (mnist.npz, as which those of a pickle can be saved) or "
            "MNIST's own files (train-images-idx3-ubyte.gz)"
        ) from error
    except ValueError as error:
        if "Config name is missing" not in str(error):
            raise
        names = ", ".join(datasets.get_dataset_config_names(str(folder)))
        raise InputError(
            f"it holds several datasets ({names[:200]}): give the folder or a file of one, got "
            "with `.venv/bin/hf download --repo-type dataset` where it is on the Hub"
        ) from error
    except datasets.exceptions.DatasetsError as error:
        raise InputError(str(error.__cause__ or error)) from error
    except (AttributeError, TypeError, LookupError) as error:
        raise InputError(f"what it says of its columns cannot be read: {error}") from error
    columns = {name: _columns(split.with_format("arrow")[:]) for name, split in splits.items()}
    said = {_split(*names) for names in files.values()}
    if list(columns) == ["train"] and len(said) == 1:  # which `datasets` does not always hear
        columns = {said.pop() or "train": columns["train"]}
    features = {name: each for split in splits.values() for name, each in split.features.items()}
    class_names = {name: getattr(each, "names", None) for name, each in features.items()}
    # Names can be numbers: ClassLabel(names=[3, 7]).
    return columns, {name: [*map(str, names)] for name, names in class_names.items() if names}


def _link(files, folder):
    """Fill a folder with links to files, by names that `datasets` takes for what they are.

    It sees patterns, variables and chains in names, follows no links to folders, and knows the
    words for splits only in small letters and with no letter beside them.
    """
    for file, (_, *inside) in files.items():
        split = _split(*inside)
        if split and not SPLITS[split].intersection(re.split("[^a-zA-Z]", "/".join(inside))):
            inside = [split, *inside]
        link = folder.joinpath(*(re.sub(r"[*?[\]{}$]|::", "_", name) for name in inside))
        link.parent.mkdir(parents=True, exist_ok=True)
        place = shutil.copyfile if os.name == "nt" else os.symlink  # Windows allows few to link.
        place(file, link)


def find(columns, class_names, where):
    """(images, labels, class names), found in what open_splits() returns by what they are.

    Images are an array [N, 28, 28], uint8 where that holds all of its numbers, or a
    pyarrow.ChunkedArray of pictures: bytes, or structs with "bytes" and "path". Labels are an array
    [N] of numbers or texts. Raises MissingSplit where there are images and nothing that could be
    their labels, another InputError where it is not clear which columns these are.
    """
    images = {name: column for name, column in columns.items() if _holds_pictures(column)}
    arrays = {name: _array(column) for name, column in columns.items() if name not in images}
    series = {}  # the columns of numbers whose names differ in digits alone: pixel0, pixel1 ...
    for name, array in arrays.items():
        if array.dtype.kind in "iuf" and array.ndim == 1:
            series.setdefault(re.sub(r"\d+", "0", name), []).append(name)
        elif array.dtype.kind in "iuf" and array.shape[1:] in ((28, 28), (784,)):
            images[name] = array
    for names in series.values():
        if len(names) == 785:  # The first holds labels, or else the last and the first corners.
            ends = names[0], names[-1]
            names.remove(max(ends, key=lambda name: _count_classes(arrays[name]) or 1))
        if len(names) == 784:
            pixels = [arrays.pop(name) for name in names]
            images[f"{names[0]} to {names[-1]}"] = np.stack(pixels, axis=1)
    others = [name for name, array in arrays.items() if array.ndim == 1]
    ways = (  # to find the labels, the first that leaves one column counts
        [name for name in others if name in class_names],
        [name for name in others if LABEL.fullmatch(name)],
        [name for name in others if _count_classes(arrays[name])],
        [name for name in others if len(set(arrays[name].tolist())) < len(arrays[name])],  # no ids
    )
    label = next((names[0] for names in ways if len(names) == 1), None)
    if len(images) != 1 or label is None:
        kinds = ", ".join(f"{name} ({_kind(column)})" for name, column in columns.items())
        raise (MissingSplit if images and not any(ways) else InputError)(
            f"{where}: needs one column of 28 x 28 images (found: {', '.join(images) or 'none'}), "
            f"and one of labels, best called label (found: {', '.join(others)[:50] or 'none'}); "
            f"its columns are {kinds[:150]}"
        )
    (found,) = images.values()
    if len(found) != len(arrays[label]):
        raise InputError(f"{where}: {len(found)} images, and {len(arrays[label])} labels")
    if isinstance(found, np.ndarray):
        found = found.reshape(-1, 28, 28).copy()  # PyArrow's memory cannot be written to.
    return found, arrays[label], class_names.get(label, [])


def _kind(column):
    if isinstance(column, np.ndarray):
        return f"{' x '.join(map(str, column.shape))} {column.dtype}"
    return str(column.type)


def _holds_pictures(column):
    kind = _kind(column)
    return "binary" in kind.split("<")[0] or kind.startswith("struct<") and "bytes: " in kind


def _array(column):
    """A column as an array [N, ...], uint8 where all of its values are whole and from 0 to 255.

    It is [N, 0] where the column holds no numbers, texts or lists of one length.
    """
    import pyarrow
    from pyarrow import compute

    values, shape = column, [len(column)]
    try:
        if isinstance(column, np.ndarray):
            shape = column.shape
            native = column.astype(column.dtype.newbyteorder("="), copy=False)
            values = pyarrow.chunked_array([native.ravel()])
        if isinstance(values.type, pyarrow.BaseExtensionType):  # `datasets` has some of fixed sizes
            values = values.cast(values.type.storage_type)
        while re.match("(large_|fixed_size_)?list<", str(values.type)):
            sizes = compute.list_value_length(values).unique().to_pylist()
            if len(sizes) != 1 or None in sizes:
                break
            shape += sizes
            values = compute.list_flatten(values)
        if values.null_count == len(values):
            return np.empty((len(column), 0))
        with contextlib.suppress(pyarrow.ArrowInvalid):  # other numbers, and texts
            values = values.cast(pyarrow.uint8())
    except pyarrow.ArrowNotImplementedError:  # dates, structs, complex numbers
        return np.empty((len(column), 0))
    return values.to_numpy().reshape(len(column), *(size for size in shape[1:] if size != 1))


def _count_classes(array):
    """How many values an array has, if they may be labels: 0 to 9, or at most ten texts; else 0."""
    values = set(array.tolist())
    texts = len(values) <= 10 and all(isinstance(value, str) for value in values)
    return len(values) if texts or values <= set(range(10)) else 0
