"""Checkpoints written beside training: the loop waits for a copy of the tensors, a thread for the disk."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from uptal import checkpoint


class Writer:
    """Writes one checkpoint at a time while training goes on; whoever leaves the block has what was begun on the disk.

    Raises:
        CheckpointError: A checkpoint could not be written: at the step after, at the next one, or at the block's end.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._begun: Future[Path] | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._pool.shutdown()
        if kind is None:
            self.finish()

    def save(
        self,
        folder: Path,
        step: int,
        weights: Mapping[str, Tensor],
        train: Mapping[str, Any],
        meta: Mapping[str, Any],
        keep: int,
    ) -> None:
        """`uptal.checkpoint.save` of the values as they are now, once the checkpoint before is written."""
        self.finish()
        self._begun = self._pool.submit(checkpoint.save, folder, step, copied(weights), copied(train), meta, keep)

    def look(self) -> None:
        """Raises what went wrong, if it is known already; waits for nothing."""
        if self._begun is not None and self._begun.done():
            self.finish()

    def finish(self) -> None:
        """Waits until everything is on the disk."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.result()


def copied(value: Any) -> Any:
    """The same values with every tensor copied to the host, which no later step changes."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: copied(part) for name, part in value.items()}
    return type(value)(copied(part) for part in value) if isinstance(value, list | tuple) else value
