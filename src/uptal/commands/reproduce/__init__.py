"""`uptal reproduce EXPERIMENT`: the paper's experiments, as far as this machine can run them."""

from __future__ import annotations

import importlib

from uptal.commands.options import new_parser
from uptal.errors import ConfigError

EXPERIMENTS = {
    "onset": "transfer against region pairs seen, on the built-in corpora",
    "figure3": "similarity maps of a video whose action moves and changes speed, for any encoders",
}
"""What can be reproduced."""
_PLANNED = (*(f"table{number}" for number in range(1, 8)), "figure1")


def main(arguments: list[str]) -> None:
    """Hands over to the experiment."""
    if arguments and arguments[0] in EXPERIMENTS:
        return importlib.import_module(f"uptal.commands.reproduce.{arguments[0]}").main(arguments[1:])
    if arguments and arguments[0] in _PLANNED:
        raise ConfigError(
            f"{arguments[0]} is not one command yet. Its rows are recipes of `uptal pretrain`, its heads `uptal train` "
            f"and its metrics `uptal evaluate` (docs/paper.md). There are: {', '.join(EXPERIMENTS)}."
        )
    listed = "; ".join(f"{name}: {text}" for name, text in EXPERIMENTS.items())
    parser = new_parser("reproduce", f"The paper's experiments. {listed}. `uptal reproduce NAME --help` lists options.")
    parser.add_argument("experiment", choices=list(EXPERIMENTS), help="what to reproduce")
    parser.parse_args(arguments)
    return None
