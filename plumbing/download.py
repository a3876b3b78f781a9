"""Get a dataset in a process of its own: download.py FOLDER SOURCE [NAME [REVISION]].

In the folder it saves the dataset as SAVED, touches ALIVE when something arrives, and writes
PROBLEM if it fails: with exit code 2 if it would fail again, else 1.
"""

import contextlib
import os
import sys
from functools import partial
from pathlib import Path

from plumbing.cli import InputError, sentence
from plumbing.hub import ALIVE, PROBLEM, SAVED, Unreachable, causes, downloads, refusal


def from_cache(folder, name):
    """What `datasets` keeps in its cache."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    import datasets

    names = [name, "mnist"] if name == "ylecun/mnist" else [name]  # once it had no owner
    for each in names:
        with contextlib.suppress(Exception):  # It is not there, or damaged.
            return datasets.load_dataset(each)
    raise Unreachable("no good copy")


def from_hub(folder, name, revision):
    """A revision of a dataset on the Hub, for which `datasets` asks no other server."""
    # The client for large files does not say what arrives, and the other one only every 10 MB.
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    import datasets
    import huggingface_hub
    from pyarrow import ArrowInvalid

    huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 2**16
    try:
        # `datasets` would ask for it first, and hide why it is refused.
        try:
            details = {"repo_type": "dataset", "revision": revision}
            huggingface_hub.hf_hub_download(name, "README.md", **details)
        except huggingface_hub.errors.EntryNotFoundError as error:
            if isinstance(error, huggingface_hub.errors.LocalEntryNotFoundError):
                raise  # The Hub was not reached.
        # Anew from the downloaded files, because what was made of them before may be damaged.
        load = partial(datasets.load_dataset, name, revision=revision)
        try:
            return load(download_mode="reuse_cache_if_exists")
        except ValueError:  # Even the description of what was made before is read.
            return load(cache_dir=str(folder / "cache"))
    except Exception as error:  # Of `datasets`, its HTTP library, or the disk.
        reason = sentence(list(causes(error))[-1])[:120]
        if isinstance(error, (datasets.exceptions.DatasetGenerationError, ArrowInvalid)):
            hint = f"if the download is damaged, remove {downloads(name)} and run again"
            problem = InputError(f"dataset {name!r}: cannot be read: {reason}; {hint}")
        elif isinstance(error, (datasets.exceptions.DatasetsError, ValueError, RuntimeError)):
            problem = InputError(f"dataset {name!r}: cannot be read: {reason}")
        else:
            problem = Unreachable(f"the download fails ({reason})")
        raise refusal(error, name) or problem from error


def from_mirror(address, folder):
    """MNIST's own files from one of torchvision's mirrors, saved as they are."""
    from torchvision.datasets import MNIST

    MNIST.mirrors = [address]
    MNIST(folder / SAVED, download=True)


def main(folder, source, *details):
    from tqdm import tqdm

    folder = Path(folder)
    update, arrived, furthest = tqdm.update, 0, 0

    def touch_and_update(bar, n=1):
        nonlocal arrived, furthest
        arrived += n
        if arrived > furthest:  # not where a download starts over
            furthest = arrived
            (folder / ALIVE).touch()
        return update(bar, n)

    tqdm.update = touch_and_update  # All libraries call it for what arrives, shown or not.
    try:
        get = {"cache": from_cache, "hub": from_hub}.get(source, partial(from_mirror, source))
        if splits := get(folder, *details):
            splits.save_to_disk(folder / SAVED)
    except BaseException as error:
        (folder / PROBLEM).write_text(sentence(error), "utf-8")
        return 2 if type(error) is InputError else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
