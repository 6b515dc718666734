"""The demo's page: the comparison, the loss curves, the paper's Figure 3 and detections, from the files of a demo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uptal.encoders import load_encoder
from uptal.features import FeatureStore
from uptal.recipes import pretrain as recipes
from uptal.recipes.demo_external import KEY, SHIPPED
from uptal.recipes.demo_scores import localizer_run
from uptal.recipes.detecting import panel, visible
from uptal.recipes.figure3 import draw_figure_three, most_central
from uptal.recipes.localizer_files import load_localizer
from uptal.recipes.predicting import predict
from uptal.recipes.segmenting import in_seconds
from uptal.report import Column, Curve, Section, Table
from uptal.run import RunFolder
from uptal.similarity import SegmentConfig
from uptal.types import Video

NOISE = 0.03
"""Difference in average mAP (a fraction) below which one seed on 60 test videos says nothing."""
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
    Method("frame_difference", "Frame differences (no network)", recipes.demo_frame_difference),
    Method("moco", "MoCo-v2 (row #0)", recipes.demo_moco),
    Method("pal", "PAL", recipes.demo),
    Method("tac", "TAC (supervised, labels)", recipes.demo_tac),
)


SECOND = "gtad"
"""The localizer that gives a second opinion on the two best encoders."""

BUDGET = (
    "A minute on a laptop is some thousand training pairs; the paper used some 48 million. At this size "
    "contrastive methods have hardly begun to learn, PAL later than MoCo, because a paste puts another video into "
    "every positive pair. The two ends of the table, an untrained encoder and one trained with labels, show what the "
    "measure can tell apart; where the label-free rows lie between them says little about the methods at full size. "
    "One seed: differences of a few points are noise."
)


_SCORES = (
    Column("average mAP", "higher"),
    Column("mAP@0.5", "higher"),
    Column("AR@1", "higher"),
    Column("AR@10", "higher"),
    Column("AUC", "higher"),
)


def _scores(row: dict[str, Any]) -> list[float]:
    """The cells of `_SCORES`, in per cent."""
    parts = (row["average_mAP"], row["mAP"]["0.50"], row["AR"]["1"], row["AR"]["10"], row["AUC"])
    return [100 * part for part in parts]


def comparison(results: dict[str, Any]) -> Table:
    """The table of the encoders, budgets in every row, and of the one from elsewhere if there is one."""
    budgets = [Column(name, digits=0) for name in ("pairs", "clips", "seconds")]
    rows = [
        [m.title, 100 * row["class_accuracy"], *_scores(row), row["pairs"], row["clips"], row["seconds"]]
        for m in METHODS
        for row in [results[m.key]]
    ]
    for row in [results[key] for key in (SHIPPED, KEY) if key in results]:
        spent = [row.get(name) for name in ("pairs", "clips", "seconds")]  # not known of an encoder from elsewhere
        rows.append([row["title"], 100 * row["class_accuracy"], *_scores(row), *spent])
    note = (
        "Frozen features, the same reduced BMN on each, official ActivityNet metrics in per cent, one seed. Class: "
        "accuracy of a linear classifier on the mean feature of an annotated segment. Pairs: positive pairs seen in "
        "pre-training; clips: clips encoded; seconds: pre-training time."
    )
    columns = ["Encoder", Column("class", "higher"), *_SCORES, *budgets]
    return Table(title="Which features localise?", columns=columns, rows=rows, note=note)


def other_localizer(results: dict[str, Any]) -> Table:
    """The two best encoders under another localizer."""
    rows = [[m.title, *_scores(results[m.key][SECOND])] for m in METHODS if SECOND in results[m.key]]
    note = "The same features and videos, a reduced G-TAD instead of BMN."
    return Table(title="Does another localizer agree?", columns=["Encoder", *_SCORES], rows=rows, note=note)


def finding(results: dict[str, Any]) -> str:
    """What was found, in a few sentences, favourable or not."""
    order = sorted(METHODS, key=lambda m: -results[m.key]["average_mAP"])
    ranking = " > ".join(f"{m.key} {100 * results[m.key]['average_mAP']:.1f}" for m in order)
    floor, top, pal = (results[key] for key in ("random", "tac", "pal"))
    gain = 100 * (top["average_mAP"] - floor["average_mAP"])
    return (
        f"Average mAP: {ranking}. Labels are worth {gain:.1f} points over an untrained encoder, and tell "
        f"{100 * top['class_accuracy']:.0f} % of the classes instead of {100 * floor['class_accuracy']:.0f} %. After "
        f"{pal['pairs']:,} pairs and {pal['seconds']:.0f} s of pre-training PAL is {_standing(results)}."
    )


def _standing(results: dict[str, Any]) -> str:
    """Where PAL stands beside each of the others, in words."""
    apart = {m.key: results["pal"]["average_mAP"] - results[m.key]["average_mAP"] for m in METHODS if m.key != "pal"}
    above = [key for key, value in apart.items() if value >= NOISE]
    below = [key for key, value in apart.items() if value <= -NOISE]
    tied = [key for key in apart if key not in above + below]
    words = [f"above {' and '.join(above)}"] * bool(above) + [f"below {' and '.join(below)}"] * bool(below)
    words += [f"not to be told from {' and '.join(tied)} (less than {100 * NOISE:.0f} points apart)"] * bool(tied)
    return "; ".join(words)


def loss_curves(out: Path, results: dict[str, Any]) -> Curve:
    """Training loss of every run that trained, over the clips it has encoded: steps are of very different sizes."""
    series = {}
    for method in METHODS:
        lines = [line for line in RunFolder(out / "runs" / method.key).read_log() if "loss" in line]
        if lines:
            a_step = results[method.key]["clips"] / results[method.key]["steps"]
            series[method.title] = ([a_step * line["step"] for line in lines], [line["loss"] for line in lines])
    note = "Losses of different methods have different floors and cannot be compared with each other."
    return Curve(title="Pre-training", x_label="clips encoded", y_label="loss", series=series, note=note)


def figure_three(corpus: Path, truth: dict[str, Video], out: Path, seed: int, device: str) -> list[Section]:
    """The paper's Figure 3 and its scores for one test video and every encoder."""
    chosen = most_central(truth)
    path = corpus / "untrimmed" / f"{chosen.id}.mp4"
    encoders = {m.title: load_encoder(out / "runs" / m.key) for m in METHODS}
    drawn = draw_figure_three(path, chosen.segments[0], encoders, interval=INTERVAL, seed=seed, device=device)
    return [drawn.grid, drawn.table()]


