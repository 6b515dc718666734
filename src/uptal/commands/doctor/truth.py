"""Whether annotations can be used: splits, classes, and what is odd in them; in any format that uptal reads."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table

from uptal.errors import ConfigError


def examine(parsed: Namespace) -> tuple[dict[str, Any], str]:
    """Prints a summary of the file; writes it in another format when that is asked for."""
    from uptal.recipes.checking import check_annotations, convert

    file = parsed.path or parsed.annotations
    if not file:
        raise ConfigError("doctor annotations needs the file: uptal doctor annotations FILE.")
    check = check_annotations(
        file,
        subset=parsed.subset,
        videos=parsed.videos,
        features=parsed.features,
        fps=parsed.fps,
        drop=parsed.drop_labels,
    )
    findings = check.to_json()
    _show(findings)
    for match in check.matches.items():
        print(f"{match[0]}: {match[1].describe()}")
    if parsed.write:
        print(convert(check, parsed.write))
    return findings, f"{file}: {'; '.join(check.unusable)}. They are listed above." if check.unusable else ""


def _show(findings: dict[str, Any]) -> None:
    """Splits, classes, and what is odd, as tables for people."""
    splits = Table("split", "videos", title="Splits")
    for name, count in findings["subsets"].items():
        splits.add_row(name or "(none)", str(count))
    columns = ("class", "instances", "videos", "median s", "shortest", "longest")
    classes = Table(*columns, title=f"{len(findings['classes'])} classes")
    for label, each in findings["classes"].items():
        numbers = " + ".join(f"{count} {name}".strip() for name, count in each["instances"].items())
        lengths = (f"{each[key]:.2f}" for key in ("median", "shortest", "longest"))
        classes.add_row(label, numbers, str(each["videos"]), *lengths)
    Console().print(splits, classes)
    print(
        f"{findings['instances']} instances in {findings['videos']} videos ({findings['hours']:.2f} h of known length, "
        f"{findings['without_duration']} of unknown length, {findings['without_instances']} without instances)"
    )
    for name, each in findings["odd"].items():
        if each["count"]:
            shown = "; ".join(each["first"][:3]) + ("; …" if each["count"] > 3 else "")
            print(f"{name.replace('_', ' ')}: {each['count']} ({shown})")
    if findings["odd"]["ambiguous"]["count"]:
        print(
            "Ambiguous is THUMOS'14's mark of doubtful stretches, not a class; `uptal train` would learn it as one. "
            "Leave it out: --drop-labels Ambiguous --write FILE"
        )
    for label, split in findings["one_split_only"].items():
        print(f"only in split {split or '(none)'}: {label}")
    for problem in findings["problems"]:
        print(f"unusable: {problem}")
