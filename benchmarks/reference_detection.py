"""ActivityNet's evaluation of detections and proposals as published: tables of pandas, one prediction after the other.

Written from the rules for comparison only: `evaluate.py` measures the package against it, and the results must agree.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uptal.metrics import STRICT_TIOUS
from uptal.types import Detections, Video

pd: Any = importlib.import_module("pandas")
"""Its types help nobody here, and only this comparison needs it."""
Frame = Any


def tables(truth: Mapping[str, Video], found: Mapping[str, Detections]) -> tuple[Frame, Frame, dict[str, int]]:
    """Ground truth and predictions as the public code holds them: one row a segment."""
    names = sorted({segment.label or "" for video in truth.values() for segment in video.segments})
    classes = {name: number for number, name in enumerate(names)}
    instances = [(v.id, s.start, s.end, classes[s.label or ""]) for v in truth.values() for s in v.segments]
    guesses = [
        (id, start, end, classes[label], score)
        for id, each in found.items()
        for (start, end), label, score in zip(each.segments.tolist(), each.labels or (), each.scores, strict=True)
    ]
    columns = ["video-id", "t-start", "t-end", "label"]
    return pd.DataFrame(instances, columns=columns), pd.DataFrame(guesses, columns=[*columns, "score"]), classes


def detection_ap(
    truth: Mapping[str, Video], found: Mapping[str, Detections], tious: Sequence[float] = STRICT_TIOUS
) -> np.ndarray:
    """Average precision (thresholds, classes by name)."""
    instances, guesses, classes = tables(truth, found)
    by_class, truth_by_class = guesses.groupby("label"), instances.groupby("label")
    ap = np.zeros((len(tious), len(classes)))
    for number in classes.values():
        mine = truth_by_class.get_group(number).reset_index(drop=True)
        if number in by_class.groups:
            ap[:, number] = _class_ap(mine, by_class.get_group(number).reset_index(drop=True), tious)
    return ap


def _class_ap(truth: Frame, guesses: Frame, tious: Sequence[float]) -> np.ndarray:
    npos = float(len(truth))
    lock = np.full((len(tious), len(truth)), -1)
    order = guesses["score"].values.argsort(kind="stable")[::-1]
    guesses = guesses.loc[order].reset_index(drop=True)
    hits, misses = np.zeros((len(tious), len(guesses))), np.zeros((len(tious), len(guesses)))
    by_video = truth.groupby("video-id")
    for index, guess in guesses.iterrows():
        try:
            mine = by_video.get_group(guess["video-id"])
        except KeyError:
            misses[:, index] = 1
            continue
        here = mine.reset_index()
        overlap = _tiou(guess[["t-start", "t-end"]].values, here[["t-start", "t-end"]].values)
        ranked = overlap.argsort(kind="stable")[::-1]
        for row, threshold in enumerate(tious):
            for place in ranked:
                if overlap[place] < threshold:
                    misses[row, index] = 1
                    break
                if lock[row, here.loc[place]["index"]] >= 0:
                    continue
                hits[row, index] = 1
                lock[row, here.loc[place]["index"]] = index
                break
            if hits[row, index] == 0 and misses[row, index] == 0:
                misses[row, index] = 1
    found, wrong = np.cumsum(hits, axis=1).astype(float), np.cumsum(misses, axis=1).astype(float)
    precision = found / (found + wrong)
    return np.array([_area(precision[row], found[row] / npos) for row in range(len(tious))])


def _area(precision: np.ndarray, recall: np.ndarray) -> float:
    heights, steps = np.hstack([[0], precision, [0]]), np.hstack([[0], recall, [1]])
    for place in range(len(heights) - 1)[::-1]:
        heights[place] = max(heights[place], heights[place + 1])
    rises = np.where(steps[1:] != steps[:-1])[0] + 1
    return float(np.sum((steps[rises] - steps[rises - 1]) * heights[rises]))


def proposal_recall(
    truth: Mapping[str, Video],
    found: Mapping[str, Detections],
    max_proposals: int = 100,
    tious: Sequence[float] = STRICT_TIOUS,
) -> np.ndarray:
    """Recall (thresholds, 100 points)."""
    instances, guesses, _ = tables(truth, found)
    videos = instances["video-id"].unique()
    ratio = max_proposals * float(len(videos)) / len(guesses)
    by_video, truth_by_video = guesses.groupby("video-id"), instances.groupby("video-id")
    overlaps, total = [], 0
    for id in videos:
        here = truth_by_video.get_group(id)[["t-start", "t-end"]].values
        if id not in by_video.groups:
            overlaps.append(np.zeros((len(here), 0)))
            continue
        mine = by_video.get_group(id)
        ranked = mine[["t-start", "t-end"]].values[mine["score"].values.argsort(kind="stable")[::-1]]
        count = min(int(len(ranked) * ratio), len(ranked))
        total += count
        overlaps.append(np.array([_tiou(each, ranked[:count]) for each in here]))
    shares = np.arange(1, 101) / 100.0 * (max_proposals * float(len(videos)) / total)
    recall = np.empty((len(tious), len(shares)))
    positives = np.empty(len(videos))
    for row, threshold in enumerate(tious):
        matches = []
        for place, table in enumerate(overlaps):
            positives[place] = table.shape[0]
            matches.append(table >= threshold)
        for column, share in enumerate(shares):
            matched = np.zeros(len(videos))
            for place, table in enumerate(matches):
                reach = min(int(table.shape[1] * share), table.shape[1])
                matched[place] = np.count_nonzero(table[:, :reach].sum(axis=1))
            recall[row, column] = matched.sum() / positives.sum()
    return recall


def _tiou(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    one, many = one.astype(float), many.astype(float)
    inside = (np.minimum(one[1], many[:, 1]) - np.maximum(one[0], many[:, 0])).clip(0)
    union = (many[:, 1] - many[:, 0]) + (one[1] - one[0]) - inside
    with np.errstate(divide="ignore", invalid="ignore"):
        return inside / union
