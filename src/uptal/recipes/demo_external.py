"""The demo's extra rows: encoders that were not trained in it, under the same head: the package's, and the user's."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from uptal.encoders import DEFAULT, SavedEncoder, load_encoder
from uptal.encoders.converting import VOCABULARIES
from uptal.errors import ConfigError
from uptal.files import atomic_write, read_note
from uptal.recipes.demo_scores import Stage, score
from uptal.recipes.extracting import ExtractConfig, extract_folder

KEY = "external"
"""What the user's row is called in files; it is none of the methods that are compared."""
SHIPPED = "shipped"
"""What the row of the encoder in the package is called."""


def shipped_row(stage: Stage, extraction: ExtractConfig) -> dict[str, Any]:
    """The row of the encoder that comes with the package, with what its training took."""
    saved = load_encoder(DEFAULT)
    spent = {name: (saved.source or {}).get(name, 0) for name in ("pairs", "clips", "seconds", "steps")}
    return external_row(Path(DEFAULT), stage, extraction, SHIPPED) | {"title": f"{DEFAULT} (comes with uptal)"} | spent


def external_row(weights: Path, stage: Stage, extraction: ExtractConfig, key: str = KEY) -> dict[str, Any]:
    """Extracts the demo's untrimmed videos with a given encoder, trains BMN on them and evaluates it.

    Args:
        weights: Folder or `.safetensors` file of `uptal weights convert` or of a run.
        stage: The demo.
        extraction: How the other encoders of the demo see the videos.
        key: What the row is called in files.

    Raises:
        CheckpointError: There is no encoder in our form. ConfigError: The demo has this row for other weights.
    """
    saved = load_encoder(weights)
    kept = stage.out / "results" / f"{key}.json"
    if kept.exists():
        row = read_note(kept)
        if row["sha256"] != saved.digest:
            raise ConfigError(
                f"{kept} is the row of weights with SHA-256 {row['sha256']}, {weights} has {saved.digest}. Choose "
                "another --out, or give the weights that the row was made with."
            )
        return row
    store = stage.out / "features" / key
    extract_folder(weights, stage.corpus / "untrimmed", store, replace(extraction, device=stage.device))
    row = score("bmn", key, stage) | {"title": title_of(saved, weights), "sha256": saved.digest, "seed": stage.seed}
    with atomic_write(kept) as file:
        json.dump(row, file, indent=1)
    return row


def title_of(saved: SavedEncoder, weights: Path) -> str:
    """Network and training data as far as the weights tell: the classes of a classifier, or else the file's name."""
    kind, count = type(saved.encoder).__name__, getattr(saved.encoder.config, "num_classes", 0)
    if not count:
        return f"{kind} {(saved.source or {}).get('file', weights.name)} (external weights)"
    vocabulary = saved.classes.vocabulary if saved.classes else VOCABULARIES.get(count, f"{count} classes")
    return f"{kind} {re.sub(r'^kinetics', 'Kinetics-', vocabulary)} (supervised, external weights)"
