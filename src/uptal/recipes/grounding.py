"""From a feature store and annotated sentences to an LGI that stands alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uptal.checkpoint import best_facts
from uptal.distributed import World
from uptal.encoders.weights import read_tensors
from uptal.errors import ConfigError
from uptal.features import FeatureStore
from uptal.files import atomic_write, digest
from uptal.localizers.lgi import LGI
from uptal.localizers.lgi_task import GroundingData, GroundingTask, QueryBatcher, VideoFeatures, split_held_out
from uptal.localizers.queries import Vocabulary, table_words, tokens, word_vectors
from uptal.localizers.text import Text, VocabularyText, read_encoder
from uptal.recipes.evaluating_grounding import check_located, score
from uptal.recipes.grounder_files import copy_encoder_text, save_grounder, text_digest
from uptal.recipes.lgi import LGISettings
from uptal.recipes.questions import answer, read_questions
from uptal.run import RunFolder, plain
from uptal.train import Outcome, choose_device, fit
from uptal.types import Query


def train_grounder(
    cfg: LGISettings,
    features: Path,
    annotations: Path,
    run_path: Path,
    *,
    durations: Sequence[Path] = (),
    test: Path | None = None,
) -> Outcome:
    """Trains an LGI and leaves everything that `ground` and `predict` need in the run folder.

    Args:
        cfg: The whole run.
        features: Feature store.
        annotations: Training sentences.
        run_path: Run folder; a run that is already there goes on where it was.
        durations: Tables with the seconds of videos, for annotations that do not give them.
        test: Sentences to report the chosen and the last epoch on at the end, and to choose by with `select test`.

    Raises:
        AnnotationError: Annotations and store share no video. ConfigError: Settings that cannot be used.
    """
    if cfg.select == "test" and test is None:
        raise ConfigError("--select test chooses the epoch by the test set: give --test FILE.")
    device, store, run = choose_device(cfg.device), FeatureStore(features), RunFolder(run_path)
    asked = read_questions(annotations, store, cfg.subset, durations)
    tested = None if test is None else read_questions(test, store, None, durations)
    for note in (asked.describe("training queries"), tested.describe("test queries") if tested else ""):
        print(note, end="\n" * bool(note), file=sys.stderr)
    check_located(asked.present, str(annotations))
    training, held_out = split_held_out(asked.present, cfg.held_out if cfg.select == "held-out" else 0.0, cfg.seed)
    if cfg.select == "held-out" and not (training and held_out):
        raise ConfigError(
            f"held_out {cfg.held_out} of {len({q.video for q in asked.present})} videos leaves {len(training)} queries "
            f"to train on and {len(held_out)} to choose by. Use another share, or --select last."
        )
    judges = tested.present if tested is not None and cfg.select == "test" else held_out
    with run.locked():
        text = build_text(cfg, training)
        cfg = _fit_to(cfg, store.width, text)
        run.write_config({"localizer": "lgi"} | plain(cfg) | _origin(cfg, store, annotations, durations, test))
        run.write_environment(device=str(device), queries=len(training), held_out=len(held_out), missing=asked.missing)
        torch.manual_seed(cfg.seed)
        task = GroundingTask(_build(cfg, text)).to(device)
        reader = VideoFeatures(store, cfg.memory_mib)
        batcher = QueryBatcher(text, reader, cfg.lgi.num_segments, cfg.clock)
        data = GroundingData(batcher, training, cfg.optim.part(1), cfg.seed, judges)
        outcome = fit(task, data, cfg.optim, run, device=device, world=World(0, 1, 0))
        last = {key: value.clone() for key, value in task.model.state_dict().items()}
        chosen, record = _choose(cfg, run, last, outcome)
        for name, some in (("held_out", held_out), ("test", tested.all if tested else [])):
            for which, weights in (("selected", chosen), ("last", last)) if some else ():
                task.model.load_state_dict(weights)
                record.setdefault(name, {})[which] = score(some, answer(task.model.eval(), batcher, some, store))
        counts = {"training": len(training), "held_out": len(held_out)}
        record["queries"] = counts | {"missing": len(asked.all) - len(asked.present)}
        if cfg.text.encoder and cfg.text.kind == "encoder":
            copy_encoder_text(Path(cfg.text.encoder), run_path)
        save_grounder(run_path, chosen, last, text, cfg, store)
        with atomic_write(run_path / "selection.json") as out:
            json.dump(record, out, indent=1)
    return outcome


def build_text(cfg: LGISettings, training: Sequence[Query]) -> Text:
    """The text side for training sentences.

    Raises:
        AnnotationError: The word vectors cannot be read. ConfigError: The language model cannot.
    """
    text = cfg.text
    if text.kind == "encoder":
        return read_encoder(str(text.encoder), text.max_words)
    vocabulary = Vocabulary.of([query.sentence for query in training], text.min_count)
    if text.kind == "vectors":
        known = set(vocabulary.words)
        more = [word for word in table_words(str(text.vectors), text.extra_words) if word not in known]
        vocabulary = Vocabulary((*vocabulary.words, *(word for word in more if tokens(word) == (word,))))
    return VocabularyText(vocabulary, text.max_words)


def describe_selection(run: Path) -> str:
    """What was chosen and how good it is, in a few lines, from a finished run."""
    record = json.loads((run / "selection.json").read_text("utf-8"))
    lines = [record["rule"]]
    for name in ("held_out", "test"):
        for which, scores in record.get(name, {}).items():
            recall = ", ".join(f"{at}: {100 * value:.1f}" for at, value in scores["R@1"].items())
            lines.append(f"{name.replace('_', '-')}, {which} epoch: R@1 at {recall}; mIoU {100 * scores['mIoU']:.1f} %")
    return "\n".join(lines)


def _choose(
    cfg: LGISettings, run: RunFolder, last: dict[str, Tensor], outcome: Outcome
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights of the chosen epoch and what is known of the choice."""
    if cfg.select == "last" or not run.best.exists():
        return last, {"select": "last", "rule": "The last epoch; nothing was selected."}
    value, epoch = best_facts(run.best)
    stored = read_tensors(run.best)
    where = f"on held-out training videos ({cfg.held_out:.0%})"
    if cfg.select == "test":
        where = (
            "ON THE TEST SET, as the public code does: the test numbers of this epoch are the best of as many looks at "
            "it as there were epochs, and not comparable with the last epoch's or with those of a held-out selection"
        )
    rule = f"Epoch {epoch}, by the highest R@1 at 0.5 ({100 * value:.1f} %) {where}."
    record = {"select": cfg.select, "rule": rule, "epoch": epoch, "steps": outcome.steps}
    return {key.removeprefix("model."): value for key, value in stored.items()}, record


