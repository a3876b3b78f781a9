"""Datasets on the Hugging Face Hub, their copies on this machine, and mirrors of known ones."""

import contextlib
import hashlib
import http.client
import os
import shutil
import sys
import threading
import time
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np

from plumbing.cli import InputError, sentence
from plumbing.files import PREFIX, scratch_folder

ANSWER = 10  # seconds for the Hub's first answer, as long as its client waits by default
MIRROR_ANSWER = 4  # for each answer of a mirror
PATIENCE = 30  # seconds without a byte after which a download is given up
CHUNK = 2**13  # bytes that are written at once, so that the size of a file tells what arrives
HUB = "Hugging Face Hub"
CERTIFICATES = "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"  # each may name a file
# Networks and programs, which are not downloaded.
NO_DATA = (".py", ".ipynb", ".pt", ".pth", ".bin", ".ckpt", ".onnx", ".safetensors", ".msgpack")
COMPLETE = f"{PREFIX}complete"  # an empty file in a snapshot with all the files it needs


class Unreachable(InputError):
    """No source has the dataset at present."""


class Known(NamedTuple):
    """What is known of a dataset that need not come from the Hub."""

    checksums: dict  # {split: (SHA-256 of its images, SHA-256 of its labels as uint8)}
    aliases: list  # its other names in the cache of `datasets`
    mirrors: list  # addresses of folders, each with / at its end
    files: list  # the names of its files there


def load(dataset, known, decode):
    """The splits of a dataset on the Hub, as decode(path, folder) returns them.

    That reads the files at a path, with a folder for temporary ones. Where the Hub cannot be
    reached, copies on this machine count. A dataset that is `known` (else None) may come from
    anywhere: copies are looked at first, mirrors asked last, and other bytes passed over. Raises
    Unreachable where no source has the dataset at present, any other InputError where the Hub does
    not have it or it cannot be used.
    """
    problems = []
    wrong = [each for each in CERTIFICATES if not os.path.exists(os.environ.get(each) or os.curdir)]
    for name, get in _sources(dataset, known):
        hint = f"; correct or unset {', '.join(wrong)}: there is no such file" if wrong else ""
        try:
            with scratch_folder() as folder:
                path = get(dataset, folder)
                hint = f"; if it is damaged, remove {downloads(dataset)}" if name == HUB else ""
                splits = decode(path, folder)
            if known and known.checksums != {each: _sha256(splits[each]) for each in splits}:
                raise InputError("its checksums are not the known ones")
            if problems and not known:  # The Hub may have a newer one than this copy.
                print(f"{'; '.join(problems)}; using the {name}", file=sys.stderr, flush=True)
            return splits
        except InputError as error:
            if name == HUB and not known and not isinstance(error, Unreachable):
                raise InputError(f"{error}{hint}") from error
            reason = str(error).removeprefix(f"dataset {dataset!r}: ")
            problems.append(f"{name}: {reason}{hint}")
    raise Unreachable(
        f"dataset {dataset!r}: try again later, or give a local copy (DATASET=folder), because no "
        f"source has it at present: {'; '.join(problems)}"
    )


def _sha256(pixels):
    arrays = pixels.images, pixels.labels.astype(np.uint8)
    return tuple(hashlib.sha256(array.tobytes()).hexdigest() for array in arrays)


def _sources(dataset, known):
    """(name, get) of each source; get(dataset, folder) returns the path of the files."""
    copies = [(f"copy in {path}", lambda *_, path=path: path) for path in _copies(dataset, known)]
    yield from [*copies, (HUB, _from_hub)] if known else [(HUB, _from_hub), *copies]
    for address in known.mirrors if known else []:
        yield urlsplit(address).hostname, partial(_from_mirror, address, known.files)


def downloads(dataset):
    """The folder in which the Hub's client keeps the files of a dataset, an absolute Path."""
    from huggingface_hub import constants

    return Path(os.path.abspath(constants.HF_HUB_CACHE), f"datasets--{dataset.replace('/', '--')}")


def _copies(dataset, known):
    """The folders in which the Hub's client and `datasets` keep a dataset, the newest first.

    Where no checksums tell, without those that may lack files or be one of several configurations.
    """
    from datasets import config, naming

    snapshots = downloads(dataset).glob("snapshots/*")
    copies = [folder for folder in snapshots if known or (folder / COMPLETE).exists()]
    for name in [dataset, *(known.aliases if known else [])]:
        *owner, name = name.split("/")
        folder = "___".join([*owner, naming.camelcase_to_snakecase(name)])
        found = Path(os.path.abspath(config.HF_DATASETS_CACHE), folder).glob("*/*/*")
        found = [each for each in found if each.is_dir() and each.suffix != ".incomplete"]
        if known or len({each.parents[1] for each in found}) == 1:
            copies += found
    return sorted(copies, key=os.path.getmtime, reverse=True)


