"""Are label-free segments worth something? Class-agnostic recall of `uptal segments` on the untrimmed films.

    python benchmarks/segments.py --corpus B --work runs/reproduce --runs runs/reproduce/B-tac-s0-…

Rows: windows laid evenly (no look at the video), segments from frame differences, from an untrained encoder, and from
encoders of the onset study (`--runs`, folders of its checkpoints). Recall counts an instance as found at tIoU 0.5 to
0.95, averaged, within the best 1, 5 and 10 segments a video; AR is ActivityNet's, its curve cut off at 10 a video.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from uptal import checkpoint
from uptal.distributed import World
from uptal.evidence.corpora import corpus
from uptal.evidence.films import Films, draw_films
from uptal.evidence.methods import methods
from uptal.evidence.scores import INTERVAL, encoded, frame_difference
from uptal.features import Features
from uptal.metrics import proposal_recall
from uptal.recipes.pretrain import PretrainConfig
from uptal.recipes.running import new_task
from uptal.recipes.segmenting import in_seconds
from uptal.similarity import SegmentConfig
from uptal.types import Detections, Timebase

ALONE = World(0, 1, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="B")
    parser.add_argument("--work", type=Path, default=Path("runs/reproduce"), help="as for `uptal reproduce onset`")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of the onset study's runs")
    options = parser.parse_args()
    where = corpus(options.corpus)
    films = draw_films(where.config, where.split, options.work / "corpora", 1)
    known = methods(where.config.shape[0], where.batch, where.lr)
    untrained = known["random"].config
    assert untrained is not None
    print(f"corpus {where.name}, {len(films.videos)} videos, per cent{'AR@1':>14}{'AR@5':>8}{'AR@10':>8}")
    show("windows laid evenly", films, [evenly(video.duration) for video in films.videos])
    show("frame differences", films, found(frame_difference(films, untrained.clip).untrimmed, films, untrained))
    encoder = new_task(untrained, torch.device("cpu"), ALONE).encoder()
    show("untrained encoder", films, found(encoded(encoder, films, untrained.clip).untrimmed, films, untrained))
    for run in options.runs:
        config = known[run.name.split("-")[1]].config
        assert config is not None
        classes = {name: index for index, name in enumerate(films.classes)} if config.method != "pal" else None
        task = new_task(config, torch.device("cpu"), ALONE, classes)
        stored, _ = checkpoint.newest_valid(run / "checkpoints")
        assert stored is not None, f"{run} holds no checkpoint"
        task.load_state_dict(stored.weights)
        show(f"{run.name.rsplit('-', 1)[0]}, step {stored.step}", films,
             found(encoded(task.encoder(), films, config.clip).untrimmed, films, config))  # fmt: skip


def found(untrimmed: np.ndarray, films: Films, config: PretrainConfig) -> list[Detections]:
    """Segments of every film."""
    clip, cfg = config.clip, SegmentConfig()
    base = Timebase(fps=films.fps, stride=float(INTERVAL), window=float(clip.frames * clip.stride))
    return [
        in_seconds(Features(video.id, torch.from_numpy(values), base, video.duration), cfg)
        for video, values in zip(films.videos, untrimmed, strict=True)
    ]


def evenly(duration: float) -> Detections:
    """The whole, its halves, thirds and quarters, larger ones first, the middle first within a size."""
    rows = []
    for parts in (1, 2, 3, 4):
        length = duration / parts
        rows += sorted(((n * length, (n + 1) * length) for n in range(parts)), key=lambda s: abs(sum(s) - duration))
    return Detections(np.array(rows), np.linspace(1, 0.1, len(rows)))


def show(name: str, films: Films, segments: list[Detections]) -> None:
    """A row: recall with the best 1, 5 and 10 of every video."""
    truth = {video.id: video for video in films.videos}
    cells = []
    for count in (1, 5, 10):
        best = {video.id: some.top(count) for video, some in zip(films.videos, segments, strict=True)}
        cells.append(float(proposal_recall(truth, best, max_proposals=None).average_recall[-1]))
    print(f"{name:36}" + "".join(f"{100 * cell:8.1f}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
