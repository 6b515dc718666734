"""`uptal reproduce table1 … table7 | figure1 | tables`: the paper's tables on built-in corpora or one's own videos."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from uptal.commands.options import new_parser
from uptal.errors import ConfigError
from uptal.evidence.cells import Candidate, run_cells
from uptal.evidence.corpora import Corpus, Place, allow, corpus
from uptal.evidence.films import Films, draw_films
from uptal.evidence.folders import read_folder
from uptal.evidence.methods import Method
from uptal.evidence.printing import collect, print_result, write_files
from uptal.evidence.profiles import PROFILES, Profile, profile
from uptal.evidence.rows import rows
from uptal.evidence.tables import EXPERIMENTS, chosen


def main(name: str, arguments: list[str]) -> None:
    """Runs what is missing, then prints and writes all that has been measured; `tables` is all of them at once."""
    listed = "; ".join(each.title for each in EXPERIMENTS.values())
    parser = new_parser(
        f"reproduce {name}",
        (EXPERIMENTS[name].title if name in EXPERIMENTS else f"All of: {listed}")
        + ". What was measured before is not run again.",
    )
    parser.add_argument("--profile", default="smoke", help=f"{', '.join(PROFILES)}: how much is spent")
    parser.add_argument("--corpus", help="A, B, C, smoke or a folder with trimmed.csv and annotations.json; several "
                        "with commas; those of the profile when not given")  # fmt: skip
    parser.add_argument("--row", "--method", dest="row", help="rows to run and print, with commas; all when not given")
    parser.add_argument("--seeds", type=int, help="this many seeds, from --first-seed on; the profile's when not given")
    parser.add_argument("--first-seed", type=int, default=0, help="first seed")
    parser.add_argument("--pairs", type=int, help="region pairs in the place of the profile's")
    parser.add_argument("--minutes", type=float, help="stop after this time; the same command goes on from there")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run; several runs are better than threads")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw the corpus, once")
    parser.add_argument("--out", default="results", help="folder of the results, to be kept")
    parser.add_argument("--work", default="runs/reproduce", help="folder of drawn corpora and checkpoints")
    parser.add_argument("--only-print", action="store_true", help="run nothing")
    parsed = parser.parse_args(arguments)
    size = profile(parsed.profile)
    seeds = size.seeds if parsed.seeds is None else parsed.seeds
    if min(seeds, parsed.threads, parsed.pairs or 1) < 1 or parsed.first_seed < 0:
        raise ConfigError("--seeds, --threads and --pairs must be at least 1, --first-seed not negative.")
    if parsed.pairs is not None:
        size = replace(size, pairs=parsed.pairs, labelled=max(parsed.pairs, size.labelled))
    out, work = Path(parsed.out), Path(parsed.work)
    until = None if parsed.minutes is None else time.monotonic() + 60 * parsed.minutes
    torch.set_num_threads(parsed.threads)
    for place in parsed.corpus.split(",") if parsed.corpus else size.corpora:
        where, films = read_folder(Path(place)) if Path(place).is_dir() else (corpus(place), None)
        known = rows(where.size, where.batch, where.lr)
        named = [EXPERIMENTS[name]] if name in EXPERIMENTS else list(EXPERIMENTS.values())
        shown = {each.name: chosen(each, parsed.row, known) for each in named}
        needed: dict[str, list[str]] = {}
        for each in named:
            for line in shown[each.name]:
                needed.setdefault(line.method, []).extend(each.measures)
        if not parsed.only_print:
            for method in needed:
                allow(known[method], where)
            films = films or _drawn(where, work, parsed.workers)
            wanted = range(parsed.first_seed, parsed.first_seed + seeds)
            for one, measures in _candidates(where, known, needed, wanted, size):
                if not run_cells(one, films, measures, out / "tables", work, until):
                    print(f"{one.row.name}, seed {one.seed}: stopped and saved; the same command goes on from there")
                    break
        for each in named:
            result = collect(each, where, size, shown[each.name], known, out / "tables")
            print_result(result)
            print(f"written: {', '.join(str(file) for file in write_files(result, out))}\n")


def _candidates(
    where: Place, known: dict[str, Method], needed: dict[str, list[str]], seeds: range, size: Profile
) -> Iterator[tuple[Candidate, tuple[str, ...]]]:
    """Every row and its measures with the first seed, then with the next, so that an early end leaves whole tables."""
    for seed in seeds:
        for name, measures in needed.items():
            yield Candidate(where, known[name], seed, size), tuple(dict.fromkeys(measures))


def _drawn(where: Place, work: Path, workers: int) -> Films:
    assert isinstance(where, Corpus)
    return draw_films(where.config, where.split, work / "corpora", workers)
