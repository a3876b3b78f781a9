"""Files that are written whole or not at all, and what killed runs left of theirs."""

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path

from cli import InputError

# The name, with a random rest, of what is still being written. The writer holds a lock on it, which
# ends with its process: what can be locked was left by a run that was killed.
PREFIX = ".784-128-10-"


def check_writable(path):
    """Make the folder of a file; InputError if the file could not be written there later."""
    try:
        path = Path(os.path.realpath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent), contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(path.stat().st_mode):
                raise OSError(None, "it is no regular file")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def replacing(path):
    """Open a binary file that takes path's place once it is complete and on the disk.

    It is written under a temporary name in the same folder and then renamed, so whatever stood at
    path stays there until the last byte is safe. Raises OSError (a full disk, say).
    """
    path = Path(os.path.realpath(path))  # through a symbolic link to its file
    try:
        with _temporary(path.parent, Path.touch) as temporary:
            with open(temporary, "r+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"{path} could not be written ({reason}); what stood there is not lost"
        ) from error


@contextlib.contextmanager
def scratch_folder():
    """A new folder that is removed at the end, by a later run where this one is killed."""
    with _temporary(Path(tempfile.gettempdir()), lambda path: path.mkdir(0o700)) as folder:
        yield folder


@contextlib.contextmanager
def _temporary(parent, make):
    """Make a file or folder under a new name, hold its lock, and remove it at the end."""
    _remove_leftovers(parent)
    path = parent / f"{PREFIX}{secrets.token_hex(8)}"
    make(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # Without locks, on some network drives, nothing is
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # taken for a leftover either.
        yield path
    finally:
        _remove(path)
        os.close(descriptor)


def _remove(path):
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove_leftovers(parent):
    """Remove the temporary files and folders of runs that were killed."""
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # It is another user's, or in use, or gone by now.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                if time.time() - os.fstat(descriptor).st_ctime > 1:  # else it may not be locked yet
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(path)
            finally:
                os.close(descriptor)
