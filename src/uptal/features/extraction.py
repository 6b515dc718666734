"""From videos to a store of features: threads decode several videos at once, the encoder sees full batches across them.

Where clips lie and how they are decoded is in `grid`, how they are encoded in `encoding` and `lanes`, where features
are kept in `store`; which encoder and which videos is decided by the callers.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from uptal import video
from uptal.clipspec import ClipSpec
from uptal.device import Precision
from uptal.errors import CheckpointError, ConfigError, VideoError
from uptal.features.encoding import make_ready, shrink
from uptal.features.grid import Grid, Sampling, decode_clips, lay_grid
from uptal.features.lanes import Lanes
from uptal.features.store import Features, FeatureStore
from uptal.progress import Progress
from uptal.video import Quarantine
from uptal.video.packs import size_of

WAITING_BYTES = 2**28
"""Decoded clips that may wait for the encoder."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """How the work is done; but for `precision`, nothing here changes a feature by more than rounding."""

    batch: int = 32
    """Clips that the encoder works on at once; on a CPU in passes of eight, side by side."""
    threads: int = 2
    """Videos decoded at once; with fewer videos than that, each is decoded by several threads."""
    precision: Precision = "auto"
    """Arithmetic of the encoder."""
    compile: bool = False
    """Compile the encoder first."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.threads < 1:
            raise ConfigError(
                f"Extraction needs a batch and threads of at least 1, found {self.batch} and {self.threads}."
            )


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What an extraction has done."""

    videos: int
    """Videos written; those that were there before do not count."""
    clips: int
    """Clips encoded."""
    seconds: float
    """From the first video to the last."""
    waited: float
    """Seconds in which the encoder had nothing to do, for want of decoded clips."""

    def describe(self) -> str:
        """In words; nothing when there was nothing to do."""
        if not self.clips:
            return ""
        return (
            f"{3600 * self.videos / self.seconds:.0f} videos/h, {self.clips / self.seconds:.1f} clips/s, "
            f"{100 * self.waited / self.seconds:.0f} % of the time waiting for the decoder"
        )


def extract(
    paths: Sequence[Path],
    store: FeatureStore,
    encoder: nn.Module,
    spec: ClipSpec,
    sampling: Sampling,
    *,
    device: torch.device,
    work: Work = Work(),
    quarantine: Quarantine | None = None,
) -> Extracted:
    """Extracts every video that the store does not hold yet, under the file's stem.

    Neither the number of threads nor what else is extracted changes a feature.

    Raises:
        VideoError: A video cannot be read and there is no quarantine. QuarantineError: Too many cannot.
        CheckpointError: The encoder gives numbers that are none.
    """
    todo = [path for path in paths if path.stem not in store]
    ready = make_ready(encoder, device, work.compile)
    lanes = Lanes(ready, spec, device, work.batch, work.precision, side_by_side=not work.compile)
    tally = _Tally(todo, lanes)
    with lanes, Progress("extracting", total=len(todo)) as progress:
        assembly = _Assembly(store, lanes, spec, device, sampling.resize_on)
        for piece in _decode_all(todo, spec, sampling, work.threads, device):
            if piece.error is None:
                assembly.take(piece)
            else:
                assembly.drop(piece.path)
                if quarantine is None:
                    raise piece.error
                quarantine.add(piece.error)
            tally.count(piece)
            progress.update(tally.videos, tally.note(), share=tally.share())
        assembly.flush()
    return Extracted(videos=assembly.written, clips=tally.clips, seconds=tally.seconds(), waited=tally.waited())


@dataclass(frozen=True)
class _Piece:
    """What a decoding thread hands over: a clip, or a video's beginning or end, or why it ended early."""

    path: Path
    grid: Grid | None = None
    clip: Tensor | None = None
    error: VideoError | None = None
    last: bool = False


class _Tally:
    """How far the work is; a video counts by the size of its file, so that long ones count for more."""

    def __init__(self, paths: Sequence[Path], lanes: Lanes):
        self.videos = self.clips = 0
        self._lanes = lanes
        self._sizes = {path: size_of(path) for path in paths}
        self._clips_of: dict[Path, int] = {}
        self._bytes = 0.0
        self._begin = time.perf_counter()

    def count(self, piece: _Piece) -> None:
        if piece.grid is not None:
            self._clips_of[piece.path] = len(piece.grid.frames)
        if piece.clip is not None:
            self.clips += 1
            self._bytes += self._sizes[piece.path] / self._clips_of[piece.path]
        self.videos += piece.last

    def share(self) -> float:
        return self._bytes / max(1, sum(self._sizes.values()))

    def seconds(self) -> float:
        return max(1e-9, time.perf_counter() - self._begin)

    def waited(self) -> float:
        """Seconds without a pass of the encoder."""
        return max(0.0, self.seconds() - self._lanes.busy / self._lanes.count)

    def note(self) -> str:
        spent = self.seconds()
        rate = 3600 * self.share() * len(self._sizes) / spent
        return f"{rate:.0f} videos/h, {self.clips} clips, {100 * self.waited() / spent:.0f} % waiting for the decoder"


