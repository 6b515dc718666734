"""How long saving a checkpoint stops training: written beside it, as `fit` does, and written before it goes on.

    python benchmarks/checkpoints.py --recipe demo --step-seconds 0.4
    python benchmarks/checkpoints.py --recipe paper

Both are taken in turns, in one run. `--step-seconds` is what a step takes (`uptal bench pretrain RECIPE`); with it the
share for the recipe's own `checkpoint_every` is printed as well. Files are flushed to the disk that holds `--folder`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from uptal import checkpoint
from uptal.distributed import World
from uptal.files import atomic_write
from uptal.learner import Learner
from uptal.recipes import pretrain as recipes
from uptal.recipes.running import new_task
from uptal.run import environment, versions
from uptal.writing import Writer

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--step-seconds", type=float)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder when not given")
    parser.add_argument("--json", help="write the numbers to a file, with the machine that they are of")
    options = parser.parse_args()
    cfg = recipes.recipe(options.recipe)
    task = new_task(cfg, torch.device("cpu"), World(0, 1, 0), None if cfg.method == "pal" else {"a": 0, "b": 1})
    train = {"optimiser": with_moments(Learner(task, cfg.optim, torch.device("cpu")))}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        pairs = [timed(Path(folder), round, task.state_dict(), train) for round in range(ROUNDS)]
        size = sum(file.stat().st_size for file in Path(folder).glob(f"step_{2 * ROUNDS - 1:08d}/*"))
    stalls, whole = (sorted(seconds) for seconds in zip(*pairs, strict=True))
    stall, usual = stalls[ROUNDS // 2], whole[ROUNDS // 2]
    print(f"{options.recipe}: {size / 1e6:.1f} MB; training waits {stall:.3f} s, {usual / stall:.1f} times less than")
    print(f"  {usual:.3f} s with the disk ({size / usual / 1e6:.0f} MB/s)")
    print(f"  2 % of the time if one is saved every {50 * stall:.1f} s, with the disk every {50 * usual:.0f} s")
    if options.step_seconds:
        every = cfg.optim.checkpoint_every
        share = stall / (every * options.step_seconds)
        print(f"  every {every} steps of {options.step_seconds:g} s: {share:.2%} of the time")
    if options.json:
        found = {"recipe": options.recipe, "bytes": size, "stall_s": stall, "with_disk_s": usual, "all": pairs}
        with atomic_write(options.json) as out:
            json.dump(found | {"environment": environment()}, out, indent=1)


def with_moments(learner: Learner) -> dict[str, Any]:
    """The optimiser's state as it is after a step."""
    for group in learner.optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    learner.optimiser.step()
    return learner.optimiser.state_dict()


def timed(folder: Path, round: int, weights: dict[str, torch.Tensor], train: dict[str, Any]) -> tuple[float, float]:
    """Seconds that training waits when a thread writes, and when it writes itself."""
    meta = {"format": 1, "versions": versions()}
    with Writer() as writer:
        begin = time.perf_counter()
        writer.save(folder, 2 * round, weights, train, meta, 3)
        stall = time.perf_counter() - begin
    begin = time.perf_counter()
    checkpoint.save(folder, 2 * round + 1, weights, train, meta, 3)
    return stall, time.perf_counter() - begin


if __name__ == "__main__":
    main()
