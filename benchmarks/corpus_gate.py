"""The gate of the built-in corpora: motion energy, brightness and single frames must not give actions away.

    python benchmarks/corpus_gate.py [CORPUS] [--json OUT] [--steps N] [--trimmed N] [--untrimmed N] [--set KNOBS]

CORPUS is A, B (the default), C (`uptal.synthetic.frozen`) or demo. Hand-made controls (frame differences on a 3 x 3
grid, luminance, both) and an encoder trained with labels on single frames are probed beside untrained 3-D convolutions,
beside knowing nothing but the place in the video, and beside a 3-D convolution trained with labels on clips. A control
passes when it is at most `MARGIN` points better than the best of those that know nothing, in actionness and in the area
under average recall; what it knows of the classes is printed. The corpus is solvable when the trained encoder is far
above all. Neither PAL nor MoCo is run here, so that no knob can be set in their favour. The
probes are in `uptal.evidence.probes`. Letters: V videos, N clips of a video, D feature width, F frames.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uptal.evidence.probes import average_precision, knn_accuracy, probe, proposal_auc
from uptal.files import atomic_write
from uptal.recipes.demo import demo_corpus
from uptal.synthetic import CorpusConfig, Kind, render_video
from uptal.synthetic.corpus import config_digest
from uptal.synthetic.frozen import CORPORA
from uptal.types import Video

MARGIN = 5.0
"""Points by which a control may be better than those that know nothing."""
CLIP, STRIDE, STEP = 8, 2, 8
"""Frames of a clip, frames between them, frames from one clip to the next."""
BATCH = 64
"""Clips of a training step."""
TRAINED_ON = 0.6
"""Share of the videos that encoders and probes are trained on."""


@dataclass(frozen=True)
class Reel:
    """One video as the gate sees it."""

    frames: np.ndarray
    """Colour frames, uint8 (F, 3, H, W)."""
    controls: np.ndarray
    """Frame difference and luminance of the nine fields of every clip, float32 (N, 18)."""
    acting: np.ndarray
    """1 for clips whose middle lies in an instance (N,)."""
    borders: np.ndarray
    """1 for clips whose middle is at most one step from a start, an end: (N, 2)."""
    label: int
    video: Video


def film(config: CorpusConfig, kind: Kind, index: int) -> Reel:
    """Draw a video and keep what the probes need."""
    pixels, video = render_video(config, kind, index)
    grey = pixels.astype(np.float32).mean(axis=3)
    change = np.abs(np.diff(grey, axis=0, append=grey[-1:]))
    starts = _starts(len(grey))
    controls = [
        np.concatenate([_fields(change[s : s + CLIP * STRIDE]), _fields(grey[s : s + CLIP * STRIDE])]) for s in starts
    ]
    middle = np.array(starts) + CLIP * STRIDE / 2
    spans = np.array([(s.start, s.end) for s in video.segments]) * config.fps
    acting = ((middle[:, None] >= spans[:, 0]) & (middle[:, None] < spans[:, 1])).any(axis=1)
    borders = (np.abs(middle[:, None, None] - spans) <= STEP).any(axis=1)
    label = config.labels.index(video.segments[0].label or "")
    return Reel(pixels.transpose(0, 3, 1, 2).copy(), np.stack(controls), acting, borders, label, video)


def _fields(images: np.ndarray) -> np.ndarray:
    """Mean of each field of a 3 x 3 grid over a stack of images."""
    rows = np.array_split(images.mean(axis=0), 3, axis=0)
    return np.array([field.mean() for row in rows for field in np.array_split(row, 3, axis=1)], np.float32)


def _starts(num_frames: int) -> list[int]:
    return list(range(0, num_frames - CLIP * STRIDE + 1, STEP))


class TinyEncoder(nn.Module):
    """Three blocks of 3-D convolution; (B, 3, 8, h, w) to (B, 96)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv3d(a, b, 3, stride=(1 if i == 0 else 2, 2, 2), padding=1, bias=False),
                    nn.BatchNorm3d(b),
                    nn.ReLU(),
                )
                for i, (a, b) in enumerate(pairwise(widths))
            )
        )

    def forward(self, clips: Tensor) -> Tensor:
        return self.blocks(clips).mean(dim=(2, 3, 4))


