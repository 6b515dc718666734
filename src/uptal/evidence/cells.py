"""One cell of a table: a method with a seed at a budget, measured; kept in a file that says all that decides it.

    OUT/tables/B-pal-gtad-s0-1f0e….jsonl    line 1: {"config": everything that decides the numbers}, line 2: the numbers

What one table has measured the others need not measure again. Training is the onset study's (`study.Trainer`), and what
that has kept in the same work folder is not trained again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from uptal.distributed import world
from uptal.evidence.corpora import Place
from uptal.evidence.films import Material
from uptal.evidence.measures import MEASURES, Subject
from uptal.evidence.methods import Method
from uptal.evidence.profiles import Profile
from uptal.evidence.results import RunFile, digest, read_run
from uptal.evidence.scores import changes, encode_videos, luminance, recalibrated
from uptal.evidence.study import Moment, Study, Trainer, kept_encoder, read_kept
from uptal.recipes.pretrain import PretrainConfig
from uptal.recipes.running import new_task
from uptal.run import RunFolder, environment
from uptal.train import choose_device

FORMAT = 1
"""Raised whenever equal settings would give other numbers than before."""


@dataclass(frozen=True)
class Candidate:
    """A row with a seed in a profile."""

    where: Place
    row: Method
    seed: int
    size: Profile

    @property
    def study(self) -> Study:
        """The training, on the profile's device."""
        config = self.row.config
        on_device = None if config is None else replace(config, device=self.size.device)
        return Study(self.where, replace(self.row, config=on_device), self.seed)

    def settings(self, measure: str) -> dict[str, Any]:
        """Everything that decides the numbers of a measure."""
        training = {key: value for key, value in self.study.settings().items() if key != "probes"}
        return training | {
            "tables_format": FORMAT,
            "budget": self.size.budget(self.row),
            "measure": measure,
            "head": MEASURES[measure].settings(self.size, self.seed),
        }

    def file(self, out: Path, measure: str) -> Path:
        """Where the numbers of a measure are, or will be."""
        settings = self.settings(measure)
        return out / f"{self.where.name}-{self.row.name}-{measure}-s{self.seed}-{digest(settings)}.jsonl"


def read_cell(file: Path) -> dict[str, float] | None:
    """The numbers of a measure, or None when it has not been made."""
    points = read_run(file).points if file.exists() else ()
    return points[0]["scores"] if points else None


def run_cells(
    one: Candidate, films: Material, measures: Sequence[str], out: Path, work: Path, until: float | None
) -> bool:
    """Trains a row as far as its budget and makes the measures that are missing; False when time was up before."""
    missing = [name for name in measures if read_cell(one.file(out, name)) is None]
    if not missing:
        return True
    study, budget = one.study, one.size.budget(one.row)
    moment = Moment(budget, 0, 0.0, {})
    encoder: nn.Module | None = None
    kept = kept_encoder(study, budget, work)
    if study.config is not None and one.row.kind == "trained" and kept.exists():
        encoder, moment = read_kept(kept, study.config, films)
    elif study.config is not None:
        task = new_task(study.config, choose_device(study.config.device), world())
        if one.row.kind == "trained":
            # a folder for each budget, so that a smaller one can still be measured after a larger one
            name = f"{one.where.name}-{one.row.name}-s{one.seed}-{digest(study.settings())}-{budget}"
            folder = RunFolder(work / "tables" / name)
            with folder.locked():
                trainer = Trainer(study.config, films, folder)
                if not trainer.advance(one.row.steps_for(budget), until):
                    return False
                task = trainer.task
                moment = Moment(budget, trainer.steps, trainer.seconds, trainer.machine())
        encoder = task.encoder()
    spec = (study.config or PretrainConfig()).clip
    trimmed, untrimmed = _features(one.row, encoder, films, spec)
    for name in missing:
        if until is not None and time.monotonic() >= until:
            return False
        clock = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="uptal-table-") as folder:
            subject = Subject(
                films=films, trimmed=trimmed, untrimmed=untrimmed, encoder=encoder, training=study.config, spec=spec,
                size=one.size, seed=one.seed, folder=Path(folder),
            )  # fmt: skip
            scores = MEASURES[name].run(subject)
        videos = moment.steps * (study.config.optim.batch if study.config else 0)
        here = {key: value for key, value in environment().items() if key != "command"}
        point = {
            "budget": budget,
            "steps": moment.steps,
            "videos": videos,
            "clips": one.row.clips_of(videos),
            "pairs": one.row.pairs_of(videos),
            "train_seconds": round(moment.seconds, 1),
            "measure_seconds": round(time.monotonic() - clock, 1),
            "scores": {key: round(value, 3) for key, value in scores.items()},
            **here,
            **moment.elsewhere(here),
        }
        RunFile(one.file(out, name), one.settings(name), ()).with_point(point)
    return True


def _features(
    row: Method, encoder: nn.Module | None, films: Material, spec: Any
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features of the clips of every video, trimmed and untrimmed."""
    if encoder is None:
        control = changes if row.kind == "frame_difference" else luminance
        return control(films.trimmed, spec), control(films.untrimmed, spec)
    ready = recalibrated(encoder, films, spec)
    return encode_videos(ready, films.trimmed, spec), encode_videos(ready, films.untrimmed, spec)