def label_free(corpus: Path, truth: dict[str, Video], out: Path) -> list[Section]:
    """A test video with what the encoder of the package leads to without any label."""
    video = most_central(truth)
    read = FeatureStore(out / "features" / SHIPPED).read(video.id)
    found = in_seconds(read, SegmentConfig())
    made = panel(corpus / "untrimmed" / f"{video.id}.mp4", read, found, video, visible(found, None))
    note = "Letters mark stretches whose clips resemble each other; nothing here knows what an action is."
    return [replace(made, id=f"{video.id} (label-free segments, encoder of the package)", note=note)]


def detection_panels(corpus: Path, truth: dict[str, Video], out: Path, results: dict[str, Any]) -> list[Section]:
    """Two test videos with what PAL's and TAC's features led to, the better encoder first."""
    first = [most_central(truth), *sorted(truth.values(), key=lambda v: -len(v.segments))[:1]]
    panels: list[Section] = []
    for key in sorted(("pal", "tac"), key=lambda key: -results[key]["average_mAP"]):
        localizer = load_localizer(localizer_run(out, "bmn", key))
        store = FeatureStore(out / "features" / key)
        features = [store.read(v.id) for v in first]
        found = predict(localizer, features)
        for v, read in zip(first, features, strict=True):
            made = panel(corpus / "untrimmed" / f"{v.id}.mp4", read, found[v.id], v, visible(found[v.id], None))
            panels.append(replace(made, id=f"{v.id} ({key})"))
    return panels
