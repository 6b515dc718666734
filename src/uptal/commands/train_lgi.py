"""`uptal train lgi --features STORE --annotations FILE --run RUN`: features and sentences in, a grounding run out."""

from __future__ import annotations

import sys
from pathlib import Path

from uptal.commands.options import add_settings, describe, new_parser, take_settings, wanted_recipe
from uptal.recipes.grounding import describe_selection, train_grounder
from uptal.recipes.lgi import RECIPES, LGISettings


def main(arguments: list[str]) -> None:
    """Trains an LGI, or goes on with a run that was interrupted; `arguments` begin with `lgi`."""
    defaults = RECIPES[wanted_recipe(arguments, "lgi", RECIPES) or next(iter(RECIPES))]()
    parser = new_parser("train", "Trains LGI on stored features; its run folder alone runs `uptal ground`.")
    parser.add_argument("localizer", choices=["lgi"], help="video grounding")
    parser.add_argument("--features", required=True, help="feature store made by `uptal extract`")
    parser.add_argument(
        "--annotations",
        required=True,
        help="Charades-STA, ActivityNet Captions, or CSV video,start,end,sentence",
    )
    parser.add_argument(
        "--durations", nargs="+", default=[], help="CSV id,length, such as Charades_v1_train.csv Charades_v1_test.csv"
    )
    parser.add_argument("--test", help="sentences to report the chosen and the last epoch on, and for --select test")
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--recipe", choices=list(RECIPES), default=next(iter(RECIPES)), help="settings to start from")
    parser.add_argument("--small", action="store_true", help="short for --recipe small")
    add_settings(parser, defaults)
    parsed = parser.parse_args(arguments)
    outcome = train_grounder(
        take_settings(parsed, LGISettings),
        Path(parsed.features),
        Path(parsed.annotations),
        Path(parsed.run),
        durations=[Path(path) for path in parsed.durations],
        test=None if parsed.test is None else Path(parsed.test),
    )
    print(describe(outcome, parsed.run), file=sys.stdout if outcome.finished else sys.stderr)
    print(describe_selection(Path(parsed.run)))
