"""Class scores of videos from files of other people's classifiers: what is read, and what is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import DATA
from uptal.annotations import read_class_scores, scores_of
from uptal.annotations.thumos import CLASS_IDS
from uptal.errors import AnnotationError

CUHK = {"results": {"abc": [0.25, 0.75], "def": [1, 0]}, "class": ["Jump", "Run"]}


@pytest.fixture
def write(tmp_path):
    """Write text, something to become JSON, or an array to a file and give its path."""

    def write(content: object) -> Path:
        path = tmp_path / "file"
        if isinstance(content, np.ndarray):
            with open(path, "wb") as file:
                np.save(file, content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_the_two_published_layouts_and_a_table(write):
    expected = {"abc": {"Jump": 0.25, "Run": 0.75}, "def": {"Jump": 1.0, "Run": 0.0}}
    assert read_class_scores(write(CUHK)) == expected
    assert (
        read_class_scores(write("video,label,score\nabc,Jump,0.25\nabc,Run,0.75\ndef,Jump,1\ndef,Run,0\n")) == expected
    )
    table = np.arange(3 * 101, dtype=np.float32).reshape(3, 101)
    found = read_class_scores(write(table))
    assert list(found) == ["video_test_0000001", "video_test_0000002", "video_test_0000003"]
    assert found["video_test_0000002"]["BaseballPitch"] == table[1, 6]  # class 7 of the second video
    assert len(found["video_test_0000002"]) == len(CLASS_IDS) == 20


def test_untrimmed_nets_scores_name_what_the_videos_show(real_videos):
    path = DATA / "thumos14" / "gtad" / "uNet_test.npy"
    if not path.exists():
        pytest.skip(f"no class scores at {path} (set UPTAL_DATA to a folder that holds them)")
    scores = read_class_scores(path)
    assert len(scores) == 1574
    assert max(scores["video_test_0000896"], key=scores["video_test_0000896"].__getitem__) == "HighJump"


def test_the_prefix_of_activitynet_does_not_matter():
    scores = {"v_abc": {"Jump": 1.0}, "def": {"Run": 1.0}}
    assert scores_of(scores, ["abc", "v_def", "ghi"]) == {"abc": {"Jump": 1.0}, "v_def": {"Run": 1.0}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"results": {}}, r"found the keys \['results'\], expected \"results\" and \"class\""),
        ({**CUHK, "results": {}}, "no video is listed"),
        ({**CUHK, "class": ["Jump", "Jump"]}, "class: a name stands twice"),
        ({**CUHK, "class": ["Jump", ""]}, r"class\[1\]: found ''"),
        ({**CUHK, "results": {"abc": [1]}}, "video 'abc': found 1 scores, expected 2"),
        ({**CUHK, "results": {"abc": [1, -1]}}, "video 'abc', Run: found -1, expected a score of 0 or more"),
        ({**CUHK, "results": {"abc": [1, float("nan")]}}, "video 'abc', Run: found nan"),
        ("video,label,score\na,x,1\na,x,0\n", "line 3: video 'a' has a score for 'x' already"),
        ("video,label,score\na,x,much\n", "line 2, column 'score': found 'much'"),
        ("video,label\n", "expected the columns video,label,score"),
        (np.zeros((3, 100), dtype=np.float32), r"found an array \(3, 100\) of float32"),
        (np.full((3, 101), np.nan), "negative or not finite"),
        (np.array([{"a": 1}]), "the numpy array cannot be read"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(write, content, message):
    path = write(content)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_class_scores(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_class_scores(tmp_path / "absent.npy")