def _fit_to(cfg: LGISettings, width: int, text: Text) -> LGISettings:
    """The settings with the widths of features and words, and with the best epoch kept where one is to be chosen."""
    words = getattr(text, "width", cfg.lgi.word_width)
    if cfg.text.kind == "vectors" and isinstance(text, VocabularyText):
        words = word_vectors(str(cfg.text.vectors), text.vocabulary).shape[1]
    net = replace(cfg.lgi, in_channels=width, vocabulary=text.vocabulary_size, word_width=words)
    return replace(cfg, lgi=net, optim=replace(cfg.optim, keep_best=cfg.select != "last"))


def _build(cfg: LGISettings, text: Text) -> LGI:
    model = LGI(cfg.lgi)
    if cfg.text.kind == "vectors" and isinstance(text, VocabularyText):
        table = model.query_enc.embedding.weight
        table.data.copy_(word_vectors(str(cfg.text.vectors), text.vocabulary))
        table.requires_grad_(cfg.text.learn_vectors)
    return model


def _origin(
    cfg: LGISettings, store: FeatureStore, annotations: Path, durations: Sequence[Path], test: Path | None
) -> dict[str, Any]:
    """Where features and sentences were, and what was in them: others would be another run."""
    facts: dict[str, Any] = {
        "features": str(store.path.resolve()),
        "features_sha256": store.digest(),
        "annotations": str(annotations.resolve()),
        "annotations_sha256": digest(annotations),
        "durations_sha256": [digest(path) for path in durations],
        "test_sha256": None if test is None else digest(test),
    }
    if cfg.text.kind == "vectors":
        facts["vectors_sha256"] = digest(str(cfg.text.vectors))
    if cfg.text.kind == "encoder":
        facts["text_encoder_sha256"] = text_digest(Path(str(cfg.text.encoder)))
    return facts
