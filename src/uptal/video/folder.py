"""Which files of a folder are videos, by their suffix; whether they can be decoded is found out when they are read."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from uptal.errors import ConfigError
from uptal.video import packs

# fmt: off
SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on
"""File name endings that are taken for videos, in lower case."""


def find_videos(folder: str | os.PathLike[str]) -> list[Path]:
    """All videos below `folder`, sorted by path; linked folders are entered, hidden files and folders are not.

    Videos in packs have paths as if the pack were a folder.

    Raises:
        VideoError: A pack's index is missing or damaged.
        ConfigError: The folder is missing, is a file, cannot be listed, or holds no video; the message says what is
            there instead.
    """
    root = Path(folder)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise ConfigError(f"The video folder {root} {what}. Give the folder that holds the videos.")
    files = _files(root)
    packed = [path for pack in files if pack.suffix == packs.SUFFIX for path in packs.members(pack)]
    videos = sorted(path for path in [*files, *packed] if path.suffix.lower() in SUFFIXES)
    if not videos:
        raise ConfigError(
            f"No videos found in {root}: it holds {_census(files)}. Give a folder with files that end in "
            f"{', '.join(sorted(SUFFIXES))}; subfolders are searched too."
        )
    return videos


def _files(root: Path) -> list[Path]:
    found: list[Path] = []
    entered: set[tuple[int, int]] = set()  # a link to a folder further up must not be followed for ever
    for place, folders, names in os.walk(root, followlinks=True, onerror=_cannot_list):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return found


def _cannot_list(error: OSError) -> None:
    raise ConfigError(
        f"The folder {error.filename} cannot be listed ({error.strerror}). Check who may read it, or give another one."
    ) from error


def _census(files: list[Path]) -> str:
    """What a folder holds, in words: the five most frequent kinds of files.

    >>> _census([Path("a.txt"), Path("b.txt"), Path("README")])
    '2 .txt files, 1 file without a suffix'
    """
    kinds = Counter(path.suffix.lower() for path in files).most_common()
    words = [
        f"{count} {f'{kind} ' if kind else ''}file{'s' * (count > 1)}{'' if kind else ' without a suffix'}"
        for kind, count in kinds[:5]
    ]
    if len(kinds) > 5:
        words.append(f"{sum(count for _, count in kinds[5:])} others")
    return ", ".join(words) or "no files at all"
