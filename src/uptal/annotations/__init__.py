"""Annotation and detection files: readers that say what is wrong and where, writers that leave no half file.

What the records mean for training or for a score is left to the localizers and the metrics.
"""

from __future__ import annotations

from uptal.annotations.class_scores import ClassScores, read_class_scores, scores_of
from uptal.annotations.detections import Submission, read_detections, read_submission, write_csv, write_detections
from uptal.annotations.groundings import Answer, match_answers, read_groundings, write_groundings
from uptal.annotations.ids import IdMatch, match_ids, safe_id
from uptal.annotations.queries import read_durations, read_queries
from uptal.annotations.subtitles import write_srt, write_vtt
from uptal.annotations.summary import AnnotationSummary, summarise
from uptal.annotations.thumos import AMBIGUOUS
from uptal.annotations.truth import annotations_digest, read_activitynet, read_annotations, read_csv, read_labels
from uptal.annotations.writing import write_annotations

__all__ = [
    "AMBIGUOUS",
    "AnnotationSummary",
    "Answer",
    "ClassScores",
    "IdMatch",
    "Submission",
    "annotations_digest",
    "match_answers",
    "match_ids",
    "read_activitynet",
    "read_annotations",
    "read_class_scores",
    "read_csv",
    "read_detections",
    "read_durations",
    "read_groundings",
    "read_labels",
    "read_queries",
    "read_submission",
    "safe_id",
    "scores_of",
    "summarise",
    "write_annotations",
    "write_csv",
    "write_detections",
    "write_groundings",
    "write_srt",
    "write_vtt",
]
