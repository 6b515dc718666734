"""What opening one video a sample saves: our loader over one that opens the action video and both backgrounds.

    python benchmarks/loader.py --videos 24 --seconds 10

Both draw the same clips for the same synthetic pairs from real H.264 files of the built-in corpus, written to a
temporary folder, in one process and without training; both use `uptal.video`. Frames decoded are those that left the
decoder, frames converted those that became RGB pictures of the loader's size.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from av.packet import Packet

from uptal import synthetic, video
from uptal.augment import AugmentConfig
from uptal.clips import BackgroundConfig, TimelineConfig, draw_timeline
from uptal.distributed import World
from uptal.pretext.data import DataConfig
from uptal.pretext.loader import Loader
from uptal.pretext.synthesis import PasteConfig, derangements
from uptal.video import decoding


@dataclass
class Count:
    """What a loader did."""

    samples: int = 0
    opened: int = 0
    decoded: int = 0
    converted: int = 0
    seconds: float = 0.0

    def __add__(self, other: Count) -> Count:
        return Count(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def main() -> None:
    options = read_options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        corpus = synthetic.CorpusConfig(
            num_trimmed=options.videos, num_untrimmed=0, size=options.size, trimmed_frames=25 * options.seconds
        )
        synthetic.synthesize(Path(folder), corpus)
        paths = video.find_videos(Path(folder))
        print(
            f"{len(paths)} videos of {25 * options.seconds} frames, {options.size} pixels decoded to {options.resize}, "
            f"batches of {options.batch}, best of {options.rounds} interleaved rounds"
        )
        for share in (False, True):
            compare(paths, share, options)
    print(
        "\nWhat stands between this and 3x: (1) the decoder leaves out pictures that nothing wanted depends on, and\n"
        "one pass for all roles wants more of them than each of three passes; (2) conversion (YUV to RGB, scaling)\n"
        "shrinks only where roles share frames, as the same pictures are needed either way. Converting on the device\n"
        "would take (2) from the loader; `background.share` needs a quarter fewer."
    )


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=10, help="length of a video; 25 frames a second")
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--resize", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def compare(paths: list[Path], share: bool, options: argparse.Namespace) -> None:
    """Measures both loaders with or without one background for both views."""
    timeline = TimelineConfig(background=BackgroundConfig(share=share))
    found: dict[str, list[Count]] = {"three videos a sample": [], "one video a sample": []}
    for turn in range(options.rounds):
        found["three videos a sample"].append(measured(plain_samples(paths, timeline, turn, options)))
        found["one video a sample"].append(measured(our_samples(paths, timeline, turn, options)))
    speeds = {}
    print(f"\nbackground.share: {str(share).lower()}")
    for name, rounds in found.items():
        total = sum(rounds, Count())
        speeds[name] = max(count.samples / count.seconds for count in rounds)
        per = {key: getattr(total, key) / total.samples for key in ("opened", "decoded", "converted")}
        print(
            f"  {name:22} {per['opened']:4.1f} videos opened, {per['decoded']:6.1f} frames decoded, "
            f"{per['converted']:6.1f} converted a sample; {speeds[name]:6.2f} samples/s"
        )
    three, one = (sum(found[name], Count()) for name in found)
    decoded, converted = three.decoded / one.decoded, three.converted / one.converted
    ratio = speeds["one video a sample"] / speeds["three videos a sample"]
    print(f"  ratio {ratio:.2f}x in samples/s; {decoded:.2f}x fewer frames decoded, {converted:.2f}x fewer converted")


def our_samples(paths: list[Path], timeline: TimelineConfig, epoch: int, options: argparse.Namespace) -> Iterator[int]:
    """Batches of the loader that pre-training uses."""
    data = DataConfig(timeline=timeline, resize=options.resize, workers=0)
    world = World(0, 1, 0)
    loader = Loader(paths, data, PasteConfig(), AugmentConfig(), batch=options.batch, seed=0, world=world)
    for batch in loader.batches(epoch):
        yield len(batch.names)


def plain_samples(
    paths: list[Path], timeline: TimelineConfig, epoch: int, options: argparse.Namespace
) -> Iterator[int]:
    """A sample reads both regions from its own video, then each view's background from the video that lends it."""
    side = (options.resize, options.resize)
    order = np.random.default_rng(epoch).permutation(len(paths))
    for first in range(0, len(order) // options.batch * options.batch, options.batch):
        batch = order[first : first + options.batch].tolist()
        maps = derangements(np.random.default_rng([epoch, first]), batch)
        for place, own in enumerate(batch):
            rng = np.random.default_rng([epoch, own])
            info = video.probe(paths[own])
            regions = draw_timeline(rng, info.num_frames, timeline, paste=True).region
            video.read(paths[own], np.unique(regions), side, info=info)
            for view, lender in enumerate(batch[int(to[place])] for to in maps):
                info = video.probe(paths[lender])
                clips = draw_timeline(rng, info.num_frames, timeline, paste=True).clips[view]
                video.read(paths[lender], np.unique(clips), side, info=info)
        yield len(batch)


def measured(samples: Iterator[int]) -> Count:
    """Runs through the samples and counts what happens underneath."""
    count = Count()
    with counted(count):
        start = time.perf_counter()
        count.samples = sum(samples)
        count.seconds = time.perf_counter() - start
    return count


@contextmanager
def counted(count: Count) -> Iterator[None]:
    """Counts videos read, pictures that leave the decoder and pictures that are converted."""
    decode, convert, pictures = decoding._decode, decoding._to_rgb, decoding.stored_pictures

    def counting_decode(packet: Packet, *more):
        frames = decode(packet, *more)
        count.decoded += len(frames)
        return frames

    def counting_convert(*arguments):
        count.converted += 1
        return convert(*arguments)

    def counting_pictures(*arguments):
        count.opened += 1
        return pictures(*arguments)

    decoding._decode, decoding._to_rgb, decoding.stored_pictures = counting_decode, counting_convert, counting_pictures
    try:
        yield
    finally:
        decoding._decode, decoding._to_rgb, decoding.stored_pictures = decode, convert, pictures


if __name__ == "__main__":
    main()
