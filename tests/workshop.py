"""A tiny corpus and tiny runs, so that tests of the whole way through take seconds."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from uptal.distributed import World
from uptal.recipes import pretrain as recipes
from uptal.recipes.pretrain import PretrainConfig

FPS, SIZE = 10, 32
LABELS = ("left", "right")
ALONE = World(0, 1, 0)
CPU = torch.device("cpu")


def benchmark(name: str) -> types.ModuleType:
    """A script of `benchmarks/` as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "benchmarks" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def paint(path: Path, seed: int, frames: int) -> None:
    """A video of coloured waves, other ones for every seed."""
    rng = np.random.default_rng(seed)
    speed, wave, tint = rng.uniform(-4, 4), rng.uniform(4, 16), rng.uniform(40, 160, 3)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "threads": "1"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            waves = 60 * np.sin((x + y * rng.uniform(0.9, 1.1) + speed * number) / wave)[..., None]
            picture = np.clip(tint + waves, 0, 255).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(stream.encode(None))


def make_corpus(folder: Path, trimmed: int = 12, untrimmed: int = 6) -> Path:
    """`trimmed/`, `untrimmed/`, `annotations.json` and `trimmed.csv`, laid out as the built-in corpus is."""
    for number in range(trimmed):
        paint(folder / "trimmed" / f"t{number:02}.mp4", number, 24)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"t{number:02},{LABELS[number % 2]}" for number in range(trimmed)]
    (folder / "trimmed.csv").write_text("\n".join(["video,label", *rows]) + "\n")
    database = {}
    for number in range(untrimmed):
        frames = 64 + 8 * number
        paint(folder / "untrimmed" / f"u{number}.mp4", 100 + number, frames)
        database[f"u{number}"] = {
            "duration": frames / FPS,
            "subset": "training" if number < untrimmed - 2 else "validation",
            "annotations": [
                {"segment": [0.8, 2.4], "label": LABELS[number % 2]},
                {"segment": [3.6, 5.8], "label": LABELS[number % 2]},
            ],
        }
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    return folder


def tiny(base: PretrainConfig | None = None, **optim: Any) -> PretrainConfig:
    """A recipe shrunk to a fraction of a second a step."""
    cfg = recipes.small(recipes.paper() if base is None else base)
    timeline = cfg.data.timeline
    region = replace(timeline.region, min_clips=min(timeline.region.min_clips, 2), max_clips=min(3, timeline.clips))
    timeline = replace(timeline, clips=min(4, timeline.clips), frames=4, region=region)
    settings: dict[str, Any] = {"batch": 4, "lr_batch": 4, "log_every": 1, "checkpoint_every": 1000, "epochs": 100}
    return replace(
        cfg,
        encoder_options={"width_multiplier": 0.25},
        data=replace(cfg.data, resize=24, workers=0, timeline=timeline),
        aug=replace(cfg.aug, size=20),
        head=replace(cfg.head, hidden=16, width=8, ft_width=8),
        contrast=replace(cfg.contrast, queue=10),
        optim=replace(cfg.optim, **(settings | optim)),
    )


def with_workers(cfg: PretrainConfig, workers: int) -> PretrainConfig:
    return replace(cfg, data=replace(cfg.data, workers=workers))


@dataclass(frozen=True)
class Numbers:
    """A batch of the toy task."""

    values: torch.Tensor
    names: tuple[str, ...]
    position: int

    def to(self, device: torch.device) -> Numbers:
        return replace(self, values=self.values.to(device))


class ToyData:
    """Batches of random numbers, a function of (epoch, index); `on_batch` is called with the number of each."""

    def __init__(
        self, count: int = 12, batch: int = 3, validation: int = 0, on_batch: Callable[[int], None] | None = None
    ):
        self.count, self.batch, self.validation, self.on_batch = count, batch, validation, on_batch
        self.given = 0

    @property
    def steps_per_epoch(self) -> int:
        return self.count // self.batch

    def batches(self, epoch: int, position: int = 0) -> Iterator[Numbers]:
        for begin in range(position, self.count - self.batch + 1, self.batch):
            self.given += 1
            if self.on_batch is not None:
                self.on_batch(self.given)
            yield self._batch(epoch, begin)

    def validation_batches(self) -> Iterator[Numbers]:
        return (self._batch(10**6, begin) for begin in range(0, self.validation, self.batch))

    def _batch(self, epoch: int, begin: int) -> Numbers:
        rows = [np.random.default_rng([epoch, index]).normal(size=4) for index in range(begin, begin + self.batch)]
        names = tuple(f"video{index}" for index in range(begin, begin + self.batch))
        return Numbers(torch.tensor(np.array(rows), dtype=torch.float32), names, begin + self.batch)


class ToyTask(torch.nn.Module):
    """A small perceptron with batch norm and dropout, so that statistics and random draws are part of the state."""

    def __init__(self, width: int = 8):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, width), torch.nn.BatchNorm1d(width), torch.nn.Dropout(0.2), torch.nn.Linear(width, 1)
        )
        self.steps_seen = 0

    def loss(self, batch: Numbers) -> dict[str, torch.Tensor]:
        return {"loss": (self.net(batch.values) - batch.values.sum(1, keepdim=True)).square().mean()}

    def after_step(self) -> None:
        self.steps_seen += 1


def stop_at(count: int) -> Callable[[int], None]:
    """Sends SIGTERM to this process while the batch of this number is being made: the run ends after its step."""

    def maybe(given: int) -> None:
        if given == count:
            os.kill(os.getpid(), signal.SIGTERM)

    return maybe


@dataclass(frozen=True)
class Child:
    """A forked process."""

    pid: int

    def wait(self, seconds: float) -> int | None:
        """Its exit code, or None if it still runs after so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        return None

    def kill(self) -> None:
        """As `kill -9` does."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def forked(work: Callable[[], Any]) -> Child:
    """Runs `work` in a copy of this process, whose exit code is 0 unless it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of threads, which tests do not have
        pid = os.fork()
    if pid:
        return Child(pid)
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for(holds: Callable[[], Any], seconds: float = 30.0) -> None:
    """Returns once `holds` is true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
