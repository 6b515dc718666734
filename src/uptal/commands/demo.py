"""`uptal demo`: the whole story on the built-in corpus; `uptal demo --videos DIR`: the label-free part on your own."""

from __future__ import annotations

from pathlib import Path

from uptal.commands.options import new_parser
from uptal.errors import ConfigError
from uptal.recipes.demo import demo
from uptal.recipes.demo_own import demo_videos


def main(arguments: list[str]) -> None:
    """Runs the demo and says where to look."""
    parser = new_parser(
        "demo", "Corpus, encoders, features, BMN on each, evaluation, one page. Some six minutes on two cores."
    )
    parser.add_argument("--out", default="demo", help="folder for everything")
    parser.add_argument(
        "--videos", help="folder of your own videos: features, similarity maps and a page, no labels needed"
    )
    parser.add_argument(
        "--full", action="store_true", help="full-size BMN, more videos, more steps; takes the time it needs"
    )
    parser.add_argument(
        "--weights", help="an encoder from elsewhere (folder or file of `uptal weights convert`): an extra row"
    )
    parser.add_argument(
        "--steps", type=int, help="with --videos: pre-train on them for so many steps (default: the shipped encoder)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of encoders and heads")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parsed = parser.parse_args(arguments)
    if parsed.videos and parsed.weights:
        raise ConfigError("--weights adds a row to the built-in demo's table; with --videos there is no table.")
    if parsed.videos and parsed.full:
        raise ConfigError("--full is for the built-in demo; with --videos, --steps says how long to pre-train.")
    if parsed.steps is not None and not parsed.videos:
        raise ConfigError("--steps is for your own videos: give --videos DIR; the built-in demo's steps are fixed.")
    if parsed.steps is not None and parsed.steps < 1:
        raise ConfigError(f"--steps is 1 or more, found {parsed.steps}; without it the shipped encoder is used.")
    if parsed.videos:
        demo_videos(Path(parsed.out), Path(parsed.videos), steps=parsed.steps, seed=parsed.seed, device=parsed.device)
    else:
        weights = Path(parsed.weights) if parsed.weights else None
        demo(Path(parsed.out), full=parsed.full, seed=parsed.seed, device=parsed.device, weights=weights)
