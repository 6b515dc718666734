"""What extraction costs on this machine: decoding and encoding alone, both together, and the straightforward way.

The bound for one process is 1 / (decoding + encoding) clips per CPU second, both measured in the same run on one
thread; what the pipeline loses of it is threads, queues, batches and files. No pipeline can lead the straightforward
way by more than that way's time over the bound's. Everything alternates in rounds, and CPU time is counted, so that
other work on the machine falls on all alike.
"""

from __future__ import annotations

import copy
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch.nn.functional import interpolate

from uptal.device import choose_device
from uptal.encoders import build
from uptal.features import Features, FeatureStore, Sampling, Work, decode_clips, encode, extract, lay_grid, make_ready
from uptal.features.grid import crop
from uptal.features.lanes import Lanes
from uptal.pixels import normalise
from uptal.types import Timebase
from uptal.video import probe

DESCRIPTION = {"encoder_digest": "0" * 64, "width": 0, "interval": 0}
"""Of stores that are thrown away."""


@dataclass(frozen=True, kw_only=True)
class ExtractBench:
    """What is measured."""

    encoder: str = "slim"
    """A file of `uptal.encoders`, with fresh weights."""
    size: int = 112
    """Crop in pixels; the short side is 8/7 of it."""
    seconds: int = 40
    """Length of each made video, 640 x 360 at 25 frames a second, a keyframe every 250 frames as x264 has it."""
    videos: int = 2
    """Videos extracted at once."""
    batch: int = 32
    """Clips that the encoder works on at once."""
    threads: int = 2
    """Decoding threads."""
    stored: int = 20
    """Files of 8 MB that are written to measure the store and the disk."""
    rounds: int = 3
    """Times that everything is measured, in turn."""
    device: str = "auto"
    """auto, cpu, cuda."""


