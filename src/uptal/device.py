"""Which device a run uses, by the name that the user gave."""

from __future__ import annotations

import torch

from uptal.errors import ConfigError


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
