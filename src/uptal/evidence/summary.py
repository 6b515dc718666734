"""What has been measured so far as a table: means over seeds, what spread there is, and paired differences."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from uptal.evidence.corpora import Place
from uptal.evidence.results import RunFile, read_runs
from uptal.evidence.scores import NAMES

Points = dict[tuple[str, int], dict[int, dict[str, float]]]
"""Scores by (method, budget) and seed."""


def collect(files: Sequence[RunFile], where: Place) -> Points:
    """The scores of a corpus as it is now; results of an earlier state of it are left out."""
    found: Points = defaultdict(dict)
    for file in files:
        if file.config["corpus_digest"] == where.digest:
            for point in file.points:
                found[file.config["method"], point["budget"]][file.config["seed"]] = point["scores"]
    return dict(found)


def measured(points: Points) -> list[str]:
    """Which of the scores anything has."""
    return [name for name in NAMES if any(name in scores for seeds in points.values() for scores in seeds.values())]


def mean_sd(values: Sequence[float]) -> str:
    """Mean and, of several, standard deviation.

    >>> mean_sd([1.0, 2.0, 3.0]), mean_sd([1.0])
    ('2.0 ± 1.0', '1.0')
    """
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return f"{mean:.1f} ± {deviation:.1f}"


def compared(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    """The difference over the seeds that both have: a tie unless it is more than two standard errors.

    >>> compared({0: 3.0, 1: 3.2, 2: 2.9}, {0: 1.0, 1: 1.1, 2: 1.0})
    '+2.0 (3 seeds)'
    >>> compared({0: 3.0, 1: 1.0}, {0: 1.0, 1: 2.9})
    'tie (2 seeds)'
    >>> compared({0: 3.0}, {0: 1.0})
    '1 seed: no test'
    """
    both = sorted(ours.keys() & theirs.keys())
    if len(both) < 2:
        return f"{len(both)} seed{'s' * (len(both) != 1)}: no test"
    differences = [ours[seed] - theirs[seed] for seed in both]
    mean = sum(differences) / len(both)
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / (len(both) - 1) / len(both))
    return f"{mean:+.1f} ({len(both)} seeds)" if abs(mean) > 2 * error else f"tie ({len(both)} seeds)"


def print_summary(folder: Path, where: Place) -> None:
    """All numbers of a corpus, a line for each method and budget."""
    points = collect(read_runs(folder), where)
    state = "" if where.frozen else ", not frozen: numbers may not be quoted"
    print(f"corpus {where.name}{state}; budgets in region pairs, clips are equal; {folder}")
    if not points:
        print("nothing has been measured yet")
        return
    names = measured(points)
    print(f"{'method':24s}{'budget':>8s}{'seeds':>6s}" + "".join(f"{name:>14s}" for name in names))
    for (name, budget), seeds in sorted(points.items()):
        columns = ([scores[what] for scores in seeds.values() if what in scores] for what in names)
        cells = "".join(f"{mean_sd(values) if values else '–':>14s}" for values in columns)
        print(f"{name:24s}{budget:8d}{len(seeds):6d}{cells}")
    for name, budget in sorted(points):
        if name.startswith("pal") and ("moco", budget) in points:
            ours, theirs = points[name, budget], points["moco", budget]
            said = (
                f"{what} {compared(*({seed: s[what] for seed, s in side.items()} for side in (ours, theirs)))}"
                for what in ("knn", "action_linear", "auc20")
            )
            print(f"{name} against moco at {budget} pairs: {', '.join(said)}")
