"""Every sample opens one video, and neither workers, restarts nor broken files change what a sample is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uptal import augment, video
from uptal.augment import AugmentConfig
from uptal.clips import RegionConfig, TimelineConfig
from uptal.distributed import World
from uptal.errors import ConfigError, VideoError
from uptal.pretext import cache
from uptal.pretext.batch import Batch
from uptal.pretext.data import VALIDATION, DataConfig, Drawn, Parcel, Plan, Sample, Videos
from uptal.pretext.loader import Loader
from uptal.pretext.synthesis import PasteConfig
from uptal.video import Quarantine, QuarantineError, find_videos
from videos import numbers_in, write

ALONE = World(0, 1, 0)
TIMELINE = TimelineConfig(clips=4, frames=4, region=RegionConfig(max_clips=3))
DATA = DataConfig(timeline=TIMELINE, resize=64, workers=0)
AUG = AugmentConfig(size=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Nine videos of 40 to 88 frames whose pictures carry their numbers."""
    path = tmp_path_factory.mktemp("videos")
    for index in range(9):
        write(path / f"g{index // 3}_{index}.mp4", frames=40 + 6 * index, size=(64, 32))
    return path


def loader(folder: Path, batch=3, data=DATA, paste=PasteConfig(), seed=0, world=ALONE, **options) -> Loader:  # noqa: B008
    return Loader(find_videos(folder), data, paste, AUG, batch=batch, seed=seed, world=world, **options)


def tensors(batch: Batch) -> list[torch.Tensor]:
    return [*(v for v in vars(batch).values() if isinstance(v, torch.Tensor)), *vars(batch.augment).values()]


def equal(first: list[Batch], second: list[Batch]) -> bool:
    pairs = list(zip(first, second, strict=True))
    same = all(a.names == b.names and a.position == b.position for a, b in pairs)
    return same and all(torch.equal(x, y) for a, b in pairs for x, y in zip(tensors(a), tensors(b), strict=True))


@pytest.fixture
def damaged(folder, tmp_path) -> Path:
    """The nine videos, of which one is a text file."""
    for path in find_videos(folder):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "g1_4.mp4").unlink()
    (tmp_path / "g1_4.mp4").write_text("not a video")
    return tmp_path


# Samples


def test_a_sample_opens_one_video(folder, monkeypatch):
    opened = []
    read = video.read
    monkeypatch.setattr(video, "read", lambda path, *args, **more: opened.append(path) or read(path, *args, **more))
    (*_, last) = loader(folder).batches(0)
    assert last.position == 9 and len(opened) == 9 == len(set(opened))


def test_frames_are_those_that_the_tables_ask_for(folder):
    for batch in loader(folder).batches(0):
        for sample in range(3):
            for view in range(2):
                for clip in batch.clips[sample, view]:
                    assert (np.diff(numbers_in(batch.frames[clip])) == 1).all()
                length = int(batch.length[sample, view])
                region = batch.region[sample, view, :length]
                steps = np.diff([numbers_in(batch.frames[clip]) for clip in region])
                assert len(np.unique(steps)) == 1 and 1 <= steps[0, 0] <= 4


def test_each_distinct_frame_is_carried_once(folder):
    for batch in loader(folder).batches(0):
        used = torch.cat([batch.clips.flatten(), batch.region.flatten()]).unique()
        assert torch.equal(used, torch.arange(len(batch.frames)))


def test_an_epoch_shows_every_video_once_and_epochs_differ(folder):
    source = loader(folder)
    first, second = list(source.batches(0)), list(source.batches(1))
    for epoch in (first, second):
        assert sorted(name for batch in epoch for name in batch.names) == [path.stem for path in find_videos(folder)]
    assert [batch.names for batch in first] != [batch.names for batch in second]
    assert source.steps_per_epoch == len(first) == 3


