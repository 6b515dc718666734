"""Checkpoints that survive kills and full disks: a directory that is complete or is not there.

    RUN/checkpoints/step_00000120/   weights.safetensors   tensors of the task (encoders, heads, queue)
                                     train.pt              optimiser, schedule, position; tensors and plain values only
                                     meta.json             step, versions, digests of the other two; written last

A checkpoint is built beside its final name, flushed to the disk and renamed. Loading checks the digests, so a damaged
file is never taken for a good one.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from safetensors.torch import save as save_tensors
from torch import Tensor

from uptal.errors import CheckpointError, UptalError
from uptal.files import atomic_write, digest

_FILES = ("weights.safetensors", "train.pt")
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    SafetensorError,
    UptalError,
    pickle.UnpicklingError,
)
"""What reading a damaged file of weights, or one of something else, ends in."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on as if nothing had happened."""

    step: int
    weights: dict[str, Tensor]
    train: dict[str, Any]
    meta: dict[str, Any]


def save(
    folder: Path, step: int, weights: Mapping[str, Tensor], train: Mapping[str, Any], meta: Mapping[str, Any], keep: int
) -> Path:
    """Writes a checkpoint, unless one of this step is there and whole, then deletes all but the newest `keep`.

    Raises:
        CheckpointError: The disk is full or cannot be written; earlier checkpoints are untouched.
    """
    final, draft = folder / _name(step), folder / f".{_name(step)}.tmp"
    if _whole(final):  # replacing it would need a moment without it
        return final
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_file({name: value.detach().contiguous() for name, value in weights.items()}, draft / _FILES[0])
        torch.save(dict(train), draft / _FILES[1])
        digests = {name: digest(draft / name) for name in _FILES}
        with atomic_write(draft / "meta.json") as file:
            json.dump({**meta, "step": step, "digests": digests}, file, indent=1)
        for name in (*_FILES, "."):
            _flush(draft / name)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(draft, final)
        _flush(folder)
    except (OSError, SafetensorError, RuntimeError, UptalError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise CheckpointError(
            f"{final}: the checkpoint could not be written ({error}). Earlier checkpoints are untouched; make room on "
            "the disk and start the same command again to continue from the newest."
        ) from error
    _delete_old(final, keep)
    return final


def newest_valid(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, or None in a fresh folder; and one line for each that was passed over.

    Raises:
        CheckpointError: There are checkpoints and none is whole; starting afresh there would lose what can be mended.
    """
    passed_over = []
    for path in sorted(folder.glob("step_*"), reverse=True):
        try:
            return load(path), passed_over
        except CheckpointError as error:
            passed_over.append(str(error))
    if passed_over:
        raise CheckpointError(
            f"{folder}: none of the {len(passed_over)} checkpoints can be read. The newest: {passed_over[0]} Restore "
            "one from a copy, or start again with another --run."
        )
    return None, passed_over


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint and checks every byte against its digests.

    Raises:
        CheckpointError: A file is missing, damaged or of another kind.
    """
    try:
        meta = json.loads((path / "meta.json").read_text("utf-8"))
        if path.name != _name(meta["step"]):
            raise CheckpointError(f"{path}: damaged or renamed (its meta.json is of step {meta['step']}).")
        for name in _FILES:
            if digest(path / name) != meta["digests"][name]:
                raise CheckpointError(
                    f"{path / name}: damaged (its digest is not the one in meta.json). Delete the folder."
                )
        train = torch.load(path / _FILES[1], map_location="cpu", weights_only=True)
        return Checkpoint(int(meta["step"]), load_file(path / _FILES[0]), train, meta)
    except CheckpointError:
        raise
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        raise CheckpointError(f"{path}: not a complete checkpoint ({type(error).__name__}: {reason}).") from error


def save_best(path: Path, value: float, epoch: int, weights: Mapping[str, Tensor]) -> bool:
    """Keeps weights at `path` if none with as high a value are there; returns whether it did.

    Raises:
        UptalError: The file cannot be written.
    """
    if path.exists() and best_facts(path)[0] >= value:
        return False
    facts = {"value": repr(value), "epoch": str(epoch)}
    with atomic_write(path, "wb") as file:
        file.write(save_tensors({name: tensor.detach().contiguous() for name, tensor in weights.items()}, facts))
    return True


def best_facts(path: Path) -> tuple[float, int]:
    """Value and epoch of the weights that `save_best` kept.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
        return float(facts["value"]), int(facts["epoch"])
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path}: not the weights of a best epoch ({error}). Delete the file to go on without it."
        ) from error


def _name(step: int) -> str:
    return f"step_{step:08d}"


def _whole(path: Path) -> bool:
    try:
        load(path)
    except CheckpointError:
        return False
    return True


def _delete_old(newest: Path, keep: int) -> None:
    """Folders of later steps do not count: the run went on from before them, since they cannot be read."""
    folder = newest.parent
    known = [path for path in sorted(folder.glob("step_*")) if path.name <= newest.name]
    for path in [*known[:-keep], *folder.glob(".step_*.tmp")]:
        with suppress(OSError):  # an old checkpoint that cannot be deleted is no reason to stop a run
            shutil.rmtree(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
