"""Checkpoints of others, recognised by what is in them, as encoders of ours; reading files is for `foreign`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from uptal.clipspec import ClipSpec
from uptal.encoders import i3d_weights, r2plus1d_weights, resnet3d_weights, s3d_weights, tsm_weights
from uptal.encoders.contract import build
from uptal.encoders.foreign import Foreign, read_foreign
from uptal.encoders.layouts import Layout, Tensors
from uptal.encoders.saving import Classes, save_encoder
from uptal.encoders.weights import fill
from uptal.errors import CheckpointError, ConfigError
from uptal.files import digest

LAYOUTS: tuple[Layout, ...] = (
    *i3d_weights.LAYOUTS,
    *r2plus1d_weights.LAYOUTS,
    *s3d_weights.LAYOUTS,
    *resnet3d_weights.LAYOUTS,
    *tsm_weights.LAYOUTS,
)
"""Every layout that is known. A new one stands beside its architecture and is added here."""

VOCABULARIES = {
    51: "hmdb51",
    101: "ucf101",
    157: "charades",
    200: "activitynet200",
    400: "kinetics400",
    600: "kinetics600",
    700: "kinetics700",
}
"""What a list of so many classes is called unless the user says otherwise."""


@dataclass(frozen=True)
class Recognised:
    """A file whose layout is known."""

    foreign: Foreign
    layout: Layout
    prefix: str
    """What stands before the encoder's names in the file."""
    options: dict[str, Any]
    """Options of the architecture."""
    tensors: Tensors
    """The encoder's tensors, by their names in the file without the prefix."""
    dropped: dict[str, int]
    """What else is in the file: groups of names, and how many tensors they have."""

    @property
    def clip(self) -> ClipSpec:
        """The preprocessing of the checkpoint's authors."""
        other = self.layout.contrastive_clip
        return other if other is not None and _contrastive(self.prefix) else self.layout.clip


@dataclass(frozen=True)
class Conversion:
    """What was written."""

    recognised: Recognised
    encoder: Any
    """The encoder, on the CPU, in evaluation mode."""
    clip: ClipSpec
    classes: Classes | None
    digest: str
    """Of the new weight file."""


def convert(
    source: str | Path,
    out: str | Path,
    *,
    labels: str | Path | None = None,
    vocabulary: str | None = None,
    prefix: str | None = None,
    clip: Mapping[str, Any] | None = None,
) -> Conversion:
    """Writes an encoder that `load_encoder` reads, with the preprocessing of the checkpoint's authors.

    Args:
        source: Weight file of another project, or a folder with one in it.
        out: Folder, or name of the new `.safetensors` file.
        labels: Names of the classes, one a line, in the classifier's order; by default the only `*label*.txt` beside
            the source.
        vocabulary: What the list of classes is called; by default after its length.
        prefix: Which of several encoders in the file, by the beginning of its names.
        clip: Fields of the preprocessing that shall differ from the authors'.

    Raises:
        CheckpointError: The file cannot be read, or placed, or has a classifier for another number of classes.
        ConfigError: A preprocessing that is none.
    """
    found = recognise(source, prefix)
    path, layout = found.foreign.path, found.layout
    encoder = load(found)
    classes = read_classes(path, labels, found.options.get("num_classes", 0), vocabulary)
    spec = replace(found.clip, **(clip or {}))
    origin = {"layout": layout.name, "file": path.name, "sha256": digest(path), "prefix": found.prefix}
    written = save_encoder(out, encoder, spec, classes=classes, source=origin | {"dropped": found.dropped})
    return Conversion(found, encoder.eval(), spec, classes, written)


def load(found: Recognised) -> Any:
    """The encoder with the file's weights.

    Raises:
        CheckpointError: A weight is missing, unknown or of another shape; both sides are named.
    """
    with torch.device("meta"):  # every weight comes from the file, so none is drawn
        encoder = build(found.layout.architecture, **found.options)
    return fill(encoder, found.layout.rename(found.tensors), found.foreign.path)


def recognise(source: str | Path, prefix: str | None = None) -> Recognised:
    """Reads a file and finds out what it is; errors as `read_foreign` and `place`."""
    return place(read_foreign(source), prefix)


