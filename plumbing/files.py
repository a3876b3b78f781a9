"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path

from plumbing.cli import InputError

PICTURE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")  # Pillow's others run programs
PREFIX = ".784-128-10-"  # of the name, with a random rest, of what is still being written
ABANDONED = 24 * 3600  # seconds: what is so old was left by a run that was killed


def check_writable(path):
    """Make the folder of a file; InputError if the file could not be written there later."""
    try:
        path = Path(os.path.realpath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent), contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(path.stat().st_mode):
                raise OSError(None, "it is no regular file")
            _check_replaceable(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def _check_replaceable(path):
    """OSError if a file was mounted by itself (into a container, say): no other takes its place."""
    link = path.parent / f"{PREFIX}{secrets.token_hex(8)}"
    try:
        os.link(path, link)
        link.unlink()
    except OSError as error:  # Some file systems have no links at all.
        if error.errno == errno.EXDEV:
            raise OSError(None, "it is mounted by itself; mount its folder instead") from None


@contextlib.contextmanager
def replacing(path):
    """Open a binary file that takes path's place once it is complete.

    It is written under a temporary name in the same folder and then renamed, so whatever stood at
    path stays there until the last byte is written. Raises OSError (a full disk, say).
    """
    path = Path(os.path.realpath(path))  # through a symbolic link to its file
    _remove_abandoned(path.parent)
    temporary = path.parent / f"{PREFIX}{secrets.token_hex(8)}"
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"{path} could not be written ({reason}); what stood there is not lost"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def scratch_folder():
    """A new folder, a Path, that is removed at the end."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _remove_abandoned(parent):
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # It is another user's, or gone by now.
            if time.time() - path.lstat().st_mtime > ABANDONED:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
