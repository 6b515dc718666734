"""`uptal reproduce segments --data DIR`: what label-free segments find of annotated instances, beside controls."""

from __future__ import annotations

import json
from pathlib import Path

from uptal.annotations import read_annotations
from uptal.commands.options import add_settings, new_parser, take_settings
from uptal.encoders.shipped import DEFAULT
from uptal.evidence.segments import AT, annotated, measure, summarise, with_files
from uptal.files import atomic_write, digest
from uptal.run import environment
from uptal.similarity import SegmentConfig


def main(arguments: list[str]) -> None:
    """Prints a row for every encoder and control, and writes all of it as JSON."""
    parser = new_parser(
        "reproduce segments", "Class-agnostic recall of label-free segments on annotated videos, with 95 % intervals."
    )
    add = parser.add_argument
    add("--data", required=True, help="folder with videos, searched to any depth, and annotations.json")
    add("--annotations", help="ground truth (default: annotations.json in the folder)")
    add("--subset", help="only this subset (default: all)")
    add("--most", type=int, help="no more videos than this, by name (default: all)")
    add("--weights", nargs="*", default=[DEFAULT], help="encoders: run folders, weight files, names of shipped ones")
    add("--untrained", type=int, default=3, help="how many untrained slim encoders, seeds from 0")
    add("--json", help="file for the numbers (default: none)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add_settings(parser, SegmentConfig())
    parsed = parser.parse_args(arguments)
    folder = Path(parsed.data)
    file = Path(parsed.annotations or folder / "annotations.json")
    truth = read_annotations(file)
    paths = annotated(folder, truth, parsed.subset, parsed.most)
    truth, cfg = with_files(truth, paths), take_settings(parsed, SegmentConfig)
    rows = measure(
        paths, truth, {str(name): name for name in parsed.weights},
        untrained=range(parsed.untrained), cfg=cfg, device=parsed.device,
    )  # fmt: skip
    found = summarise(rows, truth, against="frame differences")
    judged = {row.name: len(row.found) for row in rows}
    print(f"{len(truth)} videos, recall at tIoU 0.5 to 0.95 in per cent [95 % over videos]")
    for row in found:
        cells = (row[f"AR@{count}"] for count in AT)
        shown = "".join(f"{c['value']:7.1f} [{c['interval'][0]:4.1f}, {c['interval'][1]:4.1f}]" for c in cells)
        print(f"{_short(row['row']):36}{shown}")
    if parsed.json:
        about = {"videos": len(truth), "instances": sum(len(video.segments) for video in truth.values())}
        settings = {"subset": parsed.subset, "segments": vars(cfg), "annotations": digest(file), "judged": judged}
        with atomic_write(Path(parsed.json)) as out:
            json.dump({"rows": found, **about, **settings, **environment()}, out, indent=1)


def _short(name: str) -> str:
    """A row's name in 36 places; of a long one beginning and end."""
    return name if len(name) <= 36 else f"{name[:18]}…{name[-17:]}"
