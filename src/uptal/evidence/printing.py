"""A table of what has been measured: for the terminal, as Markdown, as a page, and as a drawing.

Means and standard deviations are over seeds. A difference is over the seeds that both rows have, and printed as a tie
within two standard errors. The paper's numbers are of other data, so they never stand in the same column as ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from uptal.evidence.cells import Candidate, read_cell
from uptal.evidence.corpora import Place
from uptal.evidence.measures import MEASURES
from uptal.evidence.methods import Method
from uptal.evidence.profiles import Profile
from uptal.evidence.summary import compared, mean_sd
from uptal.evidence.tables import Experiment, Line
from uptal.files import atomic_write
from uptal.report import Column, Measured, Report, Table, write_report
from uptal.run import environment

SEEDS = 32
"""Results of seeds below this are looked for."""

Values = dict[int, float]
"""A number by seed."""


@dataclass(frozen=True)
class Result:
    """An experiment on a corpus as far as it has been measured."""

    experiment: Experiment
    where: Place
    size: Profile
    lines: tuple[Line, ...]
    found: Mapping[tuple[str, str, str], Values]
    """By (method, measure, number)."""

    def values(self, method: str, column: tuple[str, str]) -> Values:
        """A number of a row by seed; empty where nothing was measured."""
        return self.found.get((method, *column), {})

    @property
    def seeds(self) -> int:
        """Most seeds that a number has."""
        return max((len(values) for values in self.found.values()), default=0)

    @property
    def heading(self) -> str:
        """Experiment, corpus and budget."""
        state = "" if self.where.frozen else " (not frozen: numbers may not be quoted)"
        smoke = "; a corpus of seconds, its numbers mean nothing" if self.where.name == "smoke" else ""
        return f"{self.experiment.title}; corpus {self.where.name}{state}{smoke}; {self.size.describe()}"


def collect(
    experiment: Experiment, where: Place, size: Profile, lines: Sequence[Line], known: Mapping[str, Method], out: Path
) -> Result:
    """Everything that has been measured with these settings, of any seed."""
    found: dict[tuple[str, str, str], Values] = {}
    for line in lines:
        for measure in experiment.measures:
            for seed in range(SEEDS):
                scores = read_cell(Candidate(where, known[line.method], seed, size).file(out, measure))
                for key, value in (scores or {}).items():
                    found.setdefault((line.method, measure, key), {})[seed] = value
    return Result(experiment, where, size, tuple(lines), found)


def cells(result: Result) -> tuple[list[str], list[list[str]]]:
    """Headings and rows as words: ours, then how rows compare, then the paper's."""
    columns, against = result.experiment.columns, result.experiment.against
    paper = _of_paper(result)
    heads = ["row", "seeds", *(_heading(column) for column in columns)]
    heads += [f"{_heading(column)} against {_title(result, against)}" for column in result.experiment.judged]
    heads += [f"paper {_heading(columns[place])}" for place in paper]
    rows = []
    for line in result.lines:
        numbers = [result.values(line.method, column) for column in columns]
        row = [line.title, str(max(map(len, numbers), default=0))]
        row += [mean_sd(list(values.values())) if values else "–" for values in numbers]
        row += [_versus(result, line, column) for column in result.experiment.judged]
        row += [_in_words(line.paper[place]) if line.paper else "" for place in paper]
        rows.append(row)
    return heads, rows


def _of_paper(result: Result) -> list[int]:
    """Columns in which the paper has a number for one of the rows."""
    given = [line.paper for line in result.lines if line.paper]
    return [place for place in range(len(result.experiment.columns)) if any(row[place] is not None for row in given)]


def _in_words(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _heading(column: tuple[str, str]) -> str:
    return MEASURES[column[0]].columns[column[1]]


def _title(result: Result, method: str) -> str:
    lines = (*result.lines, *result.experiment.lines)
    return next((line.title.split(",")[0].split(":")[0] for line in lines if line.method == method), method)


def _versus(result: Result, line: Line, column: tuple[str, str]) -> str:
    ours, theirs = (result.values(method, column) for method in (line.method, result.experiment.against))
    return "" if line.method == result.experiment.against or not ours or not theirs else compared(ours, theirs)


def print_result(result: Result) -> None:
    """The table on the terminal."""
    heads, rows = cells(result)
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    print(result.heading)
    for row in [heads, *rows]:
        first, *rest = (
            text.ljust(w) if not n else text.rjust(w) for n, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]).rstrip())
    print("\n".join(_notes(result)))


def _notes(result: Result) -> list[str]:
    notes = [
        "percent; ± is one standard deviation over seeds; a difference is over the seeds that both rows have, a tie "
        "within two standard errors"
    ]
    if any(line.paper for line in result.lines):
        notes.append(f"paper: {result.experiment.data}; other data and another network, for orientation only")
    return [*notes, result.experiment.note] if result.experiment.note else notes


