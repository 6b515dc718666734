"""One exception type per cause; every message says what was found, what was expected and what to do."""

from __future__ import annotations

from pathlib import Path


class UptalError(Exception):
    """Anything the user can mend. The command line prints it as one paragraph and exits with 1."""


class VideoError(UptalError):
    """A video that cannot be used.

    Attributes:
        path: The file.
        reason: What is wrong with it, in words.
    """

    def __init__(self, path: str | Path, reason: str):
        super().__init__(str(path), reason)  # both arguments, so that the error survives pickling between workers
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class AnnotationError(UptalError):
    """An annotation or detection file that cannot be read; the message names file, place and field."""


class CheckpointError(UptalError):
    """A checkpoint, weight file or feature store that is damaged, incomplete or of another model."""


class ConfigError(UptalError):
    """A setting that cannot be used: unknown, impossible here, or in contradiction with another."""
