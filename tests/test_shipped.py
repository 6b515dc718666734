"""The encoder that comes with the package: found by name, whole, small, and the default where none is named."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from uptal.cli import main
from uptal.encoders import DEFAULT, build, load_encoder, locate, save_encoder, shipped
from uptal.errors import CheckpointError, ConfigError
from uptal.pixels import normalise
from uptal.recipes.calibrating import calibrate
from uptal.recipes.spread_clips import spread_clips
from workshop import make_corpus, tiny

CARD = Path(__file__).parents[1] / "docs" / "shipped.md"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("shipped"), trimmed=4, untrimmed=2)


def test_every_shipped_encoder_loads_is_small_and_has_a_card(capsys):
    assert DEFAULT in shipped()
    for name, file in shipped().items():
        saved = load_encoder(name)
        assert file.stat().st_size <= 4e6
        assert all(torch.isfinite(tensor).all() for tensor in saved.encoder.state_dict().values())
        assert main(["weights", "show", name]) == 0 and "trained here: " in capsys.readouterr().out
        assert saved.source is not None and saved.digest[:16] in CARD.read_text("utf-8")


def test_its_statistics_are_estimated():
    """Fresh statistics are zeros and ones; features would be of another size altogether."""
    found = load_encoder(DEFAULT).encoder.stem[1]
    assert found.running_mean.abs().max() > 1e-3 and (found.running_var - 1).abs().max() > 1e-2


def test_what_lies_in_the_working_directory_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate(DEFAULT) == shipped()[DEFAULT]
    cfg = tiny()
    digest = save_encoder(tmp_path / DEFAULT, build(cfg.encoder, **cfg.encoder_options), cfg.clip)
    assert locate(DEFAULT) == Path(DEFAULT) and load_encoder(DEFAULT).digest == digest
    with pytest.raises(CheckpointError, match=f"come with uptal: {DEFAULT}"):
        load_encoder("slim-v0")


def test_extract_and_segments_take_it_when_none_is_named(corpus, tmp_path):
    assert main(["extract", "--videos", str(corpus / "untrimmed"), "--out", str(tmp_path / "store")]) == 0
    about = json.loads((tmp_path / "store" / "store.json").read_text())
    assert about["encoder_digest"] == load_encoder(DEFAULT).digest == load_encoder(tmp_path / "store").digest
    video = str(corpus / "untrimmed" / "u0.mp4")
    assert main(["segments", video, "--out", str(tmp_path / "cut")]) == 0
    about = json.loads((tmp_path / "cut" / "detections.json").read_text())
    assert load_encoder(DEFAULT).digest in json.dumps(about)


def test_detect_without_a_run_says_that_these_are_no_detections(corpus, tmp_path, capsys):
    videos = [str(corpus / "untrimmed" / f"u{number}.mp4") for number in range(2)]
    assert main(["detect", *videos, "--out", str(tmp_path / "a")]) == 0
    assert "label-free segments" in capsys.readouterr().out
    assert main(["segments", *videos, "--out", str(tmp_path / "b")]) == 0
    rows = [json.loads((tmp_path / name / "detections.json").read_text())["results"] for name in ("a", "b")]
    assert rows[0] == rows[1] and rows[0].keys() == {"u0", "u1"}
    capsys.readouterr()
    for words, said in (
        ([*videos, "--classes", "kinetics400"], "no run of `uptal train` is given"),
        ([str(corpus)], "no video follows"),
        ([str(corpus / "no.mp4")], "no.mp4"),
        (["runs/none", videos[0]], "runs/none"),
    ):
        assert main(["detect", *words, "--out", str(tmp_path / "c")]) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_the_demo_on_own_videos_takes_it_and_trains_only_when_asked(corpus, tmp_path):
    words = ["demo", "--videos", str(corpus / "untrimmed"), "--device", "cpu", "--out"]
    assert main([*words, str(tmp_path / "shipped")]) == 0
    page = (tmp_path / "shipped" / "report.html").read_text("utf-8")
    assert f"The encoder is {DEFAULT}" in page and not (tmp_path / "shipped" / "run").exists()
    assert load_encoder(tmp_path / "shipped" / "features").digest == load_encoder(DEFAULT).digest


def test_the_list_of_encoders_names_it(capsys):
    assert main(["encoders", "--encoder", "slim", "--no-table1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["shipped"]
    assert row["weights"] == DEFAULT and row["digest"] == load_encoder(DEFAULT).digest


def test_calibration_gives_the_statistics_of_clean_clips(corpus, tmp_path):
    cfg, paths = tiny(), sorted((corpus / "trimmed").glob("*.mp4"))
    encoder = build(cfg.encoder, **cfg.encoder_options)
    assert calibrate(encoder, paths, cfg.clip, batch=4) == 4
    clips = torch.cat([spread_clips(path, cfg.clip, 4) for path in paths])
    with torch.no_grad():
        seen = encoder.stem[0](normalise(clips.float() / 255, cfg.clip.mean, cfg.clip.std))
    assert encoder.stem[1].running_mean.numpy() == pytest.approx(seen.mean((0, 2, 3, 4)).numpy(), abs=1e-4)
    assert not encoder.training and encoder.stem[1].momentum == 0.1
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ConfigError, match="None of the 1 videos"):
        calibrate(encoder, [tmp_path / "broken.mp4"], cfg.clip)


def test_calibrate_writes_an_encoder_with_the_statistics_of_other_videos(corpus, tmp_path, capsys):
    videos, out = corpus / "trimmed", tmp_path / "own"
    assert main(["weights", "calibrate", DEFAULT, str(out), "--videos", str(videos), "--limit", "3"]) == 0
    before, after = load_encoder(DEFAULT), load_encoder(out)
    assert after.source is not None and after.source["calibrated from"] == before.digest
    assert after.source["statistics"] == "of 3 videos" and after.clip == before.clip
    changed = {name for name, value in after.encoder.state_dict().items()
               if not torch.equal(value, before.encoder.state_dict()[name])}  # fmt: skip
    assert changed and all("running_" in name for name in changed if "num_batches" not in name)
    want = build("slim", **asdict(before.encoder.config))
    want.load_state_dict(before.encoder.state_dict())
    paths = sorted(videos.glob("*.mp4"))
    calibrate(want, [paths[at] for at in (0, (len(paths) - 1) // 2, len(paths) - 1)], before.clip)
    assert all(torch.equal(value, want.state_dict()[name]) for name, value in after.encoder.state_dict().items())
    capsys.readouterr()
    assert main(["weights", "calibrate", DEFAULT, str(out)]) == 1 and "--videos DIR" in capsys.readouterr().err
    assert main(["weights", "calibrate", DEFAULT, str(out), "--videos", str(videos), "--size", "32"]) == 1
    assert "--size: for `weights convert`" in capsys.readouterr().err
    assert main(["weights", "calibrate", DEFAULT]) == 1 and "weights calibrate SRC OUT" in capsys.readouterr().err
