"""Do features follow an action that moves or changes speed (Sec. 4.4, Fig. 3)? Edits, similarity, scores.

Reading and encoding the edited frames, and drawing, are for others. Everything here is numpy.
"""

from uptal.similarity.edits import (
    Edit,
    clip_map,
    clips_inside,
    down_sample_and_move_backward,
    edit_video,
    move,
    up_sample_and_move_forward,
)
from uptal.similarity.scores import (
    Equivariance,
    auroc,
    average,
    equivariance,
    held_out_auroc,
    iou,
    self_similarity,
    separation,
    warp_error,
)
from uptal.similarity.segments import Found, SegmentConfig, find_segments

__all__ = [
    "Edit",
    "Equivariance",
    "Found",
    "SegmentConfig",
    "auroc",
    "average",
    "clip_map",
    "clips_inside",
    "down_sample_and_move_backward",
    "edit_video",
    "equivariance",
    "find_segments",
    "held_out_auroc",
    "iou",
    "move",
    "self_similarity",
    "separation",
    "up_sample_and_move_forward",
    "warp_error",
]
