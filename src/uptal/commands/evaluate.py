"""`uptal evaluate detection|proposals|grounding --truth FILE --found FILE --protocol P --json OUT`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from uptal.commands.options import Parser, new_parser, numbers
from uptal.errors import ConfigError
from uptal.files import atomic_write
from uptal.metrics import Ties
from uptal.recipes.evaluating import Evaluation, evaluate_detection, evaluate_proposals
from uptal.recipes.evaluating_grounding import evaluate_grounding
from uptal.recipes.protocols import PROTOCOLS
from uptal.run import environment

TASKS = {"detection": evaluate_detection, "proposals": evaluate_proposals}
"""What each task makes of the settings: the record of numbers that goes into the JSON and onto the screen."""
GROUNDING, CHARADES = "grounding", "charades-sta"
_OWN = {
    "diagnose": ("detection",),
    "report": ("detection",),
    "unknown_labels": ("detection",),
    "max_proposals": ("proposals",),
    "ties": ("detection", "proposals"),
}
"""Options that not every task reads, and which do."""
TIES: dict[str, Ties] = {"stable": "later-first", "numpy": "numpy"}


def main(arguments: list[str]) -> None:
    """Evaluates a result file and writes fractions, not percentages."""
    parsed = _parser().parse_args(arguments)
    _refuse_foreign(parsed)
    scores = _grounding(parsed) if parsed.task == GROUNDING else TASKS[parsed.task](_evaluation(parsed))
    facts = environment()
    record = scores | {"versions": facts["packages"], "environment": facts}
    if parsed.json:
        with atomic_write(parsed.json) as out:
            json.dump(record, out, indent=1)
    show(parsed.task, record)
    if parsed.report:
        _write_page(Path(parsed.report), record)


def _refuse_foreign(parsed: Any) -> None:
    """Refuses options that another task reads and this one would ignore."""
    for name, tasks in _OWN.items():
        if parsed[name] and parsed.task not in tasks:
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"{option} is for {' and '.join(tasks)}; leave it out for {parsed.task}.")


def _parser() -> Parser:
    parser = new_parser("evaluate", "Detection mAP, proposal AR@AN/AUC or grounding R@1 by the rules of a benchmark.")
    parser.add_argument("task", choices=[*TASKS, GROUNDING], help="what the file holds")
    parser.add_argument("--truth", required=True, help="annotations, in any format that uptal reads")
    parser.add_argument("--found", required=True, help="ActivityNet submission JSON; grounding: JSON lines")
    parser.add_argument(
        "--protocol",
        choices=[*PROTOCOLS, CHARADES],
        help=f"whose rules (default: activitynet; grounding: {CHARADES})",
    )
    parser.add_argument("--json", help="file for the numbers")
    parser.add_argument(
        "--subset", help="subset of --truth (default: the protocol's; a file without subsets is used whole)"
    )
    parser.add_argument("--blocked", help="file with one video id a line to leave out on both sides")
    parser.add_argument("--tiou", help="thresholds such as 0.3,0.4 instead of the protocol's")
    parser.add_argument("--max-proposals", help="proposals: average number a video that counts, or none (default: 100)")
    parser.add_argument(
        "--unknown-labels",
        choices=["error", "false-positive"],
        help="detection: labels that the truth lacks (default: error)",
    )
    parser.add_argument(
        "--ties",
        choices=list(TIES),
        help="detection, proposals: order of equal scores: the same everywhere, or numpy's own as the official code "
        "has it (default: stable)",
    )
    parser.add_argument(
        "--diagnose", action="store_true", help="detection: sort the false positives by cause, with what each costs"
    )
    parser.add_argument("--report", help="detection: page with the diagnosis")
    return parser


def _evaluation(parsed: Any) -> Evaluation:
    return Evaluation(
        truth=parsed.truth,
        found=parsed.found,
        protocol=_protocol(parsed),
        subset=parsed.subset,
        tious=numbers(parsed.tiou) if parsed.tiou else None,
        blocked=_ids(parsed.blocked),
        max_proposals=_most(parsed.max_proposals or "100"),
        unknown_labels=parsed.unknown_labels or "error",
        ties=TIES[parsed.ties or "stable"],
        diagnose=parsed.diagnose or bool(parsed.report),
    )


def _protocol(parsed: Any) -> str:
    """The protocol, which must be one of the task's."""
    default = CHARADES if parsed.task == GROUNDING else next(iter(PROTOCOLS))
    chosen = parsed.protocol or default
    if (chosen == CHARADES) != (parsed.task == GROUNDING):
        raise ConfigError(f"The protocol {chosen} does not score {parsed.task}; take --protocol {default}.")
    return chosen


