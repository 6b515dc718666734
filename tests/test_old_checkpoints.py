"""R5: checkpoints of earlier versions still open, and their runs go on; `checkpoints/` holds one of each format.

A new format adds a folder and keeps the old ones: PAL with an encoder of a sixteenth of the widths, 3 steps, 12 videos.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from test_train import log_of
from uptal import checkpoint
from uptal.commands.options import read_yaml
from uptal.recipes.pretrain import PretrainConfig, with_optim
from uptal.recipes.running import pretrain
from uptal.recipes.settings import from_plain
from workshop import make_corpus, tiny

FORMATS = sorted(path for path in (Path(__file__).parent / "checkpoints").iterdir() if path.is_dir())


def settings(folder: Path) -> PretrainConfig:
    """The stored settings, whatever has been added to them since."""
    values = read_yaml(folder / "config.yaml")
    for key in ("videos", "labels", "files"):
        values.pop(key, None)
    return from_plain(PretrainConfig, values)


@pytest.mark.reliability
@pytest.mark.parametrize("folder", FORMATS, ids=lambda path: path.name)
def test_an_old_checkpoint_opens_and_its_run_goes_on(folder, tmp_path):
    cfg = settings(folder)
    now = replace(tiny(max_steps=3), encoder_options={"width_multiplier": 0.0625})
    assert cfg == replace(now, aug=replace(now.aug, resize="exact"))  # `fast` is younger
    stored, passed_over = checkpoint.newest_valid(folder)
    assert passed_over == [] and stored is not None and stored.step == 3
    shutil.copytree(folder, tmp_path / "run" / "checkpoints")
    videos = make_corpus(tmp_path / "corpus", trimmed=12, untrimmed=0) / "trimmed"
    outcome = pretrain(with_optim(cfg, max_steps=5), videos, tmp_path / "run")
    assert (outcome.steps, outcome.new_steps) == (5, 2)
    found, _ = checkpoint.newest_valid(tmp_path / "run" / "checkpoints")
    assert found is not None and found.weights.keys() == stored.weights.keys()
    moved = [not torch.equal(value, stored.weights[name]) for name, value in found.weights.items()]
    assert sum(moved) > len(moved) / 2
    assert [line["step"] for line in log_of(tmp_path / "run")] == [4, 5]


def test_there_is_one_of_the_present_format():
    newest, _ = checkpoint.newest_valid(FORMATS[-1])
    assert newest is not None and FORMATS[-1].name == f"format{newest.meta['format']}"
    assert sum(file.stat().st_size for file in FORMATS[-1].rglob("*") if file.is_file()) < 200_000
