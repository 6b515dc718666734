"""Names of videos: which ones two sources share, and which may become the name of a file."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import PurePath

from uptal.errors import AnnotationError

_LONGEST = 200


@dataclass(frozen=True, kw_only=True)
class IdMatch:
    """The videos of an annotation file against those at hand (files, features, predictions), in their orders."""

    both: tuple[str, ...]
    """Annotated and at hand."""
    only_annotated: tuple[str, ...]
    """Annotated, but not at hand."""
    only_at_hand: tuple[str, ...]
    """At hand, but not annotated."""
    hint: str | None
    """What would make more of them match, where a known habit of naming stands between the two."""

    def describe(self) -> str:
        """The comparison in one sentence, or two with the hint."""
        counted = f"{len(self.both)} videos match, {_listed(self.only_annotated)} annotated but not at hand, "
        counted += f"{_listed(self.only_at_hand)} at hand but not annotated."
        return counted if self.hint is None else f"{counted} {self.hint}"


def match_ids(annotated: Collection[str], at_hand: Collection[str]) -> IdMatch:
    """Compare the ids of two sources.

    >>> match_ids(["v_abc", "v_def"], ["abc", "v_def"]).hint
    "1 more would match without the prefix 'v_'."
    """
    left, right = set(annotated), set(at_hand)
    only_left = tuple(id for id in annotated if id not in right)
    only_right = tuple(id for id in at_hand if id not in left)
    return IdMatch(
        both=tuple(id for id in annotated if id in right),
        only_annotated=only_left,
        only_at_hand=only_right,
        hint=_hint(only_left, only_right),
    )


def safe_id(id: str) -> str:
    """The id, where it can be the stem of a file's name in whatever folder.

    Raises:
        AnnotationError: It could lead elsewhere (`/`, `\\`, `..`), hide the file (a leading dot), or is no file name.
    """
    harmful = [mark for mark in ("/", "\\", "..") if mark in id]
    try:
        length = len(id.encode("utf-8"))
    except UnicodeEncodeError:
        length = 0
    if harmful or not 0 < length <= _LONGEST or not id.isprintable() or id.startswith(".") or id.isspace():
        why = f"it contains {harmful[0]!r}" if harmful else f"expected 1 to {_LONGEST} printable bytes, no leading dot"
        raise AnnotationError(f"Video id {id[:80]!r} cannot become a file name: {why}. Rename the video.")
    return id


def _hint(left: tuple[str, ...], right: tuple[str, ...]) -> str | None:
    habits: dict[str, Callable[[str], str]] = {
        "without the prefix 'v_'": lambda id: id.removeprefix("v_"),
        "without file name endings": lambda id: PurePath(id).stem,
        "if case did not count": str.casefold,
    }
    for name, change in habits.items():
        gained = len({change(id) for id in left} & {change(id) for id in right})
        if gained:
            return f"{gained} more would match {name}."
    return None


def _listed(ids: tuple[str, ...]) -> str:
    if not ids:
        return "none"
    return f"{len(ids)} ({', '.join(ids[:3])}{', …' if len(ids) > 3 else ''})"
