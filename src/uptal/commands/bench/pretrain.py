"""`uptal bench pretrain RECIPE`: samples, clips and FLOPs a second of a recipe on this device, and what limits it."""

from __future__ import annotations

import json
from pathlib import Path

from uptal.commands.options import add_settings, new_parser, take_settings
from uptal.errors import ConfigError
from uptal.files import atomic_write
from uptal.recipes import pretrain as recipes
from uptal.recipes.listing import video_list
from uptal.recipes.measuring import measure
from uptal.recipes.pretrain import PretrainConfig
from uptal.recipes.waiting import describe_wait
from uptal.run import environment


def main(arguments: list[str]) -> None:
    """Measures some steps and prints what they took."""
    named = bool(arguments) and not arguments[0].startswith("-")
    defaults = recipes.recipe(arguments[0]) if named else recipes.paper()
    if "--small" in arguments:
        defaults = recipes.small(defaults)
    parser = new_parser(
        "bench pretrain", f"Measures a recipe on this machine. Recipes: {', '.join(recipes.recipes())}."
    )
    parser.add_argument("recipe", help="name of a recipe")
    parser.add_argument("--videos", help="folder of videos; without, the device is measured alone, on noise")
    parser.add_argument("--list", help="use only the videos that this file names, as `uptal pretrain` does")
    parser.add_argument("--split", help="use only these lines of --list: train, val or test")
    parser.add_argument("--steps", type=int, default=10, help="steps to measure, after two that are not")
    parser.add_argument("--small", action="store_true", help="the recipe's twin for a laptop")
    parser.add_argument("--profile", action="store_true", help="also tell which operations a step's time goes into")
    parser.add_argument("--json", help="write the numbers to a file, with the machine that they are of")
    add_settings(parser, defaults)
    parsed = parser.parse_args(arguments)
    videos = Path(parsed.videos) if parsed.videos else None
    if parsed.list and videos is None:
        raise ConfigError("--list names videos of a folder: give it as --videos.")
    chosen = video_list(parsed.list, parsed.split)
    found = measure(take_settings(parsed, PretrainConfig), videos, parsed.steps, parsed.profile, chosen)
    if parsed.json:
        with atomic_write(parsed.json) as out:
            json.dump({"recipe": parsed.recipe, **found, "environment": environment()}, out, indent=1)
    operations = found.pop("operations", [])
    for key, value in found.items():
        print(f"{key:<24}{value}")
    if parsed.videos:
        print(describe_wait(found["data_wait"]))
    for one in operations:
        print(f"{one['share']:7.1%}{one['ms']:12.3f} ms{one['calls']:7d} x  {one['name']}")
