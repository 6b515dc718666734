"""uptal: unsupervised pre-training of clip encoders for temporal action localization (UP-TAL, CVPR 2022).

The public names below are imported when first used, so that `import uptal` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uptal.annotations import read_annotations, read_detections, write_detections
    from uptal.encoders import load_encoder
    from uptal.errors import AnnotationError, CheckpointError, ConfigError, UptalError, VideoError
    from uptal.features import FeatureStore, resample
    from uptal.recipes.detecting import detect
    from uptal.types import Detections, Segment, Timebase, Video

__version__ = "0.1.0"

_HOMES = {
    "AnnotationError": "errors",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "Detections": "types",
    "FeatureStore": "features",
    "Segment": "types",
    "Timebase": "types",
    "UptalError": "errors",
    "Video": "types",
    "VideoError": "errors",
    "detect": "recipes.detecting",
    "load_encoder": "encoders",
    "read_annotations": "annotations",
    "read_detections": "annotations",
    "resample": "features",
    "write_detections": "annotations",
}

__all__ = [
    "AnnotationError",
    "CheckpointError",
    "ConfigError",
    "Detections",
    "FeatureStore",
    "Segment",
    "Timebase",
    "UptalError",
    "Video",
    "VideoError",
    "detect",
    "load_encoder",
    "read_annotations",
    "read_detections",
    "resample",
    "write_detections",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'uptal' has no attribute {name!r}")
    return getattr(importlib.import_module(f"uptal.{_HOMES[name]}"), name)
