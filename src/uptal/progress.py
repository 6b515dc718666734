"""Progress of long work: a bar on a terminal, a line now and then elsewhere; nothing else is printed by it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Counts up to `total`; use as a context."""

    def __init__(self, title: str, total: int, start: int = 0, enabled: bool = True, every: float = 15.0):
        self.title, self.total, self.start, self.enabled, self.every = title, total, start, enabled, every
        self._bar: Bar | None = None
        self._last = self._began = time.monotonic()

    def __enter__(self) -> Progress:
        if self.enabled and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            from rich.console import Console

            self._bar = Bar(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.start, note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(
        self, done: int, note: str = "", facts: Mapping[str, Any] | None = None, share: float | None = None
    ) -> None:
        """Shows that `done` of `total` are done; `facts` may carry `videos_per_s` and `data_wait`.

        `share`, 0 to 1, says how far the work is where parts differ in size; the time left follows it.
        """
        if not self.enabled:
            return
        if facts and "videos_per_s" in facts:
            note = (
                f"{note} {facts['videos_per_s']:.1f} videos/s, {100 * facts.get('data_wait', 0):.0f} % waiting for data"
            )
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
        elif now - self._last >= self.every:
            self._last = now
            if share is None:
                share = max(1, done - self.start) / max(1, self.total - self.start)
            left = (now - self._began) * (1 - share) / max(1e-3, share)
            print(
                f"{self.title}: {done}/{self.total}, {left:.0f} s left, {note}".rstrip(", "),
                file=sys.stderr,
                flush=True,
            )
