"""The paper's Figure 3 for any video and any encoders, and the scores of `uptal.similarity` beside the picture.

The action is cut out, played at half or double speed and put back elsewhere (Sec. 4.4); maps of the original and of
both edits stand side by side, a row an encoder. Letters: N clips, D feature width, F frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from uptal import video
from uptal.clips import extraction_frames
from uptal.encoders.saving import SavedEncoder
from uptal.errors import ConfigError
from uptal.features.encoding import encode, make_ready
from uptal.features.grid import crop
from uptal.report import Column, HeatmapGrid, Table
from uptal.similarity import (
    Edit,
    clip_map,
    clips_inside,
    down_sample_and_move_backward,
    equivariance,
    self_similarity,
    up_sample_and_move_forward,
)
from uptal.train import choose_device
from uptal.types import Segment, Timebase, Video

COLUMNS = ("Original", "Action 2x faster, earlier", "Action 2x slower, later")
EDITS = ("faster", "slower")
"""Names of the edits in the scores."""
BATCH = 64
"""Clips that are encoded at once."""


@dataclass(frozen=True)
class FigureThree:
    """The picture, and for each encoder and edit its scores."""

    grid: HeatmapGrid
    scores: dict[str, dict[str, dict[str, float]]]

    def table(self) -> Table:
        """The scores for the page."""
        columns = [Column(title=f"IoU kept, {edit}", better="higher", digits=2) for edit in EDITS]
        columns += [Column(title=f"warp error, {edit}", better="lower", digits=2) for edit in EDITS]
        columns += [Column(title=f"contrast, {edit}", better="higher", digits=2) for edit in EDITS]
        names = ("kept_iou", "warp_error", "separation")
        rows = [
            [title, *(found[edit][name] for name in names for edit in EDITS)] for title, found in self.scores.items()
        ]
        return Table(
            title="How well features follow",
            columns=["encoder", *columns],
            rows=[[cell if isinstance(cell, str) or np.isfinite(cell) else None for cell in row] for row in rows],
            note="IoU kept: share of the overlap of found and true action that survives the edit. Warp error: 0 is to "
            "follow the edit, 1 is to know nothing of it. "
            "Contrast: cosine within the action minus across its border. One video.",
        )


def draw_figure_three(
    path: Path, action: Segment, encoders: Mapping[str, SavedEncoder], *, interval: int, seed: int, device: str
) -> FigureThree:
    """Edits a video and lets every encoder look at all versions.

    Args:
        path: The video.
        action: Where something happens in it.
        encoders: Encoders by the name of their row.
        interval: Frames from one clip to the next.
        seed: Decides where the edits put the action.
        device: Where encoders run.

    Raises:
        VideoError: The video cannot be read.
        ConfigError: The action lies outside the video.
    """
    info = video.probe(path)
    span = (max(0, round(action.start * info.fps)), min(info.num_frames, round(action.end * info.fps)))
    if span[0] >= span[1]:
        raise ConfigError(
            f"{path}: the action from {action.start:g} to {action.end:g} s is not a part of the video, which has "
            f"{info.duration:.1f} s."
        )
    rng = np.random.default_rng([seed, 3])
    edits = [edit(info.num_frames, span, rng) for edit in (down_sample_and_move_backward, up_sample_and_move_forward)]
    spans = [span, *(edit.action for edit in edits)]
    maps, scores, grids = [], {}, []
    for title, saved in encoders.items():
        window = saved.clip.frames * saved.clip.stride
        grid = Timebase(fps=info.fps, stride=float(interval), window=float(window))
        found = _features(saved, path, info.num_frames, edits, interval, device)
        maps.append([self_similarity(features, centre=True) for features in found])
        scores[title] = _scores(found, spans, edits, grid)
        grids.append(grid)
    picture = HeatmapGrid(
        title="Do features follow an action that moves and changes speed?",
        row_names=list(encoders),
        column_names=COLUMNS,
        maps=maps,
        truth=[[Segment(start / info.fps, end / info.fps, action.label)] for start, end in spans],
        timebase=grids,
        note=f"Figure 3 of the paper for the video {path.stem}: cosine similarity of every pair of clips, features "
        "centred per video; bars mark the action. A feature that follows it shows one bright square on the bar.",
    )
    return FigureThree(picture, scores)


def most_central(truth: Mapping[str, Video]) -> Video:
    """The video with one instance that leaves most room on both sides."""

    def room(v: Video) -> float:
        return min(v.segments[0].start, v.duration - v.segments[0].end) + 0.5 * v.segments[0].duration

    single = [v for v in truth.values() if len(v.segments) == 1] or [v for v in truth.values() if v.segments]
    return max(single, key=room)


def _features(
    saved: SavedEncoder, path: Path, num_frames: int, edits: Sequence[Edit], interval: int, device: str
) -> list[Float[np.ndarray, "_ D"]]:
    """Features of the original and of every edit; the video is decoded once."""
    target = choose_device(device)
    encoder, clip = make_ready(saved.encoder, target), saved.clip
    pictures = crop(video.read(path, range(num_frames), clip.resize), clip.size)

    def look(frames: np.ndarray) -> Float[np.ndarray, "N D"]:
        table = frames[extraction_frames(len(frames), clip.frames, clip.stride, interval)]
        parts = [
            _encode(encoder, pictures, part, saved, target) for part in np.array_split(table, -(-len(table) // BATCH))
        ]
        return torch.cat(parts).numpy()

    return [look(frames) for frames in (np.arange(num_frames), *(edit.frames for edit in edits))]


def _encode(
    encoder: Any, pictures: UInt8[Tensor, "F C H W"], table: np.ndarray, saved: SavedEncoder, device: torch.device
) -> Float[Tensor, "N D"]:
    return encode(encoder, pictures[torch.from_numpy(table)], saved.clip, device)


def _scores(
    found: Sequence[np.ndarray], spans: Sequence[tuple[int, int]], edits: Sequence[Edit], grid: Timebase
) -> dict[str, dict[str, float]]:
    """Scores of both edits against the original."""
    original, *edited = found
    inside = clips_inside(spans[0], grid, len(original))
    scores = {}
    for name, edit, features in zip(EDITS, edits, edited, strict=True):
        there = clips_inside(edit.action, grid, len(features))
        tau = clip_map(edit, grid, len(features), len(original))
        one = equivariance(original, inside, features, there, tau)
        scores[name] = asdict(one) | {"kept_iou": one.kept_iou, "kept_auroc": one.kept_auroc}
    return scores
