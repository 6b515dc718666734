"""Figure 3 for any video: every encoder is a row, edits carry the truth along, what cannot be drawn is said."""

from __future__ import annotations

import json

import pytest
import torch

from uptal.cli import main
from uptal.encoders import build, load_encoder, save_encoder
from uptal.encoders.slim import Slim
from uptal.errors import ConfigError
from uptal.recipes.figure3 import draw_figure_three
from uptal.report.figures import grid_payload
from uptal.synthetic import CorpusConfig, synthesize
from uptal.types import Segment


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory):
    """One untrimmed video and two encoders, whose clips are 15 and 29 frames long."""
    folder = tmp_path_factory.mktemp("stage")
    synthesize(folder, CorpusConfig(num_trimmed=0, num_untrimmed=1, size=32, untrimmed_frames=96), workers=1)
    for name, stride in (("short", 2), ("long", 4)):
        torch.manual_seed(stride)
        clip = Slim.native.__class__(frames=8, stride=stride, size=32, resize=32)
        save_encoder(folder / name, build("slim", width_multiplier=0.25), clip)
    return folder, folder / "untrimmed" / "untrimmed_00000.mp4"


def draw(stage, action: Segment):
    folder, video = stage
    encoders = {name: load_encoder(folder / name) for name in ("short", "long")}
    return draw_figure_three(video, action, encoders, interval=8, seed=0, device="cpu")


def test_the_edits_halve_and_double_the_action(stage):
    drawn = draw(stage, Segment(1.0, 2.0))
    original, faster, slower = (column[0] for column in drawn.grid.truth)
    assert original.duration == pytest.approx(1.0)
    assert faster.duration == pytest.approx(0.5, abs=0.04) and faster.start <= original.start
    assert slower.duration == pytest.approx(2.0, abs=0.04) and slower.start >= original.start


def test_rows_of_encoders_with_longer_clips_have_their_own_time(stage):
    drawn = draw(stage, Segment(1.0, 2.0))
    payload = grid_payload(drawn.grid)
    short, long = (row[0] for row in payload["maps"])
    assert short["clips"] == 11 and long["clips"] == 9
    assert long["start"] - short["start"] == pytest.approx(8 / 25)  # half of 16 frames: the middles of longer clips


def test_all_scores_are_there_for_every_encoder(stage):
    drawn = draw(stage, Segment(1.0, 2.0))
    assert set(drawn.scores) == {"short", "long"}
    assert all({"kept_iou", "warp_error", "separation"} <= set(one[edit]) for one in drawn.scores.values()
               for edit in ("faster", "slower"))  # fmt: skip
    assert len(drawn.table().rows) == 2


def test_an_action_beyond_the_video_is_refused(stage):
    with pytest.raises(ConfigError, match="not a part of the video"):
        draw(stage, Segment(50.0, 60.0))


def test_the_command_takes_the_action_from_annotations(stage, tmp_path, capsys):
    folder, video = stage
    words = ["reproduce", "figure3", "--video", str(video), "--weights", str(folder / "short"), "--out", str(tmp_path)]
    assert main([*words, "--annotations", str(folder / "annotations.json"), "--device", "cpu"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores["scores"]["short"]) == {"faster", "slower"}
    assert (tmp_path / "report.html").exists()
    assert main(words) == 1
    assert "--action" in capsys.readouterr().err
