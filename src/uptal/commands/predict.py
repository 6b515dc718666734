"""`uptal predict RUN --features STORE --out FILE`: stored features in, a submission file out."""

from __future__ import annotations

import sys
from pathlib import Path

from uptal.annotations import read_annotations, write_detections
from uptal.commands.options import new_parser
from uptal.errors import ConfigError
from uptal.features import FeatureStore
from uptal.recipes.localize import check_store, load_localizer, predict, read_all


def main(arguments: list[str]) -> None:
    """Writes what `uptal evaluate --found` reads."""
    parser = new_parser("predict", "Detections or proposals for the videos of a store, as ActivityNet submission JSON.")
    parser.add_argument("run", help="run folder of `uptal train`")
    parser.add_argument("--features", required=True, help="feature store")
    parser.add_argument("--annotations", help="only the videos that stand in this file")
    parser.add_argument("--subset", help="only the videos of this subset of --annotations, such as validation")
    parser.add_argument("--proposals", action="store_true", help="segments without classes")
    parser.add_argument("--out", required=True, help="JSON file to write")
    parsed = parser.parse_args(arguments)
    if parsed.subset and not parsed.annotations:
        raise ConfigError("--subset names a part of the annotations: give --annotations FILE too.")
    localizer, store = load_localizer(Path(parsed.run)), FeatureStore(parsed.features)
    check_store(localizer, store)
    ids = store.ids
    if parsed.annotations:
        ids = list(read_annotations(parsed.annotations, parsed.subset))
    features = read_all(store, ids)
    found = predict(localizer, features, proposals_only=parsed.proposals)
    write_detections(parsed.out, found)
    print(f"{parsed.out}: {sum(map(len, found.values()))} segments in {len(found)} videos")
    missing = [id for id in ids if id not in found]
    if missing:
        named = ", ".join(missing[:8]) + (" …" if len(missing) > 8 else "")
        print(f"{len(missing)} of {len(ids)} videos have no features in {parsed.features}: {named}", file=sys.stderr)