def _announce(dataset, address):
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise Unreachable("not asked (HF_HUB_OFFLINE)")
    print(f"getting {dataset} from {address}", file=sys.stderr, flush=True)


def _from_mirror(address, names, dataset, folder):
    _announce(dataset, address)
    (folder / "mirror").mkdir()
    try:
        for name in names:
            answer = within(MIRROR_ANSWER, partial(urlopen, address + name))
            with open(folder / "mirror" / name, "wb") as file:
                within(PATIENCE, partial(shutil.copyfileobj, answer, file, CHUNK), file.tell)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)  # of a URLError
        raise Unreachable(f"cannot be reached ({sentence(reason)[:100]})") from error
    return folder / "mirror"


def _from_hub(dataset, folder):
    """The newest snapshot in the cache of the Hub's client, with all of its files."""
    from huggingface_hub import HfApi, constants, errors, hf_hub_download, logging

    _announce(dataset, constants.ENDPOINT)
    logging.set_verbosity(logging.CRITICAL)
    # The client for large files does not show what arrives, and the other one only every 10 MB.
    constants.HF_HUB_DISABLE_XET, constants.DOWNLOAD_CHUNK_SIZE = True, CHUNK
    # The HTTP library, which has been requests, httpx and httpx2.
    library = sys.modules[errors.HfHubHTTPError.__mro__[1].__module__.split(".")[0]]
    failures = OSError, ValueError, library.HTTPError, getattr(library, "InvalidURL", OSError)
    done, problem = [], "cannot be reached"

    def download():
        # One by one: what gets all of them has threads for which Python waits before it exits.
        for name in (file.rfilename for file in about.siblings):
            if not name.endswith(NO_DATA):
                done.append(hf_hub_download(dataset, name, repo_type="dataset", revision=about.sha))

    def arrived():
        with contextlib.suppress(OSError):  # when one of these has just been completed
            growing = (downloads(dataset) / "blobs").glob("*.incomplete")
            return len(done), sum(path.stat().st_size for path in growing)
        return len(done), 0

    try:
        about = within(ANSWER, partial(HfApi().dataset_info, dataset, timeout=ANSWER))
        _check_configurations(dataset, getattr(about.card_data, "configs", None) or [])
        problem = "the download fails"
        within(PATIENCE, download, arrived)
    except InputError:
        raise
    except failures as error:
        raise _meaning(error, dataset, problem) from error
    snapshot = downloads(dataset) / "snapshots" / about.sha
    with contextlib.suppress(OSError):  # The cache may be another user's.
        (snapshot / COMPLETE).touch()
    return snapshot


def _check_configurations(dataset, configurations):
    """InputError where there are several configurations (dicts), and none is the default."""
    names = [str(each.get("config_name")) for each in configurations]
    default = "default" in names or any(each.get("default") for each in configurations)
    if len(names) > 1 and not default:
        raise InputError(
            f"dataset {dataset!r}: its configurations are {', '.join(names)[:150]}, and none is "
            f"the default: get one with .venv/bin/hf download {dataset} --repo-type dataset "
            f"--include '{names[0]}/*' --local-dir folder, and give DATASET=folder"
        )


def within(seconds, ask, arrived=lambda: 0):
    """What ask() returns or raises; TimeoutError once arrived() has not grown for that long.

    It runs in a thread, which nothing can end: it is left behind then, and Python exits without it.
    The timeout of an HTTP library counts for each address of a host, not for looking up its name.
    """
    future = Future()

    def work():
        try:
            future.set_result(ask())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    most, since = arrived(), time.monotonic()
    while not future.done():
        wait([future], timeout=0.1)  # so that Ctrl-C is soon seen
        if (now := arrived()) > most:
            most, since = now, time.monotonic()
        elif time.monotonic() - since > seconds and not future.done():
            raise TimeoutError(f"nothing has arrived for {seconds} s")
    return future.result()


def _meaning(error, dataset, problem):
    """The InputError for a failed request: what the Hub's answer means, or a problem's reason."""
    from huggingface_hub import constants, errors, get_token

    while error.__cause__ and getattr(error, "response", None) is None:
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    log_in = "log in (.venv/bin/hf auth login)"
    nowhere = errors.RepositoryNotFoundError, errors.HFValidationError
    if isinstance(error, errors.GatedRepoError):
        reason = f"given on request: ask at {constants.ENDPOINT}/datasets/{dataset}, then {log_in}"
    elif status == 401 and get_token() or isinstance(error, UnicodeEncodeError):
        reason = f"your login is refused ({status or error}): {log_in} again, or correct HF_TOKEN"
    elif status == 401 or isinstance(error, nowhere):
        reason = f"neither a file or folder here nor on the Hub; if it is private there, {log_in}"
    elif status:
        return Unreachable(f"answers {status} ({http.client.responses.get(status, 'unknown')})")
    else:
        return Unreachable(f"{problem} ({sentence(error)[:120]})")
    return InputError(f"dataset {dataset!r}: {reason}")
