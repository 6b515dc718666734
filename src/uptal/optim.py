"""The optimiser of a run, its settings, and the rate of every step as a pure function; the loop is in `train`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from uptal.device import Precision, number_format, switched
from uptal.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser, schedule and bookkeeping."""

    algorithm: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam (Sec. 4.1.1); weight decay is L2 inside Adam, as `torch.optim.Adam` has it."""
    lr: float = 1e-4
    """Learning rate (Sec. 4.1.1) at `lr_batch` samples a step."""
    lr_batch: int = 512
    """Batch that `lr` is meant for (Sec. 4.1.1)."""
    lr_scaling: Literal["none", "sqrt", "linear"] = "none"
    """How the rate follows another batch size. The paper uses one batch size; `sqrt` suits Adam."""
    weight_decay: float = 1e-5
    """Weight decay (Sec. 4.1.1)."""
    decay_vectors: bool = True
    """Decay all parameters, as `torch.optim` does; `False` spares what has one dimension: biases, norms, scales."""
    batch: int = 512
    """Samples a step over all processes and accumulated parts (Sec. 4.1.1)."""
    accumulate: int = 1
    """Parts that a step's batch is computed in. Negatives and batch statistics are those of a part."""
    epochs: int = 200
    """Passes over the videos (Sec. 4.1.1; 100 for the ablations of Tables 3 to 6)."""
    max_steps: int | None = None
    """Stop after this many steps, whatever `epochs` says."""
    schedule: Literal["plateau", "multistep", "cosine", "constant"] = "plateau"
    """"Decreases by a factor of 10 when the validation loss saturates" (Sec. 4.1.1)."""
    warmup_epochs: float = 0.0
    """Linear warm-up. The paper has none."""
    milestones: tuple[int, ...] = (120, 160)
    """Epochs at which `multistep` divides the rate."""
    gamma: float = 0.1
    """Factor of `plateau` and `multistep` (Sec. 4.1.1)."""
    patience: int = 10
    """Epochs without improvement before `plateau` acts. The paper does not say."""
    threshold: float = 1e-3
    """Relative improvement that counts. The paper does not say."""
    min_lr: float = 1e-6
    """Lowest rate of `plateau`. The paper does not say."""
    clip_norm: float | None = None
    """Largest gradient norm; none in the paper."""
    precision: Precision = "auto"
    """Arithmetic of the encoder: `auto` is bf16 where the device has it, else fp32. Losses are always fp32."""
    log_every: int = 10
    """Steps from one log line to the next."""
    checkpoint_every: int = 500
    """Steps from one checkpoint to the next; one is also written at the end and on a signal."""
    keep: int = 3
    """Checkpoints to keep."""
    keep_best: bool = False
    """Also keep the weights of the epoch with the highest validation accuracy, in `RUN/best.safetensors`."""

    def __post_init__(self) -> None:
        for name, lowest in (("batch", 1), ("lr_batch", 1), ("accumulate", 1), ("keep", 1), ("log_every", 1),
                             ("checkpoint_every", 1), ("epochs", 0), ("lr", 0), ("weight_decay", 0), ("patience", 0),
                             ("warmup_epochs", 0), ("min_lr", 0)):  # fmt: skip
            if not getattr(self, name) >= lowest:
                raise ConfigError(f"optim.{name} must be at least {lowest}, found {getattr(self, name)!r}.")
        if self.max_steps is not None and self.max_steps < 0:
            raise ConfigError(f"optim.max_steps counts steps, or is left out; found {self.max_steps}.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError(f"optim.clip_norm must be positive, or left out; found {self.clip_norm}.")

    def part(self, world_size: int) -> int:
        """Samples of one forward pass on one process.

        Raises:
            ConfigError: The batch cannot be divided so.
        """
        if self.batch % (self.accumulate * world_size):
            raise ConfigError(
                f"optim.batch {self.batch} cannot be divided into {self.accumulate} parts on {world_size} processes; "
                "choose numbers that divide."
            )
        return self.batch // self.accumulate // world_size


def learning_rate(cfg: OptimConfig, epoch: float, epochs: float, reduction: float = 1.0) -> float:
    """Rate at a (fractional) epoch of `epochs`; `reduction` is what the plateau rule has multiplied it by so far.

    >>> learning_rate(OptimConfig(lr=1.0, schedule="cosine", epochs=10), 5, 10)
    0.5
    """
    ratio = cfg.batch / cfg.lr_batch
    lr = cfg.lr * {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[cfg.lr_scaling]
    if epoch < cfg.warmup_epochs:
        return lr * (epoch + 1e-8) / cfg.warmup_epochs
    if cfg.schedule == "plateau":
        return max(lr * reduction, min(cfg.min_lr, lr))
    if cfg.schedule == "cosine":
        share = (epoch - cfg.warmup_epochs) / max(1e-8, epochs - cfg.warmup_epochs)
        return lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    if cfg.schedule == "multistep":
        return lr * cfg.gamma ** sum(epoch >= milestone for milestone in cfg.milestones)
    return lr


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """The plateau rule's memory; equal to `torch.optim.lr_scheduler.ReduceLROnPlateau` with a relative threshold."""

    best: float = math.inf
    """Lowest validation loss that counted as an improvement."""
    stale: int = 0
    """Epochs since."""
    reduction: float = 1.0
    """Product of all reductions."""


def after_epoch(plateau: Plateau, loss: float, cfg: OptimConfig) -> Plateau:
    """The rule's memory after an epoch with this validation loss."""
    if loss < plateau.best * (1 - cfg.threshold):
        return Plateau(best=loss, reduction=plateau.reduction)
    stale = plateau.stale + 1
    if stale > cfg.patience:
        return Plateau(best=plateau.best, reduction=plateau.reduction * cfg.gamma)
    return Plateau(best=plateau.best, stale=stale, reduction=plateau.reduction)


def optimiser(parameters: Iterable[nn.Parameter], cfg: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser that the settings name, for the parameters that learn."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    groups: list[Any] = learning
    if not cfg.decay_vectors:
        vectors = [parameter for parameter in learning if parameter.ndim < 2]
        groups = [{"params": [p for p in learning if p.ndim >= 2]}, {"params": vectors, "weight_decay": 0.0}]
    one_kernel = all(p.is_cuda for p in learning) or all(p.device.type == "cpu" for p in learning)
    fused = True if learning and one_kernel else None
    if cfg.algorithm == "sgd":
        return torch.optim.SGD(groups, cfg.lr, momentum=0.9, weight_decay=cfg.weight_decay, fused=fused)
    kind = torch.optim.Adam if cfg.algorithm == "adam" else torch.optim.AdamW
    return kind(groups, cfg.lr, weight_decay=cfg.weight_decay, fused=fused)


def restore(optimiser: torch.optim.Optimizer, stored: Mapping[str, Any]) -> None:
    """Loads an optimiser's state; whether its kernel is fused is decided here and now, not by the run that saved it."""
    groups = [
        {**group, "fused": own.get("fused")}
        for group, own in zip(stored["param_groups"], optimiser.param_groups, strict=True)
    ]
    optimiser.load_state_dict({**stored, "param_groups": groups})


def arithmetic(cfg: OptimConfig, device: torch.device) -> torch.dtype:
    """Number format of the encoder's arithmetic on a device."""
    return number_format(cfg.precision, device)


@contextmanager
def sound_arithmetic(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Within the block bf16 on the CPU goes without oneDNN; cuDNN looks for its fastest convolutions, and fp32 is fp32.

    oneDNN's weight gradients of 3x3x3 convolutions over two frames contain memory that nobody wrote (PyTorch 2.13, CPU
    with avx512_bf16), sometimes finite, so that no check would notice. Slow, but right; fp32 is not concerned.

    On a GPU: a run has few shapes, so cuDNN's trials are over after the first steps; which kernel wins may differ from
    run to run, so there a run repeats another to rounding only, as it does anyway for gradients that are added up in
    no fixed order. Convolutions in fp32 do without TF32, PyTorch's default for them, whose 10 bits are hardly more than
    bf16 has: whoever asks for fp32 wants to know whether rounding is to blame. Matrix products in fp32 are exact by
    default; those that make pictures take TF32 whatever the precision (`uptal.pretext.batch.synthesise`).
    """
    cudnn, switches = torch.backends.cudnn, []
    if device.type == "cuda":
        switches = [(cudnn, "benchmark", True), (cudnn, "allow_tf32", dtype != torch.float32)]
    elif dtype != torch.float32:
        switches = [(torch.backends.mkldnn, "enabled", False)]
    with switched(*switches):
        yield
