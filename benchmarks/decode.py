"""What reading only the wanted frames saves against decoding whole videos, as ratios measured side by side in one run.

    python benchmarks/decode.py [--videos DIR] [--size 112] [--repeats 5]

The straightforward reader decodes every frame, converts it to RGB at full size, keeps all of them and scales the wanted
ones with torch. `uptal.video.read` seeks, leaves out what nothing depends on, converts distinct frames only, and scales
within the conversion. Both give the same frames. Without --videos, two videos of 10 seconds are made first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import av
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import interpolate

from uptal import video
from uptal.video import decoding

NUM_FRAMES, RATE = 300, 30


def make_video(path: Path, width: int, height: int) -> None:
    """A drifting smooth texture with a little noise: neither trivial nor impossible to predict."""
    rng = np.random.default_rng(0)
    canvas = rng.integers(0, 256, (height // 8 + 40, width // 8 + 40, 3)).astype(np.uint8)
    canvas = canvas.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "g": "60"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(NUM_FRAMES):
            x, y = int(120 + 100 * np.sin(number / 20)), number
            picture = canvas[y : y + height, x : x + width] // 2 + rng.integers(0, 20, (height, width, 1), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(stream.encode(None))


def straightforward(path: Path, wanted: list[int], size: tuple[int, int]) -> Tensor:
    """Everything decoded at full size, then the wanted frames scaled."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    pictures = torch.from_numpy(frames)[wanted].permute(0, 3, 1, 2).float()
    return interpolate(pictures, size, mode="bilinear", antialias=True).round().byte()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one way of reading took."""

    seconds: float
    decoded: int
    converted: int


def best(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def cost_of_reading(path: Path, wanted: list[int], size: tuple[int, int], repeats: int) -> Cost:
    """The cost of `uptal.video.read`, the look at the file included."""
    decoded, converted = [], []
    decode, convert = decoding._decode, decoding._to_rgb
    with (
        patch.object(decoding, "_decode", lambda packet: decoded.append(decode(packet)) or decoded[-1]),
        patch.object(decoding, "_to_rgb", lambda *args: converted.append(1) or convert(*args)),
    ):
        video.read(path, wanted, size)
    seconds = best(lambda: video.read(path, wanted, size), repeats)
    return Cost(seconds=seconds, decoded=sum(map(len, decoded)), converted=len(converted))


def choices(count: int) -> dict[str, list[int]]:
    """Frames that somebody may want, by what for."""
    dense = [start + 2 * step for start in range(count // 2, count // 2 + 32, 4) for step in range(8)]
    return {
        "8 frames over the whole video": np.linspace(0, count - 1, 8).astype(int).tolist(),
        "one clip of 16 frames, at three quarters": [count * 3 // 4 + step for step in range(16)],
        "8 overlapping clips of 8 frames": [min(index, count - 1) for index in dense],
        "every fourth frame": list(range(0, count, 4)),
        "every frame": list(range(count)),
    }


def report(paths: list[Path], size: tuple[int, int], repeats: int) -> Table:
    table = Table("video", "wanted", "decoded", "converted", "ms", "straightforward ms", "ratio")
    for path in paths:
        info = video.probe(path)
        for words, wanted in choices(info.num_frames).items():
            cost = cost_of_reading(path, wanted, size, repeats)
            plain = best(lambda path=path, wanted=wanted: straightforward(path, wanted, size), repeats)
            table.add_row(
                f"{path.name} {info.width} x {info.height}, {info.num_frames} frames",
                f"{words} ({len(wanted)})",
                f"{cost.decoded}",
                f"{cost.converted}",
                f"{1e3 * cost.seconds:.1f}",
                f"{1e3 * plain:.1f}",
                f"{plain / cost.seconds:.1f} x",
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=Path, help="folder of videos (default: two are made)")
    parser.add_argument("--size", type=int, default=112, help="height and width of the pictures (default: 112)")
    parser.add_argument("--repeats", type=int, default=5, help="the fastest of so many counts (default: 5)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if args.videos is None:
            for width, height in ((320, 240), (640, 360)):
                make_video(Path(folder) / f"made_{width}.mp4", width, height)
        paths = video.find_videos(args.videos or folder)
        Console(width=150).print(report(paths, (args.size, args.size), args.repeats))


if __name__ == "__main__":
    main()
