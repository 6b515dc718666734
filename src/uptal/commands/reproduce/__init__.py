"""`uptal reproduce EXPERIMENT`: the paper's experiments, as far as this machine can run them."""

from __future__ import annotations

import importlib

from uptal.commands.options import new_parser

TABLES = {
    "table1": "detection and proposals",
    "table2": "grounding",
    "table3": "designs of PAL",
    "table4": "layers of the temporal head",
    "table5": "blend ratios",
    "table6": "detection in windows",
    "table7": "classification",
    "figure1": "localization beside classification",
    "tables": "all of these",
}
"""What runs by one pattern (`uptal.evidence.tables`)."""
EXPERIMENTS = TABLES | {
    "onset": "transfer against region pairs seen, on the built-in corpora",
    "real": "encoders trained on folders of real clips without labels, and how they tell them apart",
    "segments": "what label-free segments find of annotated instances, beside controls",
    "figure3": "similarity maps of a video whose action moves and changes speed, for any encoders",
}
"""What can be reproduced."""


def main(arguments: list[str]) -> None:
    """Hands over to the experiment."""
    if arguments and arguments[0] in TABLES:
        return importlib.import_module("uptal.commands.reproduce.tables").main(arguments[0], arguments[1:])
    if arguments and arguments[0] in EXPERIMENTS:
        return importlib.import_module(f"uptal.commands.reproduce.{arguments[0]}").main(arguments[1:])
    listed = "; ".join(f"{name}: {text}" for name, text in EXPERIMENTS.items())
    parser = new_parser("reproduce", f"The paper's experiments. {listed}. `uptal reproduce NAME --help` lists options.")
    parser.add_argument("experiment", choices=list(EXPERIMENTS), help="what to reproduce")
    parser.parse_args(arguments)
    return None
