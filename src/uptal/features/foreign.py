"""Features in the files that other projects keep them in: npy folders, one HDF5, CSV folders. Which second a row
belongs to is not in most of them; who imports has to say (`uptal.recipes.exchanging`).

    DIR/<id>.npy    (N, D), beside it `timebases.json` if uptal wrote them
    FILE.h5         a data set (N, D) for each id, as TSP and G-TAD have it; attributes `fps stride window duration` if
                    uptal wrote it
    DIR/<id>.csv    a line of column names, then N lines of D numbers, as BMN has it with N = 100

Letters: N features of a video, D feature width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from uptal.annotations import safe_id
from uptal.errors import CheckpointError, ConfigError
from uptal.features.store import Features
from uptal.files import atomic_write
from uptal.types import Timebase

Format = Literal["npy", "h5", "csv"]

TIMEBASES = "timebases.json"
"""Beside npy and CSV files: time base and duration by id."""

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
"""Files whose reading would run what is in them."""


@dataclass(frozen=True)
class Rows:
    """What a foreign file holds of one video."""

    id: str
    values: Float[np.ndarray, "N D"]
    timebase: Timebase | None
    """None where the file does not say."""
    duration: float | None
    """Seconds; None where the file does not say."""


def read_foreign(source: Path) -> Iterator[Rows]:
    """The videos of a folder or file, one after the other, sorted by id.

    Raises:
        ConfigError: There is nothing that can be read; files that would run code are refused.
        CheckpointError: A file is damaged, or holds something other than a table of numbers.
    """
    kind = _kind(source)
    if kind == "h5":
        yield from _read_h5(source)
        return
    known = _timebases(source / TIMEBASES)
    for path in sorted(source.glob(f"*.{kind}")):
        values = _checked(_read_npy(path) if kind == "npy" else _read_csv(path), path)
        yield _rows(path.stem, values, known.get(path.stem, {}), path)


def write_foreign(target: Path, kind: Format, features: Iterator[Features]) -> int:
    """Writes features for other projects; returns how many videos. A folder's files are complete or not there.

    Raises:
        ConfigError: HDF5 is asked for and h5py is not installed.
    """
    if kind == "h5":
        return _write_h5(target, features)
    known = {}
    for video in features:
        known[video.id] = asdict(video.timebase) | {"duration": video.duration}
        path = target / f"{safe_id(video.id)}.{kind}"
        with atomic_write(path, "wb") as out:
            if kind == "npy":
                np.save(out, video.values.numpy())
            else:
                names = ",".join(f"f{column}" for column in range(video.values.shape[1]))
                np.savetxt(out, video.values.numpy(), "%.7g", ",", header=names, comments="")
    with atomic_write(target / TIMEBASES) as out:
        json.dump(known, out, indent=1)
    return len(known)


def _kind(source: Path) -> Format:
    if source.is_file() and source.suffix.lower() in (".h5", ".hdf5"):
        return "h5"
    endings = {path.suffix.lower() for path in source.iterdir()} if source.is_dir() else {source.suffix.lower()}
    if source.is_dir() and ".npy" in endings:
        return "npy"
    if source.is_dir() and ".csv" in endings:
        return "csv"
    if endings & set(PICKLES):
        raise ConfigError(
            f"{source}: {', '.join(sorted(endings & set(PICKLES)))} files are pickles, and reading one runs whatever "
            "is in it, so they are refused. Where you trust them, save the arrays as .npy or .h5 and import those."
        )
    found = ", ".join(sorted(endings)) or "nothing"
    raise ConfigError(f"{source}: expected a folder of .npy or .csv files, or one .h5 file; found {found}.")


def _read_npy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        why = "it holds Python objects, which are not read" if "pickle" in str(error) else str(error)
        raise CheckpointError(
            f"{path}: cannot be read as numbers ({why}). Save plain floats with numpy.save."
        ) from error


def _read_csv(path: Path) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            first = file.readline()
            named = not _are_numbers(first)
            if not named:
                file.seek(0)
            return np.loadtxt(file, delimiter=",", ndmin=2, dtype=np.float32)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as a table of numbers ({error}).") from error


def _are_numbers(line: str) -> bool:
    try:
        [float(part) for part in line.split(",")]
    except ValueError:
        return False
    return True


def _checked(values: Any, where: Path | str) -> Float[np.ndarray, "N D"]:
    if values.ndim != 2 or not len(values) or values.dtype.kind not in "fiu":
        raise CheckpointError(
            f"{where}: expected numbers of shape (features, width), found {values.dtype} of shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise CheckpointError(f"{where}: holds NaN or infinity. Extract this video again, or leave it out.")
    return values.astype(np.float32)


def _timebases(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}). Export again, or delete it.") from error


def _rows(id: str, values: Float[np.ndarray, "N D"], facts: Mapping[str, Any], where: Path) -> Rows:
    if not facts:
        return Rows(safe_id(id), values, None, None)
    try:
        base = Timebase(**{name: float(facts[name]) for name in ("fps", "stride", "window")})
        return Rows(safe_id(id), values, base, float(facts["duration"]))
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{where}: the time base of {id!r} cannot be used ({error}). Export again.") from error


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise ConfigError("HDF5 files need h5py. Install it with `pip install 'uptal[h5]'`.") from error
    try:
        with h5py.File(path, mode) as file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be used as HDF5 ({error}). Copy or make it again.") from error


def _read_h5(path: Path) -> Iterator[Rows]:
    with _opened(path, "r") as file:
        for name in sorted(file):
            data = _own_data(file, name, path)
            yield _rows(name, _checked(data[()], f"{path}, {name!r}"), dict(data.attrs), path)


def _own_data(file: Any, name: str, path: Path) -> Any:
    """The data set of an id, or the only one in the group of that name; none that lies in another file.

    Raises:
        CheckpointError: There is none, or it refers to another file.
    """
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise CheckpointError(f"{path}: {name!r} refers to another place, which is not followed.")
    found = file[name]
    if isinstance(found, h5py.Group) and len(found) == 1:
        return _own_data(found, str(next(iter(found))), path)
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise CheckpointError(f"{path}: expected one data set (features, width) of its own under {name!r}.")
    return found


def _write_h5(path: Path, features: Iterator[Features]) -> int:
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    try:
        with _opened(partial, "w") as file:
            for video in features:
                data = file.create_dataset(safe_id(video.id), data=video.values.numpy())
                data.attrs.update(asdict(video.timebase) | {"duration": video.duration})
                count += 1
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count
