"""Numbers of video grounding from queries and answers, with videos that were missed counted both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from uptal.annotations import match_answers, read_groundings, read_queries
from uptal.errors import AnnotationError
from uptal.files import digest
from uptal.metrics.grounding import GroundingScores, grounding_recall
from uptal.types import Detections, Query

TIOUS = (0.1, 0.3, 0.5, 0.7)
"""Those of the paper's Table 2, and 0.1 as the public code prints it."""


def evaluate_grounding(
    truth: str,
    found: str,
    *,
    subset: str | None = None,
    tious: Sequence[float] | None = None,
    blocked: Sequence[str] = (),
) -> dict[str, Any]:
    """The record of `uptal evaluate grounding`: R@1, mIoU, R@5, mAP, coverage, origins.

    Args:
        truth: Annotated queries, in any format that `read_queries` reads.
        found: Grounding JSON lines.
        subset: Split to score.
        tious: Thresholds; those of the protocol by default.
        blocked: Videos to leave out.

    Raises:
        AnnotationError: A file cannot be read, or no query is left to score.
    """
    queries = [query for query in read_queries(truth, subset) if query.video not in set(blocked)]
    answers = read_groundings(found)
    check_located(queries, truth)
    at = tuple(tious or TIOUS)
    record = score(queries, match_answers(queries, answers), at, [answer.video for answer in answers])
    settings = {"subset": subset, "tiou": list(at), "blocked": len(blocked)}
    return record | {
        "protocol": "charades-sta",
        "settings": settings,
        "ground_truth": {"file": truth, "sha256": digest(truth)},
        "result": {"file": found, "sha256": digest(found)},
    }


def check_located(queries: Sequence[Query], where: str) -> None:
    """Refuses queries without times.

    Raises:
        AnnotationError: Naming the first one.
    """
    lost = next((query for query in queries if not query.located), None)
    if not queries or lost is not None:
        at = where if lost is None else lost.place
        raise AnnotationError(f"{at}: no start and end; training and scores need queries that say when.")


def score(
    queries: Sequence[Query],
    found: Sequence[Detections | None],
    tious: Sequence[float] = TIOUS,
    videos: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Numbers over all queries, where a missing answer counts as wrong, and over the videos that were answered.

    Args:
        queries: With their true intervals.
        found: Candidates of each, best first; `None` where there are none.
        tious: Thresholds.
        videos: Videos that the result speaks of; those with an answer by default.
    """
    present = {q.video for q, f in zip(queries, found, strict=True) if f is not None} if videos is None else set(videos)
    listed = list(dict.fromkeys(query.video for query in queries))
    missing = [video for video in listed if video not in present]
    counts = {"truth": len(listed), "found": len(present), "missing": len(missing)}
    record = _scores(queries, found, tious).to_json() | {"videos": counts, "missing_videos": missing}
    kept = [(query, each) for query, each in zip(queries, found, strict=True) if query.video in present]
    if missing and kept:
        answered = _scores([query for query, _ in kept], [each for _, each in kept], tious)
        record["without_missing_videos"] = answered.to_json()
    return record


def _scores(queries: Sequence[Query], found: Sequence[Detections | None], tious: Sequence[float]) -> GroundingScores:
    truth = np.array([(query.start, query.end) for query in queries], np.float64).reshape(-1, 2)
    none = np.zeros((0, 2))
    return grounding_recall(truth, [none if each is None else each.segments for each in found], tious=tious)
