"""Leaving politely: signals that ask a run to save and stop become a flag that the loop looks at once a step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What schedulers and people send: an end, Ctrl-C, the warning before a time limit."""


@dataclass
class Stop:
    """Whether somebody asked the run to end."""

    asked: bool = False


@contextmanager
def stop_signal() -> Iterator[Stop]:
    """Within the block SIGTERM, SIGUSR1 and Ctrl-C set the flag; a second Ctrl-C leaves at once."""
    stop, before = Stop(), {}

    def ask(number: int, frame: object) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = True

    for number in SIGNALS:
        try:
            before[number] = signal.signal(number, ask)
        except ValueError:  # not the main thread: signals stay with whoever has them
            break
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
