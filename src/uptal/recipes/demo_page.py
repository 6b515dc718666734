"""The demo's page: the comparison, the loss curves, the paper's Figure 3 and detections, from the files of a demo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uptal import video
from uptal.clips import extraction_frames
from uptal.encoders import load_encoder
from uptal.features import FeatureStore, encode
from uptal.recipes import localize
from uptal.recipes import pretrain as recipes
from uptal.recipes.detecting import panel, visible
from uptal.report import Column, Curve, HeatmapGrid, Section, Table
from uptal.run import RunFolder
from uptal.similarity import down_sample_and_move_backward, self_similarity, up_sample_and_move_forward
from uptal.train import choose_device
from uptal.types import Segment, Timebase, Video

NOISE = 0.03
"""Difference in AUC (a fraction) below which one seed on 64 test videos says nothing."""
INTERVAL = 8
"""Frames from one clip to the next: the corpus's actions are short."""


@dataclass(frozen=True)
class Method:
    """One encoder of the comparison."""

    key: str
    title: str
    recipe: Callable[[], recipes.PretrainConfig]


METHODS = (
    Method("random", "Random initialisation", recipes.demo_random),
    Method("moco", "MoCo-v2 (row #0)", recipes.demo_moco),
    Method("pal", "PAL", recipes.demo),
    Method("tac", "TAC (supervised, labels)", recipes.demo_tac),
)


BUDGET = (
    "Minutes on a laptop are thousands of training pairs; the paper used some 48 million. At this size contrastive "
    "methods have hardly begun to learn, PAL later than MoCo, because a paste puts another video into every positive "
    "pair. Read the table as a check that every part works, not as a verdict on the method. One seed: differences of "
    "a few points are noise."
)


def comparison(results: dict[str, Any]) -> Table:
    """The table of the four encoders, budgets in every row."""
    columns = [
        "Encoder",
        Column("average mAP", "higher"),
        Column("mAP@0.5", "higher"),
        Column("AR@1", "higher"),
        Column("AR@10", "higher"),
        Column("AUC", "higher"),
        Column("pairs", digits=0),
        Column("clips", digits=0),
        Column("seconds", digits=0),
    ]
    rows = [
        [
            method.title,
            100 * row["average_mAP"],
            100 * row["mAP"]["0.50"],
            100 * row["AR"]["1"],
            100 * row["AR"]["10"],
            100 * row["AUC"],
            row["pairs"],
            row["clips"],
            row["seconds"],
        ]
        for method in METHODS
        for row in [results[method.key]]
    ]
    note = (
        "Frozen features, the same reduced BMN on each, official ActivityNet metrics in per cent, one seed. Pairs: "
        "positive pairs seen in pre-training; clips: clips encoded; seconds: pre-training time."
    )
    return Table(title="Which features localise?", columns=columns, rows=rows, note=note)


def finding(results: dict[str, Any]) -> str:
    """What was found, in two sentences, favourable or not."""
    pal, others = results["pal"], {m.key: results[m.key] for m in METHODS if m.key != "pal"}
    order = sorted(METHODS, key=lambda m: -results[m.key]["AUC"])
    ranking = " > ".join(f"{m.key} {100 * results[m.key]['AUC']:.1f}" for m in order)
    above = [key for key, row in others.items() if pal["AUC"] - row["AUC"] >= NOISE]
    below = [key for key, row in others.items() if row["AUC"] - pal["AUC"] >= NOISE]
    tied = [key for key in others if key not in above + below]
    words = [f"above {' and '.join(above)}"] * bool(above) + [f"below {' and '.join(below)}"] * bool(below)
    words += [f"not to be told from {' and '.join(tied)} (less than {100 * NOISE:.0f} points apart)"] * bool(tied)
    return (
        f"Proposal AUC: {ranking}. After {pal['pairs']:,} pairs and {pal['seconds']:.0f} s of pre-training PAL is "
        f"{'; '.join(words)}."
    )


