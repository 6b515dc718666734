"""Whole runs in two processes: the losses of one, the same stop, the same resumption, and an end when one dies."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from test_train import TOY, assert_same_run, final, log_of
from uptal import checkpoint
from uptal.distributed import ProcessError, world
from uptal.errors import CheckpointError, ConfigError
from uptal.recipes import pretrain as recipes
from uptal.recipes.pretrain import PretrainConfig
from uptal.recipes.running import pretrain
from uptal.run import RunFolder
from uptal.train import DivergenceError, fit
from workshop import Child, ToyData, ToyTask, forked, make_corpus, tiny, wait_for


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), trimmed=12, untrimmed=0) / "trimmed"


@pytest.fixture(scope="module")
def pal() -> PretrainConfig:
    return tiny(batch=6, max_steps=6, checkpoint_every=2)


@pytest.fixture(scope="module")
def straight(pal, videos, tmp_path_factory) -> Path:
    """PAL in two processes, undisturbed."""
    run = tmp_path_factory.mktemp("straight")
    assert codes(two(lambda: pretrain(pal, videos, run))) == [0, 0]
    return run


def two(work: Callable[[], Any]) -> list[Child]:
    """Runs `work` in two processes of one group."""
    meeting = Path(os.environ.get("TMPDIR", "/tmp")) / f"uptal-{os.getpid()}-{time.monotonic_ns()}"

    def member(rank: int) -> None:
        os.environ["LOCAL_RANK"] = str(rank)
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
        work()
        dist.destroy_process_group()

    return [forked(lambda rank=rank: member(rank)) for rank in range(2)]


def codes(children: list[Child]) -> list[int | None]:
    return [child.wait(120) for child in children]


def both_say(work: Callable[[], Any], kind: type[Exception], *words: str) -> None:
    """Both processes end with an error that says so."""

    def caught() -> None:
        with pytest.raises(kind) as found:
            work()
        assert all(word in str(found.value) for word in words), str(found.value)

    assert codes(two(caught)) == [0, 0]


def test_processes_that_see_other_videos_are_refused(pal, videos, tmp_path):
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for path in sorted(videos.iterdir())[2:]:
        (fewer / path.name).symlink_to(path)
    both_say(
        lambda: pretrain(pal, fewer if world().rank else videos, tmp_path / "run"),
        ConfigError, "process 0 sees 12 videos", "number 1 (10 videos)",
    )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_processes_that_see_other_checkpoints_are_refused_and_nothing_is_written(pal, videos, straight, tmp_path):
    """As a network folder may show them a moment after they were written."""
    shutil.copytree(straight, tmp_path / "run")
    shutil.copytree(straight, tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "checkpoints" / "step_00000006")

    def work() -> None:
        if world().rank:
            newest = checkpoint.newest_valid
            checkpoint.newest_valid = lambda folder: newest(tmp_path / "old" / "checkpoints")
        pretrain(recipes.with_optim(pal, max_steps=8), videos, tmp_path / "run")

    both_say(work, CheckpointError, "number 0 at step 6, number 1 at step 4")
    kept = [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())]
    assert kept[-1] == "step_00000006"


def test_statistics_of_their_own_do_not_count_as_another_beginning(videos, tmp_path):
    cfg = tiny(batch=6, max_steps=2)
    cfg = replace(cfg, contrast=replace(cfg.contrast, unfilled="warm_up", shuffle_bn=True))
    assert codes(two(lambda: pretrain(cfg, videos, tmp_path / "run"))) == [0, 0]


def test_bad_videos_are_counted_and_listed_over_all_processes(videos, tmp_path):
    """Each once, also when shares change, and above the limit as soon as they are one process's."""
    shutil.copytree(videos, tmp_path / "videos")
    bad = sorted((tmp_path / "videos").iterdir())[:3]
    for path in bad:
        path.write_bytes(path.read_bytes()[:200])
    cfg = tiny(batch=6, max_steps=8, checkpoint_every=100)
    cfg = replace(cfg, data=replace(cfg.data, max_bad=0.3))
    assert codes(two(lambda: pretrain(cfg, tmp_path / "videos", tmp_path / "run"))) == [0, 0]
    lines = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(line["video"] for line in lines) == sorted(map(str, bad))
    cfg = replace(cfg, data=replace(cfg.data, max_bad=0.2))
    assert 1 in codes(two(lambda: pretrain(cfg, tmp_path / "videos", tmp_path / "strict")))


