"""Encoders on disk: weights in `encoder.safetensors`, what they are in `encoder.json`; training state is for others."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from uptal.clipspec import ClipSpec
from uptal.encoders.contract import build, name_of
from uptal.encoders.shipped import locate, shipped
from uptal.encoders.weights import fill, read_tensors
from uptal.errors import CheckpointError, ConfigError
from uptal.files import atomic_write, digest

WEIGHTS = "encoder.safetensors"


@dataclass(frozen=True, kw_only=True)
class Classes:
    """What the outputs of an encoder's own classifier are called."""

    vocabulary: str
    """Name of the list, such as `kinetics400`."""
    names: tuple[str, ...]
    """Names of the classes, in the order of the classifier's outputs."""


@dataclass(frozen=True, kw_only=True)
class SavedEncoder:
    """An encoder as it was read back, with all that its features depend on."""

    encoder: Any
    """The module (a `ClipEncoder`), on the CPU, in evaluation mode."""
    clip: ClipSpec
    """The clips that it was trained on; features must be extracted the same way."""
    digest: str
    """SHA-256 of the weight file in hexadecimal; feature files carry it."""
    classes: Classes | None = None
    """Names of the classes that `encoder.classify` tells apart, if it has a classifier and they are known."""
    source: dict[str, Any] | None = None
    """Where converted weights come from: layout, file, digest, what was left out."""


def save_encoder(
    path: str | Path,
    encoder: Any,
    clip: ClipSpec,
    *,
    classes: Classes | None = None,
    source: dict[str, Any] | None = None,
) -> str:
    """Write weights and description of an encoder into a folder, or under the name of a `.safetensors` file.

    Args:
        path: A folder (made if missing) or the weight file; the description goes beside it with the ending `.json`.
        encoder: A module that keeps the promises of `ClipEncoder`.
        clip: The preprocessing that belongs to these weights.
        classes: Names of the classes of the encoder's own classifier.
        source: Where converted weights come from, for the record.

    Returns:
        The digest of the weight file.

    Raises:
        UptalError: Disk full, no permission.
    """
    weights = _weight_file(path)
    with atomic_write(weights, "wb") as file:
        file.write(_serialise(encoder))
    found = digest(weights)
    record: dict[str, Any] = {
        "architecture": name_of(encoder),
        "options": asdict(encoder.config),
        "width": encoder.width,
        "preprocessing": asdict(clip),
        "sha256": found,
    }
    if classes is not None:
        record["classes"] = asdict(classes)
    if source is not None:
        record["source"] = source
    with atomic_write(weights.with_suffix(".json")) as file:
        file.write(json.dumps(record, indent=2) + "\n")
    return found


def load_encoder(path: str | Path, *, trust: bool = False) -> SavedEncoder:
    """Read an encoder back.

    Args:
        path: A run folder, a feature store, a `.safetensors` file with its `.json` beside it, or the name of an encoder
            of the package, such as `slim-v1`.
        trust: Import an architecture from outside `uptal` if the description names one.

    Raises:
        CheckpointError: A file is missing or damaged, or weights and description disagree; both sides are named.
        ConfigError: The architecture is not one that may be imported.
    """
    weights = _weight_file(locate(path))
    description = weights.with_suffix(".json")
    record = _read_description(description, weights)
    tensors = read_tensors(weights)
    found = digest(weights)
    if found != record["sha256"]:
        raise CheckpointError(
            f"{weights}: the weights have SHA-256 {found}, {description.name} was written for {record['sha256']}. "
            "One of the two files was changed or comes from elsewhere: copy both again, or save the encoder anew."
        )
    encoder = fill(_build_from(record, description, trust), tensors, weights)
    if encoder.width != record["width"]:
        raise CheckpointError(
            f"{description}: width {record['width']} stands there, but {record['architecture']} with these options "
            f"gives {encoder.width}. The file was edited or is of another version: save the encoder anew."
        )
    return SavedEncoder(
        encoder=encoder.eval(),
        clip=_clip(record, description),
        digest=found,
        classes=_classes(record, encoder, description),
        source=record.get("source"),
    )


def is_encoder(path: str | Path) -> bool:
    """Whether an encoder in our own form is there: weights with their description."""
    weights = _weight_file(locate(path))
    return weights.is_file() and weights.with_suffix(".json").is_file()


def _weight_file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".safetensors" else path / WEIGHTS


def _serialise(encoder: nn.Module) -> bytes:
    # clones are contiguous whatever the memory format was, and never share storage, which safetensors refuses
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in encoder.state_dict().items()})


def _read_description(path: Path, weights: Path) -> dict[str, Any]:
    if not weights.is_file():
        hint = ""
        if weights.parent.is_file():
            hint = f" Weights of other projects become an encoder with `uptal weights convert {weights.parent} OUT`."
        raise CheckpointError(
            f"{weights}: no encoder there. Give a run folder, a feature store, a .safetensors "
            f"file, or one of the encoders that come with uptal: {', '.join(shipped())}.{hint}"
        )
    if not path.is_file():
        raise CheckpointError(
            f"{weights}: there is no {path.name} beside it to say which architecture these weights are of. "
            f"Weights from elsewhere need such a description: `uptal weights convert {weights} OUT` writes it."
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}). Copy it again.") from error
    kinds = {"architecture": str, "options": dict, "width": int, "preprocessing": dict, "sha256": str}
    for key, kind in kinds.items():
        value = record.get(key) if isinstance(record, dict) else None
        if not isinstance(value, kind):
            raise CheckpointError(f"{path}: expected {key!r} to be of type {kind.__name__}, found {value!r}.")
    return record


def _build_from(record: dict[str, Any], path: Path, trust: bool) -> Any:
    try:
        return build(record["architecture"], trust=trust, **record["options"])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _clip(record: dict[str, Any], path: Path) -> ClipSpec:
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in record["preprocessing"].items()
    }
    try:
        return ClipSpec(**values)
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: 'preprocessing' cannot be used ({error}).") from error


def _classes(record: dict[str, Any], encoder: Any, path: Path) -> Classes | None:
    if "classes" not in record:
        return None
    try:
        classes = Classes(vocabulary=str(record["classes"]["vocabulary"]), names=tuple(record["classes"]["names"]))
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path}: 'classes' needs 'vocabulary' and 'names' ({error!r} is wrong there)."
        ) from error
    count = getattr(encoder.config, "num_classes", 0)
    if len(classes.names) != count:
        raise CheckpointError(
            f"{path}: names {len(classes.names)} classes, the classifier of {record['architecture']} has {count}. "
            "Convert the weights again with the list of classes that belongs to them."
        )
    return classes
