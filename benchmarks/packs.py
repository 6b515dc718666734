"""What packs change for the loader: the same videos as single files and in packs, in turns, with the files opened.

    python benchmarks/packs.py --json benchmarks/results/packs.json

Real H.264 of the built-in corpus in a temporary folder; one process, no training. A local disk whose files are in
memory shows what packs cost, if anything; what they save shows on a file system that takes long to open a file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from uptal import synthetic
from uptal.augment import AugmentConfig
from uptal.distributed import World
from uptal.files import atomic_write
from uptal.pretext.data import DataConfig
from uptal.pretext.loader import Loader
from uptal.pretext.synthesis import PasteConfig
from uptal.run import environment
from uptal.video import container, find_videos, packs


def main() -> None:
    options = read_options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        places = make_corpora(Path(folder), options)
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in places}
        for turn in range(options.rounds):
            for name, place in places.items():
                rounds[name].append(measured(find_videos(place), turn, options))
    found: dict[str, Any] = {"videos": options.videos, "frames": 25 * options.seconds, "size": options.size}
    for name, each in rounds.items():
        found[name] = {
            "samples_per_s": round(max(one["samples"] / one["seconds"] for one in each), 3),
            "cpu_seconds_per_sample": round(min(one["cpu"] / one["samples"] for one in each), 4),
            "files_opened": [one["opened"] for one in each],
        }
        print(f"{name:8}", found[name])
    one, other = (found[name]["cpu_seconds_per_sample"] for name in ("files", "packs"))
    found["cpu_ratio"] = round(other / one, 3)
    print(f"packs take {found['cpu_ratio']:.2f}x the processor time of single files")
    if options.json:
        with atomic_write(options.json) as out:
            json.dump(found | {"environment": environment()}, out, indent=1)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=10, help="length of a video; 25 frames a second")
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--resize", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write the numbers to a file, with the machine that they are of")
    return parser.parse_args()


def make_corpora(folder: Path, options: argparse.Namespace) -> dict[str, Path]:
    """The same videos twice: a file each, and all in two packs."""
    corpus = synthetic.CorpusConfig(
        num_trimmed=options.videos, num_untrimmed=0, size=options.size, trimmed_frames=25 * options.seconds
    )
    synthetic.synthesize(folder / "files", corpus)
    paths = find_videos(folder / "files")
    half = len(paths) // 2
    for number, some in enumerate((paths[:half], paths[half:])):
        packs.write_pack(folder / "packs" / f"pack-{number}{packs.SUFFIX}", [(path.name, path, {}) for path in some])
    return {"files": folder / "files", "packs": folder / "packs"}


def measured(paths: list[Path], epoch: int, options: argparse.Namespace) -> dict[str, float]:
    """One epoch of the loader that pre-training uses."""
    data = DataConfig(resize=options.resize, workers=0)
    loader = Loader(paths, data, PasteConfig(), AugmentConfig(), batch=options.batch, seed=0, world=World(0, 1, 0))
    with files_opened() as opened:
        begin, cpu, samples = time.perf_counter(), time.process_time(), 0
        for batch in loader.batches(epoch):
            samples += len(batch.names)
        spent = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
    return {"samples": samples, "opened": len(opened), **spent}


@contextmanager
def files_opened() -> Iterator[list[str]]:
    """Names of the files that are opened for their pictures within the block, one entry each time."""
    names: list[str] = []
    open_container, open_pack = container.av.open, packs._Handle.__init__

    def opening(source: Any, *more: Any, **options: Any) -> Any:
        names.extend([source] if isinstance(source, str) else [])
        return open_container(source, *more, **options)

    def handling(self: packs._Handle, path: Path) -> None:
        names.append(str(path))
        open_pack(self, path)

    container.av.open, packs._Handle.__init__ = opening, handling
    try:
        yield names
    finally:
        container.av.open, packs._Handle.__init__ = open_container, open_pack


if __name__ == "__main__":
    main()