def test_two_processes_have_the_losses_of_one(videos, tmp_path):
    """Without paste a step's samples do not depend on how they are shared out. 1e-5 is for sums in another order;
    a temperature of 1 and small steps of SGD, because 0.07, Adam's division by gradients near 0 and long steps through
    batch norms of a few pixels make much of their rounding."""
    cfg = tiny(recipes.moco(), batch=6, max_steps=6, schedule="cosine", algorithm="sgd", lr=0.0001)
    cfg = replace(cfg, contrast=replace(cfg.contrast, tau=1.0, queue=12))  # whole steps, so it holds the same keys
    pretrain(cfg, videos, tmp_path / "one")
    assert codes(two(lambda: pretrain(cfg, videos, tmp_path / "two"))) == [0, 0]
    one, shared = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert [line["step"] for line in shared] == [1, 2, 3, 4, 5, 6]
    for name in ("loss", "accuracy", "negatives"):
        assert [line[name] for line in shared] == pytest.approx([line[name] for line in one], abs=1e-5)
    for name, value in final(tmp_path / "one").weights.items():
        if not name.startswith("queue."):  # there the order within a step is that of the ranks
            torch.testing.assert_close(final(tmp_path / "two").weights[name], value, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.reliability
def test_a_signal_stops_both_at_one_step_and_the_resumed_run_is_the_straight_one(pal, videos, straight, tmp_path):
    """P3 and R4: one of the two hears of it."""
    children = two(lambda: pretrain(pal, videos, stopping(tmp_path / "run", 3)))
    assert codes(children) == [0, 0]
    assert final(tmp_path / "run").step == 3
    assert codes(two(lambda: pretrain(pal, videos, tmp_path / "run"))) == [0, 0]
    assert_same_run(straight, tmp_path / "run")


@pytest.mark.reliability
def test_a_loss_that_is_no_number_on_one_process_stops_both_before_the_update(tmp_path):
    """N1: the other one says that it is not its own."""
    good, cfg = tmp_path / "good", replace(TOY, checkpoint_every=2)

    class Bad(ToyTask):
        def loss(self, batch):
            wrong = self.steps_seen == 3 and dist.get_rank() == 1
            return {"loss": super().loss(batch)["loss"] * (float("nan") if wrong else 1)}

    def work(task: ToyTask, folder: Path) -> None:
        torch.manual_seed(1)
        place = world()
        try:
            fit(task, ToyData(), cfg, RunFolder(folder), device=torch.device("cpu"), world=place)
        except DivergenceError as error:
            weights = torch.cat([parameter.detach().flatten() for parameter in task.parameters()])
            torch.save(weights, tmp_path / f"weights{place.rank}")
            (tmp_path / f"said{place.rank}").write_text(str(error))

    good.mkdir()
    (tmp_path / "bad").mkdir()
    assert codes(two(lambda: work(Bad(), tmp_path / "bad"))) == [0, 0]
    cfg = replace(TOY, max_steps=3)
    assert codes(two(lambda: work(ToyTask(), good))) == [0, 0]
    said = [(tmp_path / f"said{rank}").read_text() for rank in range(2)]
    assert "loss of step 4 is nan (that of another process)" in said[0] and "loss of step 4 is nan;" in said[1]
    assert final(tmp_path / "bad").step == 2
    kept = final(good).weights
    expected = torch.cat([kept[name].flatten() for name, _ in ToyTask().named_parameters()])
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"weights{rank}"), expected)


