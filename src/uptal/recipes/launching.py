"""Several processes on this machine for one command, under PyTorch's own launcher, as `torchrun --standalone` does it.

More machines than one need `torchrun` itself, or a scheduler: see docs/scale.md.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from uptal.errors import ConfigError, UptalError

_GRACE = 120
"""Seconds that the processes have to save before they are killed."""


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return "LOCAL_RANK" in os.environ


def launch(processes: int, arguments: Sequence[str]) -> None:
    """Runs `uptal ARGUMENTS` in several processes and waits for them; a signal is passed on, and they save and leave.

    Raises:
        ConfigError: The number is none. UptalError: One of them failed; it has said why.
    """
    if processes < 1:
        raise ConfigError(f"--processes counts processes on this machine, found {processes}.")
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the processes speak for themselves
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"uptal-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
        shutdown_timeout=_GRACE,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "uptal", *arguments)
    except ChildFailedError as error:
        ranks = ", ".join(map(str, sorted(error.failures)))
        raise UptalError(f"process {ranks} of {processes} failed; its message stands above.") from error
    except SignalException:
        return  # passed on to the processes, which have saved
