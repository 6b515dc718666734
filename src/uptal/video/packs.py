"""Many videos in few big files, for file systems on which many small ones are slow: writing them, and windows on them.

NAME.uptalpack        the videos, back to back, as they were
NAME.uptalpack.json   {"format": 1, "videos": [{"name", "offset", "length", ...}]}: where each of them is, and facts

A video in a pack has a path like that of a file in a folder, `NAME.uptalpack/class/clip.mp4`; whoever opens videos asks
here first. A process opens each pack once.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from uptal.errors import VideoError
from uptal.files import atomic_write

SUFFIX = ".uptalpack"
FORMAT = 1


class Window(io.RawIOBase):
    """A part of a file as a file of its own, to be read."""

    def __init__(self, handle: _Handle, offset: int, length: int, name: str):
        """The `length` bytes from `offset` on; `name` is what FFmpeg is told."""
        self._handle, self._offset, self.length, self.name, self._at = handle, offset, length, name, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fills what is there; 0 at the end."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(0, self.length - self._at))
        read = os.preadv(self._handle.number, [view[:wanted]], self._offset + self._at)
        self._at += read
        return read

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves within the window."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.length}[whence])
        return self._at


def in_pack(path: str | os.PathLike[str]) -> tuple[Path, str] | None:
    """The pack in which a video lies and its name there; None for a file of its own."""
    if SUFFIX not in os.fspath(path):
        return None
    path = Path(path)
    packs = [parent for parent in path.parents if parent.name.endswith(SUFFIX) and not parent.is_dir()]
    return (packs[-1], path.relative_to(packs[-1]).as_posix()) if packs else None


def members(pack: Path) -> list[Path]:
    """Paths of the videos in a pack.

    Raises:
        VideoError: Its index is missing or damaged.
    """
    return [pack / name for name in _index(pack)]


def open_video(path: str | os.PathLike[str]) -> io.BufferedReader | Window:
    """A video's bytes, wherever they are.

    Raises:
        VideoError: Its pack is missing, damaged or cut off, or does not hold it.
        OSError: It is a file of its own that cannot be opened.
    """
    path = os.fspath(path)
    inside = in_pack(path)
    if inside is None:
        return open(path, "rb")
    pack, name = inside
    try:
        status = os.stat(pack)
        entries = _index(pack)
        if name not in entries:
            raise VideoError(path, f"{pack.name} holds no video of this name")
        offset, length = entries[name]
        if offset + length > status.st_size:
            raise VideoError(path, f"{pack.name} is cut off: it has {status.st_size} bytes of {offset + length}")
        if length == 0:
            raise VideoError(path, "it is empty (0 bytes)")
        return Window(_handle(pack, status.st_ino, status.st_mtime_ns), offset, length, path)
    except OSError as error:
        raise VideoError(path, f"its pack {pack} cannot be read ({error.strerror or error})") from error


def source_of(path: str | os.PathLike[str]) -> str | Window:
    """What a decoding library is given: the name of a file of its own, or a window on a pack.

    Raises:
        VideoError: As `open_video`.
    """
    if in_pack(path) is None:
        return os.fspath(path)
    window = open_video(path)
    assert isinstance(window, Window)
    return window


def size_of(path: Path) -> int:
    """Bytes of a video, wherever it is; 0 if it is nowhere."""
    inside = in_pack(path)
    if inside is None:
        return path.stat().st_size if path.is_file() else 0
    try:
        return _index(inside[0]).get(inside[1], (0, 0))[1]
    except VideoError:
        return 0


def write_pack(pack: Path, videos: Sequence[tuple[str, Path, Mapping[str, Any]]]) -> None:
    """Writes a pack and then its index, which makes it one.

    Args:
        pack: Where it shall be.
        videos: Name in the pack, file, and what the index shall say of it besides.

    Raises:
        UptalError: It cannot be written.
    """
    entries = []
    with atomic_write(pack, "wb") as out:
        for name, file, facts in videos:
            offset = out.tell()
            with open(file, "rb") as content:
                shutil.copyfileobj(content, out, 2**20)
            entries.append({"name": name, "offset": offset, "length": out.tell() - offset, **facts})
    with atomic_write(index_of(pack)) as out:
        json.dump({"format": FORMAT, "videos": entries}, out, indent=0)


def index_of(pack: Path) -> Path:
    """The file that says what is where."""
    return pack.with_name(pack.name + ".json")


class _Handle:
    """An open file, closed when nobody holds it any more."""

    def __init__(self, path: Path):
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@lru_cache(maxsize=64)
def _handle(pack: Path, inode: int, changed: int) -> _Handle:
    """The pack's own open file, as long as it is the same pack; reading at a place moves nothing that others share."""
    return _Handle(pack)


def _index(pack: Path) -> dict[str, tuple[int, int]]:
    """Offset and length by name."""
    file = index_of(pack)
    try:
        status = os.stat(file)
    except OSError as error:
        raise VideoError(pack, f"its index {file.name} cannot be read ({error.strerror}); copy it, too") from error
    return _read_index(pack, file, status.st_ino, status.st_mtime_ns)


@cache
def _read_index(pack: Path, file: Path, inode: int, changed: int) -> dict[str, tuple[int, int]]:
    try:
        content = json.loads(file.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise VideoError(pack, f"its index {file.name} is of format {content['format']!r}, expected {FORMAT}")
        entries = {str(each["name"]): (int(each["offset"]), int(each["length"])) for each in content["videos"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VideoError(pack, f"its index {file.name} is damaged ({type(error).__name__}: {error})") from error
    if any(offset < 0 or length < 0 for offset, length in entries.values()):
        raise VideoError(pack, f"its index {file.name} is damaged: a place is negative")
    outside = [name for name in entries if not name or PurePosixPath(name).is_absolute() or ".." in name.split("/")]
    if outside:
        raise VideoError(pack, f"its index {file.name} names {outside[0]!r}, which leads out of the pack")
    return entries
