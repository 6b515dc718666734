"""Which videos of a folder a run is given, where a list says so: Kinetics' training split out of all of Kinetics."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uptal.annotations.cliplists import Labelled, Matched, match_list, of_split, read_clip_list
from uptal.errors import ConfigError

_NAMED = 3
"""Names that are given as examples."""


@dataclass(frozen=True)
class VideoList:
    """A list of videos, or one split of it."""

    file: Path
    """Kinetics' or UCF101's, a table with the column `video`, or a name a line."""
    split: str | None = None
    """Lines to take, by the column `split`; None takes all."""

    def origin(self) -> dict[str, Any]:
        """What a run's settings say of it."""
        return {"list": str(self.file.resolve()), "split": self.split}


def video_list(file: str | None, split: str | None) -> VideoList | None:
    """What `--list` and `--split` ask for; None for all videos.

    Raises:
        ConfigError: A split of nothing.
    """
    if split and not file:
        raise ConfigError("--split chooses lines of --list: give --list FILE, a list with the column split.")
    return VideoList(Path(file), split) if file else None


def listed_videos(paths: Sequence[Path], chosen: VideoList, folder: Path, say: bool = True) -> list[Path]:
    """The paths that the list names, in their own order; says on stderr how many of the list there are.

    Raises:
        ConfigError: The list names none of them, has no such split, or a name fits several files.
        AnnotationError: The list cannot be read.
    """
    entries = _chosen(chosen, say)
    matched = match_list(entries, paths)
    if matched.unclear:
        name, places = next(iter(matched.unclear.items()))
        raise ConfigError(
            f"{chosen.file}: {name!r} fits {len(places)} files alike, such as {places[0]} and {places[1]} "
            f"({len(matched.unclear)} such names). Write folders before names, or give a folder without the others."
        )
    if not matched.found:
        there = ", ".join(str(path.relative_to(folder)) for path in paths[:_NAMED])
        raise ConfigError(
            f"{chosen.file} names none of the {len(paths)} videos in {folder}: it names {_some(matched.missing)}; "
            f"there are {there}. Give the --list that belongs to these --videos."
        )
    wanted = {path for path, _ in matched.found}
    if say:
        print(_words(chosen, matched, len(entries), len(wanted), len(paths), folder), file=sys.stderr)
    return [path for path in paths if path in wanted]


def _chosen(chosen: VideoList, say: bool) -> list[Labelled]:
    """The lines of the split, or all."""
    entries = read_clip_list(chosen.file, classes=False)
    splits = Counter(entry.split for entry in entries if entry.split)
    there = ", ".join(f"{name} ({count})" for name, count in splits.items())
    if chosen.split is None:
        if len(splits) > 1 and say:
            print(f"{chosen.file} holds {there}; all are used, --split takes one", file=sys.stderr)
        return entries
    some = of_split(entries, chosen.split)
    if not some:
        what = f"no split {chosen.split!r}, but {there}" if splits else "no column 'split'; leave out --split"
        raise ConfigError(f"{chosen.file} has {what}.")
    return some


def _words(chosen: VideoList, matched: Matched, listed: int, used: int, there: int, folder: Path) -> str:
    split = f", split {chosen.split}" if chosen.split else ""
    text = f"{chosen.file}{split}: {len(matched.found)} of {listed} listed videos are in {folder}"
    if matched.missing:
        text += f"; {len(matched.missing)} are not, such as {_some(matched.missing)}"
    return text + f". {used} of the folder's {there} videos are used."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED])
