"""`uptal reproduce real FOLDER …`: encoders trained on real clips without labels, and how they tell them apart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uptal.commands.options import new_parser, read_changes
from uptal.encoders import load_encoder
from uptal.errors import ConfigError
from uptal.evidence.methods import with_settings
from uptal.evidence.real import RealSet, Score, read_set, score_set
from uptal.evidence.summary import bracketed
from uptal.files import atomic_write
from uptal.recipes import pretrain as recipes
from uptal.recipes.pretrain import PretrainConfig
from uptal.recipes.running import pretrain
from uptal.run import environment
from uptal.train import choose_device

_BOUNDARY = recipes.pal_plus().head.boundary
ROWS: dict[str, Callable[[], PretrainConfig]] = {
    "random": recipes.demo_random,
    "frame_difference": recipes.demo_frame_difference,
    "moco": recipes.demo_moco,
    "pal_no_paste": lambda: recipes.small(recipes.t3_2()),
    "pal": recipes.demo,
    "pal_plus": lambda: replace(recipes.demo(), head=replace(recipes.demo().head, boundary=_BOUNDARY)),
}
"""What is trained; a step of each encodes as many clips as one of PAL."""


def main(arguments: list[str]) -> None:
    """Writes OUT/real.json and prints a table."""
    parser = new_parser(
        "reproduce real", "Pre-trains on folders of real clips without labels and scores what it learnt on theirs."
    )
    parser.add_argument("folders", nargs="*", help="folders of clips; lists or subfolders say which class is what")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}; several with commas")
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="ROW NAME=VALUE …",
        help="one more row, with other settings, such as 'pal paste.source=own'; may be repeated",
    )
    parser.add_argument("--weights", nargs="*", default=[], help="other encoders, as NAME=PATH; they are not trained")
    parser.add_argument("--pairs", type=int, default=4800, help="region pairs that PAL sees; others as many clips")
    parser.add_argument("--seeds", type=int, default=1, help="this many seeds, from 0 on")
    parser.add_argument("--out", default="results", help="folder of the result")
    parser.add_argument("--work", default="runs/real", help="folder of the trained runs; they are gone on with")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--print", nargs="+", metavar="FILE", help="only print what files of results say, together")
    parsed = parser.parse_args(arguments)
    if parsed.print:
        print(_tables(_rows_of([Path(file) for file in parsed.print])))
        return
    if not parsed.folders:
        raise ConfigError("Give folders of clips, or --print with files of results.")
    sets = [read_set(Path(folder)) for folder in parsed.folders]
    others = dict(_named(text) for text in parsed.weights)
    rows = dict(_row(text) for text in (*filter(None, parsed.rows.split(",")), *parsed.variant))
    if parsed.seeds < 1 or parsed.pairs < 1:
        raise ConfigError("--seeds and --pairs are at least 1.")
    if not any(one.videos for one in sets):
        raise ConfigError("None of the folders has classes, in lists or subfolders, so there is nothing to score.")
    work = Path(parsed.work)
    gathered = _gather(sets, work / "videos")
    runs = [(name, seed) for name in rows for seed in range(parsed.seeds)]
    found: list[dict[str, Any]] = []
    for name, seed in runs:
        cfg = replace(rows[name], seed=seed, device=parsed.device)
        if cfg.optim.max_steps != 0:
            cfg = recipes.with_optim(cfg, max_steps=_steps(cfg, parsed.pairs))
        run = work / f"{re.sub('[^a-zA-Z0-9_.]+', '-', name).strip('-')}-s{seed}"
        outcome = pretrain(cfg, gathered, run)
        if not outcome.finished:
            raise KeyboardInterrupt
        about = {"row": name, "seed": seed, "steps": outcome.steps, "seconds": round(outcome.seconds, 1)}
        found.append(about | {"sets": _scores(run, sets, parsed.device, calibrate=True)})
    for name, path in others.items():
        found.append({"row": name, "seed": None, "sets": _scores(Path(path), sets, parsed.device, calibrate=False)})
    about = {key: value for key, value in environment().items() if key != "command"}  # it names folders of one machine
    facts = about | {"pairs": parsed.pairs, "videos": {one.name: _sizes(one) for one in sets}}
    with atomic_write(Path(parsed.out) / "real.json") as file:
        json.dump(facts | {"rows": found}, file, indent=1)
    print(_tables(found))
    print(f"Numbers: {Path(parsed.out) / 'real.json'}")


def _rows_of(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows of several files; of a row with a seed that is in more than one, the first."""
    found: dict[tuple[str, int | None], dict[str, Any]] = {}
    for file in files:
        try:
            rows = json.loads(file.read_text("utf-8"))["rows"]
            known = {(row["row"], row["seed"]) for row in rows if row["sets"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file}: holds no results of `uptal reproduce real` ({error}).") from error
        if not known:
            raise ConfigError(f"{file}: has no rows.")
        for row in rows:
            found.setdefault((row["row"], row["seed"]), row)
    return list(found.values())


def _tables(rows: list[dict[str, Any]]) -> str:
    return "\n\n".join(filter(None, (table(rows), paired(rows))))


def paired(rows: list[dict[str, Any]], base: str = "pal") -> str:
    """Markdown: how far each other row is above `base` over the seeds that both have, with the standard error, in
    brackets within two of it; nothing where no row shares two seeds."""
    lines = []
    known = {(row["row"], row["seed"]): row["sets"] for row in rows}
    for name in dict.fromkeys(row["row"] for row in rows if row["row"] != base):
        seeds = [seed for other, seed in known if other == name and (base, seed) in known]
        if len(seeds) < 2:
            continue
        for folder, scores in known[name, seeds[0]].items():
            if not all(folder in known[row, seed] for row in (name, base) for seed in seeds):
                continue
            gaps = (
                [known[name, seed][folder][what]["value"] - known[base, seed][folder][what]["value"] for seed in seeds]
                for what in scores
            )
            lines.append(f"| {name} | {len(seeds)} | {folder} | " + " | ".join(map(bracketed, gaps)) + " |")
    head = f"| over {base}, paired by seed | seeds | set | class, kNN | class, linear | actionness | start | end |"
    return "\n".join([head, "|---" * 8 + "|", *lines]) if lines else ""


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each row and set; mean over seeds, and the widest interval that any of them has."""
    lines = ["| encoder | set | class, kNN | class, linear | actionness | start | end |", "|---" * 7 + "|"]
    for name in dict.fromkeys(row["row"] for row in rows):
        some = [row["sets"] for row in rows if row["row"] == name]
        for folder in some[0]:
            cells = [_cell([each[folder][what] for each in some]) for what in some[0][folder]]
            lines.append(f"| {name} | {folder} | " + " | ".join(cells) + " |")
    for folder, scores in rows[0]["sets"].items():
        chances = " | ".join(f"{score['chance']:.1f}" for score in scores.values())
        lines.append(f"| guessing | {folder} | {chances} |")
    return "\n".join(lines)


def _cell(scores: list[dict[str, float]]) -> str:
    mean = np.mean([score["value"] for score in scores])
    low, high = min(score["low"] for score in scores), max(score["high"] for score in scores)
    return f"{mean:.1f} ({low:.0f} to {high:.0f})"


def _scores(weights: Path, sets: list[RealSet], device: str, calibrate: bool) -> dict[str, dict[str, dict[str, float]]]:
    saved, where = load_encoder(weights), choose_device(device)
    torch.manual_seed(0)
    found: dict[str, dict[str, Score]] = {
        one.name: score_set(saved.encoder, saved.clip, saved.encoder.width, one.videos, where, calibrate=calibrate)
        for one in sets
        if one.videos is not None
    }
    return {name: {what: asdict(score) for what, score in scores.items()} for name, scores in found.items()}


def _gather(sets: list[RealSet], folder: Path) -> Path:
    """One folder with links to all videos to train on."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{one.name}__{path.parent.name}__{path.name}": path for one in sets for path in one.unlabelled}
    for link in folder.iterdir():
        if link.name not in wanted:
            link.unlink()
    for name, path in wanted.items():
        if not (folder / name).exists():
            (folder / name).symlink_to(path.resolve())
    return folder


def _row(text: str) -> tuple[str, PretrainConfig]:
    """`pal`, or `pal paste.source=own`, as a name and a recipe."""
    name, *words = text.split()
    if name not in ROWS:
        raise ConfigError(f"There is no row {name!r}. Rows: {', '.join(ROWS)}.")
    return " ".join([name, *words]), with_settings(ROWS[name](), read_changes(words, "--variant"), name)


def _steps(cfg: PretrainConfig, pairs: int) -> int:
    """Steps in which a recipe encodes as many clips as the demo's PAL in so many region pairs."""
    usual, timeline = recipes.demo(), cfg.data.timeline
    a_pair = usual.data.timeline.clips
    return max(1, round(pairs * a_pair / (cfg.optim.batch * timeline.clips * timeline.regions)))


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--weights expects NAME=PATH, such as i3d=encoders/i3d, found {text!r}.")
    return name, path


def _sizes(one: RealSet) -> dict[str, int]:
    tested = 0 if one.videos is None else len(one.videos.test)
    return {"trained_on": len(one.unlabelled), "tested_on": tested}
