"""The onset study: transfer against region pairs seen, for one method and seed on one corpus, measured on the way.

Training is that of `uptal pretrain` (loader, synthesis, heads, queue, loop, checkpoints) on frames in memory. It goes
in short pieces, so it can be stopped at any time; what was measured is skipped, what was trained is continued.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from uptal.distributed import world
from uptal.evidence.corpora import Place
from uptal.evidence.films import Films, InMemory, Material
from uptal.evidence.methods import Method
from uptal.evidence.results import RunFile, digest, open_run
from uptal.evidence.scores import INTERVAL, SEEDS, encoded, frame_difference, score
from uptal.pretext.loader import Loader
from uptal.pretext.pal import PAL
from uptal.pretext.supervised import Supervised
from uptal.recipes.pretrain import PretrainConfig, with_optim
from uptal.recipes.running import new_task
from uptal.run import RunFolder, environment, plain
from uptal.train import choose_device, fit

FORMAT = 1
"""Raised whenever equal settings would give other numbers than before, rounding of float32 sums aside."""
PIECE = 50
"""Steps between two looks at the clock."""
FIRST = 2_000
"""First budget, in region pairs; each of the next is twice the one before."""

_LATER = {
    "aug": {"resize": "exact"},
    "contrast": {"dense": 0.0, "key_batch": None, "background": False, "own_outside": False, "positives": "own"},
    "data.timeline": {"regions": 1},
    "head": {"boundary": 0.0},
    "paste": {"ramp": 0.0},
}
"""Settings that came after the first results, and the value that changes nothing: left out of a run's digest."""
_BOOKKEEPING = ("checkpoint_every", "epochs", "keep", "log_every", "max_steps", "keep_best")


def budgets(most: int) -> list[int]:
    """Numbers of region pairs at which is measured: doubling, the last being `most`.

    >>> budgets(16_000)
    [2000, 4000, 8000, 16000]
    """
    found, here = [], FIRST
    while here < most:
        found.append(here)
        here *= 2
    return [*found, most]


@dataclass(frozen=True)
class Study:
    """One run: a method with a seed on a corpus."""

    where: Place
    row: Method
    seed: int

    @property
    def config(self) -> PretrainConfig | None:
        """Settings of the training, with the seed."""
        return None if self.row.config is None else replace(self.row.config, seed=self.seed)

    def settings(self) -> dict[str, Any]:
        """Everything that decides the numbers."""
        training = None if self.config is None else plain(self.config)
        if training is not None:
            for name in _BOOKKEEPING:
                training["optim"].pop(name)
            for part, values in _LATER.items():
                inner = functools.reduce(dict.__getitem__, part.split("."), training)
                for name, same in values.items():
                    if inner[name] == same:
                        inner.pop(name)
        return {
            "format": FORMAT,
            "corpus": self.where.name,
            "corpus_digest": self.where.digest,
            "split": plain(self.where.split),
            "method": self.row.name,
            "seed": self.seed,
            "training": training,
            "probes": {"interval": INTERVAL, "seeds": list(SEEDS)},
        }


def run_study(
    study: Study, films: Films, wanted: Sequence[int], out: Path, work: Path, until: float | None = None
) -> tuple[RunFile, bool]:
    """Trains and measures at every budget that has not been measured yet.

    Args:
        study: What to run.
        films: The corpus of `study`.
        wanted: Budgets, rising.
        out: Folder of the results.
        work: Folder of checkpoints.
        until: Time (`time.monotonic`) at which to stop; None for no limit.

    Returns:
        The results so far, and whether that is all that was wanted.
    """
    config, settings = study.config, study.settings()
    file = open_run(out, settings)
    if study.row.kind != "trained":
        if not file.has(0):
            file = file.with_point(_measured(study, films, None, 0, 0, 0.0))
        return file, True
    assert config is not None
    folder = RunFolder(work / f"{study.where.name}-{study.row.name}-s{study.seed}-{digest(settings)}")
    with folder.locked():
        trainer = Trainer(config, films, folder)
        for budget in wanted:
            if file.has(budget) or (study.row.most is not None and budget > study.row.most):
                continue
            steps = study.row.steps_for(budget)
            if not trainer.advance(steps, until):
                return file, False
            if trainer.steps > steps:
                print(f"{folder.path}: trained beyond {budget} pairs before, so they cannot be measured any more")
                continue
            file = file.with_point(_measured(study, films, trainer.task, budget, steps, trainer.seconds))
    return file, True


class Trainer:
    """A task that is trained piece by piece."""

    def __init__(self, config: PretrainConfig, films: Material, folder: RunFolder):
        paths = films.paths()
        names = {path.stem: int(label) for path, label in zip(paths, films.labels, strict=False)}
        labels: Mapping[str, int] | None = names if config.method == "supervised" else None
        classes = None if labels is None else {name: number for number, name in enumerate(films.classes)}
        source = InMemory({path.stem: film for path, film in zip(paths, films.trimmed, strict=False)}, films.fps)
        paste = config.paste if config.method == "pal" else replace(config.paste, source="none")
        self.config, self.folder, self.device = config, folder, choose_device(config.device)
        self.task: PAL | Supervised = new_task(config, self.device, world(), classes)
        self.loader = Loader(
            paths, config.data, paste, config.aug, batch=config.optim.batch, seed=config.seed, world=world(),
            labels=labels, decoded=source,
        )  # fmt: skip
        self.steps, self.seconds = 0, 0.0

    def advance(self, target: int, until: float | None) -> bool:
        """Trains up to a step; False when time was up or a signal came before."""
        while self.steps < target:
            if until is not None and time.monotonic() >= until:
                return False
            optim = with_optim(self.config, max_steps=min(target, (self.steps // PIECE + 1) * PIECE)).optim
            outcome = fit(self.task, self.loader, optim, self.folder, device=self.device, world=world())
            self.steps, self.seconds = outcome.steps, outcome.seconds
            if not outcome.finished:
                return False
        return True


def _measured(
    study: Study, films: Films, task: PAL | Supervised | None, budget: int, steps: int, seconds: float
) -> dict[str, Any]:
    """A line of the results."""
    clock = time.monotonic()
    config = study.config
    if study.row.kind == "frame_difference":
        spec = PretrainConfig().clip
        scores = score(frame_difference(films, spec), films, spec)
    else:
        assert config is not None
        task = task or new_task(config, torch.device("cpu"), world())
        scores = score(encoded(task.encoder(), films, config.clip), films, config.clip)
    videos = steps * config.optim.batch if config else 0
    clips = study.row.clips_of(videos)
    about = {key: value for key, value in environment().items() if key != "command"}
    return {
        "budget": budget,
        "steps": steps,
        "videos": videos,
        "clips": clips,
        "pairs": study.row.pairs_of(videos),
        "epochs": round(videos / films.split.trimmed, 2),
        "train_seconds": round(seconds, 1),
        "probe_seconds": round(time.monotonic() - clock, 1),
        "scores": {name: round(value, 3) for name, value in scores.items()},
        **about,
    }