def measure_extract(cfg: ExtractBench, video: Path | None = None) -> dict[str, Any]:
    """CPU milliseconds a clip for each way, and their ratios."""
    device = choose_device(cfg.device)
    torch.manual_seed(0)
    encoder = build(cfg.encoder)
    spec = replace(encoder.native, size=cfg.size, resize=cfg.size * 8 // 7)
    textbook = copy.deepcopy(encoder).to(device).eval()
    ready = make_ready(encoder, device)
    interval = spec.frames * spec.stride
    with tempfile.TemporaryDirectory() as folder:
        source = video or make_video(Path(folder) / "made.mp4", cfg.seconds)
        paths = [Path(folder) / f"copy{number}{source.suffix}" for number in range(cfg.videos)]
        for path in paths:
            os.link(source, path) if video is None else path.write_bytes(source.read_bytes())
        grid = lay_grid(probe(source), spec, interval)
        count, work = len(grid.frames), Work(batch=cfg.batch, threads=cfg.threads)
        size = Lanes(ready, spec, device, cfg.batch).size
        clips = torch.stack(list(decode_clips(source, spec, grid)))[:size]
        stores = iter(range(10**6))

        def decode() -> int:
            return sum(1 for _ in decode_clips(source, spec, lay_grid(probe(source), spec, interval)))

        def forward() -> int:
            with _one_thread():
                encode(ready, clips, spec, device, size)
            return size

        def whole() -> int:
            store = FeatureStore.create(Path(folder) / f"store{next(stores)}", DESCRIPTION)
            return extract(paths, store, encoder, spec, Sampling(interval=interval), device=device, work=work).clips

        def plain() -> int:
            some = range(0, count, max(1, count // 6))
            with _one_thread(), torch.no_grad():
                for index in some:
                    clip = _seek_and_decode(source, grid.frames[index], spec)[None].to(device)
                    textbook(normalise(clip.float() / 255, spec.mean, spec.std).contiguous())
            return len(some)

        cost = _in_turn({"decode": decode, "encode": forward, "whole": whole, "plain": plain}, cfg.rounds)
        written = _store_speed(Path(folder) / "speed", cfg.stored)
    bound = cost["decode"][0] + cost["encode"][0]
    return {
        "encoder": f"{cfg.encoder} {spec.frames}x{cfg.size}x{cfg.size}",
        "clips_a_video": count,
        "decode_ms": round(1e3 * cost["decode"][0], 2),
        "encode_ms": round(1e3 * cost["encode"][0], 2),
        "extract_ms": round(1e3 * cost["whole"][0], 2),
        "share_of_bound": round(bound / cost["whole"][0], 3),
        "plain_ms": round(1e3 * cost["plain"][0], 2),
        "times_faster_than_plain": round(cost["plain"][0] / cost["whole"][0], 2),
        "times_faster_at_most": round(cost["plain"][0] / bound, 2),
        "clips_per_s": round(1 / cost["whole"][1], 2),
        "torch_threads": torch.get_num_threads(),
        **written,
    }


def make_video(path: Path, seconds: int, size: tuple[int, int] = (640, 360), fps: int = 25) -> Path:
    """A drifting texture with a little noise: neither trivial nor impossible to predict."""
    rng = np.random.default_rng(0)
    width, height = size
    canvas = rng.integers(0, 256, (height // 8 + 40, width // 8 + 40, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"preset": "veryfast", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(seconds * fps):
            x, y = int(120 + 100 * np.sin(number / 20)), number % 300
            picture = canvas[y : y + height, x : x + width] // 2 + rng.integers(0, 20, (height, width, 1), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(stream.encode(None))
    return path


def memory_over_a_long_video(hours: float, folder: Path) -> dict[str, float]:
    """MB that the process grows by while it extracts one long video of few frames a second."""
    path = folder / "long.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=5, options={"preset": "ultrafast", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
        for number in range(int(hours * 3600 * 5)):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, number // 25, 1), "rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    encoder = build("slim", width_multiplier=0.25)
    spec, resident = replace(encoder.native, size=48, resize=56), [_resident()]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            resident.append(_resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        store = FeatureStore.create(folder / "store", DESCRIPTION)
        work = Work(batch=16, threads=2)
        done = extract([path], store, encoder, spec, Sampling(interval=8), device=torch.device("cpu"), work=work)
    finally:
        stop.set()
        watcher.join()
        resident.append(_resident())
    tenth, half = len(resident) // 10, len(resident) // 2
    return {
        "hours": hours,
        "clips": done.clips,
        "growth_mb": round(max(resident) - resident[tenth], 1),
        "growth_second_half_mb": round(max(resident[half:]) - max(resident[:half]), 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def _in_turn(ways: dict[str, Callable[[], int]], rounds: int) -> dict[str, tuple[float, float]]:
    """CPU seconds and seconds a clip of each way: the least of all rounds, after one that warms up."""
    best = {name: (float("inf"), float("inf")) for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            cpu, clock = time.process_time(), time.perf_counter()
            count = way()
            found = ((time.process_time() - cpu) / count, (time.perf_counter() - clock) / count)
            if turn:
                best[name] = (min(best[name][0], found[0]), min(best[name][1], found[1]))
    return best


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads that wait for one another burn CPU time, which says nothing of the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seek_and_decode(path: Path, wanted: np.ndarray, spec: Any) -> torch.Tensor:
    """One clip as many extractors read it: open, seek, decode at full size, then shrink."""
    pictures: list[torch.Tensor] = []
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        rate = float(stream.average_rate or 25)
        file.seek(int(wanted[0] / rate / float(stream.time_base or 1)), stream=stream)
        for frame in file.decode(stream):
            if round((frame.time or 0.0) * rate) in wanted:
                pictures.append(torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1))
            if len(pictures) == len(np.unique(wanted)):
                break
    height, width = pictures[0].shape[1:]
    scale = spec.resize / min(height, width)
    size = (round(height * scale), round(width * scale))
    small = interpolate(torch.stack(pictures).float(), size, mode="bilinear", antialias=True)
    return crop(small.round().byte(), spec.size)


def _store_speed(folder: Path, videos: int) -> dict[str, float]:
    """MB/s of writing features, and of the disk itself with files of the same size, in turn."""
    rows, width = 2000, 1024
    store = FeatureStore.create(folder, DESCRIPTION | {"width": width})
    values, base = torch.randn(rows, width), Timebase(fps=25.0, stride=16.0, window=16.0)
    data, spent, raw = values.numpy().tobytes(), 0.0, 0.0
    for number in range(videos):
        begin = time.perf_counter()
        store.write(Features(f"v{number}", values, base, 100.0))
        middle = time.perf_counter()
        with open(folder / f"raw{number}", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        spent, raw = spent + middle - begin, raw + time.perf_counter() - middle
    megabytes = videos * len(data) / 1e6
    return {"store_mb_per_s": round(megabytes / spent, 1), "disk_mb_per_s": round(megabytes / raw, 1)}


def _resident() -> float:
    """MB of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