def loss_curves(out: Path) -> Curve:
    """Training loss of every run that trained."""
    series = {}
    for method in METHODS:
        lines = [line for line in RunFolder(out / "runs" / method.key).read_log() if "loss" in line]
        if lines:
            series[method.title] = ([line["step"] for line in lines], [line["loss"] for line in lines])
    note = "Losses of different methods have different floors and cannot be compared with each other."
    return Curve(title="Pre-training", x_label="step", y_label="loss", series=series, note=note)


def figure_three(corpus: Path, truth: dict[str, Video], out: Path, seed: int, device: str) -> HeatmapGrid:
    """The paper's Figure 3 for one test video: similarity maps of the original and of two edits, for every encoder."""
    chosen = most_central(truth)
    path = corpus / "untrimmed" / f"{chosen.id}.mp4"
    info = video.probe(path)
    segment = chosen.segments[0]
    action = (round(segment.start * info.fps), min(info.num_frames, round(segment.end * info.fps)))
    rng = np.random.default_rng([seed, 3])
    edits = [
        down_sample_and_move_backward(info.num_frames, action, rng),
        up_sample_and_move_forward(info.num_frames, action, rng),
    ]
    versions = [(np.arange(info.num_frames), action), *((edit.frames, edit.action) for edit in edits)]
    maps = [[similarity_of(out / "runs" / m.key, path, frames, device) for frames, _ in versions] for m in METHODS]
    clip = load_encoder(out / "runs" / "pal").clip
    return HeatmapGrid(
        title="Do features follow an action that moves and changes speed?",
        row_names=[m.title for m in METHODS],
        column_names=["Original", "Action 2x faster, earlier", "Action 2x slower, later"],
        maps=maps,
        truth=[[Segment(start / info.fps, end / info.fps, segment.label)] for _, (start, end) in versions],
        timebase=Timebase(fps=info.fps, stride=float(INTERVAL), window=float(clip.frames * clip.stride)),
        note=f"Figure 3 of the paper for the test video {chosen.id}: cosine similarity of every pair of clips, "
        "features centred per video; bars mark the action. A feature that follows the action shows one bright square "
        "on the bar.",
    )


def most_central(truth: dict[str, Video]) -> Video:
    """The video with one instance that leaves most room on both sides."""

    def room(v: Video) -> float:
        return min(v.segments[0].start, v.duration - v.segments[0].end) + 0.5 * v.segments[0].duration

    single = [v for v in truth.values() if len(v.segments) == 1] or [v for v in truth.values() if v.segments]
    return max(single, key=room)


def similarity_of(run: Path, path: Path, frames: np.ndarray, device: str) -> np.ndarray:
    """Self-similarity of the clips of an edited video, given as a list of frames of the original."""
    saved = load_encoder(run)
    clip = saved.clip
    pictures = video.read(path, frames.tolist(), clip.resize)
    top, left = (pictures.shape[2] - clip.size) // 2, (pictures.shape[3] - clip.size) // 2
    pictures = pictures[:, :, top : top + clip.size, left : left + clip.size]
    clips = pictures[torch.from_numpy(extraction_frames(len(frames), clip.frames, clip.stride, INTERVAL))]
    target = choose_device(device)
    return self_similarity(encode(saved.encoder.to(target), clips, clip, target).numpy(), centre=True)


def detection_panels(corpus: Path, truth: dict[str, Video], out: Path) -> list[Section]:
    """Two test videos with what PAL's and TAC's features led to."""
    first = [most_central(truth), *sorted(truth.values(), key=lambda v: -len(v.segments))[:1]]
    panels: list[Section] = []
    for method in (m for m in METHODS if m.key in ("pal", "tac")):
        localizer = localize.load_localizer(out / "localizers" / method.key)
        store = FeatureStore(out / "features" / method.key)
        features = [store.read(v.id) for v in first]
        found = localize.predict(localizer, features)
        for v, read in zip(first, features, strict=True):
            made = panel(corpus / "untrimmed" / f"{v.id}.mp4", read, found[v.id], v, visible(found[v.id], None))
            panels.append(replace(made, id=f"{v.id} ({method.key})"))
    return panels