def place(foreign: Foreign, prefix: str | None = None) -> Recognised:
    """Finds out which layout the tensors of a file have, and which of them are the encoder.

    Raises:
        CheckpointError: They are of no known layout.
        ConfigError: There are several encoders, and `prefix` picks none.
    """
    candidates = [
        (layout, start, options)
        for layout in LAYOUTS
        for start in _prefixes(foreign.tensors, layout.anchors)
        if (options := layout.options(_under(foreign.tensors, start))) is not None
    ]
    layout, start, options = _choose(candidates, foreign, prefix)
    inside = _under(foreign.tensors, start)
    unwanted = [name for name in inside if re.match(layout.ignored, name)]
    if _contrastive(start):  # what follows the encoder there is a projection for the loss, not a classifier
        unwanted += [name for name in inside if name.startswith(layout.head)]
        options = options | {"num_classes": 0}
    outside = [name for name in foreign.tensors if not name.startswith(start)]
    dropped = _groups(outside) | {start + group: count for group, count in _groups(unwanted).items()}
    kept = {name: tensor for name, tensor in inside.items() if name not in unwanted}
    return Recognised(foreign, layout, start, options, kept, dropped)


def read_classes(path: Path, labels: str | Path | None, count: int, vocabulary: str | None) -> Classes | None:
    """Names of the classes of a classifier with `count` of them, from a file or from the one beside the weights.

    Raises:
        CheckpointError: The file has another number of names; both are named.
    """
    if not count:
        if labels is not None:
            raise CheckpointError(f"{path}: has no classifier, so there is nothing that {labels} could name.")
        return None
    beside = sorted(path.parent.glob("*label*.txt"))
    if labels is None and len(beside) != 1:
        return None
    file = Path(labels) if labels is not None else beside[0]
    try:
        names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: cannot be read as a list of classes, one a line ({error}).") from error
    if len(names) != count:
        raise CheckpointError(
            f"{path}: its classifier has {count} classes, {file} names {len(names)}. Give the list that belongs to "
            "these weights with --labels."
        )
    return Classes(vocabulary=vocabulary or VOCABULARIES.get(count, "own"), names=names)


def _prefixes(tensors: Tensors, anchors: tuple[str, ...]) -> list[str]:
    """Beginnings of names that, followed by each anchor, are names in the file."""
    starts = [name.removesuffix(anchors[0]) for name in tensors if name.endswith(anchors[0])]
    whole = [start for start in starts if not start or start[-1] in "./"]
    return [start for start in whole if all(start + anchor in tensors for anchor in anchors)]


def _under(tensors: Tensors, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _choose(
    candidates: list[tuple[Layout, str, dict[str, Any]]], foreign: Foreign, prefix: str | None
) -> tuple[Layout, str, dict[str, Any]]:
    if not candidates:
        shown = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(foreign.tensors.items())[:3])
        known = "; ".join(layout.name for layout in LAYOUTS)
        raise CheckpointError(
            f"{foreign.path}: {len(foreign.tensors)} tensors of no layout that is known here. The file begins with "
            f"{shown}. Known are: {known}."
        )
    least = {start + layout.anchors[0]: start for layout, start, _ in sorted(candidates, key=lambda c: -len(c[1]))}
    candidates = [c for c in candidates if least[c[1] + c[0].anchors[0]] == c[1]]  # a shorter prefix explains more
    if prefix is not None:
        chosen = [candidate for candidate in candidates if candidate[1] == prefix]
    else:
        trained = [candidate for candidate in candidates if _contrastive(candidate[1])]
        chosen = trained or candidates  # the query encoder is the one that is trained; others follow it
    if len(chosen) != 1:
        listed = ", ".join(f"{start!r} ({layout.name})" for layout, start, _ in candidates)
        raise ConfigError(f"{foreign.path}: holds {len(candidates)} encoders: {listed}. Pick one with --prefix.")
    return chosen[0]


def _contrastive(prefix: str) -> bool:
    return "encoder_q" in prefix


def _groups(names: Iterable[str]) -> dict[str, int]:
    """Names by what they begin with, wrappers left out."""
    wrappers = ("module", "state_dict", "model")
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.replace("/", ".").split(".")
        depth = next((i for i, part in enumerate(parts) if part not in wrappers), 0)
        counts[".".join(parts[: depth + 1])] += 1
    return dict(counts)
