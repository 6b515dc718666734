"""The diagnosis of a detection result as sections of a page: kinds of errors with their price, classes, lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uptal.metrics.diagnosis import KINDS
from uptal.report.sections import Cell, Column, Curve, Table

_NAMES = ("hit", *KINDS)


def diagnosis_sections(record: Mapping[str, Any]) -> list[Table | Curve]:
    """Tables and a curve.

    Args:
        record: What `Diagnosis.to_json` gives.
    """
    return [_kinds(record), _profile(record), _lengths(record["lengths"]), _classes(record["classes"])]


def _kinds(record: Mapping[str, Any]) -> Table:
    total = max(sum(record["counts"].values()), 1)
    rows: list[Sequence[Cell]] = [
        (name, count, 100 * count / total, 100 * record["gains"][name] if name in record["gains"] else None)
        for name, count in record["counts"].items()
    ]
    rows.append(("missed instances", record["missed"], None, 100 * record["gains"]["missed"]))
    return Table(
        title=f"Errors at tIoU {record['tiou']:g}",
        columns=("kind", Column("number", digits=0), Column("% of predictions"), Column("mAP gained without it")),
        rows=rows,
        note=(
            f"mAP {100 * record['mAP']:.1f} per cent. Counted are the best {record['predictions_per_instance']} "
            f"predictions for each of the {record['instances']} instances, class by class; gains are over all "
            "predictions, in points. double: a second prediction on one instance; localisation: right class, too "
            "little overlap; class: enough overlap, wrong class; background: overlaps nothing."
        ),
    )


def _profile(record: Mapping[str, Any]) -> Curve:
    depths = [int(depth) for depth in record["profile"]]
    shares = {
        name: [100 * counts[name] / max(sum(counts.values()), 1) for counts in record["profile"].values()]
        for name in _NAMES
    }
    return Curve(
        title="What the best predictions are",
        x_label="predictions for each instance",
        y_label="per cent of them",
        series={name: (depths, share) for name, share in shares.items()},
        note="From the left: the best prediction for each instance of a class, the best two, and so on.",
    )


def _lengths(groups: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (f"{group['from']:.1f} to {group['to']:.1f} s", *_cells(group), *(group[name] for name in _NAMES))
        for group in groups
    ]
    return Table(
        title="By length",
        columns=("length", "instances", "missed %", *_NAMES),
        rows=rows,
        note="Groups of about equally many instances; predictions stand in the group of their own length.",
    )


def _classes(classes: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [(label, *_cells(each), *(each[name] for name in _NAMES)) for label, each in classes.items()]
    return Table(title="By class", columns=("class", "instances", "missed %", *_NAMES), rows=rows)


def _cells(about: Mapping[str, Any]) -> tuple[int, float]:
    return about["instances"], 100 * about["missed"] / max(about["instances"], 1)
