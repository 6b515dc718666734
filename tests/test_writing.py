"""Checkpoints written beside training: what is written is what was, in order, and nothing that fails is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from uptal import checkpoint
from uptal.errors import CheckpointError
from uptal.run import RunFolder
from uptal.train import OptimConfig, fit
from uptal.writing import Writer, copied
from workshop import ALONE, CPU, ToyData, ToyTask

SAVE = checkpoint.save


@pytest.fixture
def disk(monkeypatch) -> Iterator[threading.Event]:
    """A disk that writes nothing before the event is set."""
    ready = threading.Event()

    def save(*values) -> Path:
        assert ready.wait(60)
        return SAVE(*values)

    monkeypatch.setattr(checkpoint, "save", save)
    yield ready
    ready.set()


def begin(writer: Writer, folder: Path, step: int, values: torch.Tensor) -> None:
    writer.save(folder, step, {"values": values}, {"nested": [{"values": values}], "step": step}, {}, 3)


def test_what_is_written_is_what_was_there_when_it_was_asked_for(disk, tmp_path):
    values = torch.arange(4.0)
    with Writer() as writer:
        begin(writer, tmp_path, 1, values)
        values += 1
        disk.set()
    found = checkpoint.load(tmp_path / "step_00000001")
    assert found.weights["values"].tolist() == found.train["nested"][0]["values"].tolist() == [0, 1, 2, 3]


def test_a_second_one_waits_for_the_first(disk, tmp_path):
    with Writer() as writer:
        begin(writer, tmp_path, 1, torch.zeros(2))
        second = threading.Thread(target=begin, args=(writer, tmp_path, 2, torch.ones(2)))
        second.start()
        second.join(0.2)
        assert second.is_alive() and not list(tmp_path.iterdir())
        disk.set()
        second.join(60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000001", "step_00000002"]


def test_a_failure_comes_up_at_the_next_look_and_at_the_end(tmp_path):
    (tmp_path / "file").touch()
    with Writer() as writer:
        begin(writer, tmp_path / "file", 1, torch.zeros(2))
        with pytest.raises(CheckpointError, match="could not be written"):
            for _ in range(1000):
                writer.look()
                threading.Event().wait(0.01)
    with pytest.raises(CheckpointError, match="could not be written"), Writer() as writer:
        begin(writer, tmp_path / "file", 1, torch.zeros(2))
    with pytest.raises(ZeroDivisionError), Writer() as writer:  # what went wrong first is what is told
        begin(writer, tmp_path / "file", 1, torch.zeros(2))
        raise ZeroDivisionError


def test_training_goes_on_while_the_disk_is_busy_and_ends_the_same(disk, tmp_path):
    cfg = OptimConfig(epochs=3, max_steps=12, batch=4, checkpoint_every=5, log_every=1, keep=5)

    def trained(folder: Path, **data) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        task = ToyTask()
        fit(task, ToyData(**data), cfg, RunFolder(folder), device=CPU, world=ALONE)
        return copied(task.state_dict())

    (tmp_path / "busy").mkdir()
    busy = trained(tmp_path / "busy", on_batch=lambda given: disk.set() if given == 8 else None)
    kept = checkpoint.load(tmp_path / "busy" / "checkpoints" / "step_00000005")
    (tmp_path / "free").mkdir()
    free = trained(tmp_path / "free")
    assert all(torch.equal(busy[name], value) for name, value in free.items())
    same = checkpoint.load(tmp_path / "free" / "checkpoints" / "step_00000005")
    assert all(torch.equal(kept.weights[name], value) for name, value in same.weights.items())
    assert any(not torch.equal(kept.weights[name], value) for name, value in free.items())
