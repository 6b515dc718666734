"""The list of videos that failed: one damaged file never stops a run, too many of them do.

Whoever reads videos catches `VideoError` and hands it to `Quarantine.add`; what takes the place of the missing sample
is that caller's business.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from uptal.errors import ConfigError, UptalError, VideoError

FILE_NAME = "quarantine.jsonl"
"""The list's name inside a run folder or a feature store."""


class QuarantineError(UptalError):
    """More videos failed than a run puts up with.

    Attributes:
        failures: Reason by path, in the order in which the videos failed.
    """

    def __init__(self, message: str, failures: dict[str, str]):
        super().__init__(message, failures)
        self.failures = failures

    def __str__(self) -> str:
        return self.args[0]


class Quarantine:
    """Counts the distinct videos that failed, writes each of them down once, and stops the run above a limit.

    The file has one JSON line `{"video": path, "reason": words}` per video. A continued run appends to the file that is
    there and does not repeat its entries; only videos that fail in the present run count towards the limit. With
    `shared`, what other processes have added to the file since this one began counts as if it had failed here.

    >>> quarantine = Quarantine(total=200, limit=0.01)
    >>> quarantine.allowed
    2
    >>> quarantine.add(VideoError("a.mp4", "the file is empty (0 bytes)"))
    >>> quarantine.add(VideoError("a.mp4", "the file is empty (0 bytes)"))
    >>> len(quarantine)
    1
    """

    def __init__(
        self, total: int, limit: float = 0.01, folder: str | os.PathLike[str] | None = None, shared: bool = False
    ):
        """Expects `total` videos in the run and bears with `limit` (a share) of them, but at least with one.

        Args:
            total: Number of videos that the run uses.
            limit: Share of them, 0 to 1, that may fail.
            folder: Run folder or feature store that gets `quarantine.jsonl`; None keeps the list in memory only.
            shared: Whether other processes read the same videos and write into the same folder.

        Raises:
            ConfigError: The limit is not a share.
        """
        if not 0 <= limit <= 1:
            raise ConfigError(f"The limit of bad videos is a share from 0 to 1, found {limit!r}; 0.01 means 1 %.")
        self.total = total
        self.allowed = max(1, int(limit * total + 1e-9))
        self.failures: dict[str, str] = {}
        """Reason by path, in the order in which the videos failed in this run."""
        self._file = None if folder is None else Path(folder) / FILE_NAME
        self._listed, self._shared = _listed_in(self._file), shared

    def __len__(self) -> int:
        return len(self.failures)

    def add(self, error: VideoError) -> None:
        """Notes one failed video, each once.

        Raises:
            QuarantineError: More distinct videos failed than are allowed; it carries the list.
            ConfigError: The list cannot be written.
        """
        self.look()
        if error.path not in self.failures:
            self.failures[error.path] = error.reason
            if self._file is not None and error.path not in self._listed:
                _append(self._file, {"video": error.path, "reason": error.reason})
        if len(self.failures) > self.allowed:
            raise QuarantineError(
                f"{len(self)} of {self.total} videos cannot be used, {self.allowed} would be tolerated. Mend or remove "
                f"them, or raise the limit of bad videos.\n{self._lines()}",
                dict(self.failures),
            )

    def look(self) -> None:
        """Takes note of what other processes have added to the file."""
        for path, reason in _listed_in(self._file).items() if self._shared else ():
            if path not in self._listed:
                self.failures.setdefault(path, reason)

    def summary(self) -> str:
        """What to print when the run ends: whole lines, or nothing (an empty string) if all videos were fine."""
        if not self.failures:
            return ""
        return f"{len(self)} of {self.total} videos could not be used and were left out:\n{self._lines()}\n"

    def _lines(self) -> str:
        return "\n".join(f"  {path}: {reason}" for path, reason in self.failures.items())


def _listed_in(file: Path | None) -> dict[str, str]:
    """Reasons by video that have been written down; a line that was cut off counts for nothing."""
    if file is None or not file.exists():
        return {}
    listed = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            listed[str(entry.get("video"))] = str(entry.get("reason"))
    return listed


def _append(file: Path, entry: dict[str, str]) -> None:
    """Adds one line in one write, so that lines of several processes never mix."""
    line = (json.dumps(entry) + "\n").encode()
    try:
        handle = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            end = os.lseek(handle, 0, os.SEEK_END)
            torn = end > 0 and os.pread(handle, 1, end - 1) != b"\n"  # a run was killed in the midst of a line
            os.write(handle, b"\n" + line if torn else line)
        finally:
            os.close(handle)
    except OSError as error:
        raise ConfigError(
            f"The list of bad videos cannot be written to {file} ({error.strerror}). Free some space or check who may "
            "write there, then start again."
        ) from error
