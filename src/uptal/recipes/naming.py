"""Names for segments from the classifier that an encoder brings along, such as Kinetics-400's; no training involved.

Class scores of a clip are the softmax of the classifier on its stored feature; those of a segment are their mean over
the clips whose middles lie inside it, or the nearest clip. Letters: M segments, N clips, K classes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from uptal.encoders import SavedEncoder
from uptal.errors import ConfigError
from uptal.features import Features
from uptal.files import atomic_write
from uptal.types import Detections

TOP = 5
"""Names that are written out for each segment."""


@dataclass(frozen=True)
class Named:
    """Detections with the likeliest classes of each."""

    detections: Detections
    """The segments in their order, each with its likeliest class; scores are the segments' own."""
    top: tuple[tuple[tuple[str, float], ...], ...]
    """For each segment its likeliest classes with their scores, best first."""


def check_vocabulary(saved: SavedEncoder, vocabulary: str, where: str | Path) -> None:
    """Refuses an encoder whose classifier does not know these classes.

    Raises:
        ConfigError: Saying what was asked for and what the encoder has.
    """
    if saved.classes is not None and saved.classes.vocabulary == vocabulary:
        return
    kind = type(saved.encoder).__name__
    if saved.classes is not None:
        has = f"its classifier knows the {len(saved.classes.names)} classes of {saved.classes.vocabulary}"
    elif getattr(saved.encoder.config, "num_classes", 0):
        has = f"its classifier has {saved.encoder.config.num_classes} classes without names"
    else:
        has = "it has no classifier"
    raise ConfigError(
        f"{where}: --classes {vocabulary} needs an encoder with a classifier for it; this run's is {kind}, and {has}. "
        "Extract features with such weights (`uptal weights convert SRC OUT --labels FILE`) and train the "
        "localizer on them, or leave --classes out."
    )


def name_segments(saved: SavedEncoder, features: Features, found: Detections) -> Named:
    """The segments with names from the encoder's own classifier."""
    if saved.classes is None:
        raise ValueError("check_vocabulary comes first: this encoder's classes have no names.")
    chances = segment_scores(saved, features, found)
    best = np.argsort(-chances, axis=1, kind="stable")[:, :TOP]
    names = saved.classes.names
    top = tuple(
        tuple((names[k], float(row[k])) for k in ranked) for row, ranked in zip(chances, best.tolist(), strict=True)
    )
    return Named(Detections(found.segments, found.scores, tuple(ranked[0][0] for ranked in top)), top)


def segment_scores(saved: SavedEncoder, features: Features, found: Detections) -> Float[np.ndarray, "M K"]:
    """Mean class scores of the clips inside each segment."""
    with torch.no_grad():
        clips = saved.encoder.classify(features.values.float()).softmax(dim=1).numpy()
    rows = [clips[inside(features, start, end)].mean(axis=0) for start, end in found.segments.tolist()]
    return np.stack(rows) if rows else np.zeros((0, clips.shape[1]))


def inside(features: Features, start: float, end: float) -> slice:
    """The clips whose middles lie in [start, end], or the nearest one."""
    last = len(features.values) - 1
    low = min(max(0, int(np.ceil(features.timebase.index(start)))), last)
    high = min(max(low, int(np.floor(features.timebase.index(end)))), last)
    return slice(low, high + 1)


def write_top(folder: Path, vocabulary: str, named: Mapping[str, Named]) -> None:
    """Writes every segment with its likeliest classes, as classes.json (`results` by video) and as classes.csv."""
    results: dict[str, list[dict[str, Any]]] = {}
    for id, each in named.items():
        rows = zip(each.detections.as_segments(), each.top, strict=True)
        results[id] = [
            {
                "segment": [segment.start, segment.end],
                "score": segment.score,
                "classes": [{"label": label, "score": score} for label, score in top],
            }
            for segment, top in rows
        ]
    with atomic_write(folder / "classes.json") as out:
        json.dump({"vocabulary": vocabulary, "results": results}, out, indent=1)
    with atomic_write(folder / "classes.csv") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(("video", "start", "end", "rank", "label", "score"))
        for id, rows in results.items():
            for row in rows:
                ranked = enumerate(row["classes"], 1)
                table.writerows((id, *row["segment"], rank, each["label"], each["score"]) for rank, each in ranked)


def table_rows(named: Sequence[tuple[str, Named]], shown: int = 5) -> list[list[str | float]]:
    """Rows for a page: video, start, end, the likeliest classes with their scores, of each video's best segments."""
    rows: list[list[str | float]] = []
    for id, each in named:
        for segment, top in list(zip(each.detections.as_segments(), each.top, strict=True))[:shown]:
            words = ", ".join(f"{label} {score:.2f}" for label, score in top)
            rows.append([id, segment.start, segment.end, words])
    return rows
