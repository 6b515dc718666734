"""A run's folder: its configuration, its environment, its log, and a lock so that two runs never share one.

RUN/config.yaml  environment.json  log.jsonl  checkpoints/  encoder.safetensors
RUN/tensorboard/  the log's curves, where TensorBoard is installed
"""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from uptal.errors import ConfigError
from uptal.files import atomic_write

_FREE_TO_CHANGE = {f"data.{name}" for name in ("workers", "worker_timeout", "cache_mib", "max_bad")}
_FREE_TO_CHANGE |= {f"optim.{name}" for name in ("checkpoint_every", "epochs", "keep", "log_every", "max_steps")}
_FREE_TO_CHANGE |= {"device", "videos", "labels", "list", "split", "features", "annotations"}
"""Settings under which a run may go on differently; the last six say where its files are, not what is in them."""


class RunFolder:
    """The files of one run; everything is written atomically or appended a line at a time."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._board: Any = None

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Weights of the best epoch, where a run keeps them."""
        return self.path / "best.safetensors"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process.

        Raises:
            ConfigError: Another process is running in it, it cannot be made, or it holds features and no run.
        """
        if (self.path / "store.json").exists():
            raise ConfigError(
                f"{self.path} is a feature store, and its encoder would be replaced by the run's. Choose another --run."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot be used as a run folder ({error.strerror}). Choose another --run."
            ) from error
        try:
            fcntl.lockf(
                handle, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # unlike flock not inherited by workers that outlive a kill
        except OSError as error:
            os.close(handle)
            raise ConfigError(
                f"{self.path}: another process is running in this folder. Wait for it or choose another --run."
            ) from error
        try:
            yield
        finally:
            os.close(handle)
            if self._board is not None:
                self._board.close()

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Stores the full configuration; a folder that already holds another one is refused.

        Raises:
            ConfigError: Naming each setting that differs.
        """
        file = self.path / "config.yaml"
        if file.exists() and (any(self.checkpoints.glob("step_*")) or any(self.path.glob("*.safetensors"))):
            before, now = flatten(_stored(file)), flatten(plain(config))
            changed = [
                k
                for k in sorted(before.keys() | now.keys())
                if before.get(k) != now.get(k) and k not in _FREE_TO_CHANGE
            ]
            if changed:
                listed = "; ".join(f"{key}: {before.get(key)!r} there, {now.get(key)!r} here" for key in changed[:8])
                raise ConfigError(
                    f"{self.path} holds a run with other settings ({listed}). Use the same settings to continue it, "
                    "or another --run."
                )
        with atomic_write(file) as out:
            yaml.safe_dump(plain(config), out, sort_keys=False, allow_unicode=True)

    def write_environment(self, **facts: Any) -> None:
        """Stores versions, machine, command and time beside the configuration."""
        with atomic_write(self.path / "environment.json") as out:
            json.dump({**environment(), **facts}, out, indent=1)

    def rewind_log(self, step: int, epoch: int) -> None:
        """Drops what was written after a checkpoint of this step and number of complete epochs."""
        kept = [line for line in self.read_log() if line["step"] <= step and line["epoch"] <= epoch]
        with atomic_write(self.path / "log.jsonl") as out:
            out.writelines(json.dumps(line) + "\n" for line in kept)

    def log(self, line: Mapping[str, Any]) -> None:
        """Appends one line to the log, and its numbers to TensorBoard's curves where that is installed."""
        with open(self.path / "log.jsonl", "a", encoding="utf-8") as out:
            out.write(json.dumps(dict(line)) + "\n")
        if self._board is None and importlib.util.find_spec("tensorboard"):
            self._board = _open_board(self.path / "tensorboard", line["step"])
        if self._board is not None:
            for name in line.keys() - {"step", "epoch"}:
                if line[name] is not None:
                    self._board.add_scalar(name, line[name], line["step"])

    def read_log(self) -> list[dict[str, Any]]:
        """The log's lines, as far as they are whole: a last one cut short by a kill is left out."""
        file = self.path / "log.jsonl"
        lines = []
        for text in file.read_text("utf-8").splitlines() if file.exists() else []:
            try:
                line = json.loads(text)
            except ValueError:
                break
            if not isinstance(line, dict) or not {"step", "epoch"} <= line.keys():
                break
            lines.append(line)
        return lines


def _open_board(folder: Path, step: int) -> Any:
    """A TensorBoard writer that hides what the run wrote from `step` on before it was interrupted."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step)


def _stored(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        content = error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{file}: the settings of the run in this folder cannot be read, so nothing can be continued here. Restore "
            "the file or choose another --run."
        )
    return content


def environment() -> dict[str, Any]:
    """Versions and machine, to stand beside every number."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "packages": versions(),
        "commit": commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def versions() -> dict[str, str]:
    """Versions of the packages that decide numbers."""
    found = {}
    for name in ("uptal", "torch", "numpy", "av", "safetensors"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str | None:
    """Revision of the source tree that this package runs from; None for an installed package."""
    here = Path(__file__)
    try:  # a package installed below somebody's own repository is not part of that
        _git(here, "ls-files", "--error-unmatch", here.name)
        return _git(here, "describe", "--always", "--dirty", "--abbrev=12").strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(file: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=file.parent, capture_output=True, text=True, timeout=5, check=True
    ).stdout


def plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as what YAML and JSON know."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names.

    >>> flatten({"optim": {"lr": 0.1}, "seed": 0})
    {'optim.lr': 0.1, 'seed': 0}
    """
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, item in tree.items():
        flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
