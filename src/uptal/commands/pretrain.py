"""`uptal pretrain RECIPE --videos DIR --run RUN`: a folder of videos in, an encoder out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from uptal.annotations import read_labels
from uptal.annotations.cliplists import match_files, read_clip_list
from uptal.commands.options import add_settings, describe, new_parser, read_yaml, take_settings
from uptal.distributed import announced, leave, world
from uptal.errors import ConfigError
from uptal.recipes import pretrain as recipes
from uptal.recipes.launching import is_launched, launch
from uptal.recipes.listing import video_list
from uptal.recipes.pretrain import PretrainConfig
from uptal.recipes.running import Look, pretrain
from uptal.recipes.settings import from_plain
from uptal.recipes.transfer import Transfer
from uptal.recipes.waiting import describe_wait
from uptal.train import choose_device
from uptal.video import find_videos


def main(arguments: list[str]) -> None:
    """Trains, or goes on with a run that was interrupted."""
    named = bool(arguments) and not arguments[0].startswith("-")
    defaults, stored = _recipe(arguments[0]) if named else (recipes.paper(), {})
    if "--small" in arguments:
        defaults = recipes.small(defaults)
    names = ", ".join(recipes.recipes())
    parser = new_parser("pretrain", f"Pre-trains a clip encoder on a folder of videos. Recipes: {names}.")
    parser.add_argument("recipe", help="name of a recipe, or the config.yaml (or folder) of a run to repeat")
    videos = stored.get("videos")
    parser.add_argument("--videos", required=videos is None, default=videos, help="folder of videos")
    parser.add_argument("--run", required=True, help="run folder: settings, log, checkpoints, encoder")
    parser.add_argument(
        "--labels",
        default=stored.get("labels"),
        help="for recipes that learn from labels: CSV with the columns video,label, or a list of Kinetics or UCF101",
    )
    parser.add_argument(
        "--list",
        default=stored.get("list"),
        help="use only the videos that this file names: a list of Kinetics or UCF101, a CSV with the column video, or "
        "a path or file name a line; for every recipe",
    )
    parser.add_argument(
        "--split", default=stored.get("split"), help="use only these lines of --list: train, val or test"
    )
    parser.add_argument(
        "--resume", choices=["auto", "never"], default="auto", help="go on with the run in --run, or refuse to"
    )
    parser.add_argument("--small", action="store_true", help="the recipe's twin for a laptop")
    parser.add_argument("--trust-imports", action="store_true", help="allow encoder classes from outside uptal")
    parser.add_argument(
        "--processes", type=int, default=1, help="processes to start on this machine, one a GPU; see docs/scale.md"
    )
    parser.add_argument("--probe-videos", help="folder of labelled videos on which transfer is looked at on the way")
    parser.add_argument("--probe-train", help="its training list: UCF101, HMDB51, Kinetics or video,label")
    parser.add_argument("--probe-test", help="its test list, in the same layouts")
    parser.add_argument("--probe-every", type=int, default=5, help="epochs from one look to the next")
    add_settings(parser, defaults)
    parsed = parser.parse_args(arguments)
    if parsed.processes != 1 and not is_launched():
        return launch(parsed.processes, ["pretrain", *arguments])
    cfg = take_settings(parsed, PretrainConfig)
    run = Path(parsed.run)
    if parsed.resume == "never" and any(run.glob("checkpoints/step_*")):
        raise ConfigError(f"{run} already holds a run. Use --resume auto to go on with it, or another --run.")
    if parsed.labels and cfg.method != "supervised":
        raise ConfigError(
            f"This recipe (method {cfg.method}) learns without labels, so --labels would go unused. Leave it out; to "
            "train on the videos that a file names, give that file as --list."
        )
    labels = _labels(Path(parsed.labels), Path(parsed.videos)) if parsed.labels else None
    chosen = video_list(parsed.list, parsed.split)
    trust = parsed.trust_imports or any(argument.split("=")[0] == "--encoder" for argument in arguments)
    outcome = pretrain(cfg, Path(parsed.videos), run, labels, trust, parsed.labels, _look(parsed, cfg), chosen)
    if world().rank == 0:
        print(describe(outcome, run), file=sys.stdout if outcome.finished else sys.stderr)
        if outcome.new_steps:
            print(describe_wait(outcome.waited), file=sys.stderr)
        print(f"the encoder is {run / 'encoder.safetensors'}")
    leave()


def _look(parsed: Namespace, cfg: PretrainConfig) -> Look | None:
    given = [parsed.probe_videos, parsed.probe_train, parsed.probe_test]
    if not any(given):
        return None
    if not all(given):
        raise ConfigError("To look at transfer on the way give all of --probe-videos, --probe-train, --probe-test.")
    videos, *lists = map(Path, given)
    device = choose_device(cfg.device, announced().local_rank)
    return Transfer.of(videos, (lists[0], lists[1]), parsed.probe_every, cfg, device).measure


def _recipe(name: str) -> tuple[PretrainConfig, dict[str, Any]]:
    """A named recipe, or the settings of an earlier run and where its videos were."""
    path = Path(name)
    if name in recipes.recipes() or not (path.is_dir() or path.suffix in (".yaml", ".yml")):
        return recipes.recipe(name), {}
    if path.is_dir():
        path = path / "config.yaml"
    values = read_yaml(path)
    stored = {key: values.pop(key, None) for key in ("videos", "labels", "list", "split", "files")}
    return from_plain(PretrainConfig, values), stored


def _labels(file: Path, videos: Path) -> dict[str, str]:
    """Class by file stem, from a table or from a list as Kinetics and UCF101 publish them."""
    header = ""
    if file.is_file():
        with file.open(encoding="utf-8", errors="replace") as lines:
            header = lines.readline().strip()
    if not header or "video" in header.split(","):
        return read_labels(file)
    found, missing = match_files(read_clip_list(file), find_videos(videos))
    if missing:
        print(f"{len(missing)} videos of {file} are not in {videos}, such as {missing[0]}", file=sys.stderr)
    return {path.stem: label for path, label in found}
