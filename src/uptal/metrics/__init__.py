"""Scores of temporal localisation as the community's evaluators define them: pure functions from records to numbers.

Reading files is left to `uptal.annotations`, choosing a benchmark's settings to the commands.
"""

from __future__ import annotations

from uptal.metrics.detection import DetectionScores, detection_map
from uptal.metrics.overlap import tiou
from uptal.metrics.proposals import ProposalScores, proposal_recall
from uptal.metrics.selection import STRICT_TIOUS, Ties, VideoCounts, only_present, select_videos

__all__ = [
    "STRICT_TIOUS",
    "DetectionScores",
    "ProposalScores",
    "Ties",
    "VideoCounts",
    "detection_map",
    "only_present",
    "proposal_recall",
    "select_videos",
    "tiou",
]
