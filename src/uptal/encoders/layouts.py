"""One record for how somebody's checkpoint names the weights of an architecture; the layouts stand beside each one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from uptal.clipspec import ClipSpec

Tensors = Mapping[str, Tensor]
"""Tensors by name; the names are relative to the encoder, without what wraps it in the file."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a family of checkpoints is recognised and read."""

    name: str
    """What the file is, in the words of its authors."""
    architecture: str
    """Name for `build`."""
    anchors: tuple[str, ...]
    """Tensors that all must be there. What stands before the first of them is the prefix of the encoder's names."""
    options: Callable[[Tensors], dict[str, Any] | None]
    """Options of the architecture, from shapes; None when the file is of another layout with the same anchors."""
    rename: Callable[[Tensors], dict[str, Tensor]]
    """The tensors under our names. Names that are not known stay as they are, and loading then names them."""
    head: str
    """Beginning of the classifier's names in the file."""
    clip: ClipSpec
    """The clips that such files were trained on."""
    contrastive_clip: ClipSpec | None = None
    """The clips of files in which the encoder is the query of momentum contrast, if they differ."""
    ignored: str = "$."
    """Regular expression of names that belong to no encoder or repeat another; matched at the beginning."""


def by_name(rename: Callable[[str], str]) -> Callable[[Tensors], dict[str, Tensor]]:
    """A renaming of tensors, one by one."""
    return lambda tensors: {rename(name): tensor for name, tensor in tensors.items()}


def classes_in(tensors: Tensors, name: str) -> int:
    """Classes of a classifier by its bias or weight; 0 when the file has none."""
    return len(tensors[name]) if name in tensors else 0
