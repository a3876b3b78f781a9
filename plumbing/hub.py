"""Datasets on the Hugging Face Hub, and where else MNIST is found."""

import contextlib
import hashlib
import http.client
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np

from plumbing.cli import InputError, sentence
from plumbing.files import scratch_folder

ANSWER = 10  # seconds for the Hub's first answer, as long as its client waits by default
MIRROR_ANSWER = 4  # for that of a mirror
PATIENCE = 30  # seconds without a byte after which a download is given up
# What plumbing/download.py writes in its folder: the dataset, signs of life, what went wrong.
SAVED, ALIVE, PROBLEM = "saved", "alive", "problem"
NAMES = {"cache": "cache of `datasets`", "hub": "Hugging Face Hub"}  # of sources


class Unreachable(InputError):
    """A dataset cannot be had at present."""


def load(dataset, checksums, decode):
    """The splits of a dataset on the Hub, as decode(path, folder) returns them.

    That reads what has been saved at a path, with a folder for temporary files. Where the Hub
    cannot be reached, the copy counts that `datasets` keeps in its cache. MNIST alone has
    `checksums`, {split: SHA-256 of its images and labels}: it is as good from elsewhere, so the
    cache is looked at first, torchvision's mirrors are asked last, and a source with other bytes is
    passed over. Raises Unreachable where no source has the dataset at present, any
    other InputError where the Hub does not have it or it cannot be used.
    """
    problems = []
    for source in _mnist_sources() if checksums else ("hub", "cache"):
        try:
            with scratch_folder() as folder:
                _fetch(source, dataset, folder)
                if not checksums:
                    return decode(folder / SAVED, folder)
                with contextlib.suppress(InputError):  # Other bytes need not even be images.
                    splits = decode(folder / SAVED, folder)
                    if {name: _sha256(pixels) for name, pixels in splits.items()} == checksums:
                        return splits
            way_out = f", so remove {downloads(dataset)}" if source == "hub" else ""
            raise Unreachable(f"its checksums are not the known ones{way_out}")
        except InputError as error:
            if not checksums and not isinstance(error, Unreachable):
                raise
            reason = str(error).removeprefix(f"dataset {dataset!r}: ")
            problems.append(f"{NAMES.get(source) or urlsplit(source).hostname}: {reason}")
    raise Unreachable(
        f"dataset {dataset!r}: try again later, or give a local copy (DATASET=folder), because no "
        f"source has it at present: {'; '.join(problems)}"
    )


def _sha256(pixels):
    arrays = pixels.images, pixels.labels.astype(np.uint8)
    return tuple(hashlib.sha256(array.tobytes()).hexdigest() for array in arrays)


def downloads(dataset):
    """The folder in which the Hub's client keeps the files of a dataset."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"datasets--{dataset.replace('/', '--')}"


def _mnist_sources():
    yield "cache"
    yield "hub"
    from torchvision.datasets import MNIST  # It takes seconds.

    yield from MNIST.mirrors


def _fetch(source, dataset, folder):
    """Save a dataset in a folder, as SAVED; InputError if that fails.

    The source is "cache", "hub", or a mirror's address.
    """
    from huggingface_hub import constants

    if source == "cache":
        return _download(source, dataset, folder=folder)
    if constants.HF_HUB_OFFLINE:
        raise Unreachable("not asked (HF_HUB_OFFLINE)")
    where = constants.ENDPOINT if source == "hub" else source
    print(f"getting {dataset} from {where}", file=sys.stderr, flush=True)
    if source == "hub":
        return _download(source, dataset, _newest(dataset), folder=folder)
    try:
        within(MIRROR_ANSWER, lambda: urlopen(f"{source}train-images-idx3-ubyte.gz")).close()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)  # of a URLError
        raise Unreachable(f"cannot be reached ({sentence(reason)[:100]})") from error
    _download(source, folder=folder)


def _newest(dataset):
    """The newest revision of a dataset; InputError unless the Hub names it within ANSWER.

    `datasets` itself would try again and again, for minutes where packets just get lost.
    """
    from huggingface_hub import HfApi

    try:
        return within(ANSWER, lambda: HfApi().dataset_info(dataset, timeout=ANSWER).sha)
    except Exception as error:  # The errors of whichever HTTP library is below.
        reason = f"cannot be reached ({sentence(error)[:100]})"
        raise refusal(error, dataset) or Unreachable(reason) from error


def within(seconds, ask):
    """What ask() returns or raises; TimeoutError if that takes longer.

    In a thread because an HTTP library's timeout counts for each address of a host, and not for the
    lookup of its name.
    """
    value, problem = None, TimeoutError(f"no answer in {seconds} s")

    def work():
        nonlocal value, problem
        try:
            value, problem = ask(), None
        except Exception as error:
            problem = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if error := problem:  # which the thread may yet change
        raise error
    return value


def causes(error):
    """An exception, its cause, and so on."""
    while error:
        yield error
        error = error.__cause__


def refusal(error, dataset):
    """What an answer of the Hub means, as an InputError; None for an error that is no answer."""
    from huggingface_hub import constants, errors, get_token

    answers = [each for each in causes(error) if isinstance(each, errors.HfHubHTTPError)]
    if isinstance(error, errors.HFValidationError):
        problem = _NOWHERE
    elif not answers:
        return None
    elif isinstance(answers[0], errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/datasets/{dataset}"
        problem = f"given on request only: ask at {page}, then log in (.venv/bin/hf auth login)"
    elif (status := answers[0].response.status_code) == 401 and get_token():
        problem = (
            "the Hub does not accept your login (401), which may have expired: log in again (hf "
            "auth login), or correct or unset HF_TOKEN"
        )
    elif status == 401 or isinstance(answers[0], errors.RepositoryNotFoundError):
        problem = _NOWHERE
    else:
        return Unreachable(f"answers {status} ({http.client.responses.get(status, 'unknown')})")
    return InputError(f"dataset {dataset!r}: {problem}")


_NOWHERE = (
    "neither a file or folder here nor on the Hub (if it is private: .venv/bin/hf auth login)"
)


def _download(*arguments, folder):
    """Run plumbing/download.py in a folder; InputError if it fails.

    It is given up when nothing has arrived for PATIENCE seconds. It is a process of its own because
    a thread that waits for the network cannot be ended.
    """
    here = Path(__file__).resolve().parent
    path = os.pathsep.join(filter(None, [str(here.parent), os.environ.get("PYTHONPATH")]))
    settings = {"PYTHONPATH": path, "DATASETS_VERBOSITY": "error", "HF_HUB_VERBOSITY": "error"}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", here / "download.py", folder, *arguments],
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=None if sys.stderr.isatty() else subprocess.DEVNULL,  # its progress bars
        start_new_session=True,  # Ctrl-C is for this process, which ends it.
    )
    changed, before = time.monotonic(), None
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError):  # There is no file yet.
                now = (folder / ALIVE).stat().st_mtime_ns
                if now != before:
                    changed, before = time.monotonic(), now
            # Before the first sign it only starts, which takes long on a slow disk.
            if time.monotonic() - changed > (PATIENCE if before else 4 * PATIENCE):
                raise Unreachable(f"nothing has arrived for {PATIENCE} s")
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        problem = folder / PROBLEM
        text = problem.read_text("utf-8") if problem.exists() else f"exit code {process.returncode}"
        raise InputError(text) if process.returncode == 2 else Unreachable(text)
