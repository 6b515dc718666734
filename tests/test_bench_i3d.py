"""The benchmark of I3D runs, and refuses a GPU that is not there; its numbers are for people to read."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "i3d.py"


def test_every_side_gives_the_same_features_and_has_a_ratio(capsys):
    before = torch.get_num_threads()
    runpy.run_path(str(BENCHMARK))["main"](["--size", "32", "--batch", "1", "--rounds", "1"])
    torch.set_num_threads(before)
    lines = capsys.readouterr().out.splitlines()[1:]
    sides = ["plain tensors", "channels_last_3d", "the same, norms in the convolutions"]
    assert [line.split("  ")[0] for line in lines][:3] == sides
    assert lines[0].endswith("1.00 x") and len(lines) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(SystemExit, match="no GPU here"):
        runpy.run_path(str(BENCHMARK))["main"](["--device", "cuda"])
