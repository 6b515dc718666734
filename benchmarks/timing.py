"""What several benchmarks measure with; nothing to run."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any


def best_time(work: Callable[[], object], repeats: int) -> float:
    """Processor seconds of the fastest of several calls, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)


def peak_memory() -> float:
    """Most MB that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_its_own_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns, called in a fresh process, so that its memory and its threads are its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(work, arguments)
