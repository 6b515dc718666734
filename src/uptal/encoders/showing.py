"""What a weight file is, in a few lines for people: one of ours, or one of a layout that we know."""

from __future__ import annotations

from pathlib import Path

from uptal.encoders.converting import recognise
from uptal.encoders.cost import count_parameters
from uptal.encoders.saving import SavedEncoder, is_encoder, load_encoder


def describe(path: Path) -> list[str]:
    """Lines about a weight file or a folder with one.

    Raises:
        CheckpointError: It cannot be read, or is of no known layout.
    """
    return _ours(path, load_encoder(path)) if is_encoder(path) else _theirs(path)


def _ours(path: Path, saved: SavedEncoder) -> list[str]:
    encoder, clip = saved.encoder, saved.clip
    lines = [
        f"{path}: encoder {type(encoder).__name__}, {encoder.config}",
        f"feature: {encoder.width} numbers; {count_parameters(encoder):,} parameters",
        f"clips: {clip.frames} frames, stride {clip.stride}, {clip.size} pixels of {clip.resize}, RGB, "
        f"mean {clip.mean}, deviation {clip.std}",
        f"digest: {saved.digest}",
    ]
    if saved.classes is not None:
        names = saved.classes.names
        lines.append(f"classifier: {len(names)} classes of {saved.classes.vocabulary}: {', '.join(names[:3])}, ...")
    if saved.source is not None and "method" in saved.source:
        lines.append(f"trained here: {saved.source['method']}, {saved.source.get('pairs', 0):,} pairs")
    elif saved.source is not None:
        lines.append(f"converted from {saved.source.get('file')} ({saved.source.get('layout')})")
    return lines


def _theirs(path: Path) -> list[str]:
    found = recognise(path)
    total = sum(tensor.numel() for tensor in found.tensors.values())
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in found.tensors.values()})
    lines = [
        f"{found.foreign.path}: {found.layout.name}",
        f"encoder: {found.layout.architecture} with {found.options}, {len(found.tensors)} tensors under "
        f"{found.prefix!r}, {total:,} numbers of {', '.join(kinds)}",
    ]
    if found.dropped:
        lines.append("beside it: " + ", ".join(f"{name} ({count} tensors)" for name, count in found.dropped.items()))
    if found.foreign.facts:
        lines.append("noted in it: " + ", ".join(f"{key} {value}" for key, value in found.foreign.facts.items()))
    lines.append(f"`uptal weights convert {path} OUT` makes an encoder of it")
    return lines
