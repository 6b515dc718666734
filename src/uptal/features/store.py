"""Features of whole videos on disk: one file a video, which says by itself what it holds and where it comes from.

    STORE/store.json               preprocessing, decoder, encoder digest
    STORE/encoder.safetensors/json the encoder itself, so that new videos get the same features
    STORE/<id>.safetensors         tensor `features` (N, D); metadata `timebase`, `duration`, `encoder_digest`
    STORE/quarantine.jsonl         videos that could not be read

How features come about is in `extraction`. Letters: N clips of a video, D feature width.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from uptal.annotations import safe_id
from uptal.errors import CheckpointError, ConfigError
from uptal.files import atomic_write, digest
from uptal.types import Timebase


@dataclass(frozen=True)
class Features:
    """Features of one video and what they mean in time."""

    id: str
    values: Float[Tensor, "N D"]
    timebase: Timebase
    duration: float
    """Seconds."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within the block this process may write into the store at `path`, together with others.

    What killed processes have left half-written is removed first, unless somebody else is writing at this moment.
    """
    path.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # others write, or the file system knows no locks: then nothing is removed
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for leftover in leftovers(path):
                leftover.unlink(missing_ok=True)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def leftovers(path: Path) -> list[Path]:
    """Files that a write has begun and not ended, or is about to end."""
    return sorted(path.glob(".*.tmp"))


class FeatureStore:
    """A folder of features, one file a video."""

    def __init__(self, path: str | Path):
        """Opens an existing store.

        Raises:
            CheckpointError: There is none, or its description is damaged.
        """
        self.path = Path(path)
        try:
            self.description: dict[str, Any] = dict(json.loads((self.path / "store.json").read_text("utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self.path}: not a feature store (no readable store.json: {error}). Make one with `uptal extract "
                "--weights RUN --videos DIR --out STORE`."
            ) from error

    @classmethod
    def create(cls, path: str | Path, description: Mapping[str, Any]) -> FeatureStore:
        """Opens the store at `path`, making it if need be; an existing one must have the same description.

        Raises:
            ConfigError: The store was made with another encoder or preprocessing, or `path` is the folder of a run.
        """
        file = Path(path) / "store.json"
        if (Path(path) / "config.yaml").exists() and not file.exists():
            raise ConfigError(f"{path} is the folder of a run, which has an encoder of its own. Choose another --out.")
        if file.exists():
            store = cls(path)
            theirs = store.description
            changed = [key for key in description if theirs.get(key) != description[key]]
            if changed and not store.ids:  # nothing was ever extracted into it
                for stale in store.path.glob("encoder.*"):
                    stale.unlink()
            elif changed:
                listed = "; ".join(f"{key}: {theirs.get(key)} there, {description[key]} here" for key in changed)
                raise ConfigError(f"{path} holds features made differently ({listed}). Choose another --out.")
            else:
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
            made_by = facts["encoder_digest"]
            if made_by != self.encoder_digest:
                raise CheckpointError(
                    f"{file}: made by encoder {made_by[:12]}, the store is of {self.encoder_digest[:12]}. Delete the "
                    "file and extract it again."
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
        values = features.values.contiguous()
        with atomic_write(self.file(features.id), "wb") as out:
            out.write(_header(values, facts))
            out.write(values.numpy().data)


def _header(values: Float[Tensor, "N D"], facts: Mapping[str, str]) -> bytes:
    """What a safetensors file of these values begins with, the metadata sorted.

    The library itself writes them in the order of a hash table, and copies the values twice.
    """
    empty = save({"features": values[:0]})
    header = json.loads(empty[8 : 8 + int.from_bytes(empty[:8], "little")])
    header["features"] |= {"shape": list(values.shape), "data_offsets": [0, values.nbytes]}
    text = json.dumps({"__metadata__": dict(sorted(facts.items()))} | header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text


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
