"""The records that travel between the parts of the house: frozen, checked, free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from uptal.errors import AnnotationError, ConfigError


@dataclass(frozen=True, kw_only=True)
class Timebase:
    """Which second a feature belongs to. Feature i sees frames [i * stride, i * stride + window) at `fps`.

    >>> base = Timebase(fps=25.0, stride=16.0, window=16.0)
    >>> base.span(2)
    (1.28, 1.92)
    >>> base.centre(2), base.index(1.6)
    (1.6, 2.0)
    """

    fps: float
    """Frames per second of the grid on which clips are cut (nominal rate; variable-rate videos are put on it)."""
    stride: float
    """Frames from one feature to the next."""
    window: float
    """Frames that one feature covers."""

    def __post_init__(self) -> None:
        for name in ("fps", "stride", "window"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"Timebase.{name} must be a positive number, found {value!r}.")

    def centre(self, index: float | int) -> float:
        """Seconds of the middle of feature `index`."""
        return (index * self.stride + self.window / 2) / self.fps

    def span(self, index: float | int) -> tuple[float, float]:
        """Half-open span in seconds that feature `index` covers."""
        return index * self.stride / self.fps, (index * self.stride + self.window) / self.fps

    def index(self, seconds: float | int) -> float:
        """The (fractional) feature index whose centre is at `seconds`; the inverse of `centre`."""
        return (seconds * self.fps - self.window / 2) / self.stride


@dataclass(frozen=True)
class Segment:
    """A stretch of time [start, end) in seconds, with a label and a score where they are known."""

    start: float
    end: float
    label: str | None = None
    score: float | None = None

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class Video:
    """What is known about one annotated video."""

    id: str
    """Name of the video: the file's stem."""
    duration: float
    """Length in seconds."""
    subset: str
    """Split that it belongs to, e.g. `training`, `validation`, `testing`."""
    segments: tuple[Segment, ...] = ()
    """Annotated instances, in file order."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """A sentence about a video and, where somebody annotated it, when it happens."""

    id: str
    """Number of the query in its file."""
    video: str
    """Name of the video: the file's stem."""
    sentence: str
    """As it was written."""
    start: float = math.nan
    """Seconds; NaN where nobody said when."""
    end: float = math.nan
    """Seconds; may lie behind the video's end, as in Charades-STA, and, in ActivityNet Captions, before the start."""
    duration: float = math.nan
    """Length of the video in seconds; NaN where the annotations do not give it."""
    subset: str = ""
    """Split that the query belongs to, where the file names one."""
    place: str = ""
    """File and line, for messages."""

    @property
    def located(self) -> bool:
        """Whether the annotation says when."""
        return math.isfinite(self.start) and math.isfinite(self.end)


@dataclass(frozen=True)
class Detections:
    """Scored segments of one video, in seconds; serves detection (labels), proposals (no labels) and grounding."""

    segments: Float[np.ndarray, "M 2"]
    scores: Float[np.ndarray, " M"]
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.segments.ndim != 2 or self.segments.shape[1] != 2 or self.scores.shape != (len(self.segments),):
            raise AnnotationError(
                f"Detections need segments (M, 2) and scores (M,), found {self.segments.shape} and {self.scores.shape}."
            )
        if self.labels is not None and len(self.labels) != len(self.segments):
            raise AnnotationError(f"{len(self.segments)} segments came with {len(self.labels)} labels.")

    def __len__(self) -> int:
        return len(self.scores)

    @staticmethod
    def joined(parts: Sequence[Detections]) -> Detections:
        """All detections of several lists, in their order; labels only if every list has them."""
        labels = [part.labels for part in parts if part.labels is not None]
        return Detections(
            np.concatenate([np.zeros((0, 2)), *(part.segments for part in parts)]),
            np.concatenate([np.zeros(0), *(part.scores for part in parts)]),
            tuple(label for some in labels for label in some) if parts and len(labels) == len(parts) else None,
        )

    def top(self, count: int) -> Detections:
        """The `count` best detections, best first; ties keep their order."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        labels = None if self.labels is None else tuple(self.labels[i] for i in order)
        return Detections(self.segments[order], self.scores[order], labels)

    def as_segments(self) -> list[Segment]:
        """The detections as records, in their order."""
        labels = self.labels or (None,) * len(self)
        rows = zip(self.segments.tolist(), labels, self.scores.tolist(), strict=True)
        return [Segment(start, end, label, score) for (start, end), label, score in rows]
