"""The soak (W1): whole runs of `uptal pretrain` under injected faults, against one that nothing disturbed.

    python tests/soak.py --seconds 1800 --json soak.json

Runs of the same number of steps. One that nothing disturbs says how many steps a sixth of the time is. A second run
gets a fault every half a minute (kill -9, SIGTERM, Ctrl-C, a loader process killed or stopped, a full disk), is started
again each time, and must end with the first run's weights to the bit. In a third one, up to five of the sixty videos
are overwritten as well, at different times (loader processes that have a video in memory hear of it at their next
start): it must end at the same step and list those videos and no others. Three more that nothing disturbs follow: one
on all videos with another seed, and two, with both seeds, on the folder as the third run left it; those must list
exactly the videos that were overwritten, which they cannot read from their first step on.

The band of losses. What is compared is the mean over the last quarter of the steps. The third run loses its videos bit
by bit, so its training set lies between that of the runs with all videos and that of the runs without five. Noise
within a run says nothing about how far two runs part once one sample differs: over 218 steps, seeds and single
videos made differences of 0.4 where the standard error within a run was 0.01. So the four undisturbed runs give the
band: from the lowest of their means to the highest, and that difference once more on either side. For a fifth run
like the four that is about three standard deviations each way.

Memory. What is looked at is the anonymous memory of the training process in the second half of each undisturbed run:
without the pages that it shares with loader processes, and of every ten seconds the least, so that what is there for a
moment only does not count. The four slopes give a mean and its standard error; "shown" says whether three of those tell
the mean from the 1 MB an hour that is promised. What that does not tell is no failure, and no proof either.
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
        """All six runs."""
        videos = self.folder / "corpus" / "trimmed"
        corpus = CorpusConfig(num_trimmed=VIDEOS, num_untrimmed=3, size=48, seed=77)
        synthesize(self.folder / "corpus", corpus, workers=1, progress=False)
        straight = self.folder / "straight"
        memory = [self.undisturbed(videos, straight, 10**6, seconds / 6)]
        steps = RunFolder(straight).read_log()[-1]["step"]
        print(f"undisturbed: {steps} steps", flush=True)
        self.disturbed(videos, self.folder / "disturbed", steps, self.kinds())
        same = self.same_weights(straight, self.folder / "disturbed")
        print(f"disturbed: equal {same}; {dict(self.faults)}", flush=True)
        perishable, perishing = self.folder / "perishable", self.folder / "perishing"
        shutil.copytree(videos, perishable)
        self.disturbed(perishable, perishing, steps, [*self.kinds(), *3 * [self.overwrite]])
        print(f"with videos overwritten: {sorted(self.broken)}; {dict(self.faults)}", flush=True)
        memory.append(self.undisturbed(videos, self.folder / "straight-1", steps, seed=1))
        for seed in range(2):
            memory.append(self.undisturbed(perishable, self.folder / f"left-{seed}", steps, seed=seed))
            self.expect(
                listed(self.folder / f"left-{seed}") == set(self.broken), f"left-{seed}: another list of videos"
            )
        self.expect(listed(perishing) <= set(self.broken), "perishing: more videos were listed than overwritten")
        return {
            "steps": steps,
            "faults": dict(self.faults),
            "failures": self.failures,
            "weights_equal_to_the_bit": same,
            **self.losses(),
            "videos_overwritten": len(self.broken),
            "videos_listed": len(listed(perishing)),
            "memory": {"runs": memory, **together([part for part in memory if "growth_mb_per_hour" in part])},
        }

    def losses(self) -> dict[str, object]:
        """The mean losses of the last quarters, and where the third run's has to lie (see the top of this file)."""
        names = ("straight", "straight-1", "left-0", "left-1", "perishing")
        means = {name: last_quarter(RunFolder(self.folder / name).read_log()) for name in names}
        *undisturbed, found = means.values()
        lowest, highest = min(undisturbed), max(undisturbed)
        low, high = 2 * lowest - highest, 2 * highest - lowest
        self.expect(low <= found <= high, f"the mean loss is {found:.4f}, to be expected is {low:.4f} to {high:.4f}")
        return {
            "mean_losses": {name: round(mean, 4) for name, mean in means.items()},
            "loss_band": [round(low, 4), round(high, 4)],
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

    def undisturbed(
        self, videos: Path, run: Path, steps: int, seconds: float = float("inf"), seed: int = 0
    ) -> dict[str, float]:
        """Trains so many steps or so long; how the memory of the training process grew meanwhile."""
        process = start(videos, run, steps, seed)
        begin, sizes = time.monotonic(), []
        while time.monotonic() < begin + seconds and process.poll() is None:
            time.sleep(0.5)
            sizes.append((time.monotonic() - begin, anonymous(process.pid)))
        process.terminate()
        _, said = process.communicate(timeout=120)
        self.expect(process.returncode == 0, f"{run.name} ended with {process.returncode}: {said[-500:]}")
        return growth(sizes[len(sizes) // 2 :])

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


def start(videos: Path, run: Path, steps: int, seed: int = 0) -> subprocess.Popen[str]:
    """The training command; the schedule knows no end, so a run that is stopped equals one that was to end there."""
    words = ["pretrain", "demo", "--videos", videos, "--run", run, "--optim.max_steps", steps, "--optim.epochs", 10**6]
    words += ["--optim.schedule", "constant", "--optim.warmup_epochs", 0, "--optim.batch", 6, "--optim.log_every", 1]
    words += ["--optim.checkpoint_every", 20, "--data.workers", 1, "--data.worker_timeout", 10, "--data.max_bad", 0.1]
    words += ["--data.resize", 24, "--aug.size", 20, "--contrast.queue", 48, "--device", "cpu"]
    words += ["--encoder_options", '{"width_multiplier": 0.25}', "--seed", seed]
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


def growth(sizes: list[tuple[float, float]]) -> dict[str, float]:
    """Growth in MB an hour by least squares over the least of every ten seconds."""
    least: dict[int, float] = {}
    for seconds, size in sizes:
        if size:
            least[int(seconds // 10)] = min(size, least.get(int(seconds // 10), size))
    times, values = np.array(list(least)) * 10 / 3600, np.array(list(least.values()))
    found = {"minutes": round(len(least) / 6, 1)}
    if len(least) < 3:
        return found
    slope = float(np.polyfit(times, values, 1)[0])
    return found | {
        "mb": round(float(values.mean()), 1),
        "first_to_last_mb": round(float(values[-1] - values[0]), 2),
        "growth_mb_per_hour": round(slope, 2),
    }


def together(memory: list[dict[str, float]]) -> dict[str, object]:
    """Mean growth of several runs, and what three standard errors either way say about the growth promised."""
    if len(memory) < 2:
        return {"shown": "nothing: too short"}
    slopes = np.array([part["growth_mb_per_hour"] for part in memory])
    mean, error = float(slopes.mean()), float(slopes.std(ddof=1) / np.sqrt(len(slopes)))
    shown = "nothing: the error is too large"
    if mean + 3 * error < PROMISED_GROWTH:
        shown = f"less than {PROMISED_GROWTH:g} MB an hour"
    if mean - 3 * error > PROMISED_GROWTH:
        shown = f"more than {PROMISED_GROWTH:g} MB an hour"
    return {"growth_mb_per_hour": round(mean, 2), "standard_error": round(error, 2), "shown": shown}


def last_quarter(log: list[dict]) -> float:
    """Mean loss of the last quarter of the steps."""
    losses = np.array([line["loss"] for line in log])
    return float(losses[-(len(losses) // 4) :].mean())


if __name__ == "__main__":
    main()
