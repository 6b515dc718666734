"""Loader processes that die or hang end a run within seconds, in one paragraph that names the videos."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from uptal.augment import AugmentConfig
from uptal.cli import main
from uptal.clips import RegionConfig, TimelineConfig
from uptal.pretext.data import VALIDATION, DataConfig, Videos
from uptal.pretext.loader import Loader, WorkerError, _tell_unless_left
from uptal.pretext.synthesis import PasteConfig
from uptal.video import find_videos
from workshop import ALONE, make_corpus

pytestmark = pytest.mark.filterwarnings(
    # torch counts free descriptors with temporary files; the notice of a worker's death can come while it opens one,
    # which is then closed by the garbage collector
    "ignore:unclosed file <_io.BufferedRandom:ResourceWarning",
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning",
)

DATA = DataConfig(
    timeline=TimelineConfig(clips=2, frames=4, region=RegionConfig(max_clips=2)), resize=24, workers=1, val_videos=3
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), trimmed=12, untrimmed=0) / "trimmed"


@pytest.fixture
def at_video(monkeypatch):
    """Makes a worker do something when it comes to a video of a number; the training process never does it."""
    draw, here = Videos.draw, os.getpid()

    def install(number: int, deed) -> None:
        def drawing(self, epoch, index):
            if index == number and os.getpid() != here:
                deed()
            return draw(self, epoch, index)

        monkeypatch.setattr(Videos, "draw", drawing)

    return install


def loader(videos: Path, **changes) -> Loader:
    data = replace(DATA, **changes)
    return Loader(find_videos(videos), data, PasteConfig(), AugmentConfig(size=16), batch=3, seed=0, world=ALONE)


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.reliability
def test_a_killed_worker_is_an_error_that_names_the_videos_within_seconds(videos, at_video):
    """P1."""
    source = loader(videos)
    number = int(source.schedule.keys((0, 0))[4][1][0])
    at_video(number, kill_me)
    begin = time.monotonic()
    words = rf"A loader process died .*been at: .*t{number:02}\.mp4"
    with pytest.raises(WorkerError, match=words) as caught, source.watched():
        list(source.batches(0))
    assert time.monotonic() - begin < 5 and "\n" not in str(caught.value)


@pytest.mark.reliability
def test_a_stopped_worker_is_an_error_too_and_is_gone_afterwards(videos, at_video):
    """P2: what it has made already cannot be fetched, and a polite request to end would never reach it."""
    source = loader(videos, worker_timeout=1.0)
    number = int(source.schedule.keys((0, 0))[7][1][0])
    at_video(number, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    begin = time.monotonic()
    with pytest.raises(WorkerError, match="A loader process gave no sample for 1 s") as caught, source.watched():
        for _ in source.batches(0):
            time.sleep(0.5)  # it is stopped by now, with samples that have not been fetched
    assert time.monotonic() - begin < 10
    (worker,) = source._running._workers
    del source, caught  # what PyTorch does at the end of a run: it asks the worker to end and waits
    worker.join(10)
    assert worker.exitcode is not None
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


@pytest.mark.reliability
@pytest.mark.parametrize("cause", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_worker_that_dies_while_its_sample_is_fetched_is_the_same_error(videos, cause):
    """P1: which of the two moments a kill hits is chance."""
    with pytest.raises(WorkerError, match="A loader process died"), loader(videos).watched():
        raise cause


@pytest.mark.reliability
def test_a_notice_that_other_code_has_wrapped_is_the_same_error(videos):
    """P1: PyTorch's signal handler raises in the midst of whatever runs, which may take it for an error of its own."""
    with pytest.raises(WorkerError, match=r"A loader process died .*killed by signal"), loader(videos).watched():
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        except Exception as notice:
            raise TypeError("something about types") from notice


@pytest.mark.reliability
def test_on_the_command_line_it_is_one_paragraph(videos, at_video, tmp_path, capsys):
    at_video(5, kill_me)
    words = ["--optim.batch=4", "--aug.size=20", "--data.resize=24", "--data.workers=1", "--optim.max_steps=9"]
    assert main(["pretrain", "demo", "--videos", str(videos), "--run", str(tmp_path), *words]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("uptal pretrain: A loader process died") and "t05.mp4" in said[0]


@pytest.mark.reliability
def test_a_silent_worker_is_an_error_after_the_time_allowed(videos, at_video):
    """P2, with three seconds in the place of ten minutes."""
    source = loader(videos, worker_timeout=3.0)
    number = int(source.schedule.keys((0, 0))[0][1][0])
    at_video(number, lambda: time.sleep(60))
    begin = time.monotonic()
    with (
        pytest.raises(WorkerError, match=rf"gave no sample for 3 s .*t{number:02}\.mp4.*larger --data\.worker_timeout"),
        source.watched(),
    ):
        list(source.batches(0))
    assert 3 <= time.monotonic() - begin < 30


def test_a_worker_says_nothing_of_a_training_process_that_has_left(capsys):
    """PyTorch's thread that hands pictures over prints what it comes upon by way of this hook."""
    for error in (BrokenPipeError(32, "Broken pipe"), EOFError()):
        _tell_unless_left(type(error), error, None)
    assert capsys.readouterr().err == ""
    _tell_unless_left(ValueError, ValueError("of another kind"), None)
    assert "of another kind" in capsys.readouterr().err


def test_other_errors_pass_through_unchanged(videos):
    around = ValueError("its own cause")
    with pytest.raises(ValueError, match="its own cause"), loader(videos).watched():
        raise around from around
    with pytest.raises(RuntimeError, match="of another kind"), loader(videos).watched():
        raise RuntimeError("of another kind")


def test_workers_go_on_with_what_comes_next(videos, monkeypatch):
    """Epoch, validation and epoch are one pass over the workers; only what was not foreseen starts another."""
    source = loader(videos)
    started = []
    restart = source._order.restart
    monkeypatch.setattr(source._order, "restart", lambda begin: started.append(begin) or restart(begin))
    for epoch in range(2):
        assert len(list(source.batches(epoch))) == 3
        assert len(list(source.validation_batches())) == 1
    assert started == [(0, 0)]
    next(source.batches(2))  # left in the midst, so that what follows is the validation of a run that ends here
    assert len(list(source.validation_batches())) == 1
    list(source.batches(5, 3))
    assert started == [(0, 0), (VALIDATION, 0), (5, 3)]
