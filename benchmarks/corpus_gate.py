"""The gate of the built-in corpus: motion energy and brightness must not give an action or its boundaries away.

    python benchmarks/corpus_gate.py [--corpus B|A|C] [--quick] [--seed K]

Hand-made controls (frame differences on a 3 x 3 grid; the same and the luminance) are probed beside an untrained 3-D
convolution and beside one that was trained with the labels. A control passes when neither a linear probe nor a small
temporal convolution finds actions more than `MARGIN` points of average precision better with it than with the
untrained encoder; the corpus is solvable when the trained encoder is far above both. Neither PAL nor MoCo is run here,
so that the knobs of the generator cannot be set in their favour. Only numpy, torch and the generator are used.
Letters: V videos, N clips of a video, D feature width, F frames.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uptal.synthetic import CorpusConfig, Kind, render_video, unique_scenes, web_like

MARGIN = 5.0
"""Points by which a control may be better than an untrained encoder."""
CLIP, STRIDE, STEP = 8, 2, 8
"""Frames of a clip, frames between them, frames from one clip to the next."""


@dataclass(frozen=True)
class Reel:
    """One video as the gate sees it."""

    frames: np.ndarray
    """Colour frames at half size, uint8 (F, 3, h, w)."""
    controls: np.ndarray
    """Frame difference and luminance of the nine fields of every clip, float32 (N, 18)."""
    acting: np.ndarray
    """1 for clips whose middle lies in an instance (N,)."""
    borders: np.ndarray
    """1 for clips whose middle is at most one step from a start, an end: (N, 2)."""
    label: int


def film(config: CorpusConfig, kind: Kind, index: int) -> Reel:
    """Draw a video and keep what the probes need."""
    pixels, video = render_video(config, kind, index)
    grey = pixels.astype(np.float32).mean(axis=3)
    change = np.abs(np.diff(grey, axis=0, append=grey[-1:]))
    starts = np.arange(0, len(grey) - CLIP * STRIDE + 1, STEP)
    controls = [
        np.concatenate([_fields(change[s : s + CLIP * STRIDE]), _fields(grey[s : s + CLIP * STRIDE])]) for s in starts
    ]
    middle = starts + CLIP * STRIDE / 2
    spans = np.array([(s.start, s.end) for s in video.segments]) * config.fps
    acting = ((middle[:, None] >= spans[:, 0]) & (middle[:, None] < spans[:, 1])).any(axis=1)
    borders = (np.abs(middle[:, None, None] - spans) <= STEP).any(axis=1)
    count, height, width = grey.shape
    small = pixels.reshape(count, height // 2, 2, width // 2, 2, 3).mean(axis=(2, 4)).astype(np.uint8)
    label = config.labels.index(video.segments[0].label or "")
    return Reel(small.transpose(0, 3, 1, 2).copy(), np.stack(controls), acting, borders, label)


def _fields(images: np.ndarray) -> np.ndarray:
    """Mean of each field of a 3 x 3 grid over a stack of images."""
    rows = np.array_split(images.mean(axis=0), 3, axis=0)
    return np.array([field.mean() for row in rows for field in np.array_split(row, 3, axis=1)], np.float32)


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
    """Clips (B, 3, 8, h, w) of a video, centred on its mean; `still` repeats their middle frame."""
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
        encoder(clips_at(reel, _starts(reel), still))
    encoder.eval()
    return [encoder(clips_at(reel, _starts(reel), still)).numpy() for reel in reels]


def _starts(reel: Reel) -> list[int]:
    return list(range(0, len(reel.frames) - CLIP * STRIDE + 1, STEP))


def train_encoder(reels: Sequence[Reel], steps: int, num_classes: int, seed: int, still: bool = False) -> TinyEncoder:
    """An encoder trained to tell the class of random clips of trimmed videos (mirrored at random)."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    encoder, head = TinyEncoder(), nn.Linear(96, num_classes)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    for _ in range(steps):
        chosen = [reels[i] for i in rng.integers(len(reels), size=32)]
        batch = torch.cat([clips_at(r, [rng.integers(len(r.frames) - CLIP * STRIDE + 1)], still) for r in chosen])
        batch = torch.where(torch.from_numpy(rng.uniform(size=(32, 1, 1, 1, 1)) < 0.5), batch.flip(-1), batch)
        batch = batch + torch.from_numpy(0.3 * rng.standard_normal((32, 3, 1, 1, 1)).astype(np.float32))
        loss = F.cross_entropy(head(encoder(batch)), torch.tensor([r.label for r in chosen]), label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return encoder


def knn_accuracy(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Class accuracy in percent of the 10 nearest neighbours by cosine of standardised video means."""
    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-6
    train, test = (train - mean) / scale, (test - mean) / scale
    likeness = _unit(test) @ _unit(train).T
    nearest = np.argsort(-likeness, axis=1)[:, :10]
    votes = np.zeros((len(test), int(train_labels.max()) + 1))
    for row, neighbours in enumerate(nearest):
        np.add.at(votes[row], train_labels[neighbours], 1 + likeness[row, neighbours])
    return float(100 * (votes.argmax(axis=1) == test_labels).mean())


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under precision over recall, in percent."""
    hits = truth.astype(float)[np.argsort(-scores, kind="stable")]
    return float(100 * (np.cumsum(hits) / np.arange(1, len(hits) + 1) * hits).sum() / max(hits.sum(), 1))


def probe(
    train: list[np.ndarray], truth: list[np.ndarray], test: list[np.ndarray], linear: bool, seed: int
) -> np.ndarray:
    """Scores of every test clip for each target, from a linear map or a two-layer temporal convolution."""
    torch.manual_seed(seed)
    stacked = np.concatenate(train)
    mean, scale = stacked.mean(axis=0), stacked.std(axis=0) + 1e-6
    x = torch.from_numpy(np.stack([(v - mean) / scale for v in train])).float().transpose(1, 2)
    z = torch.from_numpy(np.stack([(v - mean) / scale for v in test])).float().transpose(1, 2)
    y = torch.from_numpy(np.stack(truth)).float().transpose(1, 2)
    width, targets = x.shape[1], y.shape[1]
    hidden = [nn.Conv1d(width, 64, 3, padding=1), nn.ReLU(), nn.Dropout(0.3), nn.Conv1d(64, targets, 3, padding=1)]
    model = nn.Conv1d(width, targets, 1) if linear else nn.Sequential(*hidden)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.02)
    balance = (1 - y.mean(dim=(0, 2))) / y.mean(dim=(0, 2))
    model.train()
    for _ in range(150):
        loss = F.binary_cross_entropy_with_logits(model(x), y, pos_weight=balance[:, None])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    with torch.no_grad():
        return model(z).transpose(1, 2).reshape(-1, targets).numpy()


@dataclass(frozen=True)
class Row:
    """What the probes find in one kind of features; percent, mean over seeds."""

    name: str
    linear_action: float
    action: float
    start: float
    end: float
    classes: float


def judge(name: str, trimmed: tuple, untrimmed: tuple, seeds: Sequence[int]) -> Row:
    """Probe features of the trimmed and the untrimmed videos; each is (features, reels)."""
    clip_features, reels = untrimmed
    half = int(len(reels) * 0.6)
    truth = [np.concatenate([r.acting[:, None], r.borders], axis=1) for r in reels]
    answer = np.concatenate(truth[half:])
    found = []
    for seed in seeds:
        flat = probe(clip_features[:half], truth[:half], clip_features[half:], True, seed)
        deep = probe(clip_features[:half], truth[:half], clip_features[half:], False, seed)
        found.append([average_precision(flat[:, 0], answer[:, 0])])
        found[-1] += [average_precision(deep[:, t], answer[:, t]) for t in range(3)]
    means = np.stack([f.mean(axis=0) for f in trimmed[0]])
    labels = np.array([r.label for r in trimmed[1]])
    cut = int(len(labels) * 0.6)
    accuracy = knn_accuracy(means[:cut], labels[:cut], means[cut:], labels[cut:])
    return Row(name, *np.mean(found, axis=0).tolist(), accuracy)


def measure(
    config: CorpusConfig, *, steps: int, inits: int, probe_seeds: int, workers: int, still: bool = True
) -> tuple[list[Row], Row]:
    """Rows of the table, and the row of blind guessing; `inits` untrained encoders become one row."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        trimmed = list(pool.map(partial(film, config, "trimmed"), range(config.num_trimmed), chunksize=4))
        untrimmed = list(pool.map(partial(film, config, "untrimmed"), range(config.num_untrimmed), chunksize=2))
    seeds = range(probe_seeds)
    rows = []
    for name, columns in (("frame difference", slice(0, 9)), ("luminance", slice(9, 18)), ("both", slice(0, 18))):
        both = [[r.controls[:, columns] for r in reels] for reels in (trimmed, untrimmed)]
        rows.append(judge(name, (both[0], trimmed), (both[1], untrimmed), seeds))
    untrained = []
    for init in range(inits):
        torch.manual_seed(100 + init)
        encoder = TinyEncoder()
        both = encode(encoder, trimmed), encode(encoder, untrimmed)
        untrained.append(judge("", (both[0], trimmed), (both[1], untrimmed), seeds))
    values = [[r.linear_action, r.action, r.start, r.end, r.classes] for r in untrained]
    rows.append(Row(f"untrained encoder ({inits})", *np.mean(values, axis=0).tolist()))
    cut = int(len(trimmed) * 0.6)
    for name, frozen in (("supervised, one frame", True), ("supervised", False)):
        if frozen and not still:
            continue
        encoder = train_encoder(trimmed[:cut], steps, config.num_classes, 0, frozen)
        both = encode(encoder, trimmed, frozen), encode(encoder, untrimmed, frozen)
        rows.append(judge(name, (both[0], trimmed), (both[1], untrimmed), seeds))
    acting = 100 * float(np.mean(np.concatenate([r.acting for r in untrimmed])))
    borders = 100 * np.mean(np.concatenate([r.borders for r in untrimmed]), axis=0)
    return rows, Row("guessing", acting, acting, *borders.tolist(), 100 / config.num_classes)


def verdict(rows: list[Row], guess: Row) -> list[str]:
    """What does not hold, in words; empty when the gate is passed."""
    table = {row.name.split(" (")[0]: row for row in rows}
    bottom, top = table["untrained encoder"], table["supervised"]
    complaints = []
    for name in ("frame difference", "luminance", "both"):
        for what in ("linear_action", "action", "start", "end"):
            excess = getattr(table[name], what) - getattr(bottom, what)
            if excess > MARGIN:
                complaints.append(f"{name}: {what} is {excess:.1f} points above the untrained encoder")
        excess = table[name].classes - max(bottom.classes, guess.classes)
        if excess > MARGIN:
            complaints.append(f"{name}: the class is {excess:.1f} points above the untrained encoder and chance")
    if top.classes < 3 * guess.classes:
        complaints.append(f"supervised: class accuracy {top.classes:.1f} is less than three times chance")
    if top.action < max(table["both"].action, bottom.action) + 2 * MARGIN:
        complaints.append(f"supervised: actionness {top.action:.1f} is hardly above the controls")
    return complaints


def print_table(rows: list[Row], guess: Row) -> None:
    print(f"{'features':26s} {'action lin.':>11s} {'action':>7s} {'start':>6s} {'end':>6s} {'class kNN':>10s}")
    for row in (guess, *rows):
        numbers = f"{row.linear_action:11.1f} {row.action:7.1f} {row.start:6.1f} {row.end:6.1f} {row.classes:10.1f}"
        print(f"{row.name:26s} {numbers}")


def gate_config(seed: int, quick: bool) -> CorpusConfig:
    """Corpus B at the size of the gate."""
    scale = 4 if quick else 1
    return CorpusConfig(num_trimmed=480 // scale, num_untrimmed=200 // scale, size=64, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices="ABC", default="B", help="unique scenes, shared scenes, web-like")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a quarter of the videos")
    parser.add_argument("--steps", type=int, default=1200, help="training steps of the supervised encoder")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", default="{}", help="other knobs as JSON, e.g. '{\"idle_speed\": 1.2}'")
    options = parser.parse_args()
    torch.set_num_threads(1)
    knobs = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(options.set).items()}
    config = replace(gate_config(options.seed, options.quick), **knobs)
    config = {"A": unique_scenes, "B": lambda c: c, "C": web_like}[options.corpus](config)
    rows, guess = measure(config, steps=options.steps, inits=3, probe_seeds=3, workers=options.workers)
    print_table(rows, guess)
    complaints = verdict(rows, guess)
    print("gate passed" if not complaints else "gate NOT passed:\n  " + "\n  ".join(complaints))


if __name__ == "__main__":
    main()
