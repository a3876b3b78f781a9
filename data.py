"""From the name of a dataset to tensors, and from tensors to batches."""

import hashlib
import io
import os
import re
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import distort
import synthetic
from cli import InputError
from files import replacing, scratch_folder

MNIST = "ylecun/mnist"
# SHA-256 of MNIST's decoded images and labels: uint8, C order.
MNIST_SHA256 = {
    "train": (
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    ),
    "test": (
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
}
CACHE = Path(".cache")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")  # some others run programs
HUB_TIMEOUT = 15  # seconds
BLOCK = 2**16  # images whose distortions are drawn at once


class Split(NamedTuple):
    """One split of a dataset."""

    images: torch.Tensor  # uint8 [N, 28, 28]
    labels: torch.Tensor  # int64 [N], 0 to 9
    class_names: list  # ten strings

    def to(self, device):
        return self._replace(images=self.images.to(device), labels=self.labels.to(device))


def load(dataset, split):
    """The split ("train" or "test") of a dataset, as a Split on the CPU.

    `dataset` is "synthetic", a local folder or file that `datasets.load_dataset` opens, or the id
    of a dataset on the Hugging Face Hub. Its images are decoded once and kept in CACHE: those of a
    Hub dataset until CACHE is removed, the others until their source changes. Raises InputError
    for a dataset that is not there or does not hold 28 x 28 grey images of at most ten classes.
    """
    name, fingerprint = _identify(dataset)
    cache = CACHE / f"{name}-{split}.npz"
    try:
        return _read_cache(cache, fingerprint)
    except Exception:  # Missing, outdated, or damaged in one of many ways: made anew below.
        pass
    if dataset == "synthetic":
        loaded = Split(*synthetic.draw(*synthetic.SPLITS[split]), list("0123456789"))
    else:
        with scratch_folder() as folder:
            loaded = _decode(dataset, split, folder)
    try:
        CACHE.mkdir(exist_ok=True)
        with replacing(cache) as file:
            np.savez(file, fingerprint=fingerprint, **loaded._asdict())
    except OSError as error:
        print(f"the next run will decode {dataset} again: {error}", file=sys.stderr)
    return loaded


def load_splits(dataset=None):
    """(name of the dataset, its training Split, its test Split, None).

    Without a name it is MNIST; where that cannot be had, it is drawn digits, and the last of the
    four is the InputError that says why. A dataset that is named is never replaced.
    """
    missing = None
    if dataset is None:
        try:
            return MNIST, load(MNIST, "train"), load(MNIST, "test"), None
        except InputError as error:
            dataset, missing = "synthetic", error
    return dataset, load(dataset, "train"), load(dataset, "test"), missing


def _identify(dataset):
    """(a file name that no other source has, a fingerprint that changes when the source does)."""
    try:
        path = Path(os.path.realpath(synthetic.__file__ if dataset == "synthetic" else dataset))
        exists = dataset and path.exists()
    except (OSError, ValueError) as error:  # too long, or with characters that no name has
        raise InputError(f"dataset {dataset!r}: no name of a dataset: {error}") from error
    if exists:
        files = sorted(filter(Path.is_file, path.rglob("*"))) if path.is_dir() else [path]
        stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        name = f"{path.stem}-{hashlib.sha256(bytes(path)).hexdigest()[:8]}"
        return name, hashlib.sha256(repr(stats).encode()).hexdigest()
    if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", dataset):
        return dataset.replace("/", "--"), "Hub"
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
        images, labels, class_names = (arrays[name] for name in Split._fields)
    count = len(labels)
    if (
        (images.dtype, images.shape) != (np.uint8, (count, 28, 28))
        or (labels.dtype, labels.shape) != (np.int64, (count,))
        or (class_names.dtype.kind, class_names.shape) != ("U", (10,))
        or not 0 <= labels.min() <= labels.max() <= 9
    ):
        raise ValueError("not as it was written")
    return Split(torch.from_numpy(images), torch.from_numpy(labels), class_names.tolist())


def _decode(dataset, split, folder):
    """Read a split with the `datasets` library, check it and decode its images."""
    import datasets
    from tqdm import tqdm  # `datasets` brings it

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

    labels = np.array(labels)
    is_mnist = dataset == MNIST and not Path(dataset).exists()
    if is_mnist and MNIST_SHA256[split] != (_sha256(images), _sha256(labels)):
        raise InputError(
            f"{where}: not the MNIST whose checksums are known, so the download is damaged; remove "
            f"{datasets.config.HF_DATASETS_CACHE} and run again"
        )
    class_names = class_names + [f"output {index}" for index in range(len(class_names), 10)]
    return Split(torch.from_numpy(images), torch.from_numpy(labels), class_names)


def _open(dataset, folder):
    """All splits of a local or Hub dataset, as a datasets.DatasetDict.

    What is local is converted in `folder`: the own cache of `datasets` may take an old version of
    a file for the current one.
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
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            _check_hub(dataset)
        return datasets.load_dataset(dataset)
    except InputError:
        raise
    except Exception as error:  # It reports a dataset that it cannot read in many ways.
        reason = error.__cause__ or error
        raise InputError(f"dataset {dataset!r}: cannot be read: {reason}") from error


def _check_hub(dataset):
    """Raise InputError unless the Hub has the dataset and says so within HUB_TIMEOUT.

    `datasets` itself would try again and again, for minutes where packets just get lost.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    problem = TimeoutError(f"no answer in {HUB_TIMEOUT} s")

    def ask():
        nonlocal problem
        try:
            HfApi().dataset_info(dataset, timeout=HUB_TIMEOUT)
            problem = None
        except Exception as error:  # The errors of whichever HTTP library is below.
            problem = error

    # In a thread because a timeout counts for each address of a host, and not for its name lookup.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT)
    if isinstance(problem, (HFValidationError, RepositoryNotFoundError)):
        raise InputError(f"dataset {dataset!r}: neither a file or folder here nor on the Hub")
    if problem:
        raise InputError(
            f"dataset {dataset!r}: the Hugging Face Hub cannot be reached ({problem}); try again "
            "later, or give a local copy of the dataset (make train DATASET=folder)"
        )


def _column(table, kind, where):
    names = [name for name, feature in table.features.items() if isinstance(feature, kind)]
    if len(names) != 1:
        raise InputError(
            f"{where}: needs exactly one {kind.__name__} column, and {len(names)} of its columns "
            f"({', '.join(table.features)}) are"
        )
    return names[0]


def _sha256(array):
    return hashlib.sha256(array.astype(np.uint8).tobytes()).hexdigest()


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
        image = Image.open(source, formats=FORMATS)
        if image.size != (28, 28) or image.mode not in ("L", "1"):
            size = f"{image.width} x {image.height}"
            raise ValueError(f"{size} {image.mode}, and not 28 x 28 grey (L)")
        return np.asarray(image.convert("L"))


def to_float(images):
    """uint8 [N, 28, 28] to float32 [N, 1, 28, 28] in [0, 1], as torchvision's ToTensor does."""
    return images.unsqueeze(1).float().div_(255)


@dataclass
class Batches:
    """One epoch of shuffled and distorted batches; it stands where a DataLoader would.

    All that is random is drawn on the CPU from (seed, epoch) alone, so it is the same on every
    device and needs no saved state. Yields float32 [B, 1, 28, 28] in [0, 1] and int64 [B]; the last
    batch may be smaller.
    """

    images: torch.Tensor  # uint8 [N, 28, 28]
    labels: torch.Tensor  # int64 [N]
    batch_size: int
    distortion: distort.Distortion
    seed: int
    epoch: int

    def __len__(self):
        return -(-len(self.images) // self.batch_size)

    def __iter__(self):
        # A seed sequence mixes both numbers well: neighbouring seeds share no epoch's order.
        (state,) = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)
        generator = torch.Generator().manual_seed(int(state))
        order = torch.randperm(len(self.images), generator=generator)
        # What is random is drawn for many batches at once, which is faster, but not for all of a
        # large dataset, which would take more memory than its images.
        for indices in order.split(max(1, BLOCK // self.batch_size) * self.batch_size):
            drawn = [indices]
            if self.distortion != distort.Distortion():
                drawn += distort.draw(len(indices), self.distortion, generator)
            batches = (tensor.to(self.images.device).split(self.batch_size) for tensor in drawn)
            for index, *parameters in zip(*batches, strict=True):
                # index_select is up to 30 times faster than images[index] on a CPU.
                images = to_float(self.images.index_select(0, index))
                if parameters:
                    images = distort.apply(images, self.distortion, distort.Parameters(*parameters))
                yield images, self.labels.index_select(0, index)
