"""From an encoder and a folder of videos to a feature store that carries the encoder with it."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from uptal.clipspec import ClipSpec
from uptal.device import Precision, choose_device, number_format
from uptal.encoders import SavedEncoder, load_encoder, locate
from uptal.errors import CheckpointError, ConfigError
from uptal.features import Extracted, FeatureStore, Sampling, Work, extract, writing
from uptal.files import atomic_write, digest
from uptal.run import versions
from uptal.video import Quarantine, find_videos


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """How features are extracted; what is None comes from the encoder, the videos or the machine."""

    interval: int | None = None
    """Frames from one clip to the next. None: clips lie back to back."""
    fps: float | None = None
    """Rate at which frames are counted. None: each video's own."""
    frame_stride: int | None = None
    """Frames from one frame of a clip to the next. None: as the encoder was trained."""
    window: int | None = None
    """Frames that a clip covers, a multiple of the frame stride. None: as the encoder was trained."""
    backend: str = "pyav"
    """Decoder."""
    resize_on: Literal["decoder", "device"] = "decoder"
    """Who shrinks the pictures."""
    precision: Precision = "auto"
    """Arithmetic of the encoder."""
    compile: bool = False
    """Compile the encoder first."""
    batch: int = 32
    """Clips that the encoder works on at once; on a CPU in passes of eight, side by side."""
    threads: int | None = None
    """Videos decoded at once. None: one for each core of this process, 2 to 16."""
    max_bad: float = 0.01
    """Share of videos (at least one) that may be unreadable."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1."""

    def clip(self, native: ClipSpec) -> ClipSpec:
        """The encoder's clip with what is set here.

        Raises:
            ConfigError: The window is no multiple of the frame stride.
        """
        stride = native.stride if self.frame_stride is None else self.frame_stride
        if self.window is None:
            return replace(native, stride=stride)
        if stride < 1 or self.window < 1 or self.window % stride:
            raise ConfigError(
                f"A window of {self.window} frames is not a number of frames {stride} apart. Use a --window that is a "
                "multiple of --frame-stride."
            )
        return replace(native, stride=stride, frames=self.window // stride)

    def sampling(self, clip: ClipSpec) -> Sampling:
        """Where clips of this kind lie."""
        interval = clip.frames * clip.stride if self.interval is None else self.interval
        return Sampling(interval=interval, fps=self.fps, backend=self.backend, resize_on=self.resize_on)

    def work(self) -> Work:
        """How the work is done on this machine."""
        threads = max(2, min(16, len(os.sched_getaffinity(0)))) if self.threads is None else self.threads
        return Work(batch=self.batch, threads=threads, precision=self.precision, compile=self.compile)


def extract_folder(
    weights: Path,
    videos: Path,
    out: Path,
    cfg: ExtractConfig = ExtractConfig(),
    *,
    select: Callable[[Sequence[Path]], Sequence[Path]] = lambda paths: paths,
    trust: bool = False,
    local_rank: int = 0,
) -> Extracted:
    """Extracts features of every video of a folder, or of those that `select` keeps.

    Several processes may do so into the same store at the same time, each with other videos.

    Raises:
        ConfigError: Two videos share a stem, the store was made differently, or no video can be read.
    """
    target, work = choose_device(cfg.device, local_rank), cfg.work()
    if cfg.backend == "nvdec" and target.type != "cuda":
        raise ConfigError(f"--backend nvdec decodes on the GPU, and --device {cfg.device} is the CPU here. Use pyav.")
    saved = load_encoder(weights, trust=trust)
    clip = cfg.clip(saved.clip)
    sampling = cfg.sampling(clip)
    paths = select(unique_stems(find_videos(videos)))
    there = out / "encoder.safetensors"
    if there.exists() and not (out / "store.json").exists() and digest(there) != digest(_weight_file(weights)):
        raise ConfigError(f"{out} holds another encoder than {weights} does. Choose another --out.")
    with writing(out):
        store = FeatureStore.create(out, describe(saved, clip, sampling, number_format(cfg.precision, target)))
        copy_encoder(weights, out)
        quarantine = Quarantine(total=len(paths), limit=cfg.max_bad, folder=out)
        done = extract(paths, store, saved.encoder, clip, sampling, device=target, work=work, quarantine=quarantine)
    if paths and len(quarantine) == len(paths):
        raise ConfigError(f"{videos}: none of the {len(paths)} videos can be read.\n{quarantine.summary().rstrip()}")
    print(quarantine.summary(), end="", file=sys.stderr)
    return done


def describe(saved: SavedEncoder, clip: ClipSpec, sampling: Sampling, dtype: torch.dtype) -> dict[str, Any]:
    """What decides the features of a store."""
    decoder = f"{sampling.backend} {versions()['av']}" if sampling.backend == "pyav" else sampling.backend
    return {
        "encoder_digest": saved.digest,
        "width": saved.encoder.width,
        "preprocessing": {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(clip).items()},
        "interval": sampling.interval,
        "fps": sampling.fps,
        "decoder": decoder,
        "resize_on": sampling.resize_on,
        "precision": str(dtype).removeprefix("torch."),
    }


def described(description: Mapping[str, Any]) -> tuple[ClipSpec, Sampling]:
    """Clip and sampling of a store, so that new videos get the same features.

    Raises:
        CheckpointError: The description lacks something.
    """
    try:
        clip: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in description["preprocessing"].items()
        }
        sampling = Sampling(
            interval=int(description["interval"]),
            fps=description.get("fps"),
            backend=str(description.get("decoder", "pyav")).split()[0],
            resize_on=description.get("resize_on", "decoder"),
        )
        return ClipSpec(**clip), sampling
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise CheckpointError(
            f"The description of the features cannot be used ({error}). Extract them again."
        ) from error


def copy_encoder(weights: Path, out: Path) -> None:
    """Puts the encoder into the store, so that new videos get the same features."""
    source = _weight_file(weights)
    for file, name in ((source, "encoder.safetensors"), (source.with_suffix(".json"), "encoder.json")):
        if not (out / name).exists():
            with atomic_write(out / name, "wb") as target, open(file, "rb") as opened:
                shutil.copyfileobj(opened, target)


def _weight_file(weights: Path) -> Path:
    weights = locate(weights)
    return weights if weights.suffix == ".safetensors" else weights / "encoder.safetensors"


def unique_stems(paths: Sequence[Path]) -> Sequence[Path]:
    """The paths, whose stems must be different because features are stored by stem.

    Raises:
        ConfigError: Naming two that do not, or one that is called like the store's own file.
    """
    reserved = [path for path in paths if path.stem == "encoder"]
    if reserved:
        raise ConfigError(
            f"A feature store keeps its encoder under the name 'encoder': rename the video {reserved[0]}."
        )
    twice = [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]
    if twice:
        both = " and ".join([str(path) for path in paths if path.stem == twice[0]][:2])
        raise ConfigError(
            f"Features are stored by file stem, and {len(twice)} stems occur more than once: {both}. Rename one."
        )
    return paths
