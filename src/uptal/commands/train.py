"""`uptal train bmn --features STORE --annotations FILE --run RUN`: features and annotations in, a localizer out."""

from __future__ import annotations

import sys
from pathlib import Path

from uptal.commands.options import add_settings, describe, new_parser, take_settings
from uptal.errors import ConfigError
from uptal.recipes.localize import LocalizeConfig, small, train_bmn

LOCALIZERS = ("bmn",)


def main(arguments: list[str]) -> None:
    """Trains a localizer, or goes on with a run that was interrupted."""
    if arguments and not arguments[0].startswith("-") and arguments[0] not in LOCALIZERS:
        raise ConfigError(f"There is no localizer {arguments[0]!r}. Localizers: {', '.join(LOCALIZERS)}.")
    defaults = small(LocalizeConfig()) if "--small" in arguments else LocalizeConfig()
    parser = new_parser("train", "Trains a localizer on stored features; its run folder alone runs `uptal detect`.")
    parser.add_argument("localizer", choices=LOCALIZERS, help="which localizer")
    parser.add_argument("--features", required=True, help="feature store made by `uptal extract`")
    parser.add_argument("--annotations", required=True, help="ActivityNet JSON, or CSV video,start,end,label")
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--small", action="store_true", help="a reduced network for short videos and few cores")
    add_settings(parser, defaults)
    parsed = parser.parse_args(arguments)
    cfg = take_settings(parsed, LocalizeConfig)
    outcome = train_bmn(cfg, Path(parsed.features), Path(parsed.annotations), Path(parsed.run))
    print(describe(outcome, parsed.run), file=sys.stdout if outcome.finished else sys.stderr)
