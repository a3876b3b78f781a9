"""Files that are written whole or not at all."""

import contextlib
import os
import stat
import tempfile

from cli import InputError


def check_writable(path):
    """Make the folder of a file; InputError if the file could not be written there later."""
    try:
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
    path = path.resolve()  # through a symbolic link to its file
    temporary = path.with_name(f".{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"{path} could not be written ({reason}); what stood there is not lost"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