def markdown(result: Result) -> str:
    """The table as Markdown."""
    heads, rows = cells(result)
    lines = [f"**{result.heading}.**", "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), "", *_notes(result)]) + "\n"


def write_files(result: Result, out: Path) -> list[Path]:
    """OUT/NAME-CORPUS-PROFILE.md, .html and .svg."""
    stem = out / f"{result.experiment.name}-{result.where.name}-{result.size.name}"
    files = [stem.with_name(f"{stem.name}.{ending}") for ending in ("md", "html", "svg")]
    with atomic_write(files[0]) as file:
        file.write(markdown(result))
    write_report(files[1], _report(result))
    with atomic_write(files[2]) as file:
        file.write(drawing(result))
    return files


def _report(result: Result) -> Report:
    columns = result.experiment.columns
    paper, better = _of_paper(result), "higher" if result.seeds > 1 else None  # of one seed none is called best
    judged = [f"{_heading(column)} against {_title(result, result.experiment.against)}"
              for column in result.experiment.judged]  # fmt: skip
    rows = [
        [line.title, *(_measured(result.values(line.method, column)) for column in columns),
         *(_versus(result, line, column) for column in result.experiment.judged)]
        for line in result.lines
    ]  # fmt: skip
    ours = Table(
        title="Measured here", columns=["", *(Column(_heading(column), better) for column in columns), *judged],
        rows=rows, note=f"Seeds: {result.seeds}. {_notes(result)[0]}. {result.experiment.note}",
    )  # fmt: skip
    theirs = Table(
        title="The paper's numbers, of other data",
        columns=["", *(Column(_heading(columns[place])) for place in paper)],
        rows=[[line.title, *(line.paper[place] for place in paper)] for line in result.lines if line.paper],
        note=f"{result.experiment.data}. For orientation only: another network and other videos.",
    )  # fmt: skip
    sections = [ours, theirs] if paper else [ours]
    return Report(title=result.experiment.title, summary=[result.heading], sections=sections, facts=environment())


def _measured(values: Values) -> Measured | None:
    numbers = list(values.values())
    if not numbers:
        return None
    return Measured(float(np.mean(numbers)), float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None)


BAR, LEFT, PANEL = 18, 290, 300
"""Height of a row, width of the names and of a panel in the drawing."""


def drawing(result: Result) -> str:
    """Bars of the judged numbers, a panel each, with one standard deviation and a dot for each seed."""
    judged, lines = result.experiment.judged, result.lines
    height = 60 + BAR * len(lines)
    width = LEFT + PANEL * len(judged) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" role="img" aria-label="{escape(result.heading)}"><rect width="{width}" height="{height}" '
        f'fill="#fff"/><text x="8" y="16" font-size="13">{escape(result.experiment.title)}, corpus '
        f"{escape(result.where.name)}, {escape(result.size.name)}</text>"
    ]
    for number, line in enumerate(lines):
        parts.append(f'<text x="{LEFT - 8}" y="{56 + BAR * number}" text-anchor="end">{escape(line.title)}</text>')
    for number, column in enumerate(judged):
        parts.append(f'<g transform="translate({LEFT + number * PANEL} 0)">{_panel(result, column)}</g>')
    return "".join(parts) + "</svg>\n"


def _panel(result: Result, column: tuple[str, str]) -> str:
    rows = [list(result.values(line.method, column).values()) for line in result.lines]
    high = 5 * math.ceil(max((max(row) for row in rows if row), default=5) / 5 + 1e-9)
    room = PANEL - 70
    parts = [f'<text x="0" y="36">{escape(_heading(column))} (%)</text>']
    for number, values in enumerate(rows):
        y = 44 + BAR * number
        if not values:
            continue
        mean = float(np.mean(values))
        parts.append(f'<rect x="0" y="{y}" width="{room * mean / high:.1f}" height="{BAR - 5}" fill="#9fc3e0"/>')
        if len(values) > 1:
            low, top = (max(0.0, mean + side * float(np.std(values, ddof=1))) for side in (-1, 1))
            middle = y + (BAR - 5) / 2
            parts.append(f'<path d="M{room * low / high:.1f} {middle}H{room * top / high:.1f}" stroke="#123"/>')
        for value in values:
            parts.append(f'<circle cx="{room * value / high:.1f}" cy="{y + (BAR - 5) / 2}" r="2" fill="#123"/>')
        parts.append(f'<text x="{room * max(values) / high + 6:.1f}" y="{y + 10}">{mean_sd(values)}</text>')
    return "".join(parts)
