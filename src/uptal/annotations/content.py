"""The content of a text file as text, JSON or table rows; every way in which a file can be unreadable ends here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from uptal.annotations.fields import Place, quoted


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte-order mark.

    Raises:
        AnnotationError: The file is missing, unreadable, empty, binary, or in another encoding.
    """
    place = Place(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise place.error(f"cannot be read ({error.strerror or error}). Check the path.") from error
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = place.inside(f"line {line}")
        raise where.error(f"byte 0x{data[error.start]:02x} is not UTF-8 text. Save the file as UTF-8.") from None
    if not content.strip():
        raise place.error("the file is empty; expected annotations as JSON or CSV.")
    if "\0" in content:
        raise place.error("this is a binary file; expected JSON or CSV text.")
    return content


def parse_json(content: str, path: Path) -> object:
    """The value that a JSON text holds.

    Raises:
        AnnotationError: It is not JSON, is nested beyond reason, or an object has one key twice.
    """
    place = Place(path)
    try:
        return json.loads(content, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        where = place.inside(f"line {error.lineno}, column {error.colno}")
        raise where.error(f"this is not JSON ({error.msg}). Is the file complete?") from None
    except _RepeatedKey as error:
        raise place.error(f"{quoted(error.key)} stands twice in one object. Merge or rename the two entries.") from None
    except RecursionError:
        raise place.error("the JSON is nested too deeply to be an annotation file.") from None
    except ValueError as error:  # a number with thousands of digits
        raise place.error(f"a number cannot be read ({error}).") from None


def parse_table(content: str, path: Path, required: Sequence[str]) -> Iterator[tuple[Place, dict[str, str]]]:
    """The rows of a CSV text by column name, with their places. Empty lines are skipped, cells stripped of spaces.

    Raises:
        AnnotationError: A required column is missing, a column stands twice, or a row has more or fewer cells.
    """
    place = Place(path)
    lines = csv.reader(io.StringIO(content, newline=""), strict=True)
    header: list[str] = []
    try:
        for cells in lines:
            here, cells = place.inside(f"line {lines.line_num}"), [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not header:
                header = _header([cell.lower() for cell in cells], here, required)
            elif len(cells) != len(header):
                raise here.error(f"found {len(cells)} cells, expected {len(header)}: {','.join(header)}.")
            else:
                yield here, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise place.inside(f"line {lines.line_num}").error(f"this is not CSV ({error}).") from None


def _header(cells: list[str], here: Place, required: Sequence[str]) -> list[str]:
    missing = [name for name in required if name not in cells]
    if missing:
        raise here.error(
            f"found the header {','.join(cells)[:80]!r}, expected the columns {','.join(required)} "
            f"(missing: {','.join(missing)}), separated by commas."
        )
    if len(set(cells)) != len(cells):
        raise here.error(f"a column name stands twice in {','.join(cells)!r}.")
    return cells


class _RepeatedKey(ValueError):
    def __init__(self, key: str):
        super().__init__(key)
        self.key = key


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKey(next(key for key in keys if keys.count(key) > 1))
    return result