def test_a_sample_is_a_function_of_seed_epoch_and_video(folder):
    paths = find_videos(folder)
    first, other = (Videos(paths, DATA, PasteConfig(), AUG, seed) for seed in (0, 1))
    same = Videos(list(paths), DATA, PasteConfig(), AUG, 0)
    assert (first.draw(2, 5).plan.region == same.draw(2, 5).plan.region).all()
    assert torch.equal(first.draw(2, 5).frames, same.draw(2, 5).frames)
    for changed in (first.draw(3, 5), other.draw(2, 5)):
        assert (changed.plan.augment.box != first.draw(2, 5).plan.augment.box).all()


def test_the_incomplete_last_batch_is_dropped(folder):
    batches = list(loader(folder, batch=4).batches(0))
    assert [batch.position for batch in batches] == [4, 8]


def test_videos_shorter_than_a_clip_are_used(tmp_path):
    for index in range(3):
        write(tmp_path / f"{index}.mp4", frames=3, size=(64, 32))
    (batch,) = loader(tmp_path).batches(0)
    assert len(batch.frames) <= 9 and int(batch.length.min()) >= 2


def test_short_videos_are_marked_as_looped(tmp_path):
    for index, frames in enumerate((3, 4, 9)):
        write(tmp_path / f"{index}.mp4", frames=frames, size=(64, 32))
    (batch,) = loader(tmp_path).batches(0)
    assert dict(zip(batch.names, batch.looped.tolist(), strict=True)) == {"0": True, "1": False, "2": False}


def test_a_region_alone_brings_its_own_frames_only(folder):
    alone = replace(DATA, timeline=replace(TIMELINE, context="none"))
    (batch, *_) = loader(folder, data=alone, paste=PasteConfig(source="none")).batches(0)
    assert batch.alone and batch.clips.shape == (3, 2, 3, 4) and not batch.start.any()
    used = [
        clips[:length]
        for video in range(3)
        for clips, length in zip(batch.clips[video], batch.length[video], strict=True)
    ]
    assert torch.equal(torch.cat([clips.flatten() for clips in used]).unique(), torch.arange(len(batch.frames)))


def test_a_stretch_of_a_long_video_is_at_a_random_place_and_in_the_middle_for_validation(tmp_path):
    write(tmp_path / "long.mp4", frames=250, size=(64, 32))
    videos = Videos(find_videos(tmp_path), replace(DATA, stretch=1.0), PasteConfig(), AUG, 0)  # 30 frames
    seen = [numbers_in(videos.draw(epoch, 0).frames) for epoch in range(12)]
    assert all(max(numbers) - min(numbers) < 30 for numbers in seen)
    assert min(map(min, seen)) < 60 and max(map(max, seen)) > 160
    middle = numbers_in(videos.draw(VALIDATION, 0).frames)
    assert min(middle) >= 110 and max(middle) < 140


# Workers and restarts


def test_the_number_of_workers_changes_nothing(folder):
    found = []
    for workers in (0, 1, 2):
        source = loader(folder, data=replace(DATA, workers=workers, val_videos=3))
        epochs = [list(source.batches(0)), list(source.validation_batches()), list(source.batches(1))]
        found.append([batch for epoch in epochs for batch in epoch])
    assert len(found[0]) == 5 and equal(found[0], found[1]) and equal(found[0], found[2])


def test_an_epoch_goes_on_from_any_position(folder):
    whole = list(loader(folder).batches(4))
    for done in range(3):
        rest = list(loader(folder).batches(4, whole[done].position))
        assert equal(rest, whole[done + 1 :])


def test_loading_leaves_the_global_generators_alone(folder):
    for workers in (0, 1):
        before, random = torch.get_rng_state(), np.random.get_state()[1].copy()
        list(loader(folder, data=replace(DATA, workers=workers)).batches(0))
        assert torch.equal(before, torch.get_rng_state()) and (random == np.random.get_state()[1]).all()


def test_samples_from_a_worker_do_not_keep_shared_memory_open(folder):
    source = loader(folder, data=replace(DATA, workers=1))
    sample = source.videos.draw(0, 0)
    parcel = Parcel.of([Drawn(sample), Drawn(None), Drawn(source.videos.draw(0, 1))])
    shared = replace(parcel, frames=parcel.frames.clone().share_memory_())
    (first, none, _) = shared.opened()
    assert first.sample is not None and none.sample is None
    assert torch.equal(first.sample.frames, sample.frames) and not first.sample.frames.is_shared()
    assert not any(isinstance(value, torch.Tensor) for value in vars(sample.plan).values())


