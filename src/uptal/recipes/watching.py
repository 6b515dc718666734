"""How runs are going, or went: from their folders to lines for a terminal and sections of a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uptal.errors import ConfigError
from uptal.recipes.waiting import WAITING, describe_wait
from uptal.report import Column, Curve, Report, Table
from uptal.run import RunFolder

RECENT = 50
"""Lines of the log over which what is called recent is averaged."""
COLLAPSED = 0.01
"""Spread below which embeddings are as good as equal; the alarm of the training loop has the same bound."""

_CURVES = {
    "loss": ("Loss", "Losses of different methods have different floors and cannot be compared with each other."),
    "val_loss": ("Validation loss", ""),
    "accuracy": ("Accuracy", "Share of queries whose key beats every negative, or of right labels."),
    "spread": ("Spread of embeddings", "1: as far apart as directions can be. Near 0: collapsed."),
    "alignment": ("Alignment", "Mean squared distance of a query from its key; lower is closer (Wang and Isola 2020)."),
    "uniformity": (
        "Uniformity", "Log of the mean Gaussian kernel between queries; lower is more evenly spread (the same)."
    ),
    "dense": ("Loss of single clips", ""),
    "probe_knn": ("Labelled videos, nearest neighbours", "Share told right by the encoder as it was then."),
    "probe_linear": ("Labelled videos, linear", "The same with a linear classifier."),
    "probe_warp": ("Warp error", "0: features follow what moves and changes speed; 1: they know nothing of it."),
    "lr": ("Learning rate", ""),
    "videos_per_s": ("Videos a second", ""),
    "data_wait": ("Share of time waiting for data", ""),
}  # fmt: skip
"""What is drawn of a log: its key, and what it means."""


@dataclass(frozen=True)
class Watched:
    """What a run folder says."""

    name: str
    log: Sequence[Mapping[str, Any]]
    unreadable: Sequence[Mapping[str, str]]
    """Video and reason."""

    def recent(self, key: str) -> float | None:
        """Mean of the last lines that have the key; None if there are none."""
        values = [line[key] for line in self.log if isinstance(line.get(key), int | float)][-RECENT:]
        return sum(values) / len(values) if values else None

    @property
    def step(self) -> int:
        """Steps so far."""
        return int(self.log[-1]["step"])

    def alarms(self) -> list[str]:
        """What somebody should look at."""
        found, spread, wait = [], self.recent("spread"), self.recent("data_wait")
        if spread is not None and spread < COLLAPSED:
            found.append(
                f"embeddings have collapsed (spread {spread:.4f}); try a lower --optim.lr or --head.ft_last_relu false"
            )
        if not all(math.isfinite(line["loss"]) for line in self.log):
            found.append("a loss was not finite")
        if wait is not None and wait > WAITING:
            found.append(describe_wait(wait))
        return found


def watch(run: Path) -> Watched:
    """Reads a run folder, also while it is being written.

    Raises:
        ConfigError: There is no run, or it has logged nothing yet.
    """
    log = RunFolder(run).read_log()
    if not log:
        raise ConfigError(f"{run}: no run has logged a step there yet. Give the folder that was --run of `pretrain`.")
    file = run / "quarantine.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    return Watched(run.name or str(run), log, [json.loads(line) for line in lines if line.endswith("}")])


def describe_runs(runs: Sequence[Watched]) -> str:
    """A paragraph for each run."""
    parts = []
    for run in runs:
        said = [f"{run.name}: step {run.step}"]
        for key, words in (
            ("loss", "loss {:.3f}"), ("val_loss", "validation loss {:.3f}"), ("accuracy", "accuracy {:.2f}"),
            ("spread", "spread {:.2f}"), ("alignment", "alignment {:.2f}"), ("uniformity", "uniformity {:.2f}"),
            ("lr", "rate {:.3g}"), ("videos_per_s", "{:.1f} videos/s"), ("data_wait", "waiting for data {:.0%}"),
        ):  # fmt: skip
            value = run.recent(key)
            if value is not None:
                said.append(words.format(value))
        said.append(f"{len(run.unreadable)} unreadable videos")
        parts.append("\n  ".join([", ".join(said), *(f"look: {alarm}" for alarm in run.alarms())]))
    return "\n".join(parts)


def run_report(runs: Sequence[Watched], facts: Mapping[str, Any]) -> Report:
    """A page: where the runs are, what to look at, curves, and the videos that could not be read."""
    columns = ["Run", "steps", *(Column(_CURVES[key][0].lower(), digits=3) for key in _shown(runs)), "unreadable"]
    rows = [[run.name, run.step, *(run.recent(key) for key in _shown(runs)), len(run.unreadable)] for run in runs]
    state = Table(
        title="Where they are", columns=columns, rows=rows, note=f"Means of the last {RECENT} lines of each log."
    )
    curves = [
        Curve(
            title=_CURVES[key][0], x_label="steps", y_label="", note=_CURVES[key][1],
            series={run.name: _series(run, key) for run in runs if run.recent(key) is not None},
        )
        for key in _shown(runs)
    ]  # fmt: skip
    bad = [[run.name, line.get("video", ""), line.get("reason", "")] for run in runs for line in run.unreadable]
    lists = [Table(title="Videos that could not be read", columns=["Run", "video", "reason"], rows=bad)] if bad else []
    alarms = [f"{run.name}: {alarm}." for run in runs for alarm in run.alarms()]
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    return Report(
        title=f"Training: {title}", summary=alarms or ["Nothing to worry about."],
        sections=[state, *curves, *lists], facts=facts,
    )  # fmt: skip


def _shown(runs: Sequence[Watched]) -> list[str]:
    return [key for key in _CURVES if any(run.recent(key) is not None for run in runs)]


def _series(run: Watched, key: str) -> tuple[list[int], list[float]]:
    lines = [line for line in run.log if isinstance(line.get(key), int | float)]
    return [line["step"] for line in lines], [line[key] for line in lines]