def test_processes_wait_for_each_other_longer_than_for_data(pal, videos, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    given = []

    def join(**options) -> None:
        given.append(options["timeout"].total_seconds())
        raise KeyError

    monkeypatch.setattr(dist, "init_process_group", join)
    slow = replace(pal, data=replace(pal.data, worker_timeout=7200.0))
    with pytest.raises(KeyError):
        pretrain(slow, videos, tmp_path)
    assert given == [7200.0 + 1800.0]


@pytest.mark.reliability
def test_a_run_goes_on_with_another_number_of_processes(pal, videos, straight, tmp_path):
    """R4: the same statistics, not the same bits; queue, weights and position are the same to the bit."""
    shutil.copytree(straight, tmp_path / "run")
    longer = recipes.with_optim(pal, max_steps=10)
    before = final(straight)
    assert pretrain(longer, videos, tmp_path / "run").new_steps == 4
    lines = log_of(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert all(line["loss"] < 10 for line in lines)
    assert before.weights["queue.ids"].tolist() != final(tmp_path / "run").weights["queue.ids"].tolist()
    assert codes(two(lambda: pretrain(recipes.with_optim(pal, max_steps=12), videos, tmp_path / "run"))) == [0, 0]


@pytest.mark.slow
@pytest.mark.reliability
def test_one_process_goes_on_with_the_losses_that_two_would_have_had(tmp_path):
    """R4: the mean of the next 50 within 2 %. They are near that of chance, log 48; a run that had lost its queue would
    begin at 0 and be found out."""
    videos = make_corpus(tmp_path / "corpus", trimmed=24, untrimmed=0) / "trimmed"
    cfg = tiny(batch=6, max_steps=10, schedule="constant", warmup_epochs=0.0)
    cfg = replace(cfg, contrast=replace(cfg.contrast, queue=48))
    longer = recipes.with_optim(cfg, max_steps=60)
    assert codes(two(lambda: pretrain(cfg, videos, tmp_path / "two"))) == [0, 0]
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    assert codes(two(lambda: pretrain(longer, videos, tmp_path / "two"))) == [0, 0]
    pretrain(longer, videos, tmp_path / "one")
    one, straight = ([line["loss"] for line in log_of(tmp_path / name)] for name in ("one", "two"))
    assert one[:10] == straight[:10] and len(one) == len(straight) == 60
    assert one[10:] != straight[10:]
    assert sum(one[10:]) == pytest.approx(sum(straight[10:]), rel=0.02)


@pytest.mark.reliability
def test_when_one_process_dies_the_other_says_so_and_ends(pal, videos, tmp_path):
    """P4, with a minute allowed."""
    said = tmp_path / "said"
    endless = recipes.with_optim(pal, max_steps=10**6, epochs=10**6)

    def work() -> None:
        try:
            pretrain(endless, videos, tmp_path / "run")
        except ProcessError as error:
            said.write_text(str(error))

    first, second = two(work)
    wait_for(lambda: len(RunFolder(tmp_path / "run").read_log()) >= 2, 60)
    second.kill()
    assert first.wait(60) == 0
    assert "Another process of the run has ended" in said.read_text() and "\n" not in said.read_text()


@pytest.mark.reliability
def test_two_processes_killed_at_random_moments_end_with_the_undisturbed_weights(pal, videos, tmp_path):
    """R2 for two: each kill comes in the midst of training, after a step drawn by chance; more kills in the soak."""
    kills = int(os.environ.get("UPTAL_KILLS", "3"))
    cfg, chance = recipes.with_optim(pal, max_steps=4 * kills + 2, checkpoint_every=3), random.Random(0)
    straight, run = tmp_path / "straight", tmp_path / "run"
    assert codes(two(lambda: pretrain(cfg, videos, straight))) == [0, 0]
    for step in sorted(chance.sample(range(2, 4 * kills), kills)):
        children = two(lambda: pretrain(cfg, videos, run))
        wait_for(lambda step=step: any(line["step"] >= step for line in RunFolder(run).read_log()), 120)
        time.sleep(chance.uniform(0, 0.03))
        for child in chance.sample(children, 2):
            child.kill()
        there = [int(path.name[5:]) for path in run.glob("checkpoints/step_*")]
        assert (step - 1) // 3 * 3 <= max(there, default=0) < cfg.optim.max_steps
    assert codes(two(lambda: pretrain(cfg, videos, run))) == [0, 0]
    assert_same_run(straight, run)


def test_the_log_tells_of_the_process_that_waits_longest_for_data(tmp_path):
    def work() -> None:
        place = world()
        data = ToyData(on_batch=lambda given: time.sleep(0.1 * place.rank))
        outcome = fit(ToyTask(), data, TOY, RunFolder(tmp_path), device=torch.device("cpu"), world=place)
        assert outcome.new_steps == 20 and outcome.waited > 0.6

    assert codes(two(work)) == [0, 0]
    assert min(line["data_wait"] for line in RunFolder(tmp_path).read_log()) > 0.3  # written by the one with data


@pytest.mark.reliability
def test_the_command_starts_several_processes_and_passes_signals_on(videos, tmp_path):
    """`--processes 2`, and SIGTERM to the launcher: saved, exit code 0; PyTorch's grace of 30 seconds is enough."""
    words = ["pretrain", "demo", "--videos", videos, "--run", tmp_path, "--processes", "2"]
    words += ["--optim.batch=6", "--aug.size=20", "--data.resize=24", "--data.workers=1", "--optim.log_every=1"]
    command = [sys.executable, "-m", "uptal", *map(str, words), "--optim.max_steps=1000000", "--optim.epochs=1000000"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wait_for(lambda: len(RunFolder(tmp_path).read_log()) >= 3, 120)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0 and "stopped and saved at step" in errors and "Traceback" not in errors
    assert final(tmp_path).step == RunFolder(tmp_path).read_log()[-1]["step"]


@pytest.mark.slow
@pytest.mark.reliability
def test_two_agents_that_meet_over_a_port_train_as_two_processes_of_one(videos, tmp_path):
    """`torchrun` on two machines with a rendezvous, here both on one."""
    words = ["pretrain", "demo", "--videos", videos, "--optim.batch=6", "--aug.size=20", "--data.resize=24"]
    words += ["--data.workers=0", "--optim.log_every=1", "--optim.max_steps=6", "--device=cpu"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "met", "-m", "uptal"]
    alone = [sys.executable, "-m", "uptal"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}

    def started(launcher: list[str], run: str, *more: str) -> subprocess.Popen:
        command = [*launcher, *map(str, words), "--run", str(tmp_path / run), *more]
        return subprocess.Popen(command, env=quiet)

    agents = [started([*torchrun, "--"], "met") for _ in range(2)]
    assert [agent.wait(180) for agent in agents] == [0, 0]
    assert started(alone, "one", "--processes", "2").wait(180) == 0
    assert log_of(tmp_path / "met") == log_of(tmp_path / "one") and len(log_of(tmp_path / "met")) == 6
    assert_same_run(tmp_path / "met", tmp_path / "one")


def stopping(run: Path, step: int) -> Path:
    """The folder; in the first process, which writes the log, SIGTERM comes with that step."""
    log = RunFolder.log

    def logged(self: RunFolder, line) -> None:
        log(self, line)
        if line["step"] == step:
            os.kill(os.getpid(), signal.SIGTERM)

    RunFolder.log = logged  # in a copy of the test's process
    return run
