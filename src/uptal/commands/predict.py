"""`uptal predict RUN --features STORE --out FILE`: stored features in, a submission file out."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from uptal.annotations import (
    Answer,
    read_annotations,
    read_class_scores,
    scores_of,
    write_detections,
    write_groundings,
)
from uptal.commands.options import new_parser
from uptal.errors import ConfigError
from uptal.features import FeatureStore
from uptal.localizers.lgi_task import VideoFeatures
from uptal.recipes import heads
from uptal.recipes.grounder_files import is_grounder, load_grounder
from uptal.recipes.localizer_files import Localizer, load_localizer
from uptal.recipes.predicting import check_store, classes_from, origin, predict, read_all
from uptal.recipes.questions import answer, read_questions
from uptal.train import choose_device


def main(arguments: list[str]) -> None:
    """Writes what `uptal evaluate --found` reads."""
    parser = new_parser("predict", "Detections or proposals for the videos of a store, as ActivityNet submission JSON.")
    parser.add_argument("run", help="run folder of `uptal train`")
    parser.add_argument("--features", required=True, help="feature store")
    parser.add_argument("--annotations", help="only the videos that stand in this file; lgi: sentences")
    parser.add_argument("--subset", help="only the videos of this subset of --annotations, such as validation")
    parser.add_argument("--proposals", action="store_true", help="segments without classes")
    parser.add_argument(
        "--class-scores",
        help="class scores of each video from another classifier, instead of the run's own: CUHK JSON, UntrimmedNet "
        ".npy, or CSV video,label,score",
    )
    parser.add_argument("--top-classes", type=int, help="classes written out for every proposal (default: the run's)")
    parser.add_argument("--durations", nargs="+", default=[], help="lgi: CSV id,length for --annotations without them")
    parser.add_argument("--last", action="store_true", help="lgi: the last epoch instead of the chosen one")
    parser.add_argument("--device", default="auto", help="where the localizer runs: auto, cpu, cuda, cuda:1")
    parser.add_argument("--out", required=True, help="JSON file to write; JSON lines for an lgi run")
    parsed = parser.parse_args(arguments)
    if is_grounder(Path(parsed.run)):
        return _ground(parsed)
    return _detect(parsed)


def _detect(parsed: Any) -> None:
    """Detections or proposals with a run of any other localizer."""
    if parsed.subset and not parsed.annotations:
        raise ConfigError("--subset names a part of the annotations: give --annotations FILE too.")
    if parsed.proposals and (parsed.class_scores or parsed.top_classes is not None):
        raise ConfigError("--proposals are written without classes: leave --class-scores and --top-classes out.")
    if parsed.durations or parsed.last:
        raise ConfigError("--durations and --last are for runs of `uptal train lgi`; leave them out.")
    localizer = load_localizer(Path(parsed.run))
    if parsed.top_classes is not None and heads.names_classes(localizer.settings) and not parsed.class_scores:
        raise ConfigError(
            f"{parsed.run} finds every segment for a class of its own, so there are no others to write it with: leave "
            "--top-classes out, or give class scores that take the place of its classes with --class-scores FILE."
        )
    localizer = _with_classes(localizer, parsed.top_classes)
    store = FeatureStore(parsed.features)
    check_store(localizer, store)
    localizer.model.to(choose_device(parsed.device))
    ids = store.ids
    if parsed.annotations:
        ids = list(read_annotations(parsed.annotations, parsed.subset))
    features = read_all(store, ids)
    scores = read_class_scores(parsed.class_scores) if parsed.class_scores else None
    found = predict(
        localizer,
        features,
        proposals_only=parsed.proposals,
        class_scores=None if scores is None else scores_of(scores, [read.id for read in features]),
    )
    external = f"class scores from {Path(parsed.class_scores).name}" if parsed.class_scores else None
    classes = None if parsed.proposals else classes_from(localizer, parsed.class_scores)
    about = origin(localizer, classes, store)
    write_detections(parsed.out, found, about=about, external=external)
    print(f"{parsed.out}: {sum(map(len, found.values()))} segments in {len(found)} videos")
    missing = [id for id in ids if id not in found]
    if missing:
        named = ", ".join(missing[:8]) + (" …" if len(missing) > 8 else "")
        print(f"{len(missing)} of {len(ids)} videos have no features in {parsed.features}: {named}", file=sys.stderr)


def _with_classes(localizer: Localizer, top_classes: int | None) -> Localizer:
    if top_classes is None:
        return localizer
    if top_classes < 1:
        raise ConfigError(f"--top-classes expects a number of at least 1, found {top_classes}.")
    return dataclasses.replace(localizer, settings=dataclasses.replace(localizer.settings, top_classes=top_classes))


def _ground(parsed: Any) -> None:
    """Answers sentences with a run of `uptal train lgi`."""
    if not parsed.annotations:
        raise ConfigError(f"{parsed.run} answers sentences: give --annotations FILE with videos and sentences.")
    if parsed.proposals or parsed.class_scores or parsed.top_classes is not None:
        raise ConfigError(
            f"{parsed.run} answers sentences and knows no classes: leave --proposals, --class-scores and --top-classes "
            "out."
        )
    grounder, store = load_grounder(Path(parsed.run), last=parsed.last), FeatureStore(parsed.features)
    check_store(grounder, store)
    grounder.model.to(choose_device(parsed.device))
    asked = read_questions(Path(parsed.annotations), store, parsed.subset, [Path(path) for path in parsed.durations])
    found = answer(grounder.model, grounder.batcher(VideoFeatures(store)), asked.present)
    pairs = zip(asked.present, found, strict=True)
    write_groundings(parsed.out, [Answer(q.video, q.sentence, each) for q, each in pairs if each is not None])
    print(f"{parsed.out}: answers to {len(asked.present)} queries")
    note = asked.describe("queries")
    print(note, end="\n" * bool(note), file=sys.stderr)
