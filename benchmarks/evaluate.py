"""How much faster `uptal.metrics` and `uptal.postprocess` are than the same rules as plain loops, in one run.

    python benchmarks/evaluate.py [--videos 400] [--predictions 100] [--classes 100]

Two comparisons. The loops below are written from the rules, one prediction at a time on plain numpy arrays, and share
no code with the package, so that the tests use them as an oracle, too: the leanest loop we could write. The published
procedure looks rows up in pandas tables; `reference_detection` writes it out again (needs pandas, else it is left out).
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from uptal.metrics import STRICT_TIOUS, detection_map, proposal_recall
from uptal.postprocess import soft_nms
from uptal.types import Detections, Segment, Video


def loop_detection_ap(
    truth: Mapping[str, Video], found: Mapping[str, Detections], tious: Sequence[float] = STRICT_TIOUS
) -> np.ndarray:
    """Average precision (thresholds, classes by name), one prediction after the other."""
    instances: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for id, video in truth.items():
        for segment in video.segments:
            instances.setdefault(segment.label or "", {}).setdefault(id, []).append((segment.start, segment.end))
    guesses: dict[str, list[tuple[str, Segment]]] = {}
    for id, each in found.items():
        for segment in each.as_segments():
            guesses.setdefault(segment.label or "", []).append((id, segment))
    labels = sorted(instances)
    return np.array([_class_ap(instances[label], guesses.get(label, []), tious) for label in labels]).T


def _class_ap(
    truth: Mapping[str, list[tuple[float, float]]], found: list[tuple[str, Segment]], tious: Sequence[float]
) -> list[float]:
    instances = {id: np.array(rows) for id, rows in truth.items()}
    free = {id: np.ones((len(tious), len(rows)), dtype=bool) for id, rows in instances.items()}
    ranked = sorted(reversed(found), key=lambda row: -(row[1].score or 0.0))
    hits = np.zeros((len(tious), len(ranked)))
    for turn, (id, segment) in enumerate(ranked):
        if id not in instances:
            continue
        overlap = _overlap(instances[id], segment.start, segment.end)
        choices = np.argsort(overlap, kind="stable")[::-1]
        for row, threshold in enumerate(tious):
            for choice in choices:
                if overlap[choice] < threshold:
                    break
                if free[id][row, choice]:
                    free[id][row, choice], hits[row, turn] = False, 1
                    break
    count = sum(len(rows) for rows in instances.values())
    return [_area(row, count) for row in hits]


def _overlap(rows: np.ndarray, start: float, end: float) -> np.ndarray:
    inside = np.clip(np.minimum(rows[:, 1], end) - np.maximum(rows[:, 0], start), 0, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        return inside / ((rows[:, 1] - rows[:, 0]) + (end - start) - inside)


def _area(hits: np.ndarray, count: int) -> float:
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    area, best = 0.0, 0.0
    for place in range(len(hits) - 1, -1, -1):
        best = max(best, precision[place])
        area += best * hits[place] / count
    return area


def loop_recall(
    truth: Mapping[str, Video],
    found: Mapping[str, Detections],
    max_proposals: int = 100,
    tious: Sequence[float] = STRICT_TIOUS,
) -> np.ndarray:
    """Recall (thresholds, 100 points), one video, threshold and point after the other."""
    videos = [video for video in truth.values() if video.segments]
    ratio = max_proposals * float(len(videos)) / max(sum(len(each) for each in found.values()), 1)
    tables = []
    for video in videos:
        each = found.get(video.id, Detections(np.zeros((0, 2)), np.zeros(0)))
        ranked = each.segments[np.argsort(each.scores, kind="stable")[::-1]]
        ranked = ranked[: min(int(len(ranked) * ratio), len(ranked))]
        tables.append(np.array([_overlap(ranked, s.start, s.end) for s in video.segments]))
    total = max(sum(table.shape[1] for table in tables), 1)
    shares = np.arange(1, 101) / 100.0 * (max_proposals * float(len(videos)) / total)
    recall = np.zeros((len(tious), 100))
    for row, threshold in enumerate(tious):
        for point, share in enumerate(shares):
            for table in tables:
                reach = min(int(table.shape[1] * share), table.shape[1])
                recall[row, point] += np.count_nonzero((table[:, :reach] >= threshold).any(axis=1))
    return recall / sum(len(video.segments) for video in videos)


def loop_soft_nms(rows: np.ndarray, alpha: float = 0.4, low: float = 0.5, high: float = 0.9, count: int = 100):
    """BMN's rule on rows (start, end, score), one candidate after the other."""
    rest = [list(row) for row in sorted(rows.tolist(), key=lambda row: -row[2])]
    kept = []
    while len(rest) > 1 and len(kept) < count:
        start, end, score = rest.pop(max(range(len(rest)), key=lambda place: rest[place][2]))
        kept.append((start, end, score))
        for row in rest:
            inside = max(min(row[1], end) - max(row[0], start), 0.0)
            overlap = inside / (row[1] - row[0] - inside + end - start)
            if overlap > low + (high - low) * (end - start):
                row[2] *= math.exp(-(overlap**2) / alpha)
    return np.array(kept)


