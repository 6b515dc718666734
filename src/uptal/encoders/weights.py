"""Tensors from a weight file into a model, both sides named where they do not fit; renaming tensors is for others."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from uptal.errors import CheckpointError

COUNTER = "num_batches_tracked"
"""Batch norm's counter, which old checkpoints lack and nothing here reads."""

Model = TypeVar("Model", bound=nn.Module)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a PyTorch checkpoint that holds nothing but tensors, on the CPU.

    Raises:
        CheckpointError: The file is missing, damaged or holds something else.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file. Check the path of the weights.") from error
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: cannot be read as weights ({error}). Get the file again.") from error
    if not (isinstance(tensors, dict) and all(isinstance(value, Tensor) for value in tensors.values())):
        raise CheckpointError(
            f"{path}: expected a dictionary of tensors, found something else. Convert the file first."
        )
    return tensors


def fill(model: Model, tensors: Mapping[str, Tensor], path: str | Path) -> Model:
    """Load the tensors into the model, which it returns, in the model's precision; batch counters may be missing.

    A model without contents (on the device `meta`) gets its memory here, on the CPU, and only what the file holds.

    Raises:
        CheckpointError: Names or shapes differ; the message gives the first of each kind and `path`.
    """
    expected = model.state_dict()
    differences = _differences(tensors, expected)
    if differences:
        raise CheckpointError(
            f"{path}: these weights do not fit {type(model).__name__} with these options: {'; '.join(differences)}. "
            "Name the architecture and the options that the file was made with."
        )
    if any(tensor.is_meta for tensor in expected.values()):
        model.to_empty(device="cpu")
        counters = {name: torch.zeros_like(t) for name, t in model.state_dict().items() if name.endswith(COUNTER)}
        model.load_state_dict({**counters, **tensors})
    else:
        model.load_state_dict({**expected, **tensors})
    return model


def _differences(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in expected if name not in found and not name.endswith(COUNTER)]
    surplus = [name for name in found if name not in expected]
    shapes = [
        f"{name} is {tuple(found[name].shape)} in the file, {tuple(expected[name].shape)} in the model"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    parts = []
    if shapes:
        parts.append(shapes[0] + _more(len(shapes) - 1))
    if missing:
        parts.append(f"the file lacks {missing[0]}" + _more(len(missing) - 1))
    if surplus:
        parts.append(f"the model has no {surplus[0]}" + _more(len(surplus) - 1))
    return parts


def _more(count: int) -> str:
    return f" (and {count} more)" if count else ""
