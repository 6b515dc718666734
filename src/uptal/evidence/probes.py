"""Probes in seconds: how well features tell classes, actions, boundaries and proposals; what the features are of is
decided by the caller (`scores`, and the gate of the corpora in `benchmarks/corpus_gate.py`).

Letters: V videos, N clips of a video, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from uptal.metrics import proposal_recall
from uptal.postprocess import nms
from uptal.types import Detections, Video


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


def proposal_auc(scores: np.ndarray, middles: np.ndarray, videos: Sequence[Video]) -> float:
    """Area under average recall over 1 to 20 proposals a video, in percent.

    Proposals span any two clips, weighed by start times end times the mean actionness between them.

    Args:
        scores: Logits (V * N, 3) of action, start, end.
        middles: Middle of every clip in seconds (N,).
        videos: The truth.
    """
    chance = 1 / (1 + np.exp(-scores.reshape(len(videos), len(middles), 3)))
    first, last = np.triu_indices(len(middles), 2)
    segments = np.stack([middles[first], middles[last]], axis=1)
    found = {}
    for video, (action, start, end) in zip(videos, chance.transpose(0, 2, 1), strict=True):
        summed = np.concatenate([[0.0], np.cumsum(action)])
        weight = start[first] * end[last] * (summed[last + 1] - summed[first]) / (last + 1 - first)
        found[video.id] = nms(Detections(segments=segments, scores=weight), threshold=0.8, max_output=20)
    return 100 * proposal_recall({video.id: video for video in videos}, found, max_proposals=20).auc
