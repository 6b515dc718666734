"""The soak (W1): whole runs of `uptal pretrain` under injected faults, against one that nothing disturbed.

    python tests/soak.py --seconds 1800 --json soak.json

Three parts of about equal length. A run that nothing disturbs says how many steps that is, and how memory grows. A
second run gets a fault every half a minute (kill -9, SIGTERM, Ctrl-C, a loader process killed or stopped, a full disk),
is started again each time, and must end with the first run's weights to the bit. In a third one, videos are overwritten
as well: it must end at the same step, list those videos and no others, and have losses in the band of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from uptal import checkpoint
from uptal.files import atomic_write
from uptal.run import RunFolder, versions
from uptal.synthetic import CorpusConfig
from uptal.synthetic.corpus import synthesize

VIDEOS, MAY_BREAK = 60, 5
EVERY = (10.0, 40.0)
"""Seconds from one fault to the next."""
STEPS_A_BLOCK = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SOAK_S", "1800")))
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--json", type=Path, help="file for the outcome")
    parser.add_argument("--keep", type=Path, help="folder for the runs, kept; a temporary one when not given")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        soak = Soak(options.keep or Path(temporary), random.Random(options.seed))
        outcome = soak.run(options.seconds)
    outcome |= {"seconds": round(time.monotonic() - began), "seed": options.seed, "versions": versions()}
    print(json.dumps(outcome, indent=1))
    if options.json:
        with atomic_write(options.json) as file:
            file.write(json.dumps(outcome, indent=1) + "\n")
    sys.exit(1 if outcome["failures"] else 0)


@dataclass
class Soak:
    """What has happened so far."""

    folder: Path
    chance: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def run(self, seconds: float) -> dict[str, object]:
        """All three parts."""
        videos = self.folder / "corpus" / "trimmed"
        corpus = CorpusConfig(num_trimmed=VIDEOS, num_untrimmed=3, size=48, seed=77)
        synthesize(self.folder / "corpus", corpus, workers=1, progress=False)
        straight, memory = self.undisturbed(videos, self.folder / "straight", seconds / 3)
        steps = straight[-1]["step"]
        print(f"undisturbed: {steps} steps", flush=True)
        self.disturbed(videos, self.folder / "disturbed", steps, self.kinds())
        same = self.same_weights(self.folder / "straight", self.folder / "disturbed")
        print(f"disturbed: equal {same}; {dict(self.faults)}", flush=True)
        shutil.copytree(videos, self.folder / "perishable")
        losses = self.disturbed(
            self.folder / "perishable", self.folder / "perishing", steps, [*self.kinds(), *3 * [self.overwrite]]
        )
        difference, band = apart(straight, losses)
        self.expect(abs(difference) <= band, f"losses differ by {difference:.3f} where {band:.3f} is to be expected")
        self.expect(self.listed() <= set(self.broken), f"{self.listed() - set(self.broken)} were listed as unreadable")
        return {
            "steps": steps,
            "faults": dict(self.faults),
            "failures": self.failures,
            "weights_equal_to_the_bit": same,
            "loss_difference": round(difference, 4),
            "loss_band": round(band, 4),
            "videos_overwritten": len(self.broken),
            "videos_listed": len(self.listed()),
            "memory": memory,
        }

    def kinds(self) -> list[Callable[[subprocess.Popen[str]], set[int]]]:
        """Faults that change nothing in the data."""
        return [self.kill, self.terminate, self.interrupt, self.kill_worker, self.stop_worker, self.fill_disk]

    # Faults: each gives the exit codes that it may lead to

    def kill(self, run: subprocess.Popen[str]) -> set[int]:
        run.kill()
        return {-signal.SIGKILL}

    def terminate(self, run: subprocess.Popen[str]) -> set[int]:
        run.terminate()
        return {0}

    def interrupt(self, run: subprocess.Popen[str]) -> set[int]:
        run.send_signal(signal.SIGINT)
        return {0}

    def kill_worker(self, run: subprocess.Popen[str]) -> set[int]:
        for worker in workers_of(run):
            os.kill(worker, signal.SIGKILL)
        return {1}

    def stop_worker(self, run: subprocess.Popen[str]) -> set[int]:
        for worker in workers_of(run):
            os.kill(worker, signal.SIGSTOP)
        return {1}

    def fill_disk(self, run: subprocess.Popen[str]) -> set[int]:
        resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        return {1}

    def overwrite(self, run: subprocess.Popen[str]) -> set[int]:
        """One more video becomes noise; the run goes on."""
        whole = [path for path in sorted((self.folder / "perishable").glob("*.mp4")) if path.name not in self.broken]
        if len(self.broken) < MAY_BREAK:
            path = self.chance.choice(whole)
            self.broken.append(path.name)
            path.write_bytes(self.chance.randbytes(20_000))
        return set()

    # Parts

    def undisturbed(self, videos: Path, run: Path, seconds: float) -> tuple[list[dict], dict[str, float]]:
        """Trains for some time; the log, and how the memory of the training process grew over the second half."""
        process = start(videos, run, 10**6)
        end, sizes = time.monotonic() + seconds, []
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.5)
            sizes.append((time.monotonic(), resident(process.pid)))
        process.terminate()
        _, said = process.communicate(timeout=120)
        self.expect(process.returncode == 0, f"the undisturbed run ended with {process.returncode}: {said[-500:]}")
        return RunFolder(run).read_log(), slope(sizes[len(sizes) // 2 :])

    def disturbed(self, videos: Path, run: Path, steps: int, kinds: list[Callable]) -> list[dict]:
        """Trains to `steps` through faults and restarts."""
        while True:
            seen, process = len(RunFolder(run).read_log()), start(videos, run, steps)
            while process.poll() is None and len(RunFolder(run).read_log()) <= seen:
                time.sleep(0.05)
            expected, what = {0}, "nothing"
            while process.poll() is None:
                wait(process, self.chance.uniform(*EVERY))
                if process.poll() is None:
                    fault = self.chance.choice(kinds)
                    self.faults[what := fault.__name__] += 1
                    orphans = workers_of(process)
                    expected = fault(process) or expected
                    if fault != self.overwrite:
                        break
            try:
                _, said = process.communicate(timeout=120)
            except subprocess.TimeoutExpired:
                process.kill()
                _, said = process.communicate()
                self.failures.append(f"{what}: the run hung")
            finished = self.step(run) == steps
            if what != "nothing" and what != "overwrite":
                self.expect(process.returncode in expected | ({0} if finished else set()), f"{what}: exit code "
                            f"{process.returncode}, said {said[-300:]!r}")  # fmt: skip
                self.expect("Traceback" not in said, f"{what}: a traceback: {said[-600:]}")
                time.sleep(0.5)
                left = [orphan for orphan in orphans if alive(orphan)]
                self.expect(not left or what == "kill", f"{what}: processes {left} were left behind")
            elif process.returncode:
                self.failures.append(f"ended with {process.returncode} by itself: {said[-500:]}")
                return RunFolder(run).read_log()
            if finished:
                return RunFolder(run).read_log()

    # What is looked at

    def step(self, run: Path) -> int:
        found, passed_over = checkpoint.newest_valid(run / "checkpoints")
        self.expect(not passed_over, f"a checkpoint was not whole: {passed_over}")
        return 0 if found is None else found.step

    def same_weights(self, one: Path, other: Path) -> bool:
        a, b = (checkpoint.newest_valid(run / "checkpoints")[0] for run in (one, other))
        same = a is not None and b is not None and a.step == b.step and a.weights.keys() == b.weights.keys()
        same = same and all(torch.equal(value, b.weights[name]) for name, value in a.weights.items())
        self.expect(same, "the disturbed run ended with other weights")
        return same

    def listed(self) -> set[str]:
        file = self.folder / "perishing" / "quarantine.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        return {Path(json.loads(line)["video"]).name for line in lines}

    def expect(self, holds: bool, failure: str) -> None:
        if not holds:
            self.failures.append(failure)
            print("FAILURE", failure, flush=True)


def start(videos: Path, run: Path, steps: int) -> subprocess.Popen[str]:
    """The training command; the schedule knows no end, so a run that is stopped equals one that was to end there."""
    words = ["pretrain", "demo", "--videos", videos, "--run", run, "--optim.max_steps", steps, "--optim.epochs", 10**6]
    words += ["--optim.schedule", "constant", "--optim.warmup_epochs", 0, "--optim.batch", 6, "--optim.log_every", 1]
    words += ["--optim.checkpoint_every", 20, "--data.workers", 1, "--data.worker_timeout", 10, "--data.max_bad", 0.1]
    words += ["--data.resize", 24, "--aug.size", 20, "--contrast.queue", 48, "--device", "cpu"]
    words += ["--encoder_options", '{"width_multiplier": 0.25}']
    command = [sys.executable, "-m", "uptal", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def wait(process: subprocess.Popen[str], seconds: float) -> None:
    """Until the time is up or the process has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)


