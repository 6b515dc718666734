"""Checkpoints under kills, full disks, damage and malice: the right one is read, or none is."""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from uptal import checkpoint
from uptal.errors import CheckpointError
from uptal.files import digest
from workshop import forked, wait_for

KILLS = int(os.environ.get("UPTAL_SAVES", "25"))


def content(step: int, numbers: int = 50_000) -> tuple[dict, dict]:
    """Weights and training state that say which step they are of."""
    weights = {"a": torch.full((numbers,), float(step)), "b": torch.tensor(step)}
    return weights, {"state": {"step": step}, "moments": {0: {"m": torch.full((numbers,), -float(step))}}}


def save(folder: Path, step: int, keep: int = 3, numbers: int = 50_000) -> Path:
    return checkpoint.save(folder, step, *content(step, numbers), {"format": 1}, keep)


def assert_whole(found: checkpoint.Checkpoint | None, step: int | None = None) -> None:
    """Every part is of one and the same step."""
    assert found is not None
    assert step is None or found.step == step
    weights, train = content(found.step, len(found.weights["a"]))
    assert torch.equal(found.weights["a"], weights["a"]) and torch.equal(found.weights["b"], weights["b"])
    assert found.train["state"] == train["state"]
    assert torch.equal(found.train["moments"][0]["m"], train["moments"][0]["m"])


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in folder.glob("step_*"))


def test_what_is_saved_is_read(tmp_path):
    path = save(tmp_path, 7)
    assert path.name == "step_00000007"
    assert sorted(file.name for file in path.iterdir()) == ["meta.json", "train.pt", "weights.safetensors"]
    assert_whole(checkpoint.load(path), 7)
    found, passed_over = checkpoint.newest_valid(tmp_path)
    assert_whole(found, 7)
    assert passed_over == []


def test_the_newest_are_kept(tmp_path):
    for step in range(1, 8):
        save(tmp_path, step, keep=3, numbers=10)
    assert steps(tmp_path) == [5, 6, 7]


def test_damaged_ones_of_later_steps_do_not_push_out_the_one_just_written(tmp_path):
    for step in (100, 110):
        save(tmp_path, step, keep=2, numbers=10)
    (tmp_path / "step_00000110" / "train.pt").write_bytes(b"")
    save(tmp_path, 105, keep=1, numbers=10)
    found, _ = checkpoint.newest_valid(tmp_path)
    assert found is not None and found.step == 105 and steps(tmp_path) == [105, 110]


def test_a_fresh_folder_has_none(tmp_path):
    assert checkpoint.newest_valid(tmp_path / "nowhere") == (None, [])


def test_a_step_that_is_there_is_not_written_again(tmp_path):
    file = save(tmp_path, 4) / "train.pt"
    before = file.stat()
    save(tmp_path, 4)
    assert file.stat().st_ino == before.st_ino and file.stat().st_mtime_ns == before.st_mtime_ns
    file.write_bytes(b"damaged")
    save(tmp_path, 4)
    assert_whole(checkpoint.load(file.parent), 4)


@pytest.mark.reliability
def test_the_newest_whole_one_survives_kills_while_saving(tmp_path):
    """A1: `kill -9` at a random moment of a loop that does nothing but save."""
    chance = random.Random(1)

    def save_forever() -> None:
        found, _ = checkpoint.newest_valid(tmp_path)
        step = 0 if found is None else found.step
        while True:
            step += 1
            save(tmp_path, step, numbers=200_000)

    reached, halves = 0, 0
    for _ in range(KILLS):
        child = forked(save_forever)
        wait_for(lambda before=reached: max(steps(tmp_path), default=0) > before)  # saving is under way by now
        time.sleep(chance.uniform(0, 0.06))
        child.kill()
        halves += any(tmp_path.glob(".step_*.tmp"))
        found, passed_over = checkpoint.newest_valid(tmp_path)
        assert_whole(found)
        assert passed_over == []  # what is there is whole: a half-written one has another name
        assert found is not None and found.step > reached
        reached = found.step
    assert halves > KILLS / 4  # the kills did hit while files were being written
    save(tmp_path, reached + 1)
    assert not list(tmp_path.glob(".step_*"))


