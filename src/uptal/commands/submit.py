"""`uptal submit --slurm -- pretrain RECIPE …`: a run as a job of a cluster."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from uptal.commands.options import add_settings, new_parser, take_settings
from uptal.errors import ConfigError
from uptal.recipes.submitting import JobConfig, submit


def main(arguments: list[str]) -> None:
    """Submits, and says where the output goes."""
    own, command = _split(arguments)
    parser = new_parser(
        "submit",
        "Hands a command to SLURM: uptal submit --slurm [options] -- pretrain paper --videos DIR --run RUN. Before the "
        "time limit the run saves and stops, is queued again and goes on.",
    )
    parser.add_argument("--slurm", action="store_true", help="to SLURM, from one of its login nodes")
    parser.add_argument("--local", action="store_true", help="to processes of this machine that go on by themselves")
    parser.add_argument("--logs", default="logs", help="folder of the jobs' output, seen by all machines")
    add_settings(parser, JobConfig())
    parsed = parser.parse_args(own)
    if parsed.slurm == parsed.local:
        raise ConfigError("Say where to: --slurm or --local.")
    if not command or command[0] == "submit" or find_spec(f"uptal.commands.{command[0]}") is None:
        raise ConfigError(
            f"Write the command to be run behind `--`, such as `-- pretrain paper --videos DIR --run RUN`; found "
            f"{' '.join(command) or 'nothing'}."
        )
    job = submit(command, take_settings(parsed, JobConfig), Path(parsed.logs), "slurm" if parsed.slurm else "local")
    print(f"job {job.job_id}; its output: {job.paths.stdout}, {job.paths.stderr}")


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Options of this command, and the command behind `--`."""
    where = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:where], arguments[where + 1 :]
