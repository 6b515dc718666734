"""`uptal train bmn|…|lgi --features STORE --annotations FILE --run RUN`: features and annotations in, a localizer out.

What `lgi` takes beside that stands in `train_lgi`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from uptal.commands import train_lgi
from uptal.commands.options import add_settings, describe, new_parser, take_settings, wanted_recipe
from uptal.errors import ConfigError
from uptal.recipes import heads
from uptal.recipes.localize import train_localizer


def main(arguments: list[str]) -> None:
    """Trains a localizer, or goes on with a run that was interrupted."""
    if arguments[:1] == ["lgi"]:
        return train_lgi.main(arguments)
    localizer = arguments[0] if arguments and not arguments[0].startswith("-") else next(iter(heads.RECIPES))
    if localizer not in heads.RECIPES:
        raise ConfigError(f"There is no localizer {localizer!r}. Localizers: {', '.join(heads.RECIPES)}, lgi.")
    recipes = heads.RECIPES[localizer]
    defaults = heads.recipe(localizer, wanted_recipe(arguments, localizer, heads.RECIPES[localizer]))
    parser = new_parser(
        "train",
        "Trains a localizer on stored features; its run folder alone runs `uptal detect`. A fourth one, lgi, finds "
        "sentences: `uptal train lgi --help`.",
    )
    parser.add_argument("localizer", choices=list(heads.RECIPES), help="which localizer")
    parser.add_argument("--features", required=True, help="feature store made by `uptal extract`")
    parser.add_argument("--annotations", required=True, help="ActivityNet JSON, CSV video,start,end,label, and others")
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--recipe", choices=list(recipes), default=next(iter(recipes)), help="settings to start from")
    parser.add_argument("--small", action="store_true", help="short for --recipe small")
    parser.add_argument("--init", help="checkpoint of the localizer's public code to start from (bmn, gtad)")
    add_settings(parser, defaults)
    parsed = parser.parse_args(arguments)
    if parsed.localizer != localizer:
        raise ConfigError(
            f"The localizer comes first: uptal train {parsed.localizer} --features STORE --annotations FILE --run RUN. "
            f"Its settings are options of their own, which cannot be known when {parsed.localizer} stands later."
        )
    cfg = take_settings(parsed, heads.settings_class(localizer))
    init = Path(parsed.init) if parsed.init else None
    outcome = train_localizer(cfg, Path(parsed.features), Path(parsed.annotations), Path(parsed.run), init)
    print(describe(outcome, parsed.run), file=sys.stdout if outcome.finished else sys.stderr)