def corpus(
    generator: np.random.Generator, num_videos: int, num_predictions: int, num_classes: int
) -> tuple[dict[str, Video], dict[str, Detections]]:
    """Random videos with one to four instances; a third of the predictions are jittered instances, the others anywhere.

    A quarter of those others bear a wrong class, as where class scores of the whole video were fused with proposals.
    """
    truth, found = {}, {}
    for index in range(num_videos):
        id, label = f"video{index:05d}", f"class {generator.integers(num_classes):03d}"
        times = np.sort(generator.uniform(0, 200, size=(generator.integers(1, 5), 2)), axis=1)
        truth[id] = Video(
            id=id, duration=200.0, subset="validation", segments=tuple(Segment(a, b, label) for a, b in times.tolist())
        )
        guesses = np.sort(generator.uniform(0, 200, size=(num_predictions, 2)), axis=1)
        near = generator.random(num_predictions) < 1 / 3
        jittered = times[generator.integers(len(times), size=num_predictions)]
        jittered = np.sort(jittered + generator.normal(0, 3, size=(num_predictions, 2)), axis=1)
        right = near | (generator.random(num_predictions) < 3 / 4)
        other = generator.integers(num_classes, size=num_predictions)
        labels = tuple(label if yes else f"class {number:03d}" for yes, number in zip(right, other, strict=True))
        found[id] = Detections(np.where(near[:, None], jittered, guesses), generator.random(num_predictions), labels)
    used = {segment.label for video in truth.values() for segment in video.segments}
    return truth, {id: _with_labels(each, used) for id, each in found.items()}


def _with_labels(found: Detections, used: set[str | None]) -> Detections:
    keep = [index for index, label in enumerate(found.labels or ()) if label in used]
    return Detections(found.segments[keep], found.scores[keep], tuple((found.labels or ())[index] for index in keep))


def _timed(function: Callable[[], object], repeats: int) -> tuple[float, object]:
    """The best processor time of some repeats: other programs on the machine count for little."""
    times, result = [], None
    for _ in range(repeats):
        begin = time.process_time()
        result = function()
        times.append(time.process_time() - begin)
    return min(times), result


def _line(name: str, unit: int, slow: tuple[float, object], fast: tuple[float, object]) -> None:
    gap = float(np.abs(np.asarray(slow[1]) - np.asarray(fast[1])).max())
    each = f"{slow[0] / unit * 1e6:8.1f} µs -> {fast[0] / unit * 1e6:6.2f} µs"
    print(f"{name:34} {each}  {slow[0] / fast[0]:7.1f}x   largest difference {gap:.1e}")


def _whole(generator: np.random.Generator, predictions: int) -> None:
    """Ours alone at the size of ActivityNet's validation set: 4,728 videos, 200 classes."""
    truth, found = corpus(generator, 4728, predictions, 200)
    count = sum(len(each) for each in found.values())
    jobs: dict[str, Callable[[], object]] = {
        "mAP": lambda: detection_map(truth, found),
        "AR@AN": lambda: proposal_recall(truth, found),
    }
    for name, job in jobs.items():
        print(f"{name}, {count} predictions of 4,728 videos: {_timed(job, 2)[0]:.2f} s")


def main() -> None:
    """Print one line for each evaluator and for Soft-NMS."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=400)
    parser.add_argument("--predictions", type=int, default=100, help="of each video")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", action="store_true", help="also time uptal alone at ActivityNet's size")
    args = parser.parse_args()
    generator = np.random.default_rng(args.seed)
    truth, found = corpus(generator, args.videos, args.predictions, args.classes)
    count = sum(len(each) for each in found.values())
    print(f"{count} predictions, {len(truth)} videos, {args.classes} classes; per prediction, other -> uptal, ratio")
    fast = _timed(lambda: detection_map(truth, found).ap, 3)
    _line("mAP, against the leanest loop", count, _timed(lambda: loop_detection_ap(truth, found), 1), fast)
    fast_recall = _timed(lambda: proposal_recall(truth, found).recall, 3)
    _line("AR@AN, against the leanest loop", count, _timed(lambda: loop_recall(truth, found), 1), fast_recall)
    if importlib.util.find_spec("pandas"):
        import reference_detection as published

        _line("mAP, as published", count, _timed(lambda: published.detection_ap(truth, found), 1), fast)
        _line("AR@AN, as published", count, _timed(lambda: published.proposal_recall(truth, found), 1), fast_recall)
    else:
        print("pandas is not installed: no comparison with the published procedure")
    if args.whole:
        _whole(generator, args.predictions)
    rows = np.array([(a / 100, b / 100, generator.random()) for a in range(99) for b in range(a + 1, 100)])
    candidates = Detections(rows[:, :2], rows[:, 2])
    slow = _timed(lambda: loop_soft_nms(rows)[:, 2], 1)
    _line("Soft-NMS, 4,950 candidates to 100", len(rows), slow, _timed(lambda: soft_nms(candidates).scores, 3))


if __name__ == "__main__":
    main()