def clips_at(reel: Reel, starts: Sequence[int], still: bool = False) -> Tensor:
    """Clips (B, 3, 8, H, W) of a video, centred on its mean; `still` repeats their middle frame."""
    offsets = np.full(CLIP, CLIP * STRIDE // 2) if still else STRIDE * np.arange(CLIP)
    frames = torch.from_numpy(reel.frames[np.asarray(starts)[:, None] + offsets])
    return frames.float().div_(64).sub_(2).transpose(1, 2)


@torch.no_grad()
def encode(encoder: TinyEncoder, reels: Sequence[Reel], still: bool = False) -> list[np.ndarray]:
    """Features (N, D) of every video. Batch statistics come from the videos: an untrained encoder has no others."""
    encoder.train()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.reset_running_stats()
            module.momentum = None
    for reel in reels[::4]:
        encoder(clips_at(reel, _starts(len(reel.frames)), still))
    encoder.eval()
    return [encoder(clips_at(reel, _starts(len(reel.frames)), still)).numpy() for reel in reels]


def train_encoder(reels: Sequence[Reel], steps: int, num_classes: int, seed: int, still: bool = False) -> TinyEncoder:
    """An encoder trained to tell the class of random clips of trimmed videos (mirrored at random)."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    encoder, head = TinyEncoder(), nn.Linear(96, num_classes)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    for _ in range(steps):
        chosen = [reels[i] for i in rng.integers(len(reels), size=BATCH)]
        batch = torch.cat([clips_at(r, [rng.integers(len(r.frames) - CLIP * STRIDE + 1)], still) for r in chosen])
        batch = torch.where(torch.from_numpy(rng.uniform(size=(BATCH, 1, 1, 1, 1)) < 0.5), batch.flip(-1), batch)
        batch = batch + torch.from_numpy(0.3 * rng.standard_normal((BATCH, 3, 1, 1, 1)).astype(np.float32))
        loss = F.cross_entropy(head(encoder(batch)), torch.tensor([r.label for r in chosen]), label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return encoder


@dataclass(frozen=True)
class Row:
    """What the probes find in one kind of features; percent, mean over seeds."""

    name: str
    linear_action: float
    """Average precision of clips in an action, from a linear map."""
    action: float
    """The same, from a small temporal convolution."""
    start: float
    end: float
    auc20: float
    """Area under average recall over 1 to 20 proposals."""
    classes: float
    """Accuracy of the class of trimmed videos by their nearest neighbours."""


NUMBERS = tuple(field.name for field in fields(Row))[1:]


@dataclass(frozen=True)
class Reels:
    """All videos of a corpus."""

    trimmed: list[Reel]
    untrimmed: list[Reel]
    config: CorpusConfig

    @staticmethod
    def of(config: CorpusConfig, workers: int) -> Reels:
        counts: dict[Kind, int] = {"trimmed": config.num_trimmed, "untrimmed": config.num_untrimmed}
        if workers <= 1:
            return Reels(*([film(config, kind, i) for i in range(count)] for kind, count in counts.items()), config)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            made = (list(pool.map(partial(film, config, kind), range(n), chunksize=4)) for kind, n in counts.items())
            return Reels(*made, config)

    def judge(self, name: str, trimmed: list[np.ndarray], untrimmed: list[np.ndarray], seeds: Sequence[int]) -> Row:
        """Probe features (N, D) of every video."""
        cut = int(len(untrimmed) * TRAINED_ON)
        truth = [np.concatenate([r.acting[:, None], r.borders], axis=1) for r in self.untrimmed]
        answer, videos = np.concatenate(truth[cut:]), [r.video for r in self.untrimmed[cut:]]
        middles = (np.array(_starts(self.config.untrimmed_frames)) + CLIP * STRIDE / 2) / self.config.fps
        found = []
        for seed in seeds:
            flat, deep = (
                probe(untrimmed[:cut], truth[:cut], untrimmed[cut:], linear, seed) for linear in (True, False)
            )
            found.append([average_precision(flat[:, 0], answer[:, 0])])
            found[-1] += [average_precision(deep[:, t], answer[:, t]) for t in range(3)]
            found[-1].append(proposal_auc(deep, middles, videos))
        means, labels = np.stack([f.mean(axis=0) for f in trimmed]), np.array([r.label for r in self.trimmed])
        cut = int(len(labels) * TRAINED_ON)
        accuracy = knn_accuracy(means[:cut], labels[:cut], means[cut:], labels[cut:])
        return Row(name, *np.mean(found, axis=0).tolist(), accuracy)

    def encoded(self, name: str, encoder: TinyEncoder, seeds: Sequence[int], still: bool = False) -> Row:
        """Probe the features of an encoder."""
        return self.judge(name, encode(encoder, self.trimmed, still), encode(encoder, self.untrimmed, still), seeds)


def know_nothing(reels: Reels, inits: int, seeds: Sequence[int]) -> list[Row]:
    """Guessing, knowing the place in the video, and untrained encoders (their mean)."""
    tested = reels.untrimmed[int(len(reels.untrimmed) * TRAINED_ON) :]
    acting = 100 * float(np.mean([r.acting for r in tested]))
    start, end = (100 * np.mean([r.borders for r in tested], axis=(0, 1))).tolist()
    chance = 100 / reels.config.num_classes

    def ramp(reel: Reel) -> np.ndarray:
        at = np.linspace(-1, 1, len(reel.acting))
        return np.stack([at, at**2], axis=1)

    place = reels.judge("place", [np.zeros((1, 2)) for _ in reels.trimmed], [ramp(r) for r in reels.untrimmed], seeds)
    untrained = []
    for init in range(inits):
        torch.manual_seed(100 + init)
        untrained.append(reels.encoded("", TinyEncoder(), seeds))
    means = [float(np.mean([getattr(row, what) for row in untrained])) for what in NUMBERS]
    return [
        Row("guessing", acting, acting, start, end, 0.0, chance),
        replace(place, name="place in the video", classes=chance),
        Row(f"untrained encoder ({inits})", *means),
    ]


def hand_made(reels: Reels, seeds: Sequence[int]) -> list[Row]:
    """The controls of frame difference and luminance."""
    rows = []
    for name, columns in (("frame difference", slice(0, 9)), ("luminance", slice(9, 18)), ("both", slice(0, 18))):
        made = ([r.controls[:, columns] for r in part] for part in (reels.trimmed, reels.untrimmed))
        rows.append(reels.judge(name, *made, seeds))
    return rows


def supervised(reels: Reels, steps: int, still: bool, seeds: Sequence[int]) -> Row:
    """An encoder trained with labels, on clips or on single frames."""
    cut = int(len(reels.trimmed) * TRAINED_ON)
    encoder = train_encoder(reels.trimmed[:cut], steps, reels.config.num_classes, 0, still)
    return reels.encoded("supervised, one frame" if still else "supervised", encoder, seeds, still)


def verdict(blind: list[Row], controls: list[Row], top: Row) -> list[str]:
    """What does not hold, in words; empty when the gate is passed."""
    floor = {what: max(getattr(row, what) for row in blind) for what in NUMBERS}
    complaints = []
    for row in controls:
        for what in ("linear_action", "action", "auc20"):
            excess = getattr(row, what) - floor[what]
            if excess > MARGIN:
                complaints.append(f"{row.name}: {what} is {excess:.1f} points above those that know nothing")
    for what, wanted in (("classes", 3 * MARGIN), ("action", 2 * MARGIN), ("auc20", MARGIN)):
        best = max(getattr(row, what) for row in (*blind, *controls))
        if getattr(top, what) < best + wanted:
            complaints.append(
                f"supervised: {what} {getattr(top, what):.1f} is not {wanted:g} above the best control {best:.1f}"
            )
    return complaints


def print_row(row: Row) -> None:
    print(f"{row.name:26s}" + "".join(f"{getattr(row, what):15.1f}" for what in NUMBERS), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", default="B", choices=[*CORPORA, "demo"])
    parser.add_argument("--trimmed", type=int, default=1500)
    parser.add_argument("--untrimmed", type=int, default=240)
    parser.add_argument("--steps", type=int, default=3000, help="training steps of the supervised encoders")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--set", default="{}", help="other knobs as JSON, e.g. '{\"idle_speed\": 1.2}'")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.process_time()
    base = demo_corpus() if options.corpus == "demo" else CORPORA[options.corpus]
    knobs = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(options.set).items()}
    config = replace(base, num_trimmed=options.trimmed, num_untrimmed=options.untrimmed, **knobs)
    reels, seeds = Reels.of(config, options.workers), range(3)
    print(f"{'features':26s}" + "".join(f"{what:>15s}" for what in NUMBERS), flush=True)
    rows: list[Row] = []

    def note(*more: Row) -> list[Row]:
        rows.extend(more)
        for row in more:
            print_row(row)
        return list(more)

    blind = note(*know_nothing(reels, 3, seeds))
    controls = note(*hand_made(reels, seeds))
    (top,) = note(supervised(reels, options.steps, False, seeds))
    controls += note(supervised(reels, options.steps, True, seeds))
    complaints = verdict(blind, controls, top)
    print("gate passed" if not complaints else "gate NOT passed:\n  " + "\n  ".join(complaints))
    if options.json:
        content = {"corpus": options.corpus, "digest": config_digest(config), "config": asdict(config)}
        content |= {"steps": options.steps, "rows": [asdict(row) for row in rows], "complaints": complaints}
        content |= {"cpu_seconds": round(time.process_time() - clock)}
        with atomic_write(options.json) as file:
            json.dump(content, file, indent=1)


if __name__ == "__main__":
    main()