@pytest.mark.reliability
@pytest.mark.parametrize("limit", [1_000, 150_000, 250_000], ids=["at_once", "in_the_weights", "in_the_state"])
def test_a_full_disk_leaves_the_earlier_one(limit, tmp_path):
    """A2: files may not grow beyond a limit, as on a full disk; weights take 200 kB here, the state more."""
    save(tmp_path, 1)
    state = {"moments": torch.zeros(100_000)}

    def save_under_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(
            CheckpointError, match=r"could not be written .*Earlier checkpoints are untouched; make room"
        ):
            checkpoint.save(tmp_path, 2, content(2)[0], state, {}, 3)

    assert forked(save_under_limit).wait(30) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
    assert_whole(checkpoint.newest_valid(tmp_path)[0], 1)
    assert checkpoint.save(tmp_path, 2, content(2)[0], state, {}, 3).is_dir()


def test_an_old_one_that_cannot_be_deleted_stops_nothing(tmp_path, monkeypatch):
    """A4."""
    for step in (1, 2):
        save(tmp_path, step, keep=2, numbers=10)

    def refuse(path, *args, **kwargs):
        if not kwargs.get("ignore_errors"):
            raise OSError("busy")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    save(tmp_path, 3, keep=2, numbers=10)
    assert steps(tmp_path) == [1, 2, 3]
    monkeypatch.undo()
    save(tmp_path, 4, keep=2, numbers=10)
    assert steps(tmp_path) == [3, 4]


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :]


@pytest.mark.reliability
@pytest.mark.parametrize("name", ["weights.safetensors", "train.pt", "meta.json"])
@pytest.mark.parametrize("damage", [lambda data, place: data[:place], flip], ids=["cut", "flipped"])
def test_damage_is_noticed_or_the_older_one_is_taken(name, damage: Callable[[bytes, int], bytes], tmp_path):
    """A3: cut or changed at 50 places; a wrong one is never read as right."""
    save(tmp_path, 1, numbers=100)
    file = save(tmp_path, 2, numbers=100) / name
    good = file.read_bytes()
    noticed = 0
    for place in sorted(random.Random(2).sample(range(len(good)), min(50, len(good)))):
        file.write_bytes(damage(good, place))
        found, passed_over = checkpoint.newest_valid(tmp_path)
        assert_whole(found)
        assert len(passed_over) == (found is not None and found.step == 1)
        noticed += len(passed_over)
    places = min(50, len(good))
    assert noticed == places if name != "meta.json" else noticed > places / 2  # a letter of a version may change unseen


def test_a_missing_file_is_noticed(tmp_path):
    for name in ("weights.safetensors", "train.pt", "meta.json"):
        path = save(tmp_path, 3, numbers=10)
        (path / name).unlink()
        with pytest.raises(CheckpointError, match="not a complete checkpoint"):
            checkpoint.load(path)
        shutil.rmtree(path)


def test_a_renamed_one_is_noticed(tmp_path):
    path = save(tmp_path, 3, numbers=10)
    with pytest.raises(CheckpointError, match=r"renamed \(its meta\.json is of step 3\)"):
        checkpoint.load(path.rename(tmp_path / "step_00000009"))


def test_when_none_can_be_read_the_run_does_not_start_afresh(tmp_path):
    for step in (1, 2):
        (save(tmp_path, step, numbers=10) / "train.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints can be read\. The newest: .*Restore one"):
        checkpoint.newest_valid(tmp_path)


class Evil:
    """Pickled, it asks the reader to make a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


@pytest.mark.reliability
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_malicious_state_is_refused_even_with_the_right_digest(how, tmp_path):
    """U1."""
    canary = tmp_path / "canary"
    path = save(tmp_path / "checkpoints", 5, numbers=10)
    if how == "torch":
        torch.save({"state": Evil(canary)}, path / "train.pt")
    else:
        (path / "train.pt").write_bytes(pickle.dumps({"state": Evil(canary)}, protocol=2))
    meta = json.loads((path / "meta.json").read_text())
    meta["digests"]["train.pt"] = digest(path / "train.pt")
    (path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError) as refused:
        checkpoint.load(path)
    assert not canary.exists()
    assert "\n" not in str(refused.value)
    pickle.loads(pickle.dumps(Evil(canary)))
    assert canary.exists()  # the trap does work


def test_writing_where_one_may_not_is_one_paragraph(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    with pytest.raises(CheckpointError, match="could not be written"):
        save(tmp_path / "checkpoints", 1)
    assert os.listdir(tmp_path) == ["checkpoints"]
