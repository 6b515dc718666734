"""Scores of temporal localisation as the community's evaluators define them: pure functions from records to numbers.

Reading files is left to `uptal.annotations`, choosing a benchmark's settings to the commands.
"""

from __future__ import annotations

from uptal.metrics.detection import (
    ACTIVITYNET_RULES,
    DEVKIT_RULES,
    UPDATED_DEVKIT_RULES,
    DetectionScores,
    Matched,
    Rules,
    detection_map,
    match_detections,
    threshold_name,
)
from uptal.metrics.diagnosis import Diagnosis, diagnose
from uptal.metrics.overlap import tiou
from uptal.metrics.proposals import ProposalScores, proposal_recall
from uptal.metrics.selection import STRICT_TIOUS, Ties, VideoCounts, only_present, select_videos

__all__ = [
    "ACTIVITYNET_RULES",
    "DEVKIT_RULES",
    "STRICT_TIOUS",
    "UPDATED_DEVKIT_RULES",
    "DetectionScores",
    "Diagnosis",
    "Matched",
    "ProposalScores",
    "Rules",
    "Ties",
    "VideoCounts",
    "detection_map",
    "diagnose",
    "match_detections",
    "only_present",
    "proposal_recall",
    "select_videos",
    "threshold_name",
    "tiou",
]
