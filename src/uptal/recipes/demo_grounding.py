"""The demo's sentence: a small LGI on one encoder's features, and its answer to a sentence about a test video."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from uptal.annotations import read_queries
from uptal.features import FeatureStore
from uptal.recipes import lgi as recipes
from uptal.recipes.asking import replies_to, video_panel
from uptal.recipes.grounder_files import load_grounder
from uptal.recipes.grounding import train_grounder
from uptal.report import Column, Section, Table
from uptal.types import Query

STEPS = 150
"""Enough for the head to leave the mean interval behind; some ten seconds of a quiet CPU."""


def sentence(corpus: Path, store: Path, run: Path, *, seed: int, device: str) -> list[Section]:
    """Trains on the training sentences of the corpus, scores the test ones, and shows one.

    Args:
        corpus: Folder of the built-in corpus.
        store: Features of its untrimmed videos.
        run: Where the grounding run goes.
        seed: Of weights and order.
        device: `auto`, `cpu`, `cuda`.
    """
    cfg, sentences = recipes.small(), corpus / "queries.csv"
    training, test = (read_queries(sentences, subset) for subset in ("training", "validation"))
    batch = min(cfg.optim.batch, len(training))
    optim = replace(cfg.optim, batch=batch, lr_batch=batch, epochs=STEPS, max_steps=STEPS)
    cfg = replace(cfg, optim=optim, select="last", seed=seed, device=device)
    judged = run.parent / "test_queries.csv"
    judged.parent.mkdir(parents=True, exist_ok=True)
    keep_subset(sentences, judged, "validation")
    if not train_grounder(cfg, store, sentences, run, test=judged).finished:
        raise KeyboardInterrupt
    scores = json.loads((run / "selection.json").read_text("utf-8"))["test"]["last"]
    chosen = example(test)
    grounder, read = load_grounder(run), FeatureStore(store).read(chosen.video)
    replies = replies_to(grounder, read, (), [chosen])
    table = Table(
        title="Can it be asked in words?",
        columns=["Test sentences", *(Column(f"R@1 at {at}") for at in ("0.3", "0.5", "0.7")), Column("mIoU")],
        rows=[[f"{len(test)}", *(100 * scores["R@1"][at] for at in ("0.3", "0.5", "0.7")), 100 * scores["mIoU"]]],
        note=f"A small LGI, {STEPS} steps on {len(training)} sentences, on features of {store.name}; per cent. One "
        "seed. Below: one test video and sentence, annotated (green) and found.",
    )
    return [table, video_panel(corpus / "untrimmed" / f"{chosen.video}.mp4", read, replies), replies[0].shown]


def example(queries: list[Query]) -> Query:
    """The longest sentence, the first of several: it says most."""
    return max(queries, key=lambda query: len(query.sentence.split()))


def keep_subset(source: Path, target: Path, subset: str) -> None:
    """A table of queries with the rows of one subset; the subset is its last column."""
    head, *rows = source.read_text("utf-8").splitlines(keepends=True)
    target.write_text("".join([head, *(row for row in rows if row.rstrip().endswith(f",{subset}"))]), "utf-8")
