"""`uptal evaluate detection|proposals --truth FILE --found FILE --protocol P --json OUT`: the official numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from uptal.annotations import read_annotations, read_detections
from uptal.commands.options import new_parser, numbers
from uptal.errors import ConfigError
from uptal.files import atomic_write
from uptal.metrics import STRICT_TIOUS, detection_map, proposal_recall
from uptal.run import environment


@dataclass(frozen=True)
class Protocol:
    """What a benchmark's evaluator fixes."""

    subset: str
    tious: tuple[float, ...]


PROTOCOLS = {
    "activitynet": Protocol("validation", STRICT_TIOUS),
    "thumos14": Protocol("test", tuple(np.linspace(0.3, 0.7, 5).tolist())),
    "thumos14-gtad": Protocol("test", tuple(np.linspace(0.3, 0.7, 5).tolist())),
}


def main(arguments: list[str]) -> None:
    """Evaluates a result file and writes fractions, not percentages."""
    parser = new_parser("evaluate", "Detection mAP or proposal AR@AN/AUC by the official protocols.")
    parser.add_argument("task", choices=["detection", "proposals"], help="what the file holds")
    parser.add_argument("--truth", required=True, help="annotations: ActivityNet JSON or CSV video,start,end,label")
    parser.add_argument("--found", required=True, help="ActivityNet submission JSON")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="activitynet", help="whose rules")
    parser.add_argument("--json", help="file for the numbers")
    parser.add_argument(
        "--subset", help="subset of --truth (default: the protocol's; a file without subsets is used whole)"
    )
    parser.add_argument("--blocked", help="file with one video id a line to leave out on both sides")
    parser.add_argument("--tiou", help="thresholds such as 0.3,0.4 instead of the protocol's")
    parser.add_argument("--max-proposals", default="100", help="average proposals a video that count, or none")
    parser.add_argument(
        "--unknown-labels", choices=["error", "false-positive"], default="error", help="labels that the truth lacks"
    )
    parsed = parser.parse_args(arguments)
    protocol = PROTOCOLS[parsed.protocol]
    tious = numbers(parsed.tiou) if parsed.tiou else protocol.tious
    truth, found = read_annotations(parsed.truth), read_detections(parsed.found)
    subset = parsed.subset or (protocol.subset if any(v.subset == protocol.subset for v in truth.values()) else None)
    blocked = _ids(parsed.blocked)
    if parsed.task == "detection":
        scores = detection_map(
            truth, found, tious=tious, subset=subset, blocked=blocked, unknown_labels=parsed.unknown_labels
        )
    else:
        most = _most(parsed.max_proposals)
        scores = proposal_recall(truth, found, tious=tious, subset=subset, blocked=blocked, max_proposals=most)
    settings = {"subset": subset, "tiou": list(tious), "blocked": len(blocked), "max_proposals": parsed.max_proposals}
    record = scores.to_json() | {"protocol": parsed.protocol, "settings": settings, "environment": environment()}
    if parsed.json:
        with atomic_write(parsed.json) as out:
            json.dump(record, out, indent=1)
    _show(parsed.task, record)


def _show(task: str, record: dict[str, Any]) -> None:
    table = Table(title=f"{task} ({record['protocol']})")
    cells = (
        record["mAP"] | {"average mAP": record["average_mAP"]}
        if "mAP" in record
        else record["AR"] | {"AUC": record["AUC"]}
    )
    for name in cells:
        table.add_column(name if not name.isdigit() else f"AR@{name}", justify="right")
    table.add_row(*(f"{100 * value:.2f}" for value in cells.values()))
    videos = record["videos"]
    Console().print(table)
    print(
        f"per cent; {videos['truth']} videos in the truth, {videos['found']} in the result, "
        f"{videos['missing']} missing from it"
    )


def _ids(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        return [line.strip() for line in Path(path).read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--blocked {path}: cannot be read ({error}). Expected one video id a line.") from error


def _most(text: str) -> int | None:
    if text.lower() == "none":
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"--max-proposals expects a number of at least 1, or none, found {text!r}.")
    return int(text)
