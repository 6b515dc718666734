"""Whether a feature store is whole, of one kind, and means in time what it says."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

from uptal.commands.doctor.printing import show
from uptal.errors import CheckpointError, ConfigError


def examine(parsed: Namespace) -> tuple[dict[str, Any], str]:
    """Every file read: widths, digests, time bases against durations, numbers that are none; what kills left behind."""
    if not parsed.path:
        raise ConfigError("doctor store needs the store: uptal doctor store STORE.")
    from uptal.features import FeatureStore
    from uptal.features.store import leftovers
    from uptal.video.quarantine import FILE_NAME

    store = FeatureStore(parsed.path)
    problems: list[str] = []
    features, seconds = 0, 0.0
    for id in store.ids:
        try:
            video = store.read(id)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        features += len(video.values)
        seconds += video.duration
        problems += _complaints(store, video)
    left = leftovers(store.path)
    if left:
        problems.append(
            f"{len(left)} files were left half-written by a kill (first: {left[0].name}); the next `uptal extract` "
            "into this store removes them."
        )
    problems += _about_encoder(store)
    quarantine = store.path / FILE_NAME
    findings = {
        "videos": len(store.ids),
        "features": features,
        "hours": round(seconds / 3600, 3),
        "description": store.description,
        "set aside": len(quarantine.read_text("utf-8").splitlines()) if quarantine.is_file() else 0,
        "problems": problems,
    }
    return show(findings, str(parsed.path))


def _complaints(store: Any, video: Any) -> list[str]:
    from uptal.recipes.exchanging import SLACK, expected_count

    file, shape, base = store.file(video.id), tuple(video.values.shape), video.timebase
    found = []
    if len(shape) != 2 or shape[1] != store.width:
        found.append(f"{file}: features are of shape {shape}, the store is of width {store.width}. Extract it again.")
    if not video.values.isfinite().all():
        found.append(f"{file}: holds NaN or infinity. Extract it again with --precision fp32.")
    expected = expected_count(base, video.duration)
    if abs(shape[0] - expected) > SLACK:
        found.append(
            f"{file}: {shape[0]} features, but {video.duration:g} s with {base} make {expected}: seconds would be "
            "wrong. Extract it again."
        )
    for key, value in (("interval", base.stride), ("fps", base.fps)):
        stated = store.description.get(key)
        if stated is not None and abs(stated - value) > 1e-6 * value:
            found.append(f"{file}: its {key} is {value:g}, the store's {stated:g}. Extract it again.")
    return found


def _about_encoder(store: Any) -> list[str]:
    from uptal.encoders import load_encoder
    from uptal.errors import UptalError

    if store.description.get("imported") or not (store.path / "encoder.json").exists():
        return []
    try:
        kept = load_encoder(store.path, trust=False).digest
    except UptalError as error:
        return [str(error)]
    if kept != store.encoder_digest:
        return [
            f"{store.path}/encoder.safetensors is encoder {kept[:12]}, the features are of {store.encoder_digest[:12]}."
        ]
    return []
