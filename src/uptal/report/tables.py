"""Comparison tables as HTML, marking as best only what is; curves and maps are for `figures`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from uptal.report.sections import Cell, Column, Measured, Table

DEVIATIONS_APART = 2.0
"""A mean is better than another when it is ahead by more than this many standard deviations of their difference."""


def table_html(table: Table) -> str:
    """A `<table>` with its caption; the best cell of a column is bold when it leads beyond doubt."""
    columns = [Column(column) if isinstance(column, str) else column for column in table.columns]
    for number, row in enumerate(table.rows):
        if len(row) != len(columns):
            raise ValueError(f"row {number} of table {table.title!r} has {len(row)} cells for {len(columns)} columns.")
    best = [best_row([row[index] for row in table.rows], column) for index, column in enumerate(columns)]
    head = "".join(_heading(column) for column in columns)
    body = "".join(
        "<tr>" + "".join(_cell(row[index], columns[index], index, best[index] == number) for index in range(len(row)))
        + "</tr>"
        for number, row in enumerate(table.rows)
    )  # fmt: skip
    caption = _caption(table, any(row is not None for row in best))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}"><table class="comparison">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{caption}"
    )


def best_row(cells: Sequence[Cell], column: Column) -> int | None:
    """The row that leads a column, or None when no row does.

    With standard deviations the leader must be ahead of every other row by more than two standard deviations of the
    difference; without them it must be ahead in the digits that are shown.

    >>> best_row([Measured(41.0, 0.5), Measured(38.0, 0.7)], Column("mAP", "higher"))
    0
    >>> best_row([Measured(41.0, 2.5), Measured(38.0, 0.7)], Column("mAP", "higher")) is None
    True
    >>> best_row([41.04, 41.01], Column("mAP", "higher", digits=1)) is None
    True
    """
    measured = {row: value for row, cell in enumerate(cells) if (value := _as_measured(cell)) is not None}
    if column.better is None or len(measured) < 2:
        return None
    sign = 1.0 if column.better == "higher" else -1.0
    leader = max(measured, key=lambda row: sign * measured[row].mean)
    others = (value for row, value in measured.items() if row != leader)
    return leader if all(_is_ahead(measured[leader], other, sign, column.digits) for other in others) else None


def _is_ahead(leader: Measured, other: Measured, sign: float, digits: int) -> bool:
    lead = sign * (leader.mean - other.mean)
    if leader.deviation is None and other.deviation is None:
        return sign * (round(leader.mean, digits) - round(other.mean, digits)) > 0
    return lead > DEVIATIONS_APART * math.hypot(leader.deviation or 0.0, other.deviation or 0.0)


def _as_measured(cell: Cell) -> Measured | None:
    if isinstance(cell, Measured):
        value = cell
    elif isinstance(cell, int | float) and not isinstance(cell, bool):
        value = Measured(float(cell))
    else:
        return None
    return value if math.isfinite(value.mean) else None


def _heading(column: Column) -> str:
    arrow = {"higher": "↑", "lower": "↓", None: ""}[column.better]
    hint = f' <span class="better" title="{column.better} is better">{arrow}</span>' if arrow else ""
    return f'<th scope="col">{escape(column.title)}{hint}</th>'


def _cell(cell: Cell, column: Column, index: int, is_best: bool) -> str:
    text = _text(cell, column.digits)
    if index == 0:
        return f'<th scope="row">{text}</th>'
    kind = "text" if isinstance(cell, str) else "number"
    return f'<td class="{kind}">{f"<strong>{text}</strong>" if is_best else text}</td>'


def _text(cell: Cell, digits: int) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return '<span class="absent" title="not measured">–</span>'
    if isinstance(cell, Measured):
        spread = "" if cell.deviation is None else f' <span class="spread">± {cell.deviation:.{digits}f}</span>'
        return f"{cell.mean:.{digits}f}{spread}"
    if isinstance(cell, str):
        return escape(cell)
    return f"{cell:,}".replace(",", "\u202f") if isinstance(cell, int) else f"{cell:.{digits}f}"


def _caption(table: Table, marked: bool) -> str:
    cells = [cell for row in table.rows for cell in row if isinstance(cell, Measured)]
    spread = any(cell.deviation is not None for cell in cells)
    ranked = any(isinstance(column, Column) and column.better for column in table.columns)
    rule = ""
    if ranked and spread:
        rule = "± is one standard deviation over runs. " + (
            "Bold: ahead of every other row by more than two standard deviations of the difference."
            if marked
            else "No row is ahead of every other by more than two standard deviations of the difference: none is bold."
        )
    elif ranked and marked:
        rule = "Bold: the best number of one run each; how much runs differ was not measured."
    text = " ".join(part for part in (escape(table.note), rule) if part)
    return f'<p class="caption">{text}</p>' if text else ""
