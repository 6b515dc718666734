"""What every localizer needs to be trained by the one loop: batches in a reproducible order, and a task that is one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from uptal.localizers.samples import Sample
from uptal.types import Detections


@runtime_checkable
class Batch(Protocol):
    """Tensors and labels of one step; what is in it is the localizer's own affair."""

    def to(self, device: torch.device) -> Any: ...


@runtime_checkable
class Localizer(Protocol):
    """What an `nn.Module` must offer to be trained, stored and used as a localizer."""

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Samples as one batch with labels."""
        ...

    def loss(self, batch: Any, generator: np.random.Generator) -> dict[str, Tensor]:
        """`loss` and its parts; whatever is random is drawn from the generator."""
        ...

    def localize(self, samples: Sequence[Sample]) -> list[Detections]:
        """Scored segments of each sample in seconds of its video, best first."""
        ...

    def propose(self, samples: Sequence[Sample]) -> list[Detections]:
        """The same without classes: a stretch once, whatever happens in it. `localize` itself where that names none."""
        ...

    def merge(self, samples: Sequence[Sample], parts: Sequence[Detections]) -> Detections:
        """What was found in all samples of one video as one list, best first; a single part stays as it is."""
        ...


@dataclass(frozen=True)
class TrainingBatch:
    """A batch, whose it is, and the seed of the step's random draws."""

    content: Any
    names: tuple[str, ...]
    position: int
    seed: tuple[int, ...]

    def to(self, device: torch.device) -> TrainingBatch:
        """The batch with its tensors on `device`."""
        return replace(self, content=self.content.to(device))


class SampleData:
    """Samples in memory, in an order that depends on (seed, epoch) alone."""

    def __init__(self, samples: Sequence[Sample], model: Localizer, batch: int, seed: int):
        self.samples, self.model, self.batch, self.seed = samples, model, batch, seed

    @property
    def steps_per_epoch(self) -> int:
        """The incomplete last batch counts, as in the public codes of BMN and G-TAD."""
        return -(-len(self.samples) // self.batch)

    def batches(self, epoch: int, position: int = 0) -> Iterator[TrainingBatch]:
        """The epoch's batches after `position` samples."""
        order = np.random.default_rng([self.seed, 5, epoch]).permutation(len(self.samples))
        for begin in range(position, len(order), self.batch):
            picked = [self.samples[i] for i in order[begin : begin + self.batch]]
            names = tuple(sample.id for sample in picked)
            yield TrainingBatch(self.model.collate(picked), names, begin + len(picked), (self.seed, 6, epoch, begin))

    def validation_batches(self) -> Iterator[TrainingBatch]:
        """None: the last epoch is kept, as in the public codes."""
        return iter(())


class LocalizerTask(nn.Module):
    """A localizer as the training loop sees it."""

    model: Any

    def __init__(self, model: nn.Module, ema: float = 0.0):
        """With `ema` above 0, `kept` is a running mean of the model's weights with that decay."""
        super().__init__()
        self.model, self.ema = model, ema
        if ema:
            self.mean = copy.deepcopy(model).requires_grad_(False)
            self.register_buffer("num_steps", torch.tensor(0))

    @property
    def kept(self) -> Any:
        """The localizer that training is for."""
        return self.mean if self.ema else self.model

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """The model's loss with the draws that belong to this step."""
        return self.model.loss(batch.content, np.random.default_rng(list(batch.seed)))

    def after_step(self) -> None:
        """Brings the running mean up to date; early on it follows quickly."""
        if not self.ema:
            return
        self.num_steps += 1
        decay = min(self.ema, (1 + int(self.num_steps)) / (10 + int(self.num_steps)))
        torch.optim.swa_utils.get_ema_multi_avg_fn(decay)(
            list(self.mean.parameters()), list(self.model.parameters()), self.num_steps
        )
        for mean, now in zip(self.mean.buffers(), self.model.buffers(), strict=True):
            mean.copy_(now)
