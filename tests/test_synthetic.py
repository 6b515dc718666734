"""The built-in corpus: what its videos show and its annotations say, however and wherever they are written."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from uptal.errors import ConfigError
from uptal.synthetic import ACTIONS, CorpusConfig, annotate, render_video, synthesize, unique_scenes, web_like
from uptal.synthetic.figure import pose_skeleton
from uptal.synthetic.frozen import CORPORA, DIGESTS, frames_digest
from uptal.synthetic.paint import draw_capsule
from uptal.synthetic.script import write_script
from uptal.synthetic.tempo import brushed_area, pace

SMALL = CorpusConfig(num_trimmed=3, num_untrimmed=2, size=32, trimmed_frames=40, untrimmed_frames=120)
PAIRS = [("circle_outward", "circle_inward"), ("fling_up", "fling_down"), ("squat_drop", "squat_spring")]
BY_NAME = {action.name: action for action in ACTIONS}


def test_a_video_is_a_function_of_seed_kind_and_index():
    frames, video = render_video(SMALL, "untrimmed", 1)
    again, same = render_video(SMALL, "untrimmed", 1)
    assert np.array_equal(frames, again) and video == same
    for other in (("untrimmed", 0), ("trimmed", 1)):
        assert not np.array_equal(frames[:40], render_video(SMALL, *other)[0][:40])
    assert not np.array_equal(frames, render_video(replace(SMALL, seed=1), "untrimmed", 1)[0])


def test_the_number_of_videos_changes_no_video():
    more = replace(SMALL, num_trimmed=99, num_untrimmed=99)
    assert np.array_equal(render_video(SMALL, "trimmed", 2)[0], render_video(more, "trimmed", 2)[0])


@pytest.mark.parametrize("size", [(32, 32), (32, 48), (48, 32)])
def test_frames_have_the_size_that_was_asked_for(size):
    frames, video = render_video(replace(SMALL, size=size), "trimmed", 0)
    assert frames.shape == (40, *size, 3) and frames.dtype == np.uint8
    assert video.duration == 40 / 25


def test_the_annotation_needs_no_drawing():
    assert annotate(SMALL, "untrimmed", 1) == render_video(SMALL, "untrimmed", 1)[1]


@pytest.mark.parametrize(("forward", "backward"), PAIRS)
def test_a_pair_has_the_same_poses_in_opposite_order(forward, backward):
    phase = np.arange(96) / 48  # two periods: every other one is the mirror image
    there = BY_NAME[forward].poses(phase, np.ones((96, 1)))
    back = BY_NAME[backward].poses(phase, np.ones((96, 1)))
    turned = back[-np.arange(96) % 96]
    assert np.allclose(np.exp(1j * there), np.exp(1j * turned), atol=1e-9)  # angles, up to rounding and whole turns
    assert not np.allclose(np.exp(1j * there), np.exp(1j * back), atol=0.1)


def test_a_pair_moves_every_joint_at_the_same_speeds():
    for forward, backward in PAIRS:
        phase = np.linspace(0, 2, 129)
        poses = [BY_NAME[name].poses(phase, np.ones((129, 1))) for name in (forward, backward)]
        speeds = [np.abs(np.diff(each, axis=0)) for each in poses]
        assert np.allclose(np.sort(speeds[0], axis=0), np.sort(speeds[1], axis=0), atol=1e-9)  # rounding


def test_swapping_left_and_right_mirrors_the_figure():
    poses = BY_NAME["kick"].poses(np.linspace(0, 2, 9), np.ones((9, 1)))
    swapped = poses[:, [2, 3, 0, 1, 6, 7, 4, 5, 8, 9, 10, 11]] * ([1] * 8 + [-1, -1, -1, 1])
    figure, image = pose_skeleton(poses), pose_skeleton(swapped)
    for joint in ("hand", "elbow", "knee", "toe"):
        assert np.allclose(getattr(figure.left, joint) * (-1, 1), getattr(image.right, joint))
    assert np.allclose(figure.head * (-1, 1), image.head)


def test_the_lower_foot_stands_on_the_ground_unless_the_figure_hops():
    poses = BY_NAME["kick"].poses(np.linspace(0, 2, 33), np.ones((33, 1)))
    ankles = np.stack([pose_skeleton(poses).left.ankle[:, 1], pose_skeleton(poses).right.ankle[:, 1]])
    assert np.allclose(ankles.min(axis=0), 0.03)
    poses[:, 11] += 0.1
    assert np.allclose(pose_skeleton(poses).left.ankle[:, 1], ankles[0] + 0.1)


def test_all_actions_brush_over_the_same_area_per_frame():
    phase = np.linspace(0, 2, 129)
    for chosen in (ACTIONS[:8], ACTIONS, ACTIONS[9:4:-2]):
        areas = [brushed_area(action.poses(phase, np.ones((129, 1)))).sum() for action in chosen]
        paces = pace(tuple(action.name for action in chosen))
        per_frame = np.array(areas) / np.array(paces)
        assert np.allclose(per_frame, per_frame[0]) and np.isclose(np.mean(paces), 1)


def test_actions_may_be_chosen_by_name():
    config = replace(SMALL, actions=("lean", "clap"), num_classes=2)
    assert config.labels == ("lean", "clap")
    shown = [annotate(config, "trimmed", index).segments[0].label for index in range(4)]
    assert sorted(shown) == ["clap", "clap", "lean", "lean"]
    first = replace(SMALL, num_classes=2)
    by_name = replace(first, actions=first.labels)
    assert np.array_equal(render_video(first, "trimmed", 0)[0], render_video(by_name, "trimmed", 0)[0])


def _energy(config: CorpusConfig, num_videos: int):
    """Per video: area brushed over in every frame, and whether the figure acts in it."""
    for index in range(num_videos):
        script = write_script(config, "untrimmed", index)
        area = brushed_area(script.poses)
        acting = np.zeros(script.num_frames, bool)
        for instance in script.instances:
            acting[instance.start : instance.end] = True
        yield np.append(area, area[-1]) / area.mean(), acting, script.instances


@pytest.mark.parametrize("num_classes", [8, 12])
def test_idle_motion_is_as_strong_as_action(num_classes):
    videos = list(_energy(CorpusConfig(num_classes=num_classes), 80))
    action = np.mean([energy[acting].mean() for energy, acting, _ in videos])
    idle = np.mean([energy[~acting].mean() for energy, acting, _ in videos])
    assert abs(idle / action - 1) < 0.06  # standard error of the ratio over 80 videos is about 2.5 %


def test_a_boundary_is_neither_a_burst_nor_a_rest():
    around = [
        energy[i.start - 4 : i.start + 4].mean()
        for energy, _, instances in _energy(CorpusConfig(), 80)
        for i in instances
    ]
    assert abs(np.mean(around) - 1) < 0.06  # mean of about 160 starts whose spread is 0.4


def test_limbs_never_leap():
    for index in range(40):
        steps = np.abs(np.diff(write_script(CorpusConfig(), "untrimmed", index).poses, axis=0))
        assert steps.max() < 1.6  # radians a frame, in and out of actions; the quickest fling is at 1.4


def test_an_action_runs_along_its_curve_and_a_gap_does_not():
    steady = CorpusConfig(period_frames=(16.0, 16.0), period_drift=0.0, amplitude_drift=0.0, style=0.0)
    phases = np.linspace(0, 2, 513)
    inside, outside = [], []
    for index in range(12):
        script = write_script(steady, "untrimmed", index)
        curve = BY_NAME[steady.labels[script.instances[0].label]].poses(phases, np.ones((513, 1)))
        apart = np.abs(np.exp(1j * script.poses[:, None]) - np.exp(1j * curve)).max(axis=2).min(axis=1)
        acting = np.zeros(script.num_frames, bool)
        for instance in script.instances:
            acting[instance.start : instance.end] = True
            inside.append(apart[instance.start + 9 : instance.end - 9])  # three frames of stagger, six of handing over
        outside.append(apart[~acting])
    assert np.concatenate(inside).max() < 0.05  # half a step between the sampled phases
    assert np.median(np.concatenate(outside)) > 0.3


def test_instances_are_apart_and_long_enough():
    config = CorpusConfig(size=32)
    counts = []
    for index in range(60):
        instances = write_script(config, "untrimmed", index).instances
        edges = [0, *(frame for i in instances for frame in (i.start, i.end)), config.untrimmed_frames]
        lengths = np.diff(edges)
        assert (lengths[::2] >= config.min_gap_frames).all() and (lengths[1::2] >= 24).all()
        assert (lengths[1::2] <= 110).all() and len({i.label for i in instances}) == 1
        counts.append(len(instances))
    assert set(counts) == {1, 2, 3}


def test_a_trimmed_video_idles_for_at_most_a_quarter_at_each_end():
    for index in range(30):
        (segment,) = annotate(CorpusConfig(), "trimmed", index).segments
        assert 0 <= segment.start <= 20 / 25 and 60 / 25 <= segment.end <= 80 / 25


def test_every_block_of_videos_holds_each_class_once():
    labels = [annotate(CorpusConfig(), "trimmed", index).segments[0].label for index in range(24)]
    for block in (labels[:8], labels[8:16], labels[16:]):
        assert sorted(map(str, block)) == sorted(CorpusConfig().labels)
    assert labels[:8] != labels[8:16]


def test_both_subsets_are_there_in_the_asked_share():
    subsets = [annotate(CorpusConfig(), "untrimmed", index).subset for index in range(100)]
    assert subsets.count("validation") == 40 and subsets.count("training") == 60
    assert {annotate(SMALL, "untrimmed", index).subset for index in range(5)} == {"training", "validation"}


def test_several_classes_in_a_video_when_asked_for():
    config = CorpusConfig(classes_per_video=3)
    found = [len({s.label for s in annotate(config, "untrimmed", index).segments}) for index in range(40)]
    assert max(found) > 1 and max(found) <= 3


def test_scenes_come_from_the_bank_or_are_unique():
    shared = {shot.scene for i in range(80) for shot in write_script(SMALL, "trimmed", i).shots}
    unique = {shot.scene for i in range(80) for shot in write_script(unique_scenes(SMALL), "trimmed", i).shots}
    assert len(shared) <= SMALL.scene_bank and len(unique) == 80


def test_scenes_can_go_with_classes():
    config = replace(SMALL, scene_class_correlation=1.0)
    scenes: dict[int, set] = {}
    for index in range(80):
        script = write_script(config, "trimmed", index)
        scenes.setdefault(script.instances[0].label, set()).add(script.shots[0].scene)
    assert sum(map(len, scenes.values())) == len(set.union(*scenes.values()))  # no scene serves two classes


def test_one_shot_unless_cuts_are_asked_for():
    assert all(len(write_script(SMALL, "untrimmed", i).shots) == 1 for i in range(5))
    cut, num_cuts = replace(SMALL, p_cut=1.0), 0
    for index in range(5):
        script = write_script(cut, "untrimmed", index)
        starts = [shot.start for shot in script.shots[1:]]
        borders = [frame for i in script.instances for frame in (i.start, i.end)]
        assert all(min(abs(start - border) for border in borders) <= 6 for start in starts)
        num_cuts += len(starts)
    assert num_cuts >= 5  # one that would leave a shot shorter than eight frames is not made


def test_an_absent_figure_leaves_the_gap_empty():
    config = replace(SMALL, p_absent=1.0, max_distractors=0, noise=0.0, flicker=0.0, camera_motion=0.0)
    script = write_script(config, "untrimmed", 0)
    frames = render_video(config, "untrimmed", 0)[0]
    gap = script.shots[0]
    assert gap.absent and gap.end == script.instances[0].start
    assert (frames[gap.start : gap.end] == frames[gap.start]).all()
    assert (frames[gap.end] != frames[gap.end + 4]).any()


def test_shots_tile_the_video():
    for index in range(20):
        script = write_script(web_like(SMALL), "untrimmed", index)
        assert script.shots[0].start == 0 and script.shots[-1].end == script.num_frames
        assert all(a.end == b.start for a, b in zip(script.shots, script.shots[1:], strict=False))


def test_the_figure_stays_in_the_picture():
    inside = []
    for index in range(30):
        script = write_script(CorpusConfig(), "untrimmed", index)
        skeleton, shot, camera = pose_skeleton(script.poses), script.shots[0], script.camera
        for point in (skeleton.head, skeleton.left.hand, skeleton.right.hand, skeleton.left.ankle):
            across = shot.figure_x + shot.figure_height * point[:, 0] * (-1 if script.mirrored else 1)
            down = shot.ground_y - shot.figure_height * point[:, 1]
            place = (np.stack([across, down], axis=1) - camera[:, :2]) * camera[:, 2:]
            inside.append((np.abs(place) < 0.5).all(axis=1))
    assert np.mean(inside) > 0.98  # a raised hand may touch the edge now and then


def test_a_capsule_covers_its_area_and_nothing_else():
    canvas = np.zeros((1, 3, 40, 60), np.float32)
    ends = np.array([[15.3, 20.6]]), np.array([[40.3, 20.6]])
    draw_capsule(canvas, *ends, np.array([[6.0, 6.0]]), np.array([0.0, 200.0, 0.0]))
    covered = canvas[0, 1] > 0
    # the soft edge reaches half a pixel out; counting whole pixels along 91 of contour errs by about half its root
    assert abs(covered.sum() - (np.pi * 6.5**2 + 13 * 25)) < 6
    assert not canvas[0, 0].any() and not canvas[0, 1, :10].any() and not canvas[0, 1, :, 50:].any()


def test_drawing_beyond_the_edge_changes_only_what_is_inside():
    whole = np.zeros((1, 3, 60, 60), np.float32)
    part = np.zeros((1, 3, 30, 30), np.float32)
    start, end, radii, colour = np.array([[20.0, 25]]), np.array([[45.0, 40]]), np.array([[9.0, 5]]), np.full(3, 99.0)
    draw_capsule(whole, start, end, radii, colour)
    draw_capsule(part, start, end, radii, colour)
    assert np.array_equal(part, whole[:, :, :30, :30])
    draw_capsule(part, start + 500, end + 500, radii, colour)
    assert np.array_equal(part, whole[:, :, :30, :30])


def _decode(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_the_corpus_on_disk(tmp_path):
    synthesize(tmp_path, SMALL, workers=1, progress=False)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert names == sorted(
        [
            "annotations.json",
            "corpus.json",
            "queries.csv",
            *(f"trimmed/trimmed_{i:05d}.mp4" for i in range(3)),
            "trimmed.csv",
            *(f"untrimmed/untrimmed_{i:05d}.mp4" for i in range(2)),
        ]
    )
    with av.open(tmp_path / "untrimmed/untrimmed_00001.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate, stream.frames) == (32, 32, 25, 120)
    drawn = render_video(SMALL, "untrimmed", 1)[0].astype(float)
    error = np.mean((_decode(tmp_path / "untrimmed/untrimmed_00001.mp4") - drawn) ** 2)
    assert 10 * np.log10(255**2 / error) > 26  # dB; halved colour planes cost most of it at this size


def test_annotations_are_in_the_layout_of_activitynet(tmp_path):
    synthesize(tmp_path, SMALL, workers=1, progress=False)
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert set(content) == {"version", "taxonomy", "database"}
    assert [node["nodeName"] for node in content["taxonomy"]] == ["Root", *SMALL.labels]
    assert list(content["database"]) == ["untrimmed_00000", "untrimmed_00001"]
    for index, entry in enumerate(content["database"].values()):
        video = annotate(SMALL, "untrimmed", index)
        assert entry["duration"] == 120 / 25 and entry["subset"] == video.subset
        assert entry["annotations"] == [{"segment": [s.start, s.end], "label": s.label} for s in video.segments]
    with open(tmp_path / "trimmed.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == [f"trimmed_{i:05d}" for i in range(3)]
    assert {row["label"] for row in rows} <= set(SMALL.labels)


def test_an_interrupted_corpus_is_finished_without_touching_what_is_there(tmp_path):
    synthesize(tmp_path, SMALL, workers=1, progress=False)
    files = sorted(tmp_path.rglob("*.mp4"))
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    files[1].unlink()
    (tmp_path / "annotations.json").unlink()
    synthesize(tmp_path, SMALL, workers=1, progress=False)
    assert files[1].read_bytes() == before[files[1]][1]
    kept = [path for path in files if path != files[1]]
    assert all(path.stat().st_mtime_ns == before[path][0] for path in kept)
    assert (tmp_path / "annotations.json").exists()


def test_the_number_of_processes_does_not_change_the_files(tmp_path):
    synthesize(tmp_path / "one", SMALL, workers=1, progress=False)
    synthesize(tmp_path / "two", SMALL, workers=2, progress=False)
    for path in sorted((tmp_path / "one").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_another_corpus_in_the_same_folder_is_refused_by_name(tmp_path):
    synthesize(tmp_path, SMALL, workers=1, progress=False)
    with pytest.raises(ConfigError, match=r"corpus\.json.*scene_bank = 24, asked for 0.*Choose another folder"):
        synthesize(tmp_path, unique_scenes(SMALL), workers=1, progress=False)
    (tmp_path / "corpus.json").write_text("[]")
    with pytest.raises(ConfigError, match="not the settings of a built-in corpus"):
        synthesize(tmp_path, SMALL, workers=1, progress=False)


@pytest.mark.parametrize(
    "knobs",
    [
        {"size": 33},
        {"size": (32, 31)},
        {"num_classes": 13},
        {"num_classes": 1},
        {"actions": ("lean", "clap"), "num_classes": 3},
        {"actions": ("lean", "swim"), "num_classes": 2},
        {"actions": ("lean", "lean"), "num_classes": 2},
        {"classes_per_video": 9},
        {"untrimmed_frames": 40},
        {"p_cut": 1.5},
        {"noise": -1.0},
        {"period_frames": (9.0, 3.0)},
        {"num_trimmed": -1},
        {"idle_speed": 0.0},
    ],
)
def test_impossible_settings_are_named(knobs):
    with pytest.raises(ConfigError, match=f"CorpusConfig.*{next(iter(knobs))}.*found"):
        CorpusConfig(**knobs)


def test_a_kind_must_be_one_of_the_two():
    with pytest.raises(TypeCheckError):
        render_video(SMALL, "both", 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_a_frozen_corpus_still_looks_the_same(name):
    assert frames_digest(CORPORA[name]) == DIGESTS[name]


def test_the_three_corpora_share_no_frames():
    short = [replace(config, size=16, trimmed_frames=16, untrimmed_frames=60) for config in CORPORA.values()]
    digests = [frames_digest(config) for config in short]
    assert len(set(digests)) == 3 and digests[0] == frames_digest(short[0])