def _grounding(parsed: Any) -> dict[str, Any]:
    _protocol(parsed)
    tious = numbers(parsed.tiou) if parsed.tiou else None
    return evaluate_grounding(
        parsed.truth, parsed.found, subset=parsed.subset, tious=tious, blocked=_ids(parsed.blocked)
    )


def show(task: str, record: Mapping[str, Any]) -> None:
    """Prints the numbers in per cent, and what one must know to read them."""
    columns = {"all videos": _cells(record)}
    if "without_missing_videos" in record:
        columns["without the missing ones"] = _cells(record["without_missing_videos"])
    table = Table(title=f"{task} ({record['protocol']})")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for name in columns["all videos"]:
        table.add_row(name, *(f"{100 * scores[name]:.2f}" for scores in columns.values()))
    Console().print(table)
    if "diagnosis" in record:
        _show_diagnosis(record["diagnosis"])
    videos = record["videos"]
    print(
        f"per cent; {videos['truth']} videos in the truth, {videos['found']} in the result, "
        f"{videos['missing']} missing from it"
    )
    for line in _remarks(record["ground_truth"]) if task != GROUNDING else ():
        print(line)


def _show_diagnosis(found: Mapping[str, Any]) -> None:
    """Kinds of errors, then where they are: by length and by class."""
    kinds = Table("", "number", "mAP gained", title=f"errors at tIoU {found['tiou']:g} (best 10 for each instance)")
    for name, count in found["counts"].items():
        kinds.add_row(name, str(count), f"{100 * found['gains'][name]:+.2f}" if name in found["gains"] else "")
    kinds.add_row("missed instances", str(found["missed"]), f"{100 * found['gains']['missed']:+.2f}")
    lengths = {f"{group['from']:.1f}-{group['to']:.1f} s": group for group in found["lengths"]}
    worst = sorted(found["classes"].items(), key=lambda item: -item[1]["missed"])[:20]
    Console().print(kinds, _where("by length", lengths), _where("by class (most missed first)", dict(worst)))


def _where(title: str, groups: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("", "of", "missed", "hit", "double", "loc.", "class", "both", "backgr.", title=title)
    for name, group in groups.items():
        keys = ("instances", "missed", "hit", "double", "localisation", "class", "class and localisation", "background")
        table.add_row(name, *(str(group[key]) for key in keys))
    return table


def _write_page(path: Path, record: Mapping[str, Any]) -> None:
    from uptal.report import Report, diagnosis_sections, write_report

    facts = {name: record[name] for name in ("protocol", "settings", "ground_truth", "result", "environment")}
    videos = record["videos"]
    summary = (
        f"Average mAP {100 * record['average_mAP']:.2f} per cent by the protocol {record['protocol']}; "
        f"{videos['truth']} videos, {videos['missing']} of them missing from the result.",
    )
    sections = diagnosis_sections(record["diagnosis"])
    for message in write_report(path, Report(title="Detection", summary=summary, sections=sections, facts=facts)):
        print(message)
    print(f"open {path}")


def _cells(scores: Mapping[str, Any]) -> dict[str, float]:
    if "mIoU" in scores:
        lists = {name: scores[name] for name in scores if name.startswith("R@")} | {"mAP": scores["mAP"]}
        at = {f"{name}, {tiou}": value for name, row in lists.items() for tiou, value in row.items()}
        return at | {"mIoU": scores["mIoU"]}
    if "mAP" in scores:
        at = {f"mAP@{name}": value for name, value in scores["mAP"].items()}
        return at | {"average mAP": scores["average_mAP"]}
    return {f"AR@{name}": value for name, value in scores["AR"].items()} | {"AUC": scores["AUC"]}


def _remarks(done: Mapping[str, Any]) -> list[str]:
    """What the protocol did to the ground truth, where it did something."""
    lines, ambiguous = [], done["ambiguous"]
    if ambiguous["instances"]:
        lines.append(f"{ambiguous['instances']} instances are labelled Ambiguous: {ambiguous['treated_as']}")
    if done["absent_videos"]:
        lines.append(f"not in this protocol's ground truth: {', '.join(done['absent_videos'])}")
    return lines


def _ids(path: str | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        return tuple(line.strip() for line in Path(path).read_text("utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--blocked {path}: cannot be read ({error}). Expected one video id a line.") from error


def _most(text: str) -> int | None:
    if text.lower() == "none":
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"--max-proposals expects a number of at least 1, or none, found {text!r}.")
    return int(text)
