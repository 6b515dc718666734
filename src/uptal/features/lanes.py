"""Batches of clips on their way through an encoder: on a CPU several side by side, each on its own share of the cores.

One forward pass on many cores waits at the end of every layer for the slowest of them, and by turning round, so that
threads that decode beside it take away more than the time they work. Passes side by side do not wait for each other.
Which batches there are and what becomes of their features is in `extraction`.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from uptal.clipspec import ClipSpec
from uptal.device import Precision
from uptal.features.encoding import encode

CLIPS = 8
"""Clips of a pass on a CPU: enough to share the reading of the weights; I3D is a seventh slower at 32."""


class Lanes:
    """Passes in the order in which they are submitted; to be used in a `with` statement.

    Args:
        encoder: As `make_ready` gives it.
        spec: Its clips.
        device: Where it is.
        batch: Clips that may be inside at once; a CPU gets them in passes of `CLIPS`.
        precision: Arithmetic.
        side_by_side: False for an encoder that cannot be in two threads at once.
    """

    def __init__(
        self,
        encoder: Any,
        spec: ClipSpec,
        device: torch.device,
        batch: int,
        precision: Precision = "auto",
        side_by_side: bool = True,
    ):
        self._encode = lambda clips: encode(encoder, clips, spec, device, self.size, precision)
        cores = torch.get_num_threads()
        split = side_by_side and device.type == "cpu"
        self.size = min(batch, CLIPS) if split else batch
        """Clips of a pass; fewer are filled up to it."""
        self.count = max(1, min(cores, batch // self.size)) if split else 1
        """Passes at once."""
        self.busy = 0.0
        """Seconds of finished passes, one after the other."""
        self._threads = ThreadPoolExecutor(
            self.count, initializer=torch.set_num_threads, initargs=(cores // self.count,)
        )
        self._cores, self._counting = cores, threading.Lock()

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=True)
        torch.set_num_threads(self._cores)  # for threads that begin later, the number is that of the last call anywhere

    def submit(self, clips: UInt8[Tensor, "N T C H W"]) -> Future[Float[Tensor, "N D"]]:
        """Features of at most `size` clips, when they are there."""
        return self._threads.submit(self._pass, clips)

    def _pass(self, clips: UInt8[Tensor, "N T C H W"]) -> Float[Tensor, "N D"]:
        begin = time.perf_counter()
        found = self._encode(clips)
        with self._counting:
            self.busy += time.perf_counter() - begin
        return found
