"""Features in and out: nothing is lost on the way, and none comes in whose seconds nobody knows."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uptal.cli import main
from uptal.errors import AnnotationError, CheckpointError, ConfigError
from uptal.features import Features, FeatureStore, csv_mean_100, resample
from uptal.recipes.exchanging import Known, Meaning, expected_count, export_features, import_features
from uptal.types import Timebase

h5py = pytest.importorskip("h5py", reason="h5py is not installed (uptal[h5])")

LENGTHS = {"a": 8.0, "b": 20.48, "c": 3.2}
BASE = Timebase(fps=25.0, stride=16.0, window=16.0)
STATED = Meaning(fps=25.0, stride=16.0, window=16.0)
KNOWN = {id: Known(seconds) for id, seconds in LENGTHS.items()}


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    made = FeatureStore.create(tmp_path / "store", {"encoder_digest": "0" * 64, "width": 6, "interval": 16})
    rng = np.random.default_rng(0)
    for id, seconds in LENGTHS.items():
        values = torch.from_numpy(rng.normal(size=(expected_count(BASE, seconds), 6)).astype(np.float32))
        made.write(Features(id, values, BASE, seconds))
    return made


def foreign(folder: Path, width: int = 4, **counts: int) -> Path:
    folder.mkdir()
    for id, count in counts.items():
        np.save(folder / f"{id}.npy", np.arange(count * width, dtype=np.float32).reshape(count, width))
    return folder


@pytest.mark.parametrize("kind", ["npy", "h5", "csv"])
def test_out_and_in_again_is_the_same_without_a_word_about_time(kind, store, tmp_path):
    target = tmp_path / ("out.h5" if kind == "h5" else "out")
    assert export_features(store, target, kind) == 3
    assert import_features(target, tmp_path / "back", Meaning(), {}) == 3
    back = FeatureStore(tmp_path / "back")
    for id in store.ids:
        a, b = store.read(id), back.read(id)
        assert (a.timebase, a.duration) == (b.timebase, b.duration)
        assert torch.allclose(a.values, b.values, rtol=1e-6, atol=0)  # csv keeps seven digits
        assert kind == "csv" or torch.equal(a.values, b.values)


def test_hdf5_is_laid_out_as_tsp_and_gtad_read_it(store, tmp_path):
    export_features(store, tmp_path / "all.h5", "h5")
    with h5py.File(tmp_path / "all.h5") as file:
        assert sorted(file) == ["a", "b", "c"]
        assert np.array_equal(file["b"][:], store.read("b").values.numpy())


def test_csv_has_bmns_hundred_rows_under_names(store, tmp_path):
    assert main(["features", "export", str(store.path), "--out", str(tmp_path / "csv"), "--format", "csv"]) == 0
    lines = (tmp_path / "csv" / "a.csv").read_text().splitlines()
    assert lines[0] == "f0,f1,f2,f3,f4,f5" and len(lines) == 101
    table = np.loadtxt(lines[1:], delimiter=",")
    assert np.allclose(table, resample(store.read("a"), 100).T, rtol=1e-5, atol=1e-7)


def test_csv_by_bmns_rule(store, tmp_path):
    words = ["features", "export", str(store.path), "--out", str(tmp_path / "csv"), "--format", "csv"]
    assert main([*words, "--rule", "csv_mean"]) == 0
    table = np.loadtxt((tmp_path / "csv" / "b.csv").read_text().splitlines()[1:], delimiter=",")
    expected = csv_mean_100(store.read("b").values.numpy(), 512, 20.48)
    assert np.allclose(table, expected, rtol=1e-5, atol=1e-7)


def test_resampled_rows_are_equal_parts_of_the_video(tmp_path):
    source = foreign(tmp_path / "csv100", a=100, b=100)
    import_features(source, tmp_path / "store", Meaning(resampled_to=100), KNOWN)
    read = FeatureStore(tmp_path / "store").read("b")
    assert read.timebase.span(0) == (0.0, pytest.approx(0.2048))
    assert read.timebase.span(99)[1] == pytest.approx(20.48)


def test_a_time_base_is_demanded(tmp_path):
    source = foreign(tmp_path / "in", a=12)
    with pytest.raises(ConfigError, match=r"which second a row of 'a' belongs to.*--resampled-to 100"):
        import_features(source, tmp_path / "store", Meaning(), KNOWN)
    with pytest.raises(ConfigError, match="A stride in frames needs a rate"):
        import_features(source, tmp_path / "store", Meaning(stride=16.0, window=16.0), KNOWN)
    with pytest.raises(ConfigError, match="no video of known duration among 1"):
        import_features(source, tmp_path / "store", STATED, {})
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("off", "fits"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_one_feature_more_or_fewer_is_borne(off, fits, tmp_path):
    source = foreign(tmp_path / "in", a=expected_count(BASE, 8.0) + off)
    if fits:
        assert import_features(source, tmp_path / "store", STATED, KNOWN) == 1
    else:
        with pytest.raises(ConfigError, match=r"a has \d+ features; 8 s at 25 .* make 13\. A stride of"):
            import_features(source, tmp_path / "store", STATED, KNOWN)


def test_a_wrong_stride_is_answered_with_the_one_that_fits(tmp_path):
    source = foreign(tmp_path / "in", b=125)  # 512 frames, one every 4: (512 - 16) / 4 + 1
    with pytest.raises(ConfigError, match=r"A stride of 4\.00 frames would fit"):
        import_features(source, tmp_path / "store", STATED, KNOWN)


def test_equal_numbers_of_rows_look_resampled(tmp_path):
    source = foreign(tmp_path / "in", a=100, b=100, c=100)
    with pytest.raises(ConfigError, match=r"All have 100 rows: were they resampled\?"):
        import_features(source, tmp_path / "store", STATED, KNOWN)


def test_videos_of_unknown_length_are_left_out_and_named(tmp_path, capsys):
    source = foreign(tmp_path / "in", a=12, stranger=12)
    assert import_features(source, tmp_path / "store", STATED, KNOWN) == 1
    assert "1 videos of unknown duration are left out: stranger" in capsys.readouterr().err


@given(fps=st.floats(1, 120), stride=st.integers(1, 64), window=st.integers(1, 128), count=st.integers(1, 3000))
@settings(max_examples=100, deadline=None)
def test_the_expected_number_is_that_of_whole_windows(fps, stride, window, count):
    base = Timebase(fps=fps, stride=float(stride), window=float(window))
    assert expected_count(base, base.span(count - 1)[1]) == count


class TestUntrusted:
    @pytest.mark.parametrize("name", ["a.pkl", "a.pickle", "a.pt", "a.pth"])
    def test_pickles_are_refused_unread(self, name, tmp_path):
        """U1."""
        canary = tmp_path / "canary"
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / name).write_bytes(pickle.dumps(_Opens(str(canary))))
        for source in (tmp_path / "in", tmp_path / "in" / name):
            with pytest.raises(ConfigError, match=r"are pickles.*refused"):
                import_features(source, tmp_path / "store", STATED, KNOWN)
        assert not canary.exists()

    def test_arrays_of_objects_are_refused_unread(self, tmp_path):
        """U1."""
        canary = tmp_path / "canary"
        (tmp_path / "in").mkdir()
        np.save(tmp_path / "in" / "a.npy", np.array([_Opens(str(canary))], dtype=object), allow_pickle=True)
        with pytest.raises(CheckpointError, match="holds Python objects"):
            import_features(tmp_path / "in", tmp_path / "store", STATED, KNOWN)
        assert not canary.exists()

    def test_names_cannot_lead_out_of_the_store(self, tmp_path):
        """U4."""
        with h5py.File(tmp_path / "in.h5", "w") as file:
            file.create_dataset("..", data=np.zeros((12, 4)))
        with pytest.raises(AnnotationError, match=r"'\.\.'"):
            import_features(tmp_path / "in.h5", tmp_path / "folder" / "store", STATED, {"..": Known(8.0)})
        assert [path.name for path in tmp_path.iterdir()] == ["in.h5"]

    def test_hdf5_cannot_make_us_read_other_files(self, tmp_path):
        with h5py.File(tmp_path / "secret.h5", "w") as file:
            file["a"] = np.zeros((12, 4))
        with h5py.File(tmp_path / "in.h5", "w") as file:
            file["a"] = h5py.ExternalLink("secret.h5", "a")
        with pytest.raises(CheckpointError, match="refers to another place"):
            import_features(tmp_path / "in.h5", tmp_path / "store", STATED, KNOWN)

    @pytest.mark.parametrize("damage", ["cut", "text", "flat", "nan"])
    def test_damaged_files_are_named(self, damage, tmp_path):
        source = foreign(tmp_path / "in", a=12)
        file = source / "a.npy"
        if damage == "cut":
            file.write_bytes(file.read_bytes()[:90])
        elif damage == "text":
            file.write_text("no array")
        else:
            np.save(file, np.zeros(12) if damage == "flat" else np.full((12, 4), np.nan))
        with pytest.raises(CheckpointError, match=r"a\.npy: "):
            import_features(source, tmp_path / "store", STATED, KNOWN)


class _Opens:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_the_command_imports_with_durations_from_a_table(tmp_path, capsys):
    source = foreign(tmp_path / "in", a=12, b=32)
    (tmp_path / "durations.csv").write_text("video,duration\na,8.0\nb,20.48\n")
    words = ["features", "import", str(source), "--out", str(tmp_path / "store")]
    words += ["--fps", "25", "--stride", "16", "--window", "16"]
    assert main([*words, "--durations", str(tmp_path / "durations.csv")]) == 0
    assert "2 videos written" in capsys.readouterr().out
    description = json.loads((tmp_path / "store" / "store.json").read_text())
    assert (description["width"], description["imported"]) == (4, True)
    np.save(source / "a.npy", np.ones((12, 4), np.float32))
    assert main([*words, "--durations", str(tmp_path / "durations.csv")]) == 1  # not the same features any more
    assert "made differently" in capsys.readouterr().err
