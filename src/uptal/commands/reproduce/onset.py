"""`uptal reproduce onset`: transfer against region pairs seen, on the built-in corpora; every number kept in a file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from uptal.commands.options import new_parser, read_changes
from uptal.errors import ConfigError
from uptal.evidence.corpora import Corpus, allow, corpus
from uptal.evidence.curves import onset_svg
from uptal.evidence.films import draw_films
from uptal.evidence.measures import by_heads
from uptal.evidence.methods import Method, method, methods, warm_start
from uptal.evidence.results import read_runs
from uptal.evidence.study import Study, budgets, run_study
from uptal.evidence.summary import collect, markdown, print_summary
from uptal.files import atomic_write


def main(arguments: list[str]) -> None:
    """Runs what is missing, then prints all that has been measured."""
    parser = new_parser(
        "reproduce onset", "Transfer against region pairs seen; what was measured before is not run again."
    )
    parser.add_argument("--corpus", default="B", help="A, B or C (uptal.synthetic.frozen); smoke to try things")
    parser.add_argument("--method", default="all", help=f"{', '.join(methods(32))}; several with commas, or all")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another setting of the methods, such as head.ft_last_relu=false; may be repeated",
    )
    parser.add_argument(
        "--warm", metavar="METHOD@PAIRS", help="start from the encoder of another row, such as moco@16000, same seed"
    )
    parser.add_argument("--seeds", type=int, default=1, help="this many seeds, from --first-seed on")
    parser.add_argument("--first-seed", type=int, default=0, help="first seed")
    parser.add_argument("--pairs", type=int, default=8000, help="largest number of region pairs")
    parser.add_argument("--at", metavar="PAIRS,...", help="these budgets; without, 2000, 4000, 8000 ... up to --pairs")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="where to train; rows of a GPU have files of their own"
    )
    parser.add_argument(
        "--train-only", action="store_true", help="measure nothing; the same command without it measures what was kept"
    )
    parser.add_argument(
        "--heads", action="store_true", help="also train BMN and G-TAD on the features of every budget: half a minute"
    )
    parser.add_argument("--minutes", type=float, help="stop after this time; the same command goes on from there")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run; several runs are better than threads")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw the corpus, once")
    parser.add_argument("--out", default="results", help="folder of the results, to be kept")
    parser.add_argument("--work", default="runs/reproduce", help="folder of drawn corpora and checkpoints")
    parser.add_argument("--only-print", action="store_true", help="run nothing")
    parser.add_argument(
        "--table", type=int, metavar="PAIRS", help="print what --method has at this budget as Markdown, and no more"
    )
    parser.add_argument("--figure", help="also draw what --method has, as an SVG file")
    parser.add_argument(
        "--rows", metavar="NAME;...", help="other rows for --table and --figure, by their names in the results"
    )
    parsed = parser.parse_args(arguments)
    if min(parsed.seeds, parsed.pairs, parsed.threads) < 1:
        raise ConfigError("--seeds, --pairs and --threads must be at least 1.")
    out, work = Path(parsed.out) / "onset", Path(parsed.work)
    where = corpus(parsed.corpus)
    known = methods(where.config.shape[0], where.batch, where.lr)
    names = list(known) if parsed.method == "all" else parsed.method.split(",")
    rows = [_on(parsed.device, method(name, known, read_changes(parsed.set, "--set"))) for name in names]
    if parsed.warm:
        starts = {name: _on(parsed.device, row) for name, row in known.items()}
        rows = [warm_start(row, parsed.warm, starts) for row in rows]
    wanted = _budgets(parsed.at) if parsed.at else budgets(parsed.pairs)
    if parsed.table is not None:
        parsed.only_print = True
    chosen = () if parsed.method == "all" else [row.name for row in rows]
    if parsed.rows:
        if parsed.table is None and not parsed.figure:
            raise ConfigError("--rows says what --table or --figure shows: give one of them.")
        chosen = _measured(parsed.rows.split(";"), out, where)
    for row in rows if not parsed.only_print else ():
        allow(row, where)
        if row.warm is not None:
            allow(row.warm.row, where)
    if not parsed.only_print:
        torch.set_num_threads(parsed.threads)
        films = draw_films(where.config, where.split, work / "corpora", parsed.workers)
        heads = by_heads if parsed.heads else None
        until = None if parsed.minutes is None else time.monotonic() + 60 * parsed.minutes
        seeds = range(parsed.first_seed, parsed.first_seed + parsed.seeds)
        for study in (Study(where, row, seed) for seed in seeds for row in rows):
            _, complete = run_study(study, films, wanted, out, work, until, not parsed.train_only, heads)
            if not complete:
                print(f"{study.row.name}, seed {study.seed}: stopped and saved; the same command goes on from there")
                break
    if parsed.table is None:
        print_summary(out, where)
    else:
        print(markdown(collect(read_runs(out), where), parsed.table, rows=chosen))
    if parsed.figure:
        _draw(Path(parsed.figure), out, where, chosen)


def _measured(rows: Sequence[str], out: Path, where: Corpus) -> Sequence[str]:
    """The rows, if there are results of all of them."""
    there = sorted({name for name, _ in collect(read_runs(out), where)})
    missing = [name for name in rows if name not in there]
    if missing:
        raise ConfigError(
            f"{out}: nothing of {', '.join(missing)} has been measured on corpus {where.name}. There are "
            f"{'; '.join(there) or 'no rows'}."
        )
    return rows


def _draw(file: Path, out: Path, where: Corpus, rows: Sequence[str]) -> None:
    """The figure of some rows, or of all."""
    points = {key: seeds for key, seeds in collect(read_runs(out), where).items() if not rows or key[0] in rows}
    if not points:
        raise ConfigError(f"{out}: nothing of corpus {where.name} has been measured yet, so there is nothing to draw.")
    with atomic_write(file) as picture:
        picture.write(onset_svg(points, f"Corpus {where.name}: transfer against region pairs seen, equal clips"))


def _budgets(text: str) -> list[int]:
    """`2000,8000` as numbers, rising."""
    try:
        found = sorted({int(word) for word in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise ConfigError(f"--at expects numbers of region pairs, such as 2000,8000, found {text!r}.")
    return found


def _on(device: str, row: Method) -> Method:
    """The row, trained there."""
    if row.kind != "trained" or row.config is None:
        return row
    return replace(row, config=replace(row.config, device=device))