def workers_of(run: subprocess.Popen[str]) -> list[int]:
    """Its child processes; Linux's list of them can be empty for a moment while it changes, so it is asked again."""
    for _ in range(100):
        try:
            found = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        except OSError:
            return []
        if found or run.poll() is not None:
            return [int(word) for word in found]
        time.sleep(0.02)
    return []


def alive(process: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def resident(process: int) -> float:
    """MB of memory that a process holds."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def slope(sizes: list[tuple[float, float]]) -> dict[str, float]:
    """Growth in MB an hour by least squares, with its standard error as if samples were independent."""
    times, values = np.array([pair for pair in sizes if pair[1]]).T
    times = (times - times.mean()) / 3600
    growth = (times @ values) / (times @ times)
    rest = values - values.mean() - growth * times
    error = np.sqrt(rest @ rest / (len(times) - 2) / (times @ times))
    return {
        "mb": round(float(values.mean()), 1),
        "growth_mb_per_hour": round(float(growth), 2),
        "standard_error": round(float(error), 2),
        "first_to_last_mb": round(float(values[-1] - values[0]), 2),
    }


def apart(one: list[dict], other: list[dict]) -> tuple[float, float]:
    """How far the mean losses of the last quarters are apart, and three standard errors of such a difference."""
    means = [blocks(log) for log in (one, other)]
    count = max(2, len(means[0]) // 4)
    quarter = [part[-count:] for part in means]
    error = np.sqrt(sum(part.var(ddof=1) / count for part in quarter))
    return float(quarter[1].mean() - quarter[0].mean()), float(3 * error)


def blocks(log: list[dict]) -> np.ndarray:
    losses = np.array([line["loss"] for line in log])
    whole = len(losses) // STEPS_A_BLOCK * STEPS_A_BLOCK
    return losses[:whole].reshape(-1, STEPS_A_BLOCK).mean(1)


if __name__ == "__main__":
    main()