def test_processes_share_an_epoch_without_overlap_and_pair_by_themselves(folder):
    ranks = [loader(folder, world=World(rank, 2, 0), data=replace(DATA, cache_mib=64)) for rank in range(2)]
    halves = [list(source.batches(0)) for source in ranks]
    names = [name for half in halves for batch in half for name in batch.names]
    assert [len(half) for half in halves] == [1, 1] and len(set(names)) == 6
    lenders = [torch.cat([batch.lender for epoch in range(9) for batch in source.batches(epoch)]) for source in ranks]
    assert not torch.equal(*lenders)


# Broken videos


def test_a_broken_video_is_replaced_before_anything_is_paired(damaged):
    quarantine = Quarantine(total=9, limit=0.0)
    source = loader(damaged, quarantine=quarantine)
    for epoch in range(3):
        batches = list(source.batches(epoch))
        assert [batch.position for batch in batches] == [3, 6, 9]
        for batch in batches:
            assert "g1_4" not in batch.names and len(batch.names) == 3
            assert (batch.ids[batch.lender] != batch.ids).all()  # also where the spare is in the batch already
    assert [Path(path).name for path in quarantine.failures] == ["g1_4.mp4"]


def test_a_replaced_video_is_the_same_after_a_restart_and_with_workers(damaged):
    def make(workers):
        return loader(damaged, data=replace(DATA, workers=workers), quarantine=Quarantine(total=9))

    whole = list(make(0).batches(0))
    assert equal(list(make(2).batches(0)), whole)
    assert equal(list(make(0).batches(0, 3)), whole[1:])


def test_a_broken_video_without_a_quarantine_is_an_error(damaged):
    with pytest.raises(VideoError, match=r"g1_4\.mp4"):
        list(loader(damaged).batches(0))


def test_too_many_broken_videos_stop_the_run_with_the_list(damaged):
    for name in ("g0_1.mp4", "g2_8.mp4"):
        (damaged / name).unlink()
        (damaged / name).write_text("not a video")
    with pytest.raises(QuarantineError) as caught:
        list(loader(damaged, quarantine=Quarantine(total=9)).batches(0))
    assert len(caught.value.failures) == 2


