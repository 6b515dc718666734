"""Which device a run uses and in which number format, by the names that the user gave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from uptal.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""`auto` is bf16 where the device has it, else fp32."""


def number_format(precision: Precision, device: torch.device) -> torch.dtype:
    """Number format of an encoder's arithmetic on a device."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def move(module: nn.Module, device: torch.device) -> None:
    """Moves a module to a device, with its convolutions in the memory layout that they like best, 2-D ones among them.

    `Module.to` knows one layout at a time, and refuses a network over pictures when it is the layout of clips.
    """
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    module.to(device)
    for parameter in module.parameters():
        if parameter.dim() in layouts:
            parameter.data = parameter.data.contiguous(memory_format=layouts[parameter.dim()])


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Within the block autocast leaves number formats alone; on `meta`, which it does not know, it does so anyway."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


@contextmanager
def switched(*switches: tuple[Any, str, bool]) -> Iterator[None]:
    """Within the block PyTorch's switches (where, name, value) stand so; afterwards as before."""
    before = [getattr(where, name) for where, name, _ in switches]
    try:
        for where, name, value in switches:
            setattr(where, name, value)
        yield
    finally:
        for (where, name, _), value in zip(switches, before, strict=True):
            setattr(where, name, value)


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:1` as a device that is there.

    Args:
        name: What the user wrote.
        local_rank: Number of this process on its machine; without a number in `name` it takes the GPU of that number.

    Raises:
        ConfigError: A GPU was asked for that is not there, or the name is no device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name!r} is not a device. Use auto, cpu, cuda or cuda:0.") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name!r} is not supported. Use auto, cpu, cuda or cuda:0.")
    return _gpu(device, local_rank) if device.type == "cuda" else torch.device("cpu")


def _gpu(device: torch.device, local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        raise ConfigError(
            f"--device {device} asks for a GPU, and PyTorch {torch.__version__} finds none on this machine. Use "
            "--device cpu, or install a CUDA build of PyTorch and check the driver with nvidia-smi."
        )
    number = local_rank if device.index is None else device.index
    if number >= torch.cuda.device_count():
        raise ConfigError(f"--device cuda:{number}: this machine has {torch.cuda.device_count()} GPUs, counted from 0.")
    return torch.device("cuda", number)
