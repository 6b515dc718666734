"""Batches, epoch by epoch: samples from workers, broken videos set aside, and who lends a background to whom.

Each place of an epoch's order (`order`) names a video and spares: where the video cannot be read, the worker itself
takes a spare, so that every process makes the same number of batches and a position means the same every time. Workers
do not stop at the end of an epoch: they go on with what the run will ask for next.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch.utils.data import DataLoader

from uptal.augment import AugmentConfig
from uptal.distributed import World
from uptal.errors import ConfigError, UptalError, VideoError
from uptal.pretext.batch import Batch, collate
from uptal.pretext.cache import Frames
from uptal.pretext.data import STREAM_PAIRS, VALIDATION, DataConfig, Drawn, Key, Parcel, Sample, Videos
from uptal.pretext.order import WARM_UP, Pass, Schedule, groups
from uptal.pretext.synthesis import PasteConfig, derangements
from uptal.pretext.within import WITHIN
from uptal.video import Quarantine


class WorkerError(UptalError):
    """A loader process died or does not answer; the message names the videos that it may have been at."""


class Loader:
    """Batches of a folder of videos, epoch by epoch, from any position, on any number of workers."""

    def __init__(
        self,
        paths: Sequence[Path],
        data: DataConfig,
        paste_cfg: PasteConfig,
        aug: AugmentConfig,
        *,
        batch: int,
        seed: int,
        world: World,
        labels: Mapping[str, int] | None = None,
        quarantine: Quarantine | None = None,
        decoded: Frames | None = None,
        parts: int = 1,
    ):
        """`parts` is the number of batches that a step takes: workers prepare so many while the step before trains."""
        self.videos = Videos(paths, data, paste_cfg, aug, seed, decoded)
        self.batch, self.parts, self.world, self.labels, self.quarantine = batch, parts, world, labels, quarantine
        self.groups = groups(paths, data.group_pattern)
        self.schedule = Schedule(len(paths), data.val_videos, batch, seed, world)
        self._check()
        self._order = _Order(self.schedule, self._parcel())
        self._samples = self._workers()
        self._running: Iterator[Parcel] = iter(())
        self._passes: Iterator[Pass] = iter(())
        self._coming: Pass | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch; an incomplete last batch is dropped."""
        return self.schedule.steps_per_epoch

    @property
    def coming(self) -> Pass | None:
        """The pass that workers have begun with; None in the midst of one, or where none is foreseen."""
        return self._coming

    def batches(self, epoch: int, position: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, starting after `position` samples of this process.

        Unreadable videos are put into quarantine and others take their place, before anything is paired.

        Raises:
            QuarantineError: Too many videos are unreadable.
        """
        yield from (put_together() for put_together in self.gathered(epoch, position))

    def validation_batches(self) -> Iterator[Batch]:
        """The validation videos with the same draws every time; an incomplete last batch is dropped."""
        if self.schedule.num_validation:
            yield from self.batches(VALIDATION)

    def gathered(self, epoch: int, position: int = 0) -> Iterator[Callable[[], Batch]]:
        """What `batches` gives, each when it is called for: to copy so many pictures can be left to another thread."""
        waiting: list[Sample] = []
        for drawn in self._drawn((epoch, position)):
            position += 1
            waiting.append(self._accepted(drawn))
            if len(waiting) == self.batch:
                rng = np.random.default_rng([self.videos.seed, STREAM_PAIRS, epoch, position, self.world.rank])
                yield partial(self._collate, waiting, None if epoch == VALIDATION else rng, position)
                waiting = []

    def warm_up_batches(self) -> Iterator[Batch]:
        """Batches without end that no epoch of training shows in this form, to fill the queue with."""
        epoch = WARM_UP
        while True:
            yield from self.batches(epoch)
            epoch += 1

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block the death or silence of a worker, which comes up anywhere, is told in words.

        Raises:
            WorkerError: Instead of what PyTorch raises.
        """
        try:
            yield
        except (ConnectionError, EOFError) as error:  # it died while a finished sample was being fetched from it
            with suppress(RuntimeError):  # PyTorch's own notice of the death, which comes up wherever we are
                time.sleep(0.5)
            self._wake_workers()
            raise WorkerError(self._explain(f"{type(error).__name__}: {error}")) from error
        except Exception as error:
            notice = _notice(error)
            if notice is None:
                raise
            self._wake_workers()
            raise WorkerError(self._explain(notice)) from error

    def _drawn(self, begin: Pass) -> Iterator[Drawn]:
        """The samples of a pass, from workers that may have begun with it long ago."""
        if self._coming != begin:
            self._passes = self.schedule.passes(begin)
            self._coming = next(self._passes)
            self._order.restart(begin)
            self._running = iter(self._samples)
        self._coming = None  # whoever leaves in the midst of a pass begins anew
        left = len(self.schedule.keys(begin))
        while left > 0:
            with _patience(self._longest_wait()):
                parcel = next(self._running)
            self._order.arrived()
            drawn = parcel.opened()
            left -= len(drawn)
            yield from drawn
        self._coming = next(self._passes, None)

    def _accepted(self, drawn: Drawn) -> Sample:
        """Sets failed videos aside; gives the sample.

        Raises:
            QuarantineError: Too many videos have failed. VideoError: One failed and nothing may take its place.
        """
        for path, reason in drawn.failures:
            if self.quarantine is None:
                raise VideoError(path, reason)
            self.quarantine.add(VideoError(path, reason))
        if drawn.sample is None:
            raise VideoError(*drawn.failures[-1])
        return drawn.sample

    def _collate(self, samples: list[Sample], rng: np.random.Generator | None, position: int) -> Batch:
        videos, lenders = self.videos, self._lenders(samples, rng)
        return collate(
            samples, lenders, position, paths=videos.paths, data=videos.data, aug=videos.aug, labels=self.labels
        )

    def _lenders(self, samples: list[Sample], rng: np.random.Generator | None) -> list[np.ndarray] | None:
        """For each view, whose clips are behind each region; the first regions of all videos, then the second ones."""
        source, count, cfg = self.videos.paste.source, len(samples), self.videos.data.timeline
        if source == "none":
            return None
        here = np.arange(count * cfg.regions)
        if source in WITHIN:
            return [here] * cfg.views
        groups = [int(self.groups[sample.plan.index]) for sample in samples]
        turns = [derangements(rng, groups, same=source == "same")[: cfg.views] for _ in range(cfg.regions)]
        pasted = np.array([sample.plans[turn].pasted for turn in range(cfg.regions) for sample in samples])
        lenders = [np.concatenate([maps[view] + turn * count for turn, maps in enumerate(turns)])
                   for view in range(cfg.views)]  # fmt: skip
        return [np.where(pasted, lender, here) for lender in lenders]

    def _check(self) -> None:
        """Refuses settings that cannot work before the first video is opened.

        Raises:
            ConfigError: A batch is larger than the set it is taken from, or too small to paste.
        """
        step, counted = self.schedule.step, self.schedule.num_validation
        left = len(self.videos) - counted
        if self.steps_per_epoch < 1:
            raise ConfigError(
                f"A batch of {self.batch} on each of {self.world.size} processes needs {step} training videos; "
                f"{left} are left of {len(self.videos)} after {counted} were set aside for validation. "
                "Use a smaller --optim.batch, a smaller --data.val_videos or more videos."
            )
        if 0 < counted < step:
            raise ConfigError(
                f"--data.val_videos {counted} is less than one batch ({step} over all processes), so there would be no "
                "validation loss. Set aside at least a batch, or none."
            )
        if self.videos.paste.source == "none":
            return
        if self.videos.paste.source not in WITHIN:
            derangements(None, range(self.batch), same=self.videos.paste.source == "same")
        if self.videos.data.timeline.context == "none":
            raise ConfigError(
                "--data.timeline.context none is for regions that stay in their own video, and --paste.source is "
                f"{self.videos.paste.source}. Use --paste.source none, or --data.timeline.context own."
            )

    def _parcel(self) -> int:
        """Samples that a worker packs together: few enough that all workers share a batch evenly, and so many that
        handing them over costs little beside drawing them."""
        return min(32, max(1, self.batch // (2 * max(1, self.videos.data.workers))))

    def _workers(self) -> DataLoader:
        data = self.videos.data
        ahead = self.batch * self.parts // (self._order.parcel * max(1, data.workers))
        return DataLoader(
            self.videos,
            sampler=self._order,
            batch_size=None,
            num_workers=data.workers,
            persistent_workers=data.workers > 0,
            timeout=data.worker_timeout if data.workers else 0,
            worker_init_fn=_prepare_worker,
            generator=torch.Generator(),  # its draws are not used; the global generator belongs to the model
            prefetch_factor=max(2, ahead) if data.workers else None,
        )

    def _longest_wait(self) -> float:
        """Seconds for a sample to come: PyTorch's timeout, and some for fetching it, for which PyTorch has none."""
        timeout = self.videos.data.worker_timeout
        return timeout + min(timeout, 5.0) if self.videos.data.workers else 0.0

    def _wake_workers(self) -> None:
        """Lets workers that were stopped go on, so that they hear PyTorch's request to end, which waits for them."""
        for worker in getattr(self._running, "_workers", ()):
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGCONT)

    def _explain(self, reason: str) -> str:
        names = [self.videos.paths[candidates[0]].name for keys in self._order.away for _, candidates in keys]
        listed = ", ".join(names[:16]) + (f" and {len(names) - 16} more" if len(names) > 16 else "")
        timeout = self.videos.data.worker_timeout
        what, then = (
            (f"gave no sample for {timeout:g} s", "A slow disk needs a larger --data.worker_timeout.")
            if "timed out" in reason
            else ("died", "Where memory is short, use fewer --data.workers or a smaller --data.cache_mib.")
        )
        return (
            f"A loader process {what} ({' '.join(reason.split())}). Videos that it may have been at: {listed}. {then} "
            "The same command goes on from the newest checkpoint; if it ends at the same videos again, try them with "
            "`uptal doctor data --decode` and take out the one that fails."
        )


class _Order:
    """A sampler that goes on beyond an epoch, and knows what it has handed out."""

    def __init__(self, schedule: Schedule, parcel: int):
        self.schedule, self.parcel = schedule, parcel
        self.away: deque[list[Key]] = deque()
        """What was handed out and has not come back."""
        self._begin: Pass = (0, 0)

    def restart(self, begin: Pass) -> None:
        """The next iteration starts here."""
        self._begin = begin
        self.away.clear()

    def arrived(self) -> None:
        """The oldest of what is away has come back."""
        self.away.popleft()

    def __iter__(self) -> Iterator[list[Key]]:
        for begin in self.schedule.passes(self._begin):
            keys = self.schedule.keys(begin)
            for first in range(0, len(keys), self.parcel):
                self.away.append(keys[first : first + self.parcel])
                yield self.away[-1]


def _notice(error: BaseException | None) -> str | None:
    """What PyTorch says of a worker, where this is behind an error: its signal handler raises in the midst of whatever
    is being done, and code that takes every error for one of its own puts another on top of it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, RuntimeError) and str(error).startswith("DataLoader"):
            return str(error)
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Within the block a wait of more than so many seconds raises what PyTorch raises when a worker is silent.

    A sample's pictures are fetched from the worker that made them over a connection that knows no timeout, so a worker
    that was stopped in between would be waited for for ever. 0, or outside the main thread: no limit.
    """
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise RuntimeError(f"DataLoader timed out after {seconds:g} seconds while a sample was being fetched")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _prepare_worker(worker: int) -> None:
    """One thread each, in a process group of its own: a signal to the whole run (Ctrl-C, `timeout`, a scheduler) is for
    the training process, which still needs its data to finish the step and then ends the workers itself."""
    torch.set_num_threads(1)
    os.setpgid(0, 0)
    sys.excepthook = _tell_unless_left


def _tell_unless_left(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """In a worker: that the training process has hung up while something was handed to it is no news to anybody."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, at)
