"""Files of weights that others wrote, as one flat list of named tensors; whose layout it is, is for `converting`."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from uptal.errors import CheckpointError

ENDINGS = (".safetensors", ".npz", ".pt", ".pth", ".tar", ".ckpt", ".bin")
"""How the names of weight files end."""

_HARMLESS: list[Any] = [argparse.Namespace]
"""Types that checkpoints often hold beside tensors, and whose reading runs nothing: the options of a training."""


@dataclass(frozen=True)
class Foreign:
    """What a file holds."""

    path: Path
    tensors: dict[str, Tensor]
    """Every tensor under its full name: keys of nested dictionaries, joined by dots."""
    facts: dict[str, str | int | float | bool]
    """Plain values beside the tensors, such as `epoch`."""


def read_foreign(path: str | Path) -> Foreign:
    """Reads a `.safetensors`, `.npz` or PyTorch file (zip or the older pickle) without running anything in it.

    Args:
        path: The file, or a folder with exactly one weight file in it.

    Raises:
        CheckpointError: There is no such file, it is damaged or incomplete, or reading it would run code.
    """
    path = the_file(Path(path))
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        elif path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                content = {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}
        else:
            with torch.serialization.safe_globals(_HARMLESS):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, error)) from error
    except (
        OSError,
        SafetensorError,
        RuntimeError,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
        zipfile.BadZipFile,
    ) as error:
        reason = " ".join(str(error).split()[:30])
        raise CheckpointError(
            f"{path}: cannot be read as weights ({reason}). The file has {path.stat().st_size:,} bytes; if that is "
            "less than where it comes from says, it was copied half: get it again."
        ) from error
    tensors, facts = dict(_tensors(content)), dict(_facts(content))
    if not tensors:
        raise CheckpointError(f"{path}: expected a dictionary of tensors, found {type(content).__name__} without any.")
    return Foreign(path, tensors, facts)


def the_file(path: Path) -> Path:
    """The path itself, or the only weight file of a folder.

    Raises:
        CheckpointError: There is none, or more than one.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file. Check the path of the weights.")
    files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS)
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise CheckpointError(f"{path}: expected one weight file in this folder, found {found}. Name the file itself.")
    return files[0]


def _refusal(path: Path, error: Exception) -> str:
    text = str(error)
    if "legacy .tar" in text:
        return (
            f"{path}: written by PyTorch 0.1, in a format that can only be read by running what is in the file. Save "
            "it again where you trust it: torch.save(torch.load(FILE), NEW)."
        )
    with path.open("rb") as file:
        start = file.read(2)
    if not start.startswith((b"PK", b"\x80")):
        return f"{path}: cannot be read as weights: neither .safetensors, .npz nor a file of torch.save. Get it again."
    return (
        f"{path}: holds more than tensors ({_culprit(text)}), and reading that would run code from the file; "
        "it was not read. If you trust it, take the tensors out of it once, elsewhere: "
        "torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW), and convert NEW."
    )


def _culprit(text: str) -> str:
    """The class that PyTorch names in its refusal."""
    for mark in ("Unsupported global: GLOBAL ", "unsupported GLOBAL ", "Unsupported class ", "Unsupported operand "):
        if mark in text:
            return text.split(mark, 1)[1].split()[0].strip("`'.,")
    return "something unknown"


def _tensors(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield prefix.rstrip("."), content.detach()
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{prefix}{key}.")


def _facts(content: Any) -> Iterator[tuple[str, str | int | float | bool]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(value, (str, int, float, bool)):
                yield str(key), value
