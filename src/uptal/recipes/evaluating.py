"""From two files to the record of numbers that `uptal evaluate --json` writes: scores, coverage, settings, origins.

The arithmetic is in `uptal.metrics`, the benchmarks' rules in `protocols`; printing is left to the command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uptal.annotations import Submission, annotations_digest, read_annotations, read_submission
from uptal.errors import ConfigError
from uptal.files import digest
from uptal.metrics import DetectionScores, Ties, detection_map, diagnose, only_present, proposal_recall
from uptal.metrics.rows import UnknownLabels
from uptal.recipes.protocols import PROTOCOLS, Protocol
from uptal.types import Detections, Video

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What to compare with what, and how."""

    truth: str
    """Annotation file."""
    found: str
    """Submission file."""
    protocol: str = "activitynet"
    """Whose rules; a name of `PROTOCOLS`."""
    subset: str | None = None
    """Split to score; None for the protocol's own where the file names it, else the whole file."""
    tious: tuple[float, ...] | None = None
    """Thresholds; None for the protocol's own."""
    blocked: tuple[str, ...] = ()
    """Ids to leave out on both sides."""
    max_proposals: int | None = 100
    """Average number of proposals a video at the end of the curve; None for all."""
    unknown_labels: UnknownLabels = "error"
    """Predictions of a class that the ground truth lacks."""
    ties: Ties = "later-first"
    """Order among equal scores."""
    diagnose: bool = False
    """Also sort the false positives by cause, at tIoU 0.5."""

    @property
    def rules(self) -> Protocol:
        """The protocol."""
        return PROTOCOLS[self.protocol]


def evaluate_detection(cfg: Evaluation) -> Record:
    """mAP of labelled segments, of all videos and of those that the result names.

    Raises:
        AnnotationError: A file cannot be read, or they do not fit each other.
        ConfigError: The settings contradict the protocol.
    """
    sides = _read(cfg)

    def score(truth: Mapping[str, Video], unknown_labels: UnknownLabels) -> DetectionScores:
        return detection_map(
            truth,
            sides.submission.found,
            tious=cfg.tious or cfg.rules.tious,
            subset=sides.subset,
            blocked=cfg.blocked,
            unknown_labels=unknown_labels,
            ties=cfg.ties,
            rules=cfg.rules.rules,
        )

    scores = score(sides.truth, cfg.unknown_labels)
    counts = {
        "truth": scores.num_truth,
        "predictions": scores.num_predictions,
        "unknown_labels": scores.num_unknown_labels,
        "classes": len(scores.labels),
    }
    per_class = {
        label: {"instances": int(number), "AP": [float(value) for value in ap]}
        for label, number, ap in zip(scores.labels, scores.num_truth_of, scores.ap.T, strict=True)
    }
    alone = None
    if sides.present and scores.videos.missing:  # classes that occur in missing videos alone are known all the same
        alone = score(sides.present, "false-positive").to_json()
    record = _record(cfg, sides, scores.to_json(), alone, counts) | {"classes": per_class}
    return record | ({"diagnosis": _diagnosis(cfg, sides)} if cfg.diagnose else {})


def _diagnosis(cfg: Evaluation, sides: _Sides) -> Record:
    return diagnose(
        sides.truth,
        sides.submission.found,
        subset=sides.subset,
        blocked=cfg.blocked,
        unknown_labels=cfg.unknown_labels,
        ties=cfg.ties,
        rules=cfg.rules.rules,
    ).to_json()


def evaluate_proposals(cfg: Evaluation) -> Record:
    """Average recall of segments, labels aside, of all videos and of those that the result names.

    Raises:
        AnnotationError: A file cannot be read, or they do not fit each other.
        ConfigError: The protocol scores no proposals.
    """
    if not cfg.rules.proposals:
        raise ConfigError(f"The protocol {cfg.protocol} scores detections only; for proposals take activitynet.")
    sides = _read(cfg)

    def score(truth: Mapping[str, Video]):
        return proposal_recall(
            truth,
            sides.submission.found,
            tious=cfg.tious or cfg.rules.tious,
            subset=sides.subset,
            blocked=cfg.blocked,
            max_proposals=cfg.max_proposals,
            ties=cfg.ties,
        )

    scores = score(sides.truth)
    counts = {"truth": scores.num_truth, "proposals": scores.num_proposals}
    alone = score(sides.present).to_json() if sides.present and scores.videos.missing else None
    return _record(cfg, sides, scores.to_json(), alone, counts)


@dataclass(frozen=True, kw_only=True)
class _Sides:
    """Both files, read, the ground truth as the protocol has it."""

    truth: dict[str, Video]
    done: Record
    subset: str | None
    submission: Submission
    blocked: tuple[str, ...]

    @property
    def present(self) -> dict[str, Video]:
        """The ground truth of the videos that the result names; empty where no instance is left to score."""
        kept = only_present(self.truth, self.submission.found)
        scored = [v for id, v in kept.items() if self.subset in (None, v.subset) and id not in self.blocked]
        return kept if any(video.segments for video in scored) else {}

    def missing(self) -> list[str]:
        """Videos to score that the result does not name."""
        found: Mapping[str, Detections] = self.submission.found
        scored = [id for id, v in self.truth.items() if self.subset in (None, v.subset) and id not in self.blocked]
        return [id for id in scored if id not in found]


def _read(cfg: Evaluation) -> _Sides:
    truth = read_annotations(cfg.truth)
    named = any(video.subset == cfg.rules.subset for video in truth.values())
    subset = cfg.subset or (cfg.rules.subset if named else None)
    truth, done = cfg.rules.ground_truth(truth)
    submission = read_submission(cfg.found)
    return _Sides(truth=truth, done=done, subset=subset, submission=submission, blocked=cfg.blocked)


def _record(cfg: Evaluation, sides: _Sides, scores: Record, alone: Record | None, counts: Record) -> Record:
    settings = {
        "subset": sides.subset,
        "tiou": list(cfg.tious or cfg.rules.tious),
        "blocked": len(cfg.blocked),
        "max_proposals": cfg.max_proposals,
        "unknown_labels": cfg.unknown_labels,
        "ties": cfg.ties,
    }
    return {
        **scores,
        **({} if alone is None else {"without_missing_videos": alone}),
        "protocol": cfg.protocol,
        "settings": settings,
        "counts": counts,
        "missing_videos": sides.missing(),
        "ground_truth": {"file": cfg.truth, "sha256": annotations_digest(cfg.truth), **sides.done},
        "result": {"file": cfg.found, "sha256": digest(cfg.found), "made_by": sides.submission.about},
    }
