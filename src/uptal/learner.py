"""One update of the weights: forward and backward of the parts of a batch, averaging over processes, a look at
whether everything is finite, the optimiser; when updates happen is in `train`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from uptal.distributed import average
from uptal.errors import UptalError
from uptal.optim import OptimConfig, arithmetic, optimiser


class DivergenceError(UptalError):
    """A loss or gradient that is not a number; raised before the update, so weights are those before the step."""


@runtime_checkable
class Batch(Protocol):
    """What the loop knows of a batch."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def position(self) -> int: ...
    def to(self, device: torch.device) -> Any: ...


@runtime_checkable
class Task(Protocol):
    """A module that knows its loss. `after_step` runs once the optimiser has stepped."""

    def loss(self, batch: Any) -> dict[str, Tensor]: ...
    def after_step(self) -> None: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...


class Learner:
    """A task with its optimiser: what turns a batch into other weights."""

    def __init__(self, task: Task, cfg: OptimConfig, device: torch.device):
        self.task, self.cfg, self.device = task, cfg, device
        self.dtype = arithmetic(cfg, device)
        self.optimiser = optimiser(task.parameters(), cfg)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    def step(self, parts: Sequence[Batch], lr: float, number: int) -> dict[str, Any]:
        """One update from the parts of one batch; the values that go to the log, means over parts and processes."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad(set_to_none=True)
        found = [self._backward(part, len(parts)) for part in parts]
        gradients = [p.grad for p in self.task.parameters() if p.grad is not None]
        own = torch.stack([torch.stack([v.detach().float() for v in values.values()]) for values in found])
        shared = own.clone()
        average([*gradients, shared])
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.get_total_norm(gradients)
        values = self._look(parts, list(found[0]), own, shared, norm, number)
        self._clip(gradients, norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.task.after_step()
        return values

    def _backward(self, part: Batch, count: int) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            values = self.task.loss(part.to(self.device))
        self.scaler.scale(values["loss"] / count).backward()
        return values

    def _look(
        self, parts: Sequence[Batch], names: Sequence[str], own: Tensor, shared: Tensor, norm: Tensor, number: int
    ) -> dict[str, Any]:
        """Means of what the parts found. The one moment of a step in which the device is waited for; only PyTorch's
        synchronised batch norm, with several GPUs, looks in every layer whether a process has nothing to count.

        Raises:
            DivergenceError: On every process alike, if the loss or the gradient of one of them is not finite.
        """
        size, *rest = torch.cat([norm.reshape(1), own.flatten(), shared.flatten()]).tolist()
        half, loss = len(rest) // 2, names.index("loss")
        mine, means = (_rows(part, len(names)) for part in (rest[:half], rest[half:]))
        for part, local, mean in zip(parts, mine, means, strict=True):
            if not math.isfinite(mean[loss]):
                elsewhere = " (that of another process)" if math.isfinite(local[loss]) else ""
                raise _divergence(f"loss of step {number} is {mean[loss]}{elsewhere}", [part])
        if not self.scaler.is_enabled() and not math.isfinite(size):  # a scaler skips by itself
            named = [n for n, p in self.task.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
            what = f"of {named[0]}" if named else "norm"
            raise _divergence(f"gradient {what} in step {number} is not finite", parts)
        averages = {name: sum(row[i] / len(parts) for row in means) for i, name in enumerate(names)}
        return {"loss": averages["loss"], "accuracy": averages.get("accuracy"), **averages}

    def _clip(self, gradients: Sequence[Tensor], norm: Tensor) -> None:
        if self.cfg.clip_norm is not None:
            factor = (self.cfg.clip_norm / (norm + 1e-6)).clamp(max=1.0)
            for gradient in gradients:
                gradient.mul_(factor)


def _rows(numbers: Sequence[float], width: int) -> list[Sequence[float]]:
    return [numbers[begin : begin + width] for begin in range(0, len(numbers), width)]


def _divergence(what: str, parts: Sequence[Batch]) -> DivergenceError:
    names = [name for part in parts for name in part.names]
    listed = ", ".join(names[:32]) + (f" and {len(names) - 32} more" if len(names) > 32 else "")
    return DivergenceError(
        f"The {what}; the weights are still those before the step, and the newest checkpoint is untouched. Videos of "
        f"this step: {listed}. Try a lower --optim.lr, --optim.clip_norm 1 or --optim.precision fp32."
    )
