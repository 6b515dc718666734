"""Numbers on disk: one file for each run (corpus, method, seed, settings), one line of JSON for each budget measured.

OUT/onset/B-pal-s0-1f0e….jsonl     line 1: {"config": everything that decides the numbers}
                                   then:   {"budget": 2000, "pairs": …, "scores": {…}, "commit": …}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uptal.errors import UptalError
from uptal.files import atomic_write


@dataclass(frozen=True)
class RunFile:
    """The lines of one run."""

    path: Path
    config: dict[str, Any]
    points: tuple[dict[str, Any], ...]

    def has(self, budget: int, wanted: Sequence[str] = ()) -> bool:
        """Whether a budget has been measured, and the scores `wanted` are among its own."""
        return any(point["budget"] == budget and set(wanted) <= set(point["scores"]) for point in self.points)

    def with_point(self, point: Mapping[str, Any]) -> RunFile:
        """The file with one more line, or another one for its budget; written as a whole, so that a kill leaves no
        half of a line."""
        others = [one for one in self.points if one["budget"] != point["budget"]]
        points = tuple(sorted((*others, dict(point)), key=lambda one: one["budget"]))
        with atomic_write(self.path) as out:
            out.writelines(json.dumps(line) + "\n" for line in ({"config": self.config}, *points))
        return RunFile(self.path, self.config, points)


def digest(config: Mapping[str, Any]) -> str:
    """A name for the settings."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def open_run(folder: Path, config: Mapping[str, Any]) -> RunFile:
    """The file of a run, with what was measured before."""
    name = f"{config['corpus']}-{config['method']}-s{config['seed']}-{digest(config)}.jsonl"
    path = folder / name
    return read_run(path) if path.exists() else RunFile(path, dict(config), ())


def read_run(path: Path) -> RunFile:
    """A file of results.

    Raises:
        UptalError: It is not one.
    """
    try:
        first, *rest = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return RunFile(path, first["config"], tuple(sorted(rest, key=lambda point: point["budget"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UptalError(
            f"{path}: is no file of results ({error}). Restore it, or delete it to measure anew."
        ) from error


def read_runs(folder: Path) -> list[RunFile]:
    """Every file of results in a folder."""
    return [read_run(path) for path in sorted(folder.glob("*.jsonl"))]