class _Assembly:
    """Clips that wait for a pass to be full, passes under way, and videos that wait for their last feature."""

    def __init__(self, store: FeatureStore, lanes: Lanes, spec: ClipSpec, device: torch.device, resize_on: str):
        self.store, self.lanes, self.spec, self.device, self.resize_on = store, lanes, spec, device, resize_on
        self.written = 0
        self._waiting: list[tuple[Path, Tensor]] = []
        self._passes: deque[tuple[list[Path], Future[Tensor]]] = deque()
        self._rows: dict[Path, list[Tensor]] = {}
        self._grids: dict[Path, Grid] = {}

    def take(self, piece: _Piece) -> None:
        """Adds a piece; starts a pass when there is enough, and stores what earlier ones have completed."""
        if piece.grid is not None:
            self._rows[piece.path], self._grids[piece.path] = [], piece.grid
        if piece.clip is not None:
            clip = shrink(piece.clip, self.spec, self.device) if self.resize_on == "device" else piece.clip
            self._waiting.append((piece.path, clip))
        if len(self._waiting) == self.lanes.size:
            self._start()

    def drop(self, path: Path) -> None:
        """Forgets a video that turned out to be damaged."""
        self._rows.pop(path, None)
        self._grids.pop(path, None)
        self._waiting = [(other, clip) for other, clip in self._waiting if other != path]

    def flush(self) -> None:
        """Encodes what waits, and stores everything."""
        if self._waiting:
            self._start()
        while self._passes:
            self._finish()

    def _start(self) -> None:
        clips = torch.stack([clip for _, clip in self._waiting])
        self._passes.append(([path for path, _ in self._waiting], self.lanes.submit(clips)))
        self._waiting.clear()
        while len(self._passes) > 2 * self.lanes.count:  # one under way and one ready for each lane
            self._finish()

    def _finish(self) -> None:
        paths, values = self._passes.popleft()
        for path, row in zip(paths, values.result(), strict=True):
            if path in self._rows:
                self._rows[path].append(row)
        for path in [path for path in dict.fromkeys(paths) if path in self._rows]:
            if len(self._rows[path]) == len(self._grids[path].frames):
                self._store(path, self._grids.pop(path), torch.stack(self._rows.pop(path)))

    def _store(self, path: Path, grid: Grid, values: Tensor) -> None:
        if not values.isfinite().all():
            raise CheckpointError(
                f"{path}: the encoder's features of this video contain NaN or infinity. Either its weights do, or the "
                "precision is too small for them: try --precision fp32."
            )
        self.store.write(Features(path.stem, values, grid.timebase, grid.info.duration))
        self.written += 1


def _decode_all(
    paths: Sequence[Path], spec: ClipSpec, sampling: Sampling, threads: int, device: torch.device
) -> Iterator[_Piece]:
    """Pieces of all videos, decoded by threads; at most a bounded number wait."""
    todo: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for path in paths:
        todo.put(path)
    pieces: queue.Queue[_Piece | BaseException | None] = queue.Queue(_room(spec, sampling))
    stopped = threading.Event()
    inside = max(1, threads // max(1, len(paths)))  # threads of FFmpeg for each video

    def hand_over(piece: _Piece | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return pieces.put(piece, timeout=0.2)
            except queue.Full:
                continue

    def work() -> None:
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)  # a new thread begins on the first GPU, and `nvdec` takes the current one
            while not stopped.is_set():
                try:
                    path = todo.get_nowait()
                except queue.Empty:
                    break
                for piece in _pieces(path, spec, sampling, inside):
                    hand_over(piece)
                    if stopped.is_set():
                        return
        except BaseException as error:  # handed to the thread that waits, which raises it
            hand_over(error)
        finally:
            hand_over(None)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(paths)))]
    for worker in workers:
        worker.start()
    left = len(workers)
    try:
        while left:
            piece = pieces.get()
            if piece is None:
                left -= 1
            elif isinstance(piece, BaseException):
                raise piece
            else:
                yield piece
    finally:
        stopped.set()
        deadline = time.monotonic() + 10
        for worker in workers:  # at work inside a decoder while the interpreter ends, they would abort it
            worker.join(max(0.0, deadline - time.monotonic()))


def _room(spec: ClipSpec, sampling: Sampling) -> int:
    """Pieces that may wait: so many clips as fit the memory set aside; of whole pictures nobody knows the size yet."""
    if sampling.resize_on == "device":
        return 4
    return max(4, min(64, WAITING_BYTES // (3 * spec.frames * spec.size**2)))


def _pieces(path: Path, spec: ClipSpec, sampling: Sampling, threads: int) -> Iterator[_Piece]:
    try:
        grid = lay_grid(video.probe(path), spec, sampling.interval, sampling.fps)
        yield _Piece(path, grid=grid)
        for clip in decode_clips(path, spec, grid, sampling.backend, sampling.resize_on, threads):
            yield _Piece(path, clip=clip)
        yield _Piece(path, last=True)
    except VideoError as error:
        yield _Piece(path, error=error, last=True)
