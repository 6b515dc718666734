"""LGI on queries and stored features: batches in a reproducible order, the loss of one, and answers in seconds.

The network is in `lgi`, its targets in `lgi_targets`. Letters: B queries, T segments, M sampled features of a video, L
words, C feature width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uptal.errors import ConfigError
from uptal.features import Features, FeatureStore
from uptal.localizers.lgi import LGI, Grounding
from uptal.localizers.lgi_targets import (
    attention_on_clock,
    attention_target,
    grounding_losses,
    num_offsets,
    sample_steps,
)
from uptal.localizers.samples import check_features
from uptal.localizers.text import Text, Words
from uptal.types import Query

HIT = 0.5
"""tIoU at which a validation query counts as answered: the public code selects by R@1 at 0.5."""

Clock = Literal["share", "timebase"]


class VideoFeatures:
    """Features of a store's videos, in memory up to a limit; nothing derived from them is ever written to the disk."""

    def __init__(self, store: FeatureStore, memory_mib: int = 4096):
        self.store, self.room = store, memory_mib * 2**20
        self._held: dict[str, Features] = {}

    def __call__(self, id: str) -> Features:
        """Features of one video, checked once.

        Raises:
            AnnotationError: There are none, or some are not finite. CheckpointError: They cannot be read.
        """
        if id in self._held:
            return self._held[id]
        read = self.store.read(id)
        check_features(read)
        size = read.values.numel() * read.values.element_size()
        if size <= self.room:
            self.room -= size
            self._held[id] = read
        return read


@dataclass(frozen=True)
class QueryBatch:
    """Queries with their videos and, for training, their intervals; as the training loop wants batches."""

    words: Int[Tensor, "B L"] | Float[Tensor, "B L W"]
    known: Bool[Tensor, "B L"]
    features: Float[Tensor, "B T C"]
    valid: Bool[Tensor, "B T"]
    location: Float[Tensor, "B 2"]
    """True start and end as shares of the duration; zeros without annotation."""
    attention: Float[Tensor, "B T"]
    """Where the interval is; zeros without annotation."""
    names: tuple[str, ...]
    """Videos."""
    position: int
    """Queries of the epoch that are used up."""

    def to(self, device: torch.device) -> QueryBatch:
        """The batch with its tensors on `device`."""
        moved = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class QueryBatcher:
    """Turns queries into batches."""

    text: Text
    read: Callable[[str], Features]
    """Features of a video."""
    num_segments: int
    """T."""
    clock: Clock = "share"
    """How intervals are laid on segments: `share` of the duration as in the public code, or the store's time base."""

    def batch(
        self, queries: Sequence[Query], words: Words, offsets: Sequence[float] | None = None, position: int = 0
    ) -> QueryBatch:
        """One batch.

        Args:
            queries: Whose videos.
            words: Their sentences, encoded.
            offsets: For each query a number in [0, 1) that chooses the first sampled feature; none samples from the
                first one, as evaluation does.
            position: Queries of the epoch that are used up then.
        """
        features, valid, location, attention = [], [], [], []
        for row, query in enumerate(queries):
            read = self.read(query.video)
            count, duration = len(read.values), duration_of(query, read)
            offset = 0 if offsets is None else int(offsets[row] * num_offsets(count, self.num_segments))
            steps = sample_steps(count, self.num_segments, offset)
            gap = self.num_segments - len(steps)
            features.append(F.pad(read.values[steps].float(), (0, 0, 0, gap)))
            valid.append(F.pad(torch.ones(len(steps), dtype=torch.bool), (0, gap)))
            known = query.located
            location.append((query.start / duration, query.end / duration) if known else (0.0, 0.0))
            attention.append(self._target(query, read, duration) if known else np.zeros(self.num_segments, np.float32))
        return QueryBatch(
            words.values,
            words.known,
            torch.stack(features),
            torch.stack(valid),
            torch.tensor(location, dtype=torch.float64).float(),
            torch.from_numpy(np.stack(attention)),
            tuple(query.video for query in queries),
            position,
        )

    def batches(self, queries: Sequence[Query], size: int) -> Iterator[QueryBatch]:
        """All queries in their order, the last batch as small as it comes."""
        for begin in range(0, len(queries), size):
            part = queries[begin : begin + size]
            yield self.batch(part, self.text.encode([query.sentence for query in part]), None, begin + len(part))

    def _target(self, query: Query, read: Features, duration: float) -> Float[np.ndarray, " T"]:
        if self.clock == "share":
            return attention_target(query.start, query.end, duration, len(read.values), self.num_segments)
        centres = segment_centres(read, self.num_segments)
        return attention_on_clock(query.start, query.end, centres, self.num_segments)


