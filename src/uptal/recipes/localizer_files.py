"""A trained localizer on disk: its run folder alone is enough to use it.

RUN/localizer.safetensors/json  network, class-score classifier, labels, settings
RUN/encoder.safetensors/json    the encoder that the features came from, when it is known
RUN/features.json               how features are laid on a video
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors.torch import load_file, save
from torch import nn

from uptal.checkpoint import UNREADABLE
from uptal.errors import CheckpointError
from uptal.features import FeatureStore
from uptal.files import atomic_write, digest
from uptal.localizers.classifier import SegmentClassifier
from uptal.recipes import heads
from uptal.recipes.head import LocalizeConfig
from uptal.recipes.settings import from_plain
from uptal.run import plain


@runtime_checkable
class Trained(Protocol):
    """A run that was trained on stored features."""

    @property
    def features(self) -> Mapping[str, Any]:
        """Description of the store."""
        ...

    @property
    def path(self) -> Path:
        """Run folder."""
        ...


@dataclass(frozen=True)
class Localizer:
    """A trained localizer as it was read back."""

    model: Any
    """The network; what it offers is `localizers.training.Localizer`."""
    classifier: SegmentClassifier
    settings: LocalizeConfig
    features: dict[str, Any]
    """Description of the store that it was trained on: encoder digest, interval, width."""
    path: Path


def save_localizer(
    path: Path, model: nn.Module, classifier: SegmentClassifier, cfg: LocalizeConfig, store: FeatureStore
) -> None:
    """Writes weights, labels, settings and a copy of the encoder into the run."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"classifier.{k}": v for k, v in classifier.state_dict().items()}
    with atomic_write(path / "localizer.safetensors", "wb") as out:
        out.write(save({name: value.detach().contiguous() for name, value in tensors.items()}))
    record = {"kind": heads.kind(cfg), "settings": plain(cfg), "labels": classifier.labels}
    with atomic_write(path / "localizer.json") as out:
        json.dump(record | {"sha256": digest(path / "localizer.safetensors")}, out, indent=1)
    save_features(path, store)


def save_features(path: Path, store: FeatureStore) -> None:
    """Writes the description of the features that a run was trained on, and a copy of their encoder."""
    with atomic_write(path / "features.json") as out:
        json.dump(store.description, out, indent=1)
    for name in ("encoder.safetensors", "encoder.json"):
        if (store.path / name).is_file():
            with atomic_write(path / name, "wb") as out, open(store.path / name, "rb") as source:
                shutil.copyfileobj(source, out)


def load_localizer(path: Path) -> Localizer:
    """Reads a localizer back.

    Raises:
        CheckpointError: The run holds none, or its files are damaged or do not fit each other.
    """
    try:
        return _load(path)
    except CheckpointError:
        raise
    except UNREADABLE as error:
        if not (path / "localizer.json").exists():
            found = "does not exist" if not path.exists() else "holds no localizer"
            if (path / "encoder.json").exists():
                found = "holds an encoder and no localizer; train one on its features first"
            raise CheckpointError(
                f"{path}: {found}. Make one with `uptal train {'|'.join(heads.RECIPES)} --features STORE "
                "--annotations FILE --run RUN`."
            ) from error
        reason = " ".join(str(error).split()[:40])
        raise CheckpointError(
            f"{path}: holds no usable localizer ({reason}). Make one with `uptal train "
            f"{'|'.join(heads.RECIPES)} --features STORE --annotations FILE --run RUN`."
        ) from error


def _load(path: Path) -> Localizer:
    weights = path / "localizer.safetensors"
    record = json.loads((path / "localizer.json").read_text("utf-8"))
    description = json.loads((path / "features.json").read_text("utf-8"))
    lacking = {"encoder_digest", "interval", "width"} - description.keys()
    if lacking:
        raise ValueError(f"features.json lacks {', '.join(sorted(lacking))}")
    if record["kind"] not in heads.RECIPES or digest(weights) != record["sha256"]:
        raise CheckpointError(
            f"{weights}: damaged, or not a localizer of this version ({record['kind']}; known are "
            f"{', '.join(heads.RECIPES)}). Train it again or copy it again."
        )
    settings = from_plain(heads.settings_class(record["kind"]), record["settings"])
    tensors = load_file(weights)
    model = heads.build(settings, record["labels"])
    classifier = SegmentClassifier(int(description["width"]), record["labels"])
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    classifier.load_state_dict({k[11:]: v for k, v in tensors.items() if k.startswith("classifier.")})
    return Localizer(model.eval(), classifier.eval(), settings, description, path)
