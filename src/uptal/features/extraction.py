"""From videos to clip features: one decoding pass a video, several videos at once, full batches across videos.

Where features are kept is in `store`; which encoder and which videos is decided by the callers.
Letters: N clips of a video, D feature width, T frames of a clip, C H W picture, F frames of a video.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from uptal import video
from uptal.clips import extraction_frames
from uptal.clipspec import ClipSpec
from uptal.errors import ConfigError, VideoError
from uptal.features.store import Features, FeatureStore
from uptal.pixels import normalise
from uptal.progress import Progress
from uptal.types import Timebase
from uptal.video import Quarantine


@torch.inference_mode()
def encode(
    encoder: nn.Module, clips: UInt8[Tensor, "N T C H W"], spec: ClipSpec, device: torch.device, batch: int = 0
) -> Float[Tensor, "N D"]:
    """Features of clips as the decoder gives them; bf16 on devices that have it.

    Fewer clips than `batch` are filled up to it: libraries round differently for other batch sizes, and so a clip's
    feature does not depend on how many others it met.
    """
    count = len(clips)
    clips = torch.cat([clips, clips[-1:].expand(max(0, batch - count), -1, -1, -1, -1)])
    pictures = normalise(clips.to(device, non_blocking=True).float() / 255, spec.mean, spec.std)
    pictures = pictures.contiguous(memory_format=torch.channels_last_3d)
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
        return encoder(pictures)[:count].float().cpu()


@dataclass(frozen=True)
class Grid:
    """How clips of one video lie on its frames."""

    info: video.VideoInfo
    frames: Int[np.ndarray, "N T"]
    """Decoded frame for each place of each clip."""
    timebase: Timebase


def lay_grid(info: video.VideoInfo, spec: ClipSpec, interval: int) -> Grid:
    """Clips every `interval` frames at the video's mean rate.

    A video of variable rate is put on an even grid of that rate first: each grid point takes the frame nearest in time,
    so a feature's second is right whatever the frames' spacing.
    """
    even = np.arange(info.num_frames)
    grid = even if info.constant_rate else _nearest(np.asarray(info.times), even / info.fps)
    clips = extraction_frames(len(grid), spec.frames, spec.stride, interval)
    base = Timebase(fps=info.fps, stride=float(interval), window=float(spec.frames * spec.stride))
    return Grid(info, grid[clips], base)


def _nearest(times: Float[np.ndarray, " F"], points: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """For each point the index of the nearest of the ascending times; of two equally near ones the earlier."""
    return np.searchsorted((times[1:] + times[:-1]) / 2, points)


def decode_clips(path: Path, spec: ClipSpec, grid: Grid, backend: str = "pyav") -> Iterator[UInt8[Tensor, "T C H W"]]:
    """The clips of a video in order, in one pass, holding only the frames that clips still need."""
    wanted = sorted(set(grid.frames.ravel().tolist()))
    decoded = video.frames(path, spec.resize, indices=wanted, info=grid.info, backend=backend)
    held: dict[int, Tensor] = {}
    for clip in grid.frames:
        first, last = int(clip.min()), int(clip.max())
        held = {index: frame for index, frame in held.items() if index >= first}
        while last not in held:
            try:
                index, _, frame = next(decoded)
            except StopIteration:
                raise VideoError(path, f"ended before frame {last}, which its header promises") from None
            held[index] = _crop(frame, spec.size)
        yield torch.stack([held[int(index)] for index in clip])


@dataclass(frozen=True)
class _Piece:
    """What a decoding thread hands over: a clip, or a video's beginning or end, or why it ended early."""

    path: Path
    grid: Grid | None = None
    clip: Tensor | None = None
    error: VideoError | None = None
    last: bool = False


