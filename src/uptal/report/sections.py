"""What a report is made of, as plain records; how they look is the business of `page` and its neighbours.

Letters: N clips of a long video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from uptal.types import Detections, Segment, Timebase


@dataclass(frozen=True, kw_only=True)
class VideoPanel:
    """One video with everything that was found in it. Panels that follow each other share a player and a chooser."""

    id: str
    """Name of the video, as the reader knows it."""
    video_path: Path
    """The source file; it is embedded in the page or put beside it (see `embed`)."""
    duration: float
    """Length of the timeline in seconds."""
    truth: tuple[Segment, ...] | None = None
    """Annotated segments in seconds; None when the video has no annotation, which is not the same as an empty one."""
    predictions: Detections | None = None
    """What was found, in seconds; None when nothing looked for segments. Without labels they are shown as `action`."""
    similarity: Float[np.ndarray, "N N"] | None = None
    """Cosine similarity of every pair of clips (paper, Section 4.4)."""
    timebase: Timebase | None = None
    """Where the clips of `similarity` lie in time; without it they are spread evenly over the duration."""
    threshold: float | None = None
    """Score at which the slider starts; None shows everything."""
    note: str = ""
    """A sentence under the player."""


@dataclass(frozen=True)
class Measured:
    """A number with its spread over repeated runs."""

    mean: float
    """Mean over the runs."""
    deviation: float | None = None
    """Standard deviation over the runs; None for a single run."""


Cell = str | int | float | Measured | None


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    title: str
    """Heading."""
    better: Literal["higher", "lower"] | None = None
    """Which end is the good one; None for columns in which nothing is marked."""
    digits: int = 1
    """Digits after the decimal point."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A comparison; the first cell of a row names it."""

    title: str
    """Heading of the section."""
    columns: Sequence[Column | str]
    """Columns from left to right; a bare string is a column in which nothing is marked as best."""
    rows: Sequence[Sequence[Cell]]
    """Cells, as many in each row as there are columns; None is shown as a dash."""
    note: str = ""
    """Caption."""


Values = Sequence[float | int] | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Lines over a common axis."""

    title: str
    """Heading of the section."""
    x_label: str
    """What the horizontal axis counts."""
    y_label: str
    """What the vertical axis measures."""
    series: Mapping[str, tuple[Values, Values]]
    """Name of each line and its (xs, ys), xs ascending; a y that is not finite leaves a gap."""
    note: str = ""
    """Caption."""


@dataclass(frozen=True, kw_only=True)
class HeatmapGrid:
    """Self-similarity of clips, one row an encoder and one column a version of the video: the paper's Figure 3."""

    title: str
    """Heading of the section."""
    row_names: Sequence[str]
    """Encoders."""
    column_names: Sequence[str]
    """Versions of the video: original, action down-sampled and moved back, action up-sampled and moved on."""
    maps: Sequence[Sequence[np.ndarray]]
    """`maps[row][column]` is a float array (N, N)."""
    truth: Sequence[Sequence[Segment]]
    """Where the action lies in each column, in seconds."""
    timebase: Timebase | Sequence[Timebase]
    """Where the clips of every map lie in time; one for each row where encoders see clips of different lengths."""
    note: str = ""
    """Caption."""


@dataclass(frozen=True, kw_only=True)
class Grounded:
    """A sentence, the interval that was found for it, and what the network looked at."""

    video: str
    """Name of the video."""
    sentence: str
    """As it was asked."""
    interval: tuple[float, float]
    """Seconds."""
    duration: float
    """Seconds of the video."""
    words: Sequence[str]
    """Words as the network read them."""
    over_words: Sequence[Sequence[float]]
    """For each phrase how much each word counts; empty where the network has no such attention."""
    seconds: Values
    """Middles of the segments, ascending."""
    over_time: Values
    """How much each segment counts."""
    unknown: Sequence[str] = ()
    """Words that meant nothing to the network."""
    truth: tuple[float, float] | None = None
    """Annotated interval in seconds."""


Section = VideoPanel | Table | Curve | HeatmapGrid | Grounded


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole page."""

    title: str
    """Heading of the page."""
    summary: Sequence[str] = ()
    """Paragraphs of plain text."""
    sections: Sequence[Section] = ()
    """Shown in this order."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What a reader needs to repeat the run: settings, versions, seed, commit; nested mappings are flattened."""