def test_where_nothing_can_be_read_the_last_reason_is_given(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.mp4").write_text("not a video")
    with pytest.raises(VideoError, match="text file"):
        list(loader(tmp_path, quarantine=Quarantine(total=3, limit=1.0)).batches(0))


# Pairs


def test_every_ordered_triple_of_distinct_videos_is_as_likely(folder, monkeypatch):
    """(v_i, v_pi(i), v_rho(i)) over batches of 4 of 5 videos, first place of each batch: 60 triples, 10 of each."""
    monkeypatch.setattr(Videos, "draw", lambda self, epoch, index: hollow(index))
    source = Loader(find_videos(folder)[:5], DATA, PasteConfig(), AUG, batch=4, seed=0, world=ALONE)
    monkeypatch.setattr(source, "_samples", _Straight(source))  # without the overhead of a DataLoader
    counts = np.zeros((5, 5, 5), np.int64)
    for epoch in range(600):
        (batch,) = source.batches(epoch)
        here, (first, second) = batch.ids.numpy(), batch.lender.numpy()
        assert (here[first] != here).all() and (here[second] != here).all() and (first != second).all()
        counts[here[0], here[first[0]], here[second[0]]] += 1
    a, b, c = np.ogrid[:5, :5, :5]
    found = counts[(a != b) & (b != c) & (a != c)]
    assert found.sum() == 600 and ((found - 10) ** 2 / 10).sum() < 98.3  # 99.9 % of chi-square with 59 degrees


def test_the_views_may_get_one_background_or_none(folder):
    (same, *_) = loader(folder, paste=PasteConfig(source="same")).batches(0)
    assert torch.equal(same.lender[0], same.lender[1]) and (same.lender[0] != torch.arange(3)).all()
    (own, *_) = loader(folder, paste=PasteConfig(source="none")).batches(0)
    assert own.lender is None


def test_videos_of_one_family_are_never_pasted_onto_each_other(folder):
    source = loader(folder, batch=9, data=replace(DATA, group_pattern=r"^(g\d)_", cache_mib=64))
    for epoch in range(10):
        (batch,) = source.batches(epoch)
        family = np.array([name[:2] for name in batch.names])
        assert (family[batch.lender.numpy()] != family).all()


def test_validation_is_the_same_every_time_and_apart_from_training(folder):
    source = loader(folder, data=replace(DATA, val_videos=3))
    first = list(source.validation_batches())
    trained = {name for batch in source.batches(0) for name in batch.names}
    assert equal(first, list(source.validation_batches())) and len(first) == 1
    assert trained.isdisjoint(first[0].names) and len(trained) == 6
    assert first[0].lender.tolist() == [[1, 2, 0], [2, 0, 1]]
    numbers = numbers_in(first[0].frames[first[0].clips[0, :, 0, 0]])
    assert numbers[0] == numbers[1]  # centred clips: both views begin at the same frame


def test_labels_go_with_their_videos(folder):
    labels = {path.stem: index % 2 for index, path in enumerate(find_videos(folder))}
    for batch in loader(folder, paste=PasteConfig(source="none"), labels=labels).batches(0):
        assert batch.labels.tolist() == [labels[name] for name in batch.names]


def test_moving_a_batch_moves_every_tensor(folder):
    (batch, *_) = loader(folder).batches(0)
    assert all(value.is_meta for value in tensors(batch.to(torch.device("meta"))))


# Settings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 10}, "needs 10 training videos; 9 are left"),
        ({"batch": 5, "world": World(0, 2, 0)}, "each of 2 processes"),
        ({"batch": 4, "data": replace(DATA, val_videos=3)}, "less than one batch"),
        ({"batch": 2}, "3 or more videos"),
        ({"data": replace(DATA, timeline=replace(TIMELINE, context="none"))}, "regions that stay in their own video"),
        ({"data": replace(DATA, group_pattern="g(")}, "not a regular expression"),
        ({"data": replace(DATA, group_pattern="g")}, "has no group"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_a_video_is_opened(folder, options, words, monkeypatch):
    monkeypatch.setattr(video, "probe", lambda path: pytest.fail("a video was opened"))
    with pytest.raises(ConfigError, match=words):
        loader(folder, **options)


class _Straight:
    """Samples in the order that the loader sets."""

    def __init__(self, source: Loader):
        self.source = source

    def __iter__(self):
        return (self.source.videos[keys] for keys in self.source._order)


def hollow(index: int) -> Sample:
    """A sample without pictures."""
    real = np.zeros((2, 4, 4), np.int64)
    places = np.zeros(2, np.int64)
    params = augment.draw(np.random.default_rng(0), 4, 1.0, AUG)
    plan = Plan(
        clips=real,
        region=real[:, :3],
        start=places,
        length=places + 2,
        span=np.zeros((2, 3, 2), np.int64),
        blend=np.zeros((2, 3, 4), np.float32),
        augment=params.map(lambda value: value.reshape(2, 2, *value.shape[1:])),
        looped=False,
        index=index,
    )
    return Sample(torch.zeros(1, 3, 1, 1, dtype=torch.uint8), plan)


def test_a_file_is_probed_once_and_memory_for_that_is_bounded(folder, monkeypatch):
    """The least recently used of the probes goes first."""
    probed, original = [], video.probe
    monkeypatch.setattr(cache.video, "probe", lambda path: probed.append(path) or original(path))
    frames, (a, b, c) = cache.DecodedVideos(8, "pyav", 0), find_videos(folder)[:3]
    assert frames.probe(a) is frames.probe(a) and probed == [a]
    monkeypatch.setattr(cache, "KNOWN_FRAMES", frames.probe(a).num_frames + original(c).num_frames)
    for path in (b, a, c, a, b):
        frames.probe(path)
    assert probed == [a, b, c, b]
