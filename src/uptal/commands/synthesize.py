"""`uptal synthesize --out DIR`: the built-in corpus as real video files with exact annotations."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from uptal.commands.options import Parser, new_parser
from uptal.recipes.settings import from_plain
from uptal.synthetic import CorpusConfig, synthesize

_SHORT = {"num_trimmed": "--trimmed", "num_untrimmed": "--untrimmed"}


def main(arguments: list[str]) -> None:
    """Writes the corpus, or finishes one that was interrupted."""
    parser = new_parser("synthesize", "Writes videos of procedural actions (H.264) with exact annotations; resumable.")
    parser.add_argument("--out", required=True, help="folder of the corpus")
    parser.add_argument("--trimmed", type=int, dest="num_trimmed", help="trimmed videos, one action each")
    parser.add_argument("--untrimmed", type=int, dest="num_untrimmed", help="untrimmed videos with annotated instances")
    parser.add_argument("--workers", type=int, help="processes that draw and encode (default: all cores)")
    _add_knobs(parser)
    parsed = parser.parse_args(arguments)
    chosen = {name: value for name, value in vars(parsed).items() if name in asdict(CorpusConfig()) and value is not None}
    config = from_plain(CorpusConfig, chosen)
    synthesize(Path(parsed.out), config, workers=parsed.workers)
    print(f"{parsed.out}: {config.num_trimmed} trimmed and {config.num_untrimmed} untrimmed videos")


def _add_knobs(parser: Parser) -> None:
    """An option for every other setting of the corpus."""
    for name, value in asdict(CorpusConfig()).items():
        if name not in _SHORT:
            kind: Any = type(value) if isinstance(value, (int, float)) else tuple[type(value[0]), type(value[0])]
            parser.add_argument(f"--{name.replace('_', '-')}", dest=name, type=kind, help=f"see CorpusConfig (default: {value})")
