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
    mean, error = difference([ours[seed] - theirs[seed] for seed in both])
    return f"{mean:+.1f} ({len(both)} seeds)" if abs(mean) > 2 * error else f"tie ({len(both)} seeds)"


SHORT = {
    "knn": "class, kNN", "linear": "class, linear", "action_linear": "actionness, linear",
    "action": "actionness, temporal", "start": "start", "end": "end", "auc20": "AUC20",
    "bmn_auc": "BMN, AUC", "gtad_map": "G-TAD, mAP",
}  # fmt: skip
"""Headings of a table's columns, for the names of `NAMES`."""


def at_budget(points: Points, budget: int, rows: Sequence[str] = ()) -> dict[str, dict[int, dict[str, float]]]:
    """Scores by row and seed: those at a budget, and those of what is never trained so far; labels, at their end.

    `rows` chooses some of them, in that order; without, all.
    """
    found = {}
    for name in rows or sorted({name for name, _ in points}):
        last = max((at for row, at in points if row == name), default=-1)
        at = 0 if last == 0 else min(budget, last) if name == "tac" else budget
        if (name, at) in points:
            found[name] = points[name, at]
    return found


def markdown(points: Points, budget: int, ours: str = "pal", rows: Sequence[str] = ()) -> str:
    """Two tables: every row at a budget, mean and standard deviation over seeds; and by how much `ours` is above each
    of the others, and each of its variants (`ours+…`) above it, paired by seed, with the standard error, in brackets
    where it is within two of them."""
    found = at_budget(points, budget, rows)
    names = [name for name in NAMES if any(name in scores for seeds in found.values() for scores in seeds.values())]
    lines = [f"| at {budget:,} pairs | seeds | " + " | ".join(SHORT[name] for name in names) + " |"]
    lines.append("|---" * (2 + len(names)) + "|")
    for row, seeds in found.items():
        columns = ([scores[name] for scores in seeds.values() if name in scores] for name in names)
        cells = (mean_sd(values) if values else "–" for values in columns)
        lines.append(f"| {row} | {len(seeds)} | " + " | ".join(cells) + " |")
    compared_to = {row: seeds for row, seeds in found.items() if row != ours and ours in found}
    paired = []
    for row, seeds in compared_to.items():
        both = sorted(seeds.keys() & found[ours].keys())
        if len(both) > 1:
            above, below = (row, ours) if row.startswith(f"{ours}+") else (ours, row)
            pairs = [found[above][s] for s in both], [found[below][s] for s in both]
            cells = (_difference(*pairs, name) for name in names)
            paired.append(f"| {above} over {below} | {len(both)} | " + " | ".join(cells) + " |")
    if paired:
        lines += ["", f"| paired by seed | seeds | {' | '.join(SHORT[name] for name in names)} |"]
        lines += ["|---" * (2 + len(names)) + "|", *paired]
    return "\n".join(lines)


def _difference(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], name: str) -> str:
    return bracketed([a[name] - b[name] for a, b in zip(ours, theirs, strict=True) if name in a and name in b])


def bracketed(values: Sequence[float]) -> str:
    """Mean of differences and its standard error in words; in brackets where it is within two of it.

    >>> bracketed([1.0, 2.0, 3.0]), bracketed([-1.0, 2.0]), bracketed([1.0])
    ('+2.0 ± 0.6', '(+0.5 ± 1.5)', '–')
    """
    if len(values) < 2:
        return "–"
    mean, error = difference(values)
    said = f"{mean:+.1f} ± {error:.1f}"
    return said if abs(mean) > 2 * error else f"({said})"


def difference(values: Sequence[float]) -> tuple[float, float]:
    """Mean of differences and its standard error.

    >>> difference([1.0, 2.0, 3.0])
    (2.0, 0.5773502691896257)
    """
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


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
