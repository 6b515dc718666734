"""The onset study: transfer against region pairs seen, for one method and seed on one corpus, measured on the way.

Training is that of `uptal pretrain` (loader, synthesis, heads, queue, loop, checkpoints) on frames in memory. It goes
in short pieces, so it can be stopped at any time; what was measured is skipped, what was trained is continued.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from uptal.clipspec import ClipSpec
from uptal.distributed import world
from uptal.encoders.weights import read_tensors
from uptal.errors import ConfigError, UptalError
from uptal.evidence.corpora import Place
from uptal.evidence.films import Films, InMemory, Material
from uptal.evidence.methods import Method, Warm
from uptal.evidence.results import RunFile, digest, open_run
from uptal.evidence.scores import HEADS, INTERVAL, SEEDS, Features, encoded, frame_difference, score
from uptal.files import atomic_write
from uptal.pretext.ahead import Ahead
from uptal.pretext.loader import Loader
from uptal.pretext.pal import PAL
from uptal.pretext.supervised import Supervised
from uptal.recipes.pretrain import PretrainConfig, with_optim
from uptal.recipes.running import new_task
from uptal.run import RunFolder, environment, plain
from uptal.train import choose_device, fit

Heads = Callable[[Features, Films, ClipSpec, int], dict[str, float]]
"""Numbers of `HEADS` from features, with a seed."""
FORMAT = 1
"""Raised whenever equal settings would give other numbers than before, rounding of float32 sums aside."""
PIECE = {"cpu": 50, "cuda": 400}
"""Steps between two looks at the clock: some seconds."""
FIRST = 2_000
"""First budget, in region pairs; each of the next is twice the one before."""

_LATER = {
    "aug": {"resize": "exact"},
    "contrast": {
        "dense": 0.0,
        "key_batch": None,
        "background": False,
        "own_outside": False,
        "motion": [],
        "changes": 0.0,
        "positives": "own",
    },
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
        warm = self.row.warm
        start = {} if warm is None else {"warm": Study(self.where, warm.row, self.seed).named(warm.budget)}
        return start | {
            "format": FORMAT,
            "corpus": self.where.name,
            "corpus_digest": self.where.digest,
            "split": plain(self.where.split),
            "method": self.row.name,
            "seed": self.seed,
            "training": training,
            "probes": {"interval": INTERVAL, "seeds": list(SEEDS)},
        }

    def named(self, budget: int) -> dict[str, Any]:
        """The encoder at a budget, for a run that starts from it."""
        return {"method": self.row.name, "budget": budget, "digest": digest(self.settings())}


def run_study(
    study: Study,
    films: Films,
    wanted: Sequence[int],
    out: Path,
    work: Path,
    until: float | None = None,
    measure: bool = True,
    heads: Heads | None = None,
) -> tuple[RunFile, bool]:
    """Trains and measures at every budget that has not been measured yet.

    Args:
        study: What to run.
        films: The corpus of `study`.
        wanted: Budgets, rising.
        out: Folder of the results.
        work: Folder of checkpoints, and of the encoder as it was at each budget.
        until: Time (`time.monotonic`) at which to stop; None for no limit.
        measure: False to train only; the encoders are kept, and measured by whoever asks for them later.
        heads: Trains localizers and gives the numbers of `HEADS`; None to do without.

    Returns:
        The results so far, and whether that is all that was wanted.
    """
    config, settings = study.config, study.settings()
    file, asked = open_run(out, settings), HEADS if heads else ()
    if study.row.kind != "trained":
        if measure and not file.has(0, asked):
            file = file.with_point(_measured(study, films, None, Moment(0, 0, 0.0, {}), heads))
        return file, True
    assert config is not None
    training = _Training(study, films, work)
    with training.folder.locked():
        for budget in wanted:
            if file.has(budget, asked) or (study.row.most is not None and budget > study.row.most):
                continue
            try:
                kept = training.encoder(budget, until)
            except BeyondError as error:
                print(error)
                continue
            if kept is None:
                return file, False
            if measure:
                encoder, moment = read_kept(kept, config, films)
                file = file.with_point(_measured(study, films, encoder, moment, heads))
    return file, True


class BeyondError(UptalError):
    """A run was trained beyond a budget before it could be measured there."""


class _Training:
    """The checkpoints of a run, and its encoder as it was at each budget."""

    def __init__(self, study: Study, films: Material, work: Path):
        self.study, self.films, self.work = study, films, work
        self.folder = RunFolder(_folder(study, work))
        self._trainer: Trainer | None = None

    def encoder(self, budget: int, until: float | None) -> Path | None:
        """The file of the encoder at a budget, trained if it is not there; None when time was up before.

        Raises:
            BeyondError: The run went on beyond the budget before.
        """
        steps, kept = self.study.row.steps_for(budget), kept_encoder(self.study, budget, self.work)
        if kept.exists():
            return kept
        trainer = self._trainer = self._trainer or self._new_trainer(until)
        if trainer is None or not trainer.advance(steps, until):
            return None
        if trainer.steps > steps:
            raise BeyondError(
                f"{self.folder.path}: trained beyond {budget} pairs before, so that they cannot be measured any more"
            )
        _keep(kept, trainer.task.encoder(), Moment(budget, steps, trainer.seconds, trainer.machine()))
        return kept

    def _start(self, warm: Warm, until: float | None) -> Path | None:
        """The encoder to start from; the row that it is of can still be measured at lower budgets."""
        start = Study(self.study.where, warm.row, self.study.seed)
        kept = kept_encoder(start, warm.budget, self.work)
        if kept.exists():
            return kept
        before = _Training(start, self.films, self.work)
        with before.folder.locked():
            for budget in (*(one for one in budgets(warm.budget) if one < warm.budget), warm.budget):
                try:
                    found = before.encoder(budget, until)
                except BeyondError as error:
                    if budget == warm.budget:
                        raise ConfigError(f"--warm {warm.row.name}@{budget}: {error}. Use another --work.") from error
                    continue
                if found is None:
                    return None
        return kept

    def _new_trainer(self, until: float | None) -> Trainer | None:
        config, warm, start = self.study.config, self.study.row.warm, None
        assert config is not None
        if warm is not None and not any(self.folder.checkpoints.glob("step_*")):
            start = self._start(warm, until)
            if start is None:
                return None
        trainer = Trainer(config, self.films, self.folder)  # after it: what training draws must not depend on the start
        if start is not None:
            trainer.start_from(read_tensors(start))
        return trainer


def _folder(study: Study, work: Path) -> Path:
    return work / f"{study.where.name}-{study.row.name}-s{study.seed}-{digest(study.settings())}"


def kept_encoder(study: Study, budget: int, work: Path) -> Path:
    """Where the encoder that a run has at a budget is, once it is there."""
    return _folder(study, work) / "encoders" / f"{budget}.safetensors"


@dataclass(frozen=True)
class Moment:
    """How far a run was."""

    budget: int
    steps: int
    seconds: float
    machine: Mapping[str, Any]
    """What it was trained on; empty for what was not trained."""

    def elsewhere(self, here: Mapping[str, Any]) -> dict[str, Any]:
        """`trained_on`, where that differs from `here` in more than the time."""
        differs = {**self.machine, "time": None} != {**here, "time": None}
        return {"trained_on": dict(self.machine)} if self.machine and differs else {}


def _here() -> dict[str, Any]:
    return {key: value for key, value in environment().items() if key != "command"}


def _keep(path: Path, encoder: nn.Module, moment: Moment) -> None:
    about = {name: json.dumps(getattr(moment, name)) for name in ("budget", "steps", "seconds", "machine")}
    weights = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    with atomic_write(path, "wb") as file:
        file.write(save(weights, about))


def read_kept(path: Path, config: PretrainConfig, films: Material) -> tuple[nn.Module, Moment]:
    """An encoder that `run_study` kept, and how far its run was.

    Raises:
        UptalError: It does not say of which step it is. WeightsError: It cannot be read.
    """
    weights = read_tensors(path)
    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
    try:
        moment = Moment(**{name: json.loads(value) for name, value in about.items()})
    except (TypeError, ValueError) as error:
        raise UptalError(f"{path}: does not say of which step it is ({error}). Delete it to train anew.") from error
    device = torch.device("cpu") if config.device == "cpu" else choose_device("auto")
    encoder = _task(config, films, device).encoder()
    encoder.load_state_dict(weights)
    return encoder, moment


def _task(config: PretrainConfig, films: Material, device: torch.device) -> PAL | Supervised:
    supervised = config.method == "supervised"
    classes = {name: number for number, name in enumerate(films.classes)} if supervised else None
    return new_task(config, device, world(), classes)


class Trainer:
    """A task that is trained piece by piece."""

    def __init__(self, config: PretrainConfig, films: Material, folder: RunFolder):
        paths = films.paths()
        names = {path.stem: int(label) for path, label in zip(paths, films.labels, strict=False)}
        labels: Mapping[str, int] | None = names if config.method == "supervised" else None
        source = InMemory({path.stem: film for path, film in zip(paths, films.trimmed, strict=False)}, films.fps)
        paste = config.paste if config.method == "pal" else replace(config.paste, source="none")
        self.config, self.folder, self.device = config, folder, choose_device(config.device)
        self.task = _task(config, films, self.device)
        self.loader = Loader(
            paths, config.data, paste, config.aug, batch=config.optim.batch, seed=config.seed, world=world(),
            labels=labels, decoded=source,
        )  # fmt: skip
        self.steps, self.seconds = 0, 0.0

    def start_from(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Takes the encoder's weights from elsewhere; a checkpoint, where there is one, counts for more."""
        parts = (self.task.online, self.task.momentum) if isinstance(self.task, PAL) else (self.task,)
        for part in parts:
            part.backbone.load_state_dict(weights)

    def machine(self) -> dict[str, Any]:
        """What it is trained on."""
        return _here() | ({"device": torch.cuda.get_device_name(self.device)} if self.device.type == "cuda" else {})

    def advance(self, target: int, until: float | None) -> bool:
        """Trains up to a step; False when time was up or a signal came before."""
        piece = PIECE[self.device.type]
        with Ahead(self.loader, self.device) as data:
            while self.steps < target:
                if until is not None and time.monotonic() >= until:
                    return False
                optim = with_optim(self.config, max_steps=min(target, (self.steps // piece + 1) * piece)).optim
                outcome = fit(self.task, data, optim, self.folder, device=self.device, world=world())
                self.steps, self.seconds = outcome.steps, outcome.seconds
                if not outcome.finished:
                    return False
        return True


def _measured(
    study: Study, films: Films, encoder: nn.Module | None, moment: Moment, heads: Heads | None
) -> dict[str, Any]:
    """A line of the results."""
    clock = time.monotonic()
    config = study.config
    if study.row.kind == "frame_difference":
        spec = PretrainConfig().clip
        features = frame_difference(films, spec)
    else:
        assert config is not None
        encoder, spec = encoder or _task(config, films, torch.device("cpu")).encoder(), config.clip
        features = encoded(encoder, films, spec)
    scores = score(features, films, spec) | (heads(features, films, spec, study.seed) if heads else {})
    videos = moment.steps * config.optim.batch if config else 0
    clips, here = study.row.clips_of(videos), _here()
    return {
        "budget": moment.budget,
        "steps": moment.steps,
        "videos": videos,
        "clips": clips,
        "pairs": study.row.pairs_of(videos),
        "epochs": round(videos / films.split.trimmed, 2),
        "train_seconds": round(moment.seconds, 1),
        "probe_seconds": round(time.monotonic() - clock, 1),
        "scores": {name: round(value, 3) for name, value in scores.items()},
        **here,
        **moment.elsewhere(here),
    }
