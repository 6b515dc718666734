"""The soak (W1): whole runs of `uptal pretrain` under injected faults, against one that nothing disturbed.

    python tests/soak.py --seconds 1800 --json soak.json

Four parts of the same number of steps. A run that nothing disturbs (A) says how many steps a quarter of the time is,
and how memory grows. A second run gets a fault every half a minute (kill -9, SIGTERM, Ctrl-C, a loader process killed
or stopped, a full disk), is started again each time, and must end with the first run's weights to the bit. In a third
one, up to five of the sixty videos are overwritten as well, at different times: it must end at the same step and list
those videos and no others. A fourth one (B) trains on the folder as the third left it: nothing disturbs it, but those
videos cannot be read from its first step on, so it must list all of them.

The band of losses. What is compared is the mean over the last quarter of the steps. The third run loses its videos
bit by bit, so its training set lies between that of A (all videos to the end) and that of B (without them from the
start), and its mean has to lie between A's and B's, give or take three standard errors of the difference of those two.
The standard errors are those of blocks of 25 steps within A and B; the third run's own noise does not widen the band.

Memory. What is looked at is the anonymous memory of the training process in the second half of A and of B: without the
pages that it shares with the loader processes, and of every ten seconds the least, so that what is there for a moment
only does not count. The slope comes with its standard error; "shown" says whether that is enough to tell it from the
1 MB an hour that is promised. What it does not tell is no failure, and no proof either.
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
PROMISED_GROWTH = 1.0
"""MB an hour."""


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
        """All four parts."""
        videos = self.folder / "corpus" / "trimmed"
        corpus = CorpusConfig(num_trimmed=VIDEOS, num_untrimmed=3, size=48, seed=77)
        synthesize(self.folder / "corpus", corpus, workers=1, progress=False)
        straight, memory = self.undisturbed(videos, self.folder / "straight", 10**6, seconds / 4)
        steps = straight[-1]["step"]
        print(f"undisturbed: {steps} steps", flush=True)
        self.disturbed(videos, self.folder / "disturbed", steps, self.kinds())
        same = self.same_weights(self.folder / "straight", self.folder / "disturbed")
        print(f"disturbed: equal {same}; {dict(self.faults)}", flush=True)
        perishable = self.folder / "perishable"
        shutil.copytree(videos, perishable)
        worse = [*self.kinds(), *3 * [self.overwrite]]
        perishing = self.disturbed(perishable, self.folder / "perishing", steps, worse)
        print(f"with videos overwritten: {sorted(self.broken)}", flush=True)
        left, memory_of_left = self.undisturbed(perishable, self.folder / "left", steps)
        losses, band = self.compared(straight, left, perishing)
        for run in ("perishing", "left"):
            others = listed(self.folder / run) - set(self.broken)
            self.expect(not others, f"{run}: {others} were listed as unreadable")
        missed = set(self.broken) - listed(self.folder / "left")
        self.expect(not missed, f"left: {missed} were not listed as unreadable")
        return {
            "steps": steps,
            "faults": dict(self.faults),
            "failures": self.failures,
            "weights_equal_to_the_bit": same,
            "mean_losses": losses,
            "loss_band": band,
            "videos_overwritten": len(self.broken),
            "videos_listed": len(listed(self.folder / "perishing")),
            "memory": {"undisturbed": memory, "left": memory_of_left},
        }

    def compared(self, all_videos: list[dict], left: list[dict], perishing: list[dict]) -> tuple[dict, list[float]]:
        """The mean losses of the last quarters, and where the third has to lie (see the top of this file)."""
        (a, error_of_a), (b, error_of_b), (found, error) = map(last_quarter, (all_videos, left, perishing))
        width = 3 * float(np.hypot(error_of_a, error_of_b))
        band = [round(min(a, b) - width, 4), round(max(a, b) + width, 4)]
        self.expect(band[0] <= found <= band[1], f"the mean loss is {found:.4f}, where {band} is to be expected")
        names = ("all_videos", "those_left", "perishing")
        pairs = zip(names, ((a, error_of_a), (b, error_of_b), (found, error)), strict=True)
        return {name: {"mean": round(mean, 4), "standard_error": round(e, 4)} for name, (mean, e) in pairs}, band

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

    def undisturbed(
        self, videos: Path, run: Path, steps: int, seconds: float = float("inf")
    ) -> tuple[list[dict], dict[str, object]]:
        """Trains so many steps or so long; the log, and how the memory of the training process grew."""
        process = start(videos, run, steps)
        begin, sizes = time.monotonic(), []
        while time.monotonic() < begin + seconds and process.poll() is None:
            time.sleep(0.5)
            sizes.append((time.monotonic() - begin, anonymous(process.pid)))
        process.terminate()
        _, said = process.communicate(timeout=120)
        self.expect(process.returncode == 0, f"the undisturbed run ended with {process.returncode}: {said[-500:]}")
        return RunFolder(run).read_log(), growth(sizes[len(sizes) // 2 :])

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


def listed(run: Path) -> set[str]:
    """Names of the videos that a run has set aside."""
    file = run / "quarantine.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return {Path(json.loads(line)["video"]).name for line in lines}


def anonymous(process: int) -> float:
    """MB of memory that a process holds for itself; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024 / 1e6


def growth(sizes: list[tuple[float, float]]) -> dict[str, object]:
    """Growth in MB an hour by least squares over the least of every ten seconds, with its standard error."""
    least: dict[int, float] = {}
    for seconds, size in sizes:
        if size:
            least[int(seconds // 10)] = min(size, least.get(int(seconds // 10), size))
    if len(least) < 3:
        return {"minutes": round(len(least) / 6, 1), "shown": "nothing: too short"}
    times, values = np.array(list(least)) * 10 / 3600, np.array(list(least.values()))
    times = times - times.mean()
    slope = (times @ values) / (times @ times)
    rest = values - values.mean() - slope * times
    error = np.sqrt(rest @ rest / (len(times) - 2) / (times @ times))
    return {
        "minutes": round(len(least) / 6, 1),
        "mb": round(float(values.mean()), 1),
        "first_to_last_mb": round(float(values[-1] - values[0]), 2),
        "growth_mb_per_hour": round(float(slope), 2),
        "standard_error": round(float(error), 2),
        "shown": verdict(float(slope), float(error)),
    }


def verdict(slope: float, error: float) -> str:
    """What three standard errors either way say about the growth that is promised."""
    if slope + 3 * error < PROMISED_GROWTH:
        return f"less than {PROMISED_GROWTH:g} MB an hour"
    if slope - 3 * error > PROMISED_GROWTH:
        return f"more than {PROMISED_GROWTH:g} MB an hour"
    return "nothing: the error is too large"


def last_quarter(log: list[dict]) -> tuple[float, float]:
    """Mean loss of the last quarter of the steps, and its standard error from blocks of steps."""
    losses = np.array([line["loss"] for line in log])
    whole = len(losses) // STEPS_A_BLOCK * STEPS_A_BLOCK
    blocks = losses[len(losses) - whole :].reshape(-1, STEPS_A_BLOCK).mean(1)
    last = blocks[-max(2, len(blocks) // 4) :]
    return float(last.mean()), float(last.std(ddof=1) / np.sqrt(len(last)))


if __name__ == "__main__":
    main()
