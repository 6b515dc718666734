"""Which videos are wanted when: the order of every epoch, this process's share, spares, and what comes after what.

All of it is a function of (seed, epoch), so every process knows it without asking, and workers can go on with the next
epoch while the device is still busy with this one. Letters: N videos.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from uptal.distributed import World
from uptal.errors import ConfigError
from uptal.pretext.data import STREAM_ORDER, STREAM_SPLIT, VALIDATION, Key

SPARES = 7
"""Videos that are tried in the place of an unreadable one."""

WARM_UP = 2**30
"""First epoch number of the samples that fill the queue before training."""

Pass = tuple[int, int]
"""An epoch and the samples of it that this process has used up."""


@dataclass(frozen=True)
class Schedule:
    """The passes of a run over `count` videos, of which the validation ones are set aside at random."""

    count: int
    num_validation: int
    batch: int
    seed: int
    world: World

    @property
    def validation(self) -> Int[np.ndarray, " N"]:
        """Videos that are never trained on."""
        return np.sort(self._split()[: self.num_validation])

    @property
    def training(self) -> Int[np.ndarray, " N"]:
        """All others."""
        return np.sort(self._split()[self.num_validation :])

    @property
    def step(self) -> int:
        """Samples of a step over all processes."""
        return self.batch * self.world.size

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch; an incomplete last batch is dropped."""
        return (self.count - self.num_validation) // self.step

    def passes(self, begin: Pass) -> Iterator[Pass]:
        """What a run asks for, beginning here: after each epoch the validation, where there is any, then the next."""
        epoch, _ = begin
        yield begin
        while epoch != VALIDATION:
            if self.num_validation and epoch < WARM_UP:
                yield VALIDATION, 0
            epoch += 1
            yield epoch, 0

    def keys(self, begin: Pass) -> list[Key]:
        """What this process wants of an epoch from a position on: each video with its spares."""
        epoch, position = begin
        if epoch == VALIDATION:
            order = self.validation
        else:
            order = np.random.default_rng([self.seed, STREAM_ORDER, epoch]).permutation(self.training)
        return [(epoch, tuple(row)) for row in self._candidates(order)[position:].tolist()]

    def _split(self) -> Int[np.ndarray, " N"]:
        return np.random.default_rng([self.seed, STREAM_SPLIT]).permutation(self.count)

    def _candidates(self, order: Int[np.ndarray, " N"]) -> Int[np.ndarray, "n spares"]:
        """This process's share of whole batches, each video with its spares: those at its place in other batches."""
        used = len(order) // self.step * self.step
        share = order[:used][self.world.rank :: self.world.size]
        pool = np.concatenate([share, order[used:]])
        shift = self.batch if len(pool) > self.batch else 1
        return np.stack([np.roll(pool, -shift * turn)[: len(share)] for turn in range(1 + SPARES)], axis=1)


def groups(paths: Sequence[Path], pattern: str | None) -> Int[np.ndarray, " N"]:
    """A number for each video; equal for those that must not be pasted onto each other."""
    if pattern is None:
        return np.arange(len(paths))
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"data.group_pattern {pattern!r} is not a regular expression: {error}.") from error
    if expression.groups < 1:
        raise ConfigError(f"data.group_pattern {pattern!r} has no group; put the part that counts in brackets.")
    found = [expression.search(path.stem) for path in paths]
    names = [path.stem if match is None else match.group(1) for path, match in zip(paths, found, strict=True)]
    return np.unique(names, return_inverse=True)[1]
