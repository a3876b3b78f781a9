"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from plumbing.cli import InputError

PICTURE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # These run no program.
PREFIX = ".784-128-10-"  # of the name, with a random rest, of the folder of what is being written
ABANDONED = 24 * 3600  # seconds: what is so old was left by a run that was killed


@contextlib.contextmanager
def scratch_folder(parent=None):
    """A new folder, a Path, in another one or where temporary files go; it is removed at the end.

    So are those that runs that were killed have left in the same place.
    """
    parent = Path(parent or tempfile.gettempdir())
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # It is another user's, or gone by now.
            if time.time() - path.lstat().st_mtime > ABANDONED:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    with tempfile.TemporaryDirectory(
        prefix=PREFIX, dir=parent, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def check_writable(path):
    """Make the folder of a file; InputError if replacing() could not write the file later."""
    try:
        path = Path(os.path.realpath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(path.parent) as folder, contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(path.stat().st_mode):
                raise OSError(None, "it is no regular file")
            try:
                os.link(path, folder / "link")
            except OSError as error:  # Some file systems have no links at all.
                if error.errno == errno.EXDEV:  # into a container, say: none takes its place
                    raise OSError(None, "it is mounted by itself; mount its folder") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def replacing(path):
    """Open a binary file that takes path's place once it is complete.

    It is written in a temporary folder beside it and then renamed, so whatever stood at path stays
    there until the last byte is written. Raises OSError (a full disk, say).
    """
    path = Path(os.path.realpath(path))  # through a symbolic link to its file
    try:
        with scratch_folder(path.parent) as folder:
            with open(folder / "new", "xb") as file:
                yield file
            os.replace(folder / "new", path)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"{path} could not be written ({reason}); what stood there is not lost"
        ) from error