def extract(
    paths: Sequence[Path],
    store: FeatureStore,
    encoder: nn.Module,
    spec: ClipSpec,
    *,
    interval: int,
    device: torch.device,
    batch: int = 32,
    threads: int = 2,
    backend: str = "pyav",
    quarantine: Quarantine | None = None,
) -> int:
    """Extracts every video that the store does not hold yet, under the file's stem; returns how many were written.

    Threads decode several videos at once, each in one pass; the encoder sees full batches across videos. Neither the
    number of threads nor what else is extracted changes a feature.

    Raises:
        VideoError: A video cannot be read and there is no quarantine. QuarantineError: Too many cannot.
    """
    if batch < 1 or threads < 1:
        raise ConfigError(f"Extraction needs a batch and threads of at least 1, found {batch} and {threads}.")
    todo = [path for path in paths if path.stem not in store]
    assembly = _Assembly(store, encoder.to(device).eval(), spec, device, batch)
    done, begin = 0, time.perf_counter()
    with Progress("extracting", total=len(todo)) as progress:
        for piece in _decode_all(todo, spec, interval, backend, threads):
            if piece.error is None:
                assembly.take(piece)
            else:
                assembly.drop(piece.path)
                if quarantine is None:
                    raise piece.error
                quarantine.add(piece.error)
            done += piece.last
            progress.update(done, f"{done / (time.perf_counter() - begin):.1f} videos/s")
        assembly.flush()
    return assembly.written


class _Assembly:
    """Clips that wait for a batch to be full, and videos that wait for their last feature."""

    def __init__(self, store: FeatureStore, encoder: nn.Module, spec: ClipSpec, device: torch.device, batch: int):
        self.store, self.encoder, self.spec, self.device, self.batch = store, encoder, spec, device, batch
        self.written = 0
        self._waiting: list[tuple[Path, Tensor]] = []
        self._rows: dict[Path, list[Tensor]] = {}
        self._grids: dict[Path, Grid] = {}

    def take(self, piece: _Piece) -> None:
        """Adds a piece; encodes and stores when there is enough."""
        if piece.grid is not None:
            self._rows[piece.path], self._grids[piece.path] = [], piece.grid
        if piece.clip is not None:
            self._waiting.append((piece.path, piece.clip))
        if len(self._waiting) == self.batch:
            self.flush()

    def drop(self, path: Path) -> None:
        """Forgets a video that turned out to be damaged."""
        self._rows.pop(path, None)
        self._grids.pop(path, None)
        self._waiting = [(other, clip) for other, clip in self._waiting if other != path]

    def flush(self) -> None:
        """Encodes what waits, and stores the videos that are complete."""
        if not self._waiting:
            return
        clips = torch.stack([clip for _, clip in self._waiting])
        values = encode(self.encoder, clips, self.spec, self.device, self.batch)
        for (path, _), row in zip(self._waiting, values, strict=True):
            self._rows[path].append(row)
        self._waiting.clear()
        for path in [path for path, rows in self._rows.items() if len(rows) == len(self._grids[path].frames)]:
            grid = self._grids.pop(path)
            values = torch.stack(self._rows.pop(path))
            self.store.write(Features(path.stem, values, grid.timebase, grid.info.duration))
            self.written += 1


def _decode_all(paths: Sequence[Path], spec: ClipSpec, interval: int, backend: str, threads: int) -> Iterator[_Piece]:
    """Pieces of all videos, decoded by threads; at most a bounded number wait."""
    todo: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for path in paths:
        todo.put(path)
    pieces: queue.Queue[_Piece | BaseException | None] = queue.Queue(maxsize=64)
    stopped = threading.Event()

    def hand_over(piece: _Piece | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return pieces.put(piece, timeout=0.2)
            except queue.Full:
                continue

    def work() -> None:
        try:
            while not stopped.is_set():
                try:
                    path = todo.get_nowait()
                except queue.Empty:
                    break
                for piece in _pieces(path, spec, interval, backend):
                    hand_over(piece)
                    if stopped.is_set():
                        return
        except BaseException as error:  # handed to the thread that waits, which raises it
            hand_over(error)
        finally:
            hand_over(None)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
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


def _pieces(path: Path, spec: ClipSpec, interval: int, backend: str) -> Iterator[_Piece]:
    try:
        grid = lay_grid(video.probe(path), spec, interval)
        yield _Piece(path, grid=grid)
        for clip in decode_clips(path, spec, grid, backend):
            yield _Piece(path, clip=clip)
        yield _Piece(path, last=True)
    except VideoError as error:
        yield _Piece(path, error=error, last=True)


def _crop(frame: UInt8[Tensor, "C H W"], size: int) -> UInt8[Tensor, "C h w"]:
    top, left = (frame.shape[1] - size) // 2, (frame.shape[2] - size) // 2
    return frame[:, top : top + size, left : left + size]
