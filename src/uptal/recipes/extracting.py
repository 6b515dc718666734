"""From an encoder and a folder of videos to a feature store that carries the encoder with it."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from uptal.clipspec import ClipSpec
from uptal.encoders import SavedEncoder, load_encoder
from uptal.errors import ConfigError
from uptal.features import FeatureStore, extract
from uptal.files import atomic_write
from uptal.run import versions
from uptal.train import choose_device
from uptal.video import Quarantine, find_videos


def extract_folder(
    weights: Path,
    videos: Path,
    out: Path,
    *,
    select: Callable[[Sequence[Path]], Sequence[Path]] = lambda paths: paths,
    interval: int | None = None,
    batch: int = 32,
    threads: int = 2,
    backend: str = "pyav",
    max_bad: float = 0.01,
    device: str = "auto",
    trust: bool = False,
) -> int:
    """Extracts features of every video of a folder (or of those that `select` keeps); returns how many were written.

    Raises:
        ConfigError: Two videos share a stem, or the store was made differently.
    """
    target = choose_device(device)
    saved = load_encoder(weights, trust=trust)
    paths = select(unique_stems(find_videos(videos)))
    store = create_store(out, saved, interval, backend)
    copy_encoder(weights, out)
    quarantine = Quarantine(total=len(paths), limit=max_bad, folder=out)
    written = extract(
        paths,
        store,
        saved.encoder,
        saved.clip,
        interval=int(store.description["interval"]),
        device=target,
        batch=batch,
        threads=threads,
        backend=backend,
        quarantine=quarantine,
    )
    print(quarantine.summary(), end="", file=sys.stderr)
    return written


def create_store(out: Path, saved: SavedEncoder, interval: int | None, backend: str) -> FeatureStore:
    """A store for features of an encoder; clips lie back to back unless `interval` says otherwise."""
    return FeatureStore.create(out, describe(saved, interval, backend))


def describe(saved: SavedEncoder, interval: int | None, backend: str) -> dict[str, Any]:
    """What decides the features of a store."""
    clip: ClipSpec = saved.clip
    interval = clip.frames * clip.stride if interval is None else interval
    if interval < 1:
        raise ConfigError(f"--interval counts frames and must be at least 1, found {interval}.")
    return {
        "encoder_digest": saved.digest,
        "width": saved.encoder.width,
        "preprocessing": {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(clip).items()},
        "interval": interval,
        "decoder": f"{backend} {versions()['av']}" if backend == "pyav" else backend,
    }


def copy_encoder(weights: Path, out: Path) -> None:
    """Puts the encoder into the store, so that new videos get the same features."""
    source = weights if weights.suffix == ".safetensors" else weights / "encoder.safetensors"
    for file, name in ((source, "encoder.safetensors"), (source.with_suffix(".json"), "encoder.json")):
        if not (out / name).exists():
            with atomic_write(out / name, "wb") as target, open(file, "rb") as opened:
                shutil.copyfileobj(opened, target)


def unique_stems(paths: Sequence[Path]) -> Sequence[Path]:
    """The paths, whose stems must be different because features are stored by stem.

    Raises:
        ConfigError: Naming two that do not, or one that is called like the store's own file.
    """
    reserved = [path for path in paths if path.stem == "encoder"]
    if reserved:
        raise ConfigError(
            f"A feature store keeps its encoder under the name 'encoder': rename the video {reserved[0]}."
        )
    twice = [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]
    if twice:
        both = " and ".join([str(path) for path in paths if path.stem == twice[0]][:2])
        raise ConfigError(
            f"Features are stored by file stem, and {len(twice)} stems occur more than once: {both}. Rename one."
        )
    return paths
