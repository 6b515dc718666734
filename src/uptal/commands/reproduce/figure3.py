"""`uptal reproduce figure3 --video FILE --weights RUN …`: Figure 3 for any video and any encoders, as a page."""

from __future__ import annotations

import json
from pathlib import Path

from uptal.annotations import read_annotations
from uptal.commands.options import new_parser, numbers
from uptal.encoders import load_encoder
from uptal.errors import ConfigError
from uptal.files import atomic_write
from uptal.recipes.figure3 import draw_figure_three
from uptal.report import Report, write_report
from uptal.run import environment
from uptal.types import Segment


def main(arguments: list[str]) -> None:
    """Writes OUT/report.html and OUT/scores.json."""
    parser = new_parser("reproduce figure3", "Similarity maps of a video whose action moves and changes speed.")
    parser.add_argument("--video", required=True, help="video file")
    parser.add_argument("--weights", required=True, nargs="+", help="run folders, stores or encoder files; a row each")
    parser.add_argument("--names", nargs="+", help="names of the rows; those of the folders when not given")
    parser.add_argument("--action", help="where the action is, in seconds, such as 3.2,7.5")
    parser.add_argument("--annotations", help="or annotations that have this video; its longest instance is taken")
    parser.add_argument("--interval", type=int, default=8, help="frames from one clip to the next")
    parser.add_argument("--seed", type=int, default=0, help="decides where the edits put the action")
    parser.add_argument("--out", default="results/figure3", help="folder of the page and the scores")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--trust-imports", action="store_true", help="allow encoder classes from outside uptal")
    parsed = parser.parse_args(arguments)
    if parsed.interval < 1:
        raise ConfigError(f"--interval counts frames and must be at least 1, found {parsed.interval}.")
    path, out = Path(parsed.video), Path(parsed.out)
    names = parsed.names or [_name(Path(weights)) for weights in parsed.weights]
    if len(names) != len(parsed.weights) or len(set(names)) < len(names):
        raise ConfigError(
            f"Each of --weights needs a name of its own, found {', '.join(names)}. Give them with --names."
        )
    encoders = {n: load_encoder(w, trust=parsed.trust_imports) for n, w in zip(names, parsed.weights, strict=True)}
    action = _action(path, parsed.action, parsed.annotations)
    drawn = draw_figure_three(
        path, action, encoders, interval=parsed.interval, seed=parsed.seed, device=parsed.device
    )  # fmt: skip
    facts = environment() | {"action": [action.start, action.end], "seed": parsed.seed, "interval": parsed.interval}
    with atomic_write(out / "scores.json") as file:
        json.dump({"video": path.name, "scores": drawn.scores, **facts}, file, indent=1)
    report = Report(title=f"Figure 3: {path.stem}", sections=[drawn.grid, drawn.table()], facts=facts)
    for message in write_report(out / "report.html", report):
        print(message)
    for name, found in drawn.scores.items():
        said = "; ".join(
            f"{edit}: IoU kept {s['kept_iou']:.2f}, warp error {s['warp_error']:.2f}, contrast {s['separation']:.2f}"
            for edit, s in found.items()
        )
        print(f"{name}: {said}")
    print(f"open {out / 'report.html'}")


def _name(weights: Path) -> str:
    return weights.name if weights.is_dir() or weights.stem != "encoder" else weights.parent.name


def _action(path: Path, text: str | None, annotations: str | None) -> Segment:
    """The stretch that is cut out."""
    if (text is None) == (annotations is None):
        raise ConfigError("Say where the action is: either --action START,END in seconds or --annotations FILE.")
    if text is not None:
        values = numbers(text)
        if len(values) != 2:
            raise ConfigError(f"--action expects START,END in seconds, such as 3.2,7.5, found {text!r}.")
        return Segment(*values)
    assert annotations is not None
    known = read_annotations(annotations)
    if path.stem not in known or not known[path.stem].segments:
        raise ConfigError(f"{annotations}: has no instance of {path.stem!r}. Say where the action is with --action.")
    return max(known[path.stem].segments, key=lambda segment: segment.duration)
