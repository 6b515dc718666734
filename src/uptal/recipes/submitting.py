"""A command as a job of a cluster: submitted through submitit, stopped in time, queued again, and gone on with.

submitit (extra `slurm`) starts one task for each process on every node and sends a signal before the time limit. Each
task runs `uptal` in a process of its own, with the environment that torchrun would give it. At the signal the first
one asks its process to stop, which saves, all processes agree on the step, and submitit queues the job again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from uptal.errors import ConfigError, UptalError

RETRIES = 1000
"""How often a job that ran into its time limit is queued again."""

_running: subprocess.Popen[bytes] | None = None
"""The process of this task."""


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """What a job asks of the cluster."""

    nodes: int = 1
    """Machines."""
    processes: int = 8
    """Processes on each machine; one a GPU, unless `gpus` is 0."""
    gpus: int | None = None
    """GPUs of each machine; as many as processes when not given."""
    cpus: int = 8
    """CPU cores for each process: one trains, the others decode."""
    hours: float = 12.0
    """Time limit; what is not finished by then is queued again and goes on."""
    grace: int = 120
    """Seconds before the time limit at which the run is asked to save and stop."""
    name: str = "uptal"
    """Name of the job."""
    partition: str | None = None
    """SLURM partition; the cluster's default when not given."""
    account: str | None = None
    """Account that pays; the cluster's default when not given."""
    constraint: str | None = None
    """What kind of machine, as SLURM's --constraint."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Other options of sbatch by their long names, such as {"qos": "high", "mem-per-cpu": "8G"}."""

    def __post_init__(self) -> None:
        if min(self.nodes, self.processes, self.cpus, self.grace) < 1 or self.hours <= 0 or (self.gpus or 0) < 0:
            raise ConfigError(
                f"A job needs nodes, processes, cpus, grace of at least 1 and hours above 0, found {self}."
            )
        if self.grace >= self.hours * 3600:
            raise ConfigError(f"A grace of {self.grace} s leaves nothing of {self.hours} hours.")


def submit(arguments: Sequence[str], job: JobConfig, logs: Path, cluster: Literal["slurm", "local"]) -> Any:
    """Hands `uptal ARGUMENTS` to the cluster, or to processes of this machine that outlive this one.

    Args:
        arguments: Words after `uptal`.
        job: What is asked for.
        logs: Folder for the job's output, reachable from its machines.
        cluster: Where to.

    Returns:
        submitit's job.

    Raises:
        ConfigError: submitit or SLURM is not there, or the request is impossible.
        UptalError: SLURM refused the job.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError as error:
        raise ConfigError("uptal submit needs submitit: pip install 'uptal[slurm]'.") from error
    try:
        executor = submitit.AutoExecutor(logs, cluster=cluster, **{f"{cluster}_max_num_timeout": RETRIES})
        executor.update_parameters(**_parameters(job, cluster))
        return executor.submit(Command(tuple(arguments), Path.cwd()))
    except RuntimeError as error:  # there is no srun
        raise ConfigError(f"This machine cannot submit to SLURM: {error}. Use a login node of the cluster.") from error
    except (FailedJobError, ValueError) as error:
        raise UptalError(f"{cluster} refused the job: {' '.join(str(error).split())}") from error


def _parameters(job: JobConfig, cluster: str) -> Mapping[str, Any]:
    gpus = job.processes if job.gpus is None else job.gpus
    common = {
        "nodes": job.nodes,
        "tasks_per_node": job.processes,
        "gpus_per_node": gpus,
        "timeout_min": max(1, round(job.hours * 60)),
        "name": job.name,
    }
    if cluster == "local":
        if job.nodes != 1:
            raise ConfigError(f"This machine is one node, and job.nodes is {job.nodes}.")
        return common
    chosen = {"partition": job.partition, "account": job.account, "constraint": job.constraint}
    return {
        **common,
        "cpus_per_task": job.cpus,
        "slurm_signal_delay_s": job.grace,
        "slurm_additional_parameters": job.extra,
        **{f"slurm_{name}": value for name, value in chosen.items() if value is not None},
    }


@dataclass(frozen=True)
class Command:
    """`uptal ARGUMENTS` as a task of a job; what submitit stores and calls."""

    arguments: tuple[str, ...]
    folder: Path
    """Where it was submitted, so that relative paths mean the same."""

    def __call__(self) -> int:
        """Runs the command to its end.

        Raises:
            UptalError: It failed; its message is in the job's log.
        """
        global _running
        _running = subprocess.Popen([sys.executable, "-m", "uptal", *self.arguments], cwd=self.folder, env=_place())
        os.waitid(os.P_PID, _running.pid, os.WEXITED | os.WNOWAIT)  # `wait` holds a lock that `checkpoint` would need
        code = _running.wait()
        if code:
            raise UptalError(f"uptal {self.arguments[0]} ended with exit code {code}; its message is in the log.")
        return code

    def checkpoint(self) -> Any:
        """Asks the run to save and stop, waits until it has, and gives what is to be queued again."""
        from submitit.helpers import DelayedSubmission

        if _running is not None:
            _running.send_signal(signal.SIGUSR1)
            os.waitid(os.P_PID, _running.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(self)


def _place() -> dict[str, str]:
    """The environment of this task's process: its place among all, as torchrun announces it."""
    from submitit.helpers import TorchDistributedEnvironment

    here = TorchDistributedEnvironment()
    place = {
        "MASTER_ADDR": here.master_addr,
        "MASTER_PORT": here.master_port,
        "RANK": here.rank,
        "WORLD_SIZE": here.world_size,
        "LOCAL_RANK": here.local_rank,
        "LOCAL_WORLD_SIZE": here.local_world_size,
    }
    return {**os.environ, **{name: str(value) for name, value in place.items()}}
