"""What a step of a recipe takes on this machine: time, arithmetic, waiting and memory, beside a ceiling.

Nothing is written and no run folder is touched. The ceiling is the fastest square matrix product of the same process
in the arithmetic of the recipe, so a share of it does not depend on what a data sheet says.
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode

from uptal.device import choose_device
from uptal.distributed import World
from uptal.errors import ConfigError
from uptal.learner import Learner
from uptal.memory import keep_freed_memory
from uptal.optim import learning_rate, sound_arithmetic
from uptal.pretext.ahead import Ahead
from uptal.pretext.batch import Batch, synthesise
from uptal.pretext.loader import Loader
from uptal.recipes.listing import VideoList, listed_videos
from uptal.recipes.pretrain import PretrainConfig
from uptal.recipes.running import new_task
from uptal.video import VideoInfo, find_videos

_NOISE_FRAMES = 250
"""Frames of a video of noise: ten seconds, as Kinetics has them."""

_WARM_UP = 2
"""Steps before the clock starts: memory, workers, compilation."""


def measure(
    cfg: PretrainConfig, videos: Path | None, steps: int, profiled: bool = False, chosen: VideoList | None = None
) -> dict[str, Any]:
    """Trains for some steps and throws the result away; `profiled` adds one more, operation by operation.

    Of the folder `videos` those that `chosen` names are used, or all.

    Raises:
        ConfigError: Nothing to measure, or settings that cannot be used here.
    """
    if steps < 1 or 0 in (cfg.optim.max_steps, cfg.optim.epochs):
        raise ConfigError("There is no step to measure; give --steps 1 or more, and a recipe that trains.")
    device, alone = choose_device(cfg.device, 0), World(0, 1, 0)
    loader = _loader(cfg, videos, alone, chosen)
    torch.manual_seed(cfg.seed)
    task = new_task(cfg, device, alone, classes=None if loader.labels is None else dict(loader.labels))
    learner = Learner(task, cfg.optim, device)
    task.train()
    if device.type == "cpu":
        keep_freed_memory()
    clock = _Stopwatch(device)
    with loader.watched(), sound_arithmetic(learner.dtype, device), Ahead(loader, device) as data:
        # noise for a GPU is made once: the time of a step is to be that of the device
        again = videos is None and device.type == "cuda"
        batches, parts = itertools.cycle(_first(data, cfg.optim.accumulate)) if again else _endless(data), []
        for step in range(_WARM_UP + steps):
            if step == _WARM_UP:
                clock.start()
            with clock.waiting():
                parts = [next(batches) for _ in range(cfg.optim.accumulate)]
            learner.step(parts, learning_rate(cfg.optim, 1.0, 2.0), step + 1)
        seconds, cpu, wait = clock.stop()
        memory = _peak_memory(device)
        rate = learning_rate(cfg.optim, 1.0, 2.0)
        spent = _operations(lambda: learner.step(parts, rate, _WARM_UP + steps + 1), device) if profiled else None
    making = _seconds_for_pictures(parts[0], device) * cfg.optim.accumulate * steps
    flops = _model_flops(cfg, parts[0], loader.labels)
    within = seconds - wait - (0.0 if data.at_once else making)
    samples = steps * cfg.optim.batch
    timeline = cfg.data.timeline
    ceiling = _ceiling(learner.dtype, device)
    done = flops * cfg.optim.accumulate * steps / seconds
    return {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads",
        "arithmetic": str(learner.dtype).removeprefix("torch."),
        "steps": steps,
        "batch": cfg.optim.batch,
        "seconds_per_step": round(seconds / steps, 4),
        "cpu_seconds_per_step": round(cpu / steps, 4),
        "samples_per_s": round(samples / seconds, 3),
        "clips_per_s": round(samples * timeline.regions * timeline.views * timeline.clips / seconds, 2),
        "data_wait": round(wait / seconds, 4),
        "synthesis_share": round(making / seconds, 4),
        "network_share": round(within / seconds, 4),
        "gflops_per_sample": round(flops * cfg.optim.accumulate / cfg.optim.batch / 1e9, 3),
        "model_tflops_per_s": round(done / 1e12, 4),
        "matmul_tflops_per_s": round(ceiling / 1e12, 4),
        "matmul_arithmetic": str(learner.dtype).removeprefix("torch."),
        "share_of_matmul": round(done / ceiling, 4),
        "peak_memory_gib": round(memory / 2**30, 3),
        **({} if spent is None else {"operations": spent}),
    }


def _operations(step: Callable[[], object], device: torch.device) -> list[dict[str, Any]]:
    """What a step's time on the device goes into: PyTorch's operations, the longest first, down to half a per cent."""
    cuda = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with torch.profiler.profile(activities=kinds) as profile:
        step()
        if cuda:
            torch.cuda.synchronize(device)
    # a GPU's time is told twice: by the operation that asked for it (on the CPU), and by its own kernel
    asked = [event for event in profile.key_averages() if event.device_type.name == "CPU"]
    spent = [(e.self_device_time_total if cuda else e.self_cpu_time_total, e.count, e.key) for e in asked]
    whole = max(1e-9, sum(time for time, _, _ in spent))
    return [
        {"name": name, "share": round(time / whole, 4), "ms": round(time / 1000, 3), "calls": count}
        for time, count, name in sorted(spent, reverse=True)
        if time / whole >= 0.005
    ]


class Noise:
    """Stands in for decoded videos: pictures that cost nothing to read, so that the device is measured alone."""

    def __init__(self, side: int):
        self.side = side

    def probe(self, path: Path) -> VideoInfo:
        """A video of ten seconds."""
        return VideoInfo(
            path=str(path),
            num_frames=_NOISE_FRAMES,
            fps=25.0,
            duration=_NOISE_FRAMES / 25,
            width=340,
            height=256,
            rotation=0,
            codec="none",
            constant_rate=True,
            times=np.arange(_NOISE_FRAMES) / 25,
            start=0.0,
            stream=0,
            common_colours=True,
            flips=(False, False, False),
            stamps=None,
            keyframes=np.arange(_NOISE_FRAMES),
        )

    def read(self, info: VideoInfo, path: Path, indices: list[int]) -> Tensor:
        """Grey noise, the same for every frame."""
        one = torch.arange(3 * self.side**2, dtype=torch.int64).mul_(7919).remainder_(256).to(torch.uint8)
        return one.view(1, 3, self.side, self.side).expand(len(indices), -1, -1, -1).clone()


class _Stopwatch:
    """Wall and processor time from `start` on, and how much of it was waiting for data."""

    def __init__(self, device: torch.device):
        self.device, self._wait, self._since = device, 0.0, 0.0

    def start(self) -> None:
        self._settle()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._wall, self._cpu, self._wait = time.perf_counter(), time.process_time(), 0.0

    def waiting(self) -> _Stopwatch:
        return self

    def __enter__(self) -> None:
        self._since = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._wait += time.perf_counter() - self._since

    def stop(self) -> tuple[float, float, float]:
        self._settle()
        return time.perf_counter() - self._wall, time.process_time() - self._cpu, self._wait

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _loader(cfg: PretrainConfig, videos: Path | None, alone: World, chosen: VideoList | None) -> Loader:
    paths = [Path(f"noise{number}.mp4") for number in range(cfg.optim.batch * 2)]
    if videos is not None:
        paths = find_videos(videos)
        paths = paths if chosen is None else listed_videos(paths, chosen, videos)
    supervised = cfg.method == "supervised"
    loader = Loader(
        paths,
        replace(cfg.data, val_videos=0, **({"workers": 0} if videos is None else {})),
        replace(cfg.paste, source="none") if supervised else cfg.paste,
        cfg.aug,
        batch=cfg.optim.part(1),
        seed=cfg.seed,
        world=alone,
        labels={path.stem: number % 2 for number, path in enumerate(paths)} if supervised else None,
        parts=cfg.optim.accumulate,
    )
    if videos is None:
        loader.videos.decoded = Noise(cfg.data.resize)  # type: ignore[assignment]
    return loader


def _endless(loader: Ahead) -> Iterator[Any]:
    epoch = 0
    while True:
        yield from loader.batches(epoch)
        epoch += 1


def _first(loader: Ahead, count: int) -> list[Batch]:
    return list(itertools.islice(_endless(loader), count))


def _seconds_for_pictures(batch: Batch, device: torch.device) -> float:
    moved = replace(batch.to(device), views=None)
    synthesise(moved)
    watch = _Stopwatch(device)
    watch.start()
    synthesise(moved)
    return watch.stop()[0]


def _model_flops(cfg: PretrainConfig, batch: Batch, labels: Mapping[str, int] | None) -> int:
    """Floating-point operations of the networks in one part of a step, forward and backward, each done once: what
    `recompute` does again is its price and no result. Convolutions and matrix products are counted, two operations a
    multiply-add, with tensors that have no contents and take neither time nor memory of the device."""
    plain, nowhere = replace(cfg, recompute=False, compile=False), torch.device("meta")
    classes = None if labels is None else dict(labels)
    task = new_task(plain, torch.device("cpu"), World(0, 1, 0), classes=classes).to(nowhere)
    moved = replace(batch, views=None).to(nowhere)
    moved = replace(moved, views=synthesise(moved))
    with FlopCounterMode(display=False) as counter:
        task.loss(moved)["loss"].backward()
    return counter.get_total_flops()


def _ceiling(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of the fastest square matrix product, of a few sizes."""
    best = 0.0
    for size in (1024, 2048) if device.type == "cpu" else (4096, 8192):
        a = torch.randn(size, size, device=device, dtype=dtype)
        product = a @ a
        watch = _Stopwatch(device)
        for _ in range(3):
            watch.start()
            torch.matmul(a, a, out=product)
            best = max(best, 2 * size**3 / watch.stop()[0])
    return best


def _peak_memory(device: torch.device) -> float:
    """Bytes: of the device's allocator, or of this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
