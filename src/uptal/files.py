"""Writing files so that a reader finds the old one or the new one, never half of one; what is in them is for others."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from uptal.errors import UptalError


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` only once the block has ended without an error.

    The block writes to a temporary file in the same folder; it is flushed to the disk, given the permissions that an
    ordinary new file would have, and renamed over `path` in one step. If the block raises, or the process dies, what
    was at `path` before is still there. Missing parent folders are made. A link stays one: what it points to is
    replaced. What is no file to be replaced, a pipe or a device, is written into as it is.

    Args:
        path: Where the file shall be.
        mode: `"w"` for text (UTF-8, line ends as written) or `"wb"` for bytes.

    Raises:
        UptalError: The file cannot be written: disk full, no permission, `path` is a folder.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"atomic_write replaces whole files: mode must be 'w' or 'wb', found {mode!r}.")
    path = Path(path)
    if _is_special(path):
        with _straight_into(path, mode) as file:
            yield file
        return
    try:
        path = path.resolve() if path.is_symlink() else path
        temporary = _temporary_beside(path)
    except (OSError, RuntimeError) as error:  # a RuntimeError is a link that leads back to itself
        raise _cannot_write(path, error) from error
    try:
        with _open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.filename not in (None, str(temporary), str(path)):
            raise  # the block stumbled over another file
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # gone after the rename; after a failure it must not stay
            temporary.unlink(missing_ok=True)


def read_note(path: Path) -> Any:
    """What uptal itself noted as JSON in a file of its own.

    Raises:
        UptalError: It is damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UptalError(f"{path}: is damaged ({error}). Delete it, and what it says is made anew.") from error


OUT_OF_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
"""Error numbers that mean that the disk, or what one may use of it, is full."""


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal, read in pieces.

    Raises:
        UptalError: The file is missing or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UptalError(f"{path}: cannot be read ({error.strerror or error}). Check the path.") from error


def _temporary_beside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".tmp", dir=path.parent)
    os.fchmod(handle, _ordinary_permissions(path))
    os.close(handle)
    return Path(name)


def _open(path: Path, mode: str) -> IO[Any]:
    return open(path, "wb") if mode == "wb" else open(path, "w", encoding="utf-8", newline="")


def _is_special(path: Path) -> bool:
    with suppress(OSError):
        return path.exists() and not path.is_file() and not path.is_dir()
    return False


@contextmanager
def _straight_into(path: Path, mode: str) -> Iterator[IO[Any]]:
    try:
        with _open(path, mode) as file:
            yield file
    except OSError as error:
        if error.filename not in (None, str(path)):
            raise  # the block stumbled over another file
        raise _cannot_write(path, error) from error


def _ordinary_permissions(path: Path) -> int:
    if path.is_file():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)  # the mask can only be read by setting it
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the file system knows how to."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cannot_write(path: Path, error: OSError | RuntimeError) -> UptalError:
    why, number = getattr(error, "strerror", None) or str(error), getattr(error, "errno", None)
    what = "Make room or choose another place" if number in OUT_OF_ROOM else "Choose another place"
    return UptalError(f"{path}: cannot be written ({why}). {what}; nothing was changed there.")
