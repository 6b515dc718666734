"""Extraction on a cluster that runs Ray: its workers share the videos out; what one does is in `extracting`.

Weights, videos and store must be at the same paths on all machines, and uptal must be installed there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from uptal.errors import ConfigError, UptalError
from uptal.features import Extracted
from uptal.recipes.extracting import ExtractConfig, extract_folder


def extract_on_ray(
    weights: Path, videos: Path, out: Path, cfg: ExtractConfig, *, address: str, parts: int | None, trust: bool = False
) -> list[Extracted]:
    """Extracts a folder in `parts` shares, as many at a time as the cluster has room for.

    Args:
        weights: As for `extract_folder`, and so are `videos`, `out`, `cfg` and `trust`.
        videos: Folder of videos.
        out: Feature store.
        cfg: How; its threads count for each worker.
        address: `auto` for the cluster that this machine belongs to, `local` for one of its own, or an address.
        parts: Shares; None: one for each GPU of the cluster, or for each of its cores when it has none.
        trust: Import encoders from outside uptal.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
        UptalError: The first error of a worker; what the others have done is kept.
    """
    ray = _ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report what it is used for
    try:
        ray.init(
            None if address == "local" else address,
            num_cpus=parts if address == "local" else None,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"--ray {address}: there is no such cluster ({' '.join(str(error).split()[:30])})."
        ) from error
    try:
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0)) if cfg.device != "cpu" else 0
        count = parts or gpus or max(1, int(there.get("CPU", 1)))
        task = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(_extract_share)
        words = (str(weights.resolve()), str(videos.resolve()), str(out.resolve()), cfg, trust)
        results = ray.get([task.remote(*words, index, count) for index in range(count)])
    finally:
        ray.shutdown()
    failures = [result for result in results if isinstance(result, UptalError)]
    if failures:
        raise failures[0]
    return results


def _extract_share(
    weights: str, videos: str, out: str, cfg: ExtractConfig, trust: bool, index: int, count: int
) -> Extracted | UptalError:
    """Runs on a worker; an error that a user can mend comes back as a value, without Ray's traceback around it."""
    try:
        return extract_folder(
            Path(weights), Path(videos), Path(out), cfg, select=lambda paths: paths[index::count], trust=trust
        )
    except UptalError as error:
        return error


def _ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            "Ray is not installed. Install it with `pip install 'uptal[ray]'`, or divide the work by --shard i/n."
        ) from error
    return ray
