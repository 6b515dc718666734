"""The next batch is prepared while the present one trains: on a CPU its pictures are made, so that no core waits for
another; for a GPU it is put together where the GPU can fetch it by itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch

from uptal.errors import UptalError
from uptal.pretext.batch import Batch, synthesise
from uptal.pretext.data import VALIDATION
from uptal.pretext.loader import Loader
from uptal.pretext.order import Pass

SHARE = 3
"""One of so many threads makes pictures: about the part of a step that they are for a small encoder."""


class Ahead:
    """A loader whose batches bring their synthetic videos along, to the bit those that the task would make.

    Within the block PyTorch's threads are divided between training and pictures. Where there is one only, this is the
    loader and nothing else. A GPU makes its pictures itself, from batches that a thread puts together in pinned memory,
    those of a step while the one before trains; for their copies no step waits. While the last batch of an epoch
    trains, what the run will ask for next is begun with.
    """

    def __init__(self, loader: Loader, device: torch.device):
        self._loader, self._threads = loader, torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._begun: _Begun | None = None
        self._device = device
        self._worth_it = device.type == "cpu" and self._threads > 1

    def __enter__(self) -> Ahead:
        if self._device.type == "cuda":
            # a thread of its own begins on the first GPU, and would take some of its memory from all processes
            self._pool = ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(self._device,))
        elif self._worth_it:
            some = max(1, self._threads // SHARE)
            self._pool = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(some,))
            self._pool.submit(torch.get_num_threads).result()  # the later of two calls is the one that new threads heed
            torch.set_num_threads(self._threads - some)
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = self._begun = None
            torch.set_num_threads(self._threads)

    @property
    def at_once(self) -> bool:
        """Whether pictures are made while the network is busy."""
        return self._worth_it

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""
        return self._loader.steps_per_epoch

    def batches(self, epoch: int, position: int = 0) -> Iterator[Batch]:
        """`Loader.batches`."""
        if self._pool is None:
            yield from self._loader.batches(epoch, position)
            return
        begun = self._begun if self._begun is not None and self._begun.which == (epoch, position) else None
        begun, self._begun = begun or self._begin((epoch, position)), None
        # gathered in this thread: the loader's patience with its workers is an alarm of the main one
        while self._one_more(begun):
            if len(begun.coming) > self._most:
                yield begun.coming.popleft().result()
        self._begun = None if self._loader.coming is None else self._begin(self._loader.coming)
        while begun.coming:
            self._one_more_of_the_next()
            yield begun.coming.popleft().result()

    def validation_batches(self) -> Iterator[Batch]:
        """`Loader.validation_batches`."""
        if self._loader.schedule.num_validation:
            yield from self.batches(VALIDATION)

    @property
    def _most(self) -> int:
        """Batches that are prepared while one trains."""
        return self._loader.parts if self._device.type == "cuda" else 1

    def _begin(self, which: Pass) -> _Begun:
        return _Begun(which, self._loader.gathered(*which))

    def _one_more_of_the_next(self) -> None:
        """What the run will ask for next is begun with, so that the first step of an epoch waits no longer than others.

        Whatever is wrong with its videos is not for the run to hear before it asks.
        """
        try:
            if self._begun is not None:
                self._one_more(self._begun)
        except UptalError:
            self._begun = None

    def _one_more(self, begun: _Begun) -> bool:
        """Has the next batch of a pass prepared; False at its end."""
        put_together = next(begun.source, None)
        if put_together is None:
            return False
        assert self._pool is not None
        begun.coming.append(self._pool.submit(_pinned if self._device.type == "cuda" else _with_views, put_together))
        return True


@dataclass(frozen=True)
class _Begun:
    """A pass over the videos of which some batches are being prepared."""

    which: Pass
    source: Iterator[Callable[[], Batch]]
    coming: deque[Future[Batch]] = field(default_factory=deque)


def _pinned(put_together: Callable[[], Batch]) -> Batch:
    return put_together().pinned()


def _with_views(put_together: Callable[[], Batch]) -> Batch:
    batch = put_together()
    return replace(batch, views=synthesise(batch))
