"""Clip features of whole videos: extraction in one decoding pass, and a store whose files describe themselves.

    STORE/store.json               preprocessing, decoder, versions, encoder digest
    STORE/encoder.safetensors/json the encoder itself, so that new videos get the same features
    STORE/<id>.safetensors         tensor `features` (N, D); metadata `timebase`, `duration`, `encoder_digest`
    STORE/quarantine.jsonl         videos that could not be read

Letters: N clips of a video, D feature width, T frames of a clip.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from uptal import video
from uptal.annotations import safe_id
from uptal.clips import extraction_frames
from uptal.clipspec import ClipSpec
from uptal.errors import CheckpointError, ConfigError, VideoError
from uptal.files import atomic_write, digest
from uptal.pixels import normalise
from uptal.progress import Progress
from uptal.types import Timebase
from uptal.video import Quarantine


@dataclass(frozen=True)
class Features:
    """Features of one video and what they mean in time."""

    id: str
    values: Float[Tensor, "N D"]
    timebase: Timebase
    duration: float
    """Seconds."""


class FeatureStore:
    """A folder of features, one file a video."""

    def __init__(self, path: str | Path):
        """Opens an existing store.

        Raises:
            CheckpointError: There is none, or its description is damaged.
        """
        self.path = Path(path)
        try:
            self.description: dict[str, Any] = json.loads((self.path / "store.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.path}: not a feature store (no readable store.json: {error}). Make one with `uptal extract --weights "
                "RUN --videos DIR --out STORE`."
            ) from error

    @classmethod
    def create(cls, path: str | Path, description: Mapping[str, Any]) -> FeatureStore:
        """Opens the store at `path`, making it if need be; an existing one must have the same description.

        Raises:
            ConfigError: The store was made with another encoder or preprocessing.
        """
        file = Path(path) / "store.json"
        if file.exists():
            store = cls(path)
            changed = [key for key in description if store.description.get(key) != description[key]]
            if changed:
                listed = "; ".join(f"{key}: {store.description.get(key)} there, {description[key]} here" for key in changed)
                raise ConfigError(f"{path} holds features made differently ({listed}). Choose another --out.")
            return store
        with atomic_write(file) as out:
            json.dump(dict(description), out, indent=1)
        return cls(path)

    @property
    def ids(self) -> list[str]:
        """Names of the videos, sorted."""
        return sorted(p.stem for p in self.path.glob("*.safetensors") if p.name != "encoder.safetensors")

    @property
    def width(self) -> int:
        """D."""
        return int(self.description["width"])

    @property
    def encoder_digest(self) -> str:
        """Digest of the encoder's weights."""
        return str(self.description["encoder_digest"])

    def digest(self) -> str:
        """SHA-256 over the names and contents of all features, to stand beside numbers made from them."""
        total = hashlib.sha256()
        for name in self.ids:
            total.update(f"{name} {digest(self.file(name))}\n".encode())
        return total.hexdigest()

    def file(self, id: str) -> Path:
        """Where a video's features are."""
        return self.path / f"{safe_id(id)}.safetensors"

    def __contains__(self, id: str) -> bool:
        return self.file(id).is_file()

    def read(self, id: str) -> Features:
        """Features of one video.

        Raises:
            CheckpointError: They are missing, damaged, or made by another encoder.
        """
        file = self.file(id)
        try:
            with safe_open(file, framework="pt") as opened:
                values, facts = opened.get_tensor("features"), opened.metadata()
            if facts["encoder_digest"] != self.encoder_digest:
                raise CheckpointError(
                    f"{file}: made by encoder {facts['encoder_digest'][:12]}, the store is of {self.encoder_digest[:12]}. "
                    "Delete the file and extract it again."
                )
            return Features(id, values, Timebase(**json.loads(facts["timebase"])), float(facts["duration"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{file}: cannot be read ({error}). Delete it and extract it again.") from error

    def write(self, features: Features) -> None:
        """Stores one video; the file is complete or not there."""
        facts = {
            "timebase": json.dumps(dataclasses.asdict(features.timebase)),
            "duration": repr(features.duration),
            "encoder_digest": self.encoder_digest,
        }
        with atomic_write(self.file(features.id), "wb") as out:
            out.write(save({"features": features.values.contiguous()}, metadata=facts))


def resample(features: Features, steps: int) -> Float[Tensor, "D steps"]:
    """Features at the middles of `steps` equal parts of the video, linear in time, constant beyond the ends.

    Where features tile the video exactly this is `interpolate(mode="linear", align_corners=False)`.
    """
    middle = (np.arange(steps) + 0.5) / steps * features.duration
    count = len(features.values)
    place = np.clip([features.timebase.index(second) for second in middle], 0, count - 1)
    low = np.minimum(place.astype(np.int64), max(0, count - 2))
    high = np.minimum(low + 1, count - 1)
    part = torch.from_numpy(place - low).to(features.values.dtype)[:, None]
    return torch.lerp(features.values[low], features.values[high], part).T.contiguous()


@torch.inference_mode()
def encode(encoder: nn.Module, clips: UInt8[Tensor, "N T C H W"], spec: ClipSpec, device: torch.device) -> Float[Tensor, "N D"]:
    """Features of clips as the decoder gives them; bf16 on devices that have it."""
    pictures = normalise(clips.to(device, non_blocking=True).float() / 255, spec.mean, spec.std)
    pictures = pictures.contiguous(memory_format=torch.channels_last_3d)
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
        return encoder(pictures).float().cpu()


@dataclass(frozen=True)
class Grid:
    """How clips of one video lie on its frames."""

    frames: Int[np.ndarray, "N T"]
    """Decoded frame for each place of each clip."""
    timebase: Timebase
    duration: float


def lay_grid(info: video.VideoInfo, spec: ClipSpec, interval: int) -> Grid:
    """Clips every `interval` frames at the video's mean rate.

    A video of variable rate is put on an even grid of that rate first: each grid point takes the frame nearest in time,
    so a feature's second is right whatever the frames' spacing.
    """
    if info.constant_rate:
        grid = np.arange(info.num_frames)
    else:
        points = np.arange(max(1, round(info.duration * info.fps))) / info.fps
        times = np.asarray(info.times)
        right = np.clip(np.searchsorted(times, points), 1, max(1, len(times) - 1))
        grid = np.minimum(np.where(points - times[right - 1] <= times[np.minimum(right, len(times) - 1)] - points, right - 1, right), len(times) - 1)
    clips = extraction_frames(len(grid), spec.frames, spec.stride, interval)
    base = Timebase(fps=info.fps, stride=float(interval), window=float(spec.frames * spec.stride))
    return Grid(grid[clips], base, info.duration)


def decode_clips(path: Path, spec: ClipSpec, grid: Grid, backend: str = "pyav") -> Iterator[UInt8[Tensor, "T C H W"]]:
    """The clips of a video in order, in one pass, holding only the frames that clips still need."""
    wanted = sorted(set(grid.frames.ravel().tolist()))
    decoded = video.frames(path, spec.resize, indices=wanted, backend=backend)
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
    """What a decoding thread hands over: a clip, or a video's beginning, or the end of it with or without an error."""

    path: Path
    grid: Grid | None = None
    clip: Tensor | None = None
    error: VideoError | None = None


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
    name: Callable[[Path], str] = lambda path: path.stem,
) -> int:
    """Extracts every video that the store does not hold yet; returns how many were written.

    Threads decode several videos at once, each in one pass; the encoder sees full batches across videos.
    """
    todo = [path for path in paths if name(path) not in store]
    encoder = encoder.to(device).eval()
    waiting: list[_Piece] = []
    rows: dict[Path, list[Tensor]] = {}
    grids: dict[Path, Grid] = {}
    ended: set[Path] = set()
    done = written = 0
    begin = time.perf_counter()

    def flush() -> None:
        nonlocal written
        if waiting:
            values = encode(encoder, torch.stack([p.clip for p in waiting if p.clip is not None]), spec, device)
            for piece, row in zip(waiting, values, strict=True):
                rows[piece.path].append(row)
            waiting.clear()
        for path in [path for path in ended if len(rows[path]) == len(grids[path].frames)]:
            store.write(Features(name(path), torch.stack(rows.pop(path)), grids[path].timebase, grids[path].duration))
            ended.remove(path)
            written += 1

    with Progress("extracting", total=len(todo)) as progress:
        for piece in _decode_all(todo, spec, interval, backend, threads):
            if piece.error is not None:
                done += 1
                rows.pop(piece.path, None)
                waiting = [other for other in waiting if other.path != piece.path]
                if quarantine is None:
                    raise piece.error
                quarantine.add(piece.error)
            elif piece.clip is not None:
                waiting.append(piece)
            elif piece.grid is not None:
                rows[piece.path], grids[piece.path] = [], piece.grid
            else:
                done += 1
                ended.add(piece.path)
            if len(waiting) >= batch:
                flush()
            progress.update(done, f"{done / (time.perf_counter() - begin):.1f} videos/s")
        flush()
    return written


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

    workers = [threading.Thread(target=work, daemon=True) for _ in range(max(1, threads))]
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
        yield _Piece(path)
    except VideoError as error:
        yield _Piece(path, error=error)


def _crop(frame: UInt8[Tensor, "C H W"], size: int) -> UInt8[Tensor, "C h w"]:
    top, left = (frame.shape[1] - size) // 2, (frame.shape[2] - size) // 2
    return frame[:, top : top + size, left : left + size]
