"""Annotation and detection files: readers that say what is wrong and where, writers that leave no half file.

What the records mean for training or for a score is left to the localizers and the metrics.
"""

from __future__ import annotations

from uptal.annotations.detections import read_detections, write_csv, write_detections
from uptal.annotations.ids import IdMatch, match_ids, safe_id
from uptal.annotations.subtitles import write_srt, write_vtt
from uptal.annotations.truth import (
    AnnotationSummary,
    read_activitynet,
    read_annotations,
    read_csv,
    read_labels,
    summarise,
)

__all__ = [
    "AnnotationSummary",
    "IdMatch",
    "match_ids",
    "read_activitynet",
    "read_annotations",
    "read_csv",
    "read_detections",
    "read_labels",
    "safe_id",
    "summarise",
    "write_csv",
    "write_detections",
    "write_srt",
    "write_vtt",
]
