"""`uptal synthesize --out DIR`: the built-in corpus as real video files with exact annotations."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from uptal.commands.options import new_parser
from uptal.errors import ConfigError
from uptal.recipes.settings import from_plain
from uptal.synthetic import CorpusConfig, synthesize


def main(arguments: list[str]) -> None:
    """Writes the corpus, or finishes one that was interrupted."""
    parser = new_parser("synthesize", "Writes videos of procedural actions (H.264) with exact annotations; resumable.")
    parser.add_argument("--out", required=True, help="folder of the corpus")
    default = CorpusConfig()
    parser.add_argument(
        "--trimmed", type=int, dest="num_trimmed", default=default.num_trimmed, help="trimmed videos, one action each"
    )
    parser.add_argument(
        "--untrimmed", type=int, dest="num_untrimmed", default=default.num_untrimmed,
        help="untrimmed videos with annotated instances and gaps between them",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, help="processes that draw and encode; all cores when not given")
    parser.add_class_arguments(CorpusConfig, as_group=True, skip={"num_trimmed", "num_untrimmed"})
    parsed = parser.parse_args(arguments)
    values = parsed.as_dict()
    try:
        config = from_plain(CorpusConfig, {name: values[name] for name in asdict(default)})
    except ConfigError as error:
        raise ConfigError(_by_options(str(error))) from error
    synthesize(Path(parsed.out), config, workers=parsed.workers)
    print(f"{parsed.out}: {config.num_trimmed} trimmed and {config.num_untrimmed} untrimmed videos")


def _by_options(said: str) -> str:
    """An error that names settings, with the options of this command in their place."""
    for name in ("trimmed", "untrimmed"):
        said = said.replace(f"CorpusConfig.num_{name} ", f"--{name} ")
    return said.replace("CorpusConfig.", "--")