class GroundingData:
    """Training queries in an order that depends on (seed, epoch) alone, and held-out ones in theirs."""

    def __init__(
        self, batcher: QueryBatcher, queries: Sequence[Query], batch: int, seed: int, validation: Sequence[Query] = ()
    ):
        if len(queries) < batch:
            raise ConfigError(
                f"There are {len(queries)} training queries, a step needs {batch}. Use --optim.batch {len(queries)} or "
                "less, or more queries."
            )
        self.batcher, self.queries, self.batch, self.seed = batcher, list(queries), batch, seed
        self.validation = list(validation)
        self._words = batcher.text.encode([query.sentence for query in queries])

    @property
    def steps_per_epoch(self) -> int:
        """The incomplete last batch is left out, as in the public code."""
        return len(self.queries) // self.batch

    def batches(self, epoch: int, position: int = 0) -> Iterator[QueryBatch]:
        """The epoch's batches after `position` queries."""
        order = np.random.default_rng([self.seed, 7, epoch]).permutation(len(self.queries))
        offsets = np.random.default_rng([self.seed, 8, epoch]).random(len(self.queries))
        for begin in range(position, len(order) - self.batch + 1, self.batch):
            rows = order[begin : begin + self.batch]
            words = self._words.pick(torch.from_numpy(rows))
            picked = [self.queries[row] for row in rows]
            yield self.batcher.batch(picked, words, offsets[rows].tolist(), begin + len(rows))

    def validation_batches(self) -> Iterator[QueryBatch]:
        """Held-out queries, all of them."""
        return self.batcher.batches(self.validation, self.batch)


class GroundingTask(nn.Module):
    """LGI as the training loop sees it. In evaluation `accuracy` is the share of queries with tIoU of 0.5 or more."""

    def __init__(self, model: LGI):
        super().__init__()
        self.model = model

    def loss(self, batch: QueryBatch) -> dict[str, Tensor]:
        """Losses of a batch of queries."""
        found = self.model(batch.words, batch.known, batch.features, batch.valid)
        values = grounding_losses(found, batch.location, batch.attention, self.model.cfg)
        if not self.training:
            values["accuracy"] = (_overlap(found.location.float(), batch.location) >= HIT).float().mean()
        return values

    def after_step(self) -> None:
        """Nothing outlives a step."""


@torch.inference_mode()
def ground_batch(model: LGI, batch: QueryBatch) -> Grounding:
    """The network's answer, on the CPU; `batch` may be elsewhere."""
    device = next(model.parameters()).device
    batch = batch.to(device)
    found = model(batch.words, batch.known, batch.features, batch.valid)
    words = None if found.over_words is None else found.over_words.float().cpu()
    return Grounding(found.location.float().cpu(), found.over_time.float().cpu(), words)


def duration_of(query: Query, read: Features) -> float:
    """Seconds of a query's video: as annotated, else as the store has it."""
    return query.duration if math.isfinite(query.duration) else read.duration


def segment_centres(read: Features, num_segments: int) -> Float[np.ndarray, " M"]:
    """Second of the middle of each segment of a video sampled from its first feature, by the store's time base."""
    return np.array([read.timebase.centre(int(step)) for step in sample_steps(len(read.values), num_segments)])


def split_held_out(queries: Sequence[Query], share: float, seed: int) -> tuple[list[Query], list[Query]]:
    """Queries to train on and queries held out, by whole videos; which ones depends on names and seed alone."""
    if not share:
        return list(queries), []

    def held(query: Query) -> bool:
        return int(hashlib.sha256(f"{seed} {query.video}".encode()).hexdigest()[:8], 16) < share * 2**32

    return [query for query in queries if not held(query)], [query for query in queries if held(query)]


def _overlap(found: Float[Tensor, "B 2"], truth: Float[Tensor, "B 2"]) -> Float[Tensor, " B"]:
    """tIoU as the metric has it (`metrics.hull_tiou`)."""
    inside = torch.minimum(found[:, 1], truth[:, 1]) - torch.maximum(found[:, 0], truth[:, 0])
    span = torch.maximum(found[:, 1], truth[:, 1]) - torch.minimum(found[:, 0], truth[:, 0])
    return inside.clamp(min=0) / span.clamp(min=1e-12)
