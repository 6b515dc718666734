"""Checked values: each function returns what it was asked for, or raises an error that names the place in the file."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from uptal.errors import AnnotationError

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlist, _SHORT.maxdict, _SHORT.maxlevel = 3, 2, 2


def quoted(value: object) -> str:
    """A value as an error message shows it: never longer than a line, however big it is."""
    return _SHORT.repr(value)


@dataclass(frozen=True)
class Place:
    """Where in a file a value stands."""

    path: Path
    """The file."""
    at: str = ""
    """The way to the value in words, e.g. `line 3, column 'end'` or `video 'a', annotations[2]`."""
    problems: list[str] | None = field(default=None, compare=False)
    """Where the messages of `excused` blocks are collected; None raises the first one instead."""

    def inside(self, step: str) -> Place:
        """The place one step further in."""
        return Place(self.path, f"{self.at}, {step}" if self.at else step, self.problems)

    @contextmanager
    def excused(self) -> Iterator[None]:
        """A block about one instance: where problems are collected, its error is noted and the instance left out."""
        try:
            yield
        except AnnotationError as error:
            if self.problems is None:
                raise
            self.problems.append(str(error))

    def error(self, problem: str) -> AnnotationError:
        """The error to raise; `problem` says what was found, what was expected, and what to do."""
        return AnnotationError(f"{self.path}{', ' + self.at if self.at else ''}: {problem}")

    def wrong(self, value: object, expected: str) -> AnnotationError:
        """The error for a value of the wrong kind."""
        return self.error(f"found {quoted(value)}, expected {expected}.")


def number(value: object, place: Place, expected: str = "a number") -> float:
    """A finite number; text that spells one (THUMOS'14 files hold such) is taken, booleans are not.

    Raises:
        AnnotationError: It is something else, NaN, or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, str) and "_" in value):
        raise place.wrong(value, expected)
    try:
        result = float(value)
    except (ValueError, OverflowError):
        if isinstance(value, str) and re.fullmatch(r"\s*-?\d+,\d+\s*", value):
            expected += f" with a decimal point ({value.strip().replace(',', '.')})"
        raise place.wrong(value, expected) from None
    if not math.isfinite(result):
        raise place.wrong(value, expected + ", neither NaN nor infinite")
    return result


def text(value: object, place: Place, expected: str) -> str:
    """Text that is not empty and can be written to a file again.

    Raises:
        AnnotationError: It is something else.
    """
    if not isinstance(value, str) or not value.strip():
        raise place.wrong(value, expected)
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise place.wrong(value, expected + " in valid Unicode (it holds half a surrogate pair)") from None
    return value


def record(value: object, place: Place, expected: str) -> dict[str, object]:
    """A JSON object.

    Raises:
        AnnotationError: It is something else.
    """
    if not isinstance(value, dict):
        raise place.wrong(value, expected)
    return value


def rows(value: object, place: Place, expected: str) -> list[object]:
    """A JSON list.

    Raises:
        AnnotationError: It is something else.
    """
    if not isinstance(value, list):
        raise place.wrong(value, expected)
    return value


def pair(value: object, place: Place) -> tuple[float, float]:
    """Two numbers, `[start, end]` in seconds, in whatever order.

    Raises:
        AnnotationError: It is something else.
    """
    both = rows(value, place, "a list [start, end] in seconds")
    if len(both) != 2:
        raise place.wrong(value, "a list of two numbers, [start, end] in seconds")
    return number(both[0], place.inside("start"), "seconds"), number(both[1], place.inside("end"), "seconds")


def span(start: float, end: float, place: Place) -> tuple[float, float]:
    """An annotated instance's start and end. It may be empty or end after the video, as some official ones do.

    Raises:
        AnnotationError: It begins before 0 or ends before it begins.
    """
    if start < 0:
        raise place.error(f"the segment starts at {start} s, expected 0 or later. Correct or remove it.")
    if end < start:
        raise place.error(f"the segment ends at {end} s, before its start at {start} s. Swap or correct the two.")
    return start, end
