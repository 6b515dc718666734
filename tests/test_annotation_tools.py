"""Annotations from the tools people use, THUMOS'14's own files, and the check of whatever was read."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import DATA
from uptal.annotations import annotations_digest, read_annotations, summarise, write_annotations, write_srt, write_vtt
from uptal.cli import main
from uptal.errors import AnnotationError, ConfigError
from uptal.files import digest
from uptal.recipes.checking import check_annotations
from uptal.recipes.protocols import PROTOCOLS
from uptal.types import Detections, Segment, Video

JUMP, RUN = Segment(1.0, 2.5, "Jump"), Segment(4.0, 6.0, "Run")
EXPECTED = {"abc": (JUMP, RUN)}


def segments(videos: dict[str, Video]) -> dict[str, tuple[Segment, ...]]:
    return {id: video.segments for id, video in videos.items()}


@pytest.fixture
def write(tmp_path):
    """Write content (text, or something to become JSON) to a file of this name and give its path."""

    def write(name: str, content: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


# ---- ELAN

ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" VERSION="3.0">
<HEADER TIME_UNITS="milliseconds"><MEDIA_DESCRIPTOR MEDIA_URL="file:///videos/abc.mp4" MIME_TYPE="video/mp4"/></HEADER>
<TIME_ORDER>
<TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1000"/><TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="2500"/>
<TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="4000"/><TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="6000"/>
</TIME_ORDER>
<TIER TIER_ID="actions"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
<ANNOTATION_VALUE>Jump</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<TIER TIER_ID="Run"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4">
<ANNOTATION_VALUE></ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<TIER TIER_ID="notes"><ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a3" ANNOTATION_REF="a1">
<ANNOTATION_VALUE>high</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION></TIER>
</ANNOTATION_DOCUMENT>
"""


def test_elan_gives_values_as_labels_and_the_tier_where_there_is_none(write):
    assert segments(read_annotations(write("x.eaf", ELAN))) == EXPECTED


def test_elan_slots_without_a_time_lie_evenly_between_their_neighbours(write):
    path = write("x.eaf", ELAN.replace(' TIME_VALUE="2500"', ""))
    assert read_annotations(path)["abc"].segments[0] == Segment(1.0, 2.5, "Jump")  # half-way between 1 and 4 s


def test_elan_without_a_media_file_is_named_after_the_document(write):
    assert list(read_annotations(write("other.eaf", ELAN.replace("MEDIA_URL=", "X=")))) == ["other"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.replace("<HEADER", "<!DOCTYPE x><HEADER"), "declares a document type or entities"),
        (lambda s: s.replace("ANNOTATION_DOCUMENT", "OTHER"), "root 'OTHER', expected ELAN's"),
        (lambda s: s[:-30], r"line \d+, column \d+: this is not XML"),
        (lambda s: s.replace('REF1="ts1"', 'REF1="ts9"'), "tier 'actions', annotation a1, TIME_SLOT_REF1: found 'ts9'"),
        (lambda s: s.replace('VALUE="2500"', 'VALUE="500"'), "annotation a1: the segment ends at 0.5 s, before"),
        (
            lambda s: s.replace('VALUE="2500"', 'VALUE="soon"'),
            "time slot ts2, TIME_VALUE: found 'soon', expected mil",
        ),
    ],
)
def test_elan_says_which_element_is_wrong(write, change, message):
    path = write("x.eaf", change(ELAN))
    with pytest.raises(AnnotationError, match=message) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(str(path))


def test_no_entity_of_an_xml_file_is_ever_read(write, tmp_path):
    secret = write("secret.txt", "do not read me")
    entity = f'<!DOCTYPE x [<!ENTITY leak SYSTEM "file://{secret}">]>'
    with pytest.raises(AnnotationError, match="entities"):
        read_annotations(write("x.eaf", ELAN.replace("<ANNOTATION_DOCUMENT", entity + "<ANNOTATION_DOCUMENT", 1)))


# ---- the VGG Image Annotator

ATTRIBUTES = {
    "1": {"aname": "TEMPORAL-SEGMENTS", "anchor_id": "FILE1_Z2_XY0", "type": 4, "options": {"0": "Jump", "1": "Run"}}
}
PROJECT = {
    "project": {"pid": "__VIA_PROJECT_ID__"},
    "config": {},
    "attribute": ATTRIBUTES,
    "file": {"7": {"fid": "7", "fname": "abc.mp4", "type": 4, "loc": 1, "src": ""}},
    "view": {"2": {"fid_list": ["7"]}},
    "metadata": {
        "2_a": {"vid": "2", "flg": 0, "z": [1.0, 2.5], "xy": [], "av": {"1": "0"}},
        "2_b": {"vid": "2", "flg": 0, "z": [3.0], "xy": [2, 1, 1, 5, 5], "av": {"1": "1"}},
        "2_c": {"vid": "2", "flg": 0, "z": [4, 6], "xy": [], "av": {"1": "1"}},
    },
}
VIA_TABLE = (
    "# Exported using VGG Image Annotator\n"
    f"# ATTRIBUTE = {json.dumps(ATTRIBUTES)}\n"
    "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata\n"
    '"2_a","[""abc.mp4""]",0,"[1.0,2.5]","[]","{""1"":""0""}"\n'
    '"2_b","[""abc.mp4""]",0,"[3.0]","[2,1,1,5,5]","{""1"":""1""}"\n'
    '"2_c","[""abc.mp4""]",0,"[4,6]","[]","{""1"":""Run""}"\n'
)


def test_via_projects_and_tables_give_the_names_of_their_choices(write):
    assert segments(read_annotations(write("p.json", PROJECT))) == EXPECTED
    assert segments(read_annotations(write("p.csv", VIA_TABLE))) == EXPECTED


def test_boxes_that_were_ticked_together_are_several_instances(write):
    project = json.loads(json.dumps(PROJECT))
    project["metadata"]["2_a"]["av"]["1"] = "0,1"
    labels = [segment.label for segment in read_annotations(write("p.json", project))["abc"].segments]
    assert labels == ["Jump", "Run", "Run"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["metadata"]["2_a"].update(vid="9"), "metadata '2_a', vid: found '9', expected one of the 1 views"),
        (lambda p: p["metadata"]["2_a"].update(av={}), "metadata '2_a': the segment has no value for any attribute"),
        (lambda p: p["metadata"]["2_a"].update(z=[2, 1]), "metadata '2_a': the segment ends at 1.0 s"),
        (lambda p: p["metadata"]["2_a"].update(z=["x", 1]), "temporal coordinates: found 'x', expected seconds"),
        (lambda p: p["file"]["7"].update(fname=""), "file '7', fname: found ''"),
    ],
)
def test_via_says_which_entry_is_wrong(write, change, message):
    project = json.loads(json.dumps(PROJECT))
    change(project)
    with pytest.raises(AnnotationError, match=message):
        read_annotations(write("p.json", project))


def test_vias_table_says_which_line_is_wrong(write):
    with pytest.raises(AnnotationError, match=r"line 4, temporal_coordinates: found .* expected JSON"):
        read_annotations(write("p.csv", VIA_TABLE.replace('"[1.0,2.5]"', '"[1.0,"')))
    with pytest.raises(AnnotationError, match="line 4: found 5 cells, expected 6"):
        read_annotations(write("p.csv", VIA_TABLE.replace('0,"[1.0,2.5]"', '"[1.0,2.5]"')))


# ---- Label Studio


def task(*values: dict, **data) -> dict:
    results = [{"type": "x", "value": value} for value in values]
    return {
        "id": 5,
        "data": {"video": "/data/upload/1/0a1b2c3d-abc.mp4", **data},
        "annotations": [{"result": results, "was_cancelled": False}],
    }


FRAMES = (
    {"ranges": [{"start": 26, "end": 62}], "timelinelabels": ["Jump"]},
    {"ranges": [{"start": 101, "end": 150}], "timelinelabels": ["Run"]},
    {"choices": ["indoors"]},
)
SECONDS = (
    {"start": 1.0, "end": 2.5, "timeserieslabels": ["Jump"]},
    {"start": 4, "end": 6, "labels": ["Run"], "channel": 0},
)


def test_label_studios_frames_count_from_one_and_both_ends_belong_to_the_range(write):
    expected = {"abc": (Segment(1.0, 2.48, "Jump"), Segment(4.0, 6.0, "Run"))}
    assert segments(read_annotations(write("a.json", [task(*FRAMES, fps=25)]))) == expected
    assert segments(read_annotations(write("a.json", [task(*FRAMES)]), fps=25)) == expected


def test_label_studios_time_series_and_audio_are_in_seconds(write):
    assert segments(read_annotations(write("a.json", [task(*SECONDS)]))) == EXPECTED


def test_label_studios_short_export(write):
    short = {"id": 5, "video": "s3://bucket/abc.mp4", "fps": 25, "tricks": list(FRAMES[:2]), "annotator": 1}
    assert [s.label for s in read_annotations(write("a.json", [short]))["abc"].segments] == ["Jump", "Run"]


def test_of_several_annotators_the_one_marked_as_truth_counts(write):
    two = task(*SECONDS)
    two["annotations"].insert(0, {"result": [], "was_cancelled": True})
    assert segments(read_annotations(write("a.json", [two]))) == EXPECTED
    two["annotations"][0] = {"result": []}
    with pytest.raises(AnnotationError, match="task 5: 2 people annotated this task"):
        read_annotations(write("a.json", [two]))
    two["annotations"][1]["ground_truth"] = True
    assert segments(read_annotations(write("a.json", [two]))) == EXPECTED


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([task(*FRAMES)], "task 5, result 0: the range is counted in frames and the frame rate is unknown"),
        ([task({"ranges": [{"start": 5}], "timelinelabels": ["a"]}, fps=25)], "result 0, end: found None"),
        ([task({"start": 3, "end": 1, "labels": ["a"]})], "result 0: the segment ends at 1.0 s"),
        ([task({"start": 1, "end": 3, "labels": [""]})], "result 0, label: found ''"),
        ([{"id": 1, "data": {}, "annotations": []}], r"task 1, data: found the keys \[\]"),
    ],
)
def test_label_studio_says_which_task_is_wrong(write, tasks, message):
    with pytest.raises(AnnotationError, match=message):
        read_annotations(write("a.json", tasks))


# ---- subtitles


def test_subtitles_that_detection_wrote_can_be_corrected_and_read_as_annotations(tmp_path):
    found = Detections(np.array([[1.0, 2.5], [4.0, 6.0]]), np.array([0.75, 0.5]), ("Jump", "R & B"))
    for name, write_it in (("abc.srt", write_srt), ("abc.vtt", write_vtt)):
        write_it(tmp_path / name, found)
        assert segments(read_annotations(tmp_path / name)) == {"abc": (JUMP, Segment(4.0, 6.0, "R & B"))}


def test_a_cue_that_runs_backwards_is_named_with_its_line(write):
    with pytest.raises(AnnotationError, match=r"line 2: the segment ends at 1\.0 s, before its start at 2\.0 s"):
        read_annotations(write("a.srt", "1\n00:00:02,000 --> 00:00:01,000\nJump\n"))


# ---- folders, decimal commas, tables of other people


def test_a_folder_holds_one_file_a_video_and_none_twice(write, tmp_path):
    write("all/abc.srt", "1\n00:00:01,000 --> 00:00:02,500\nJump\n\n2\n00:00:04,000 --> 00:00:06,000\nRun\n")
    write("all/b.csv", "video,start,end,label\nb,1,2.5,Jump\n")
    write("all/readme.txt", "nothing")
    assert segments(read_annotations(tmp_path / "all")) == {**EXPECTED, "b": (JUMP,)}
    write("all/c.eaf", ELAN)
    with pytest.raises(AnnotationError, match="video 'abc' is annotated in two files"):
        read_annotations(tmp_path / "all")


def test_a_decimal_comma_is_recognised(write):
    with pytest.raises(AnnotationError, match=r"found '1,5', expected seconds with a decimal point \(1\.5\)"):
        read_annotations(write("a.csv", 'video,start,end,label\na,"1,5",2,x\n'))


def test_what_was_read_can_be_written_as_json_or_table(tmp_path):
    videos = {
        "abc": Video(id="abc", duration=30.0, subset="training", segments=(JUMP, RUN)),
        "none": Video(id="none", duration=math.nan, subset="", segments=()),
    }
    for name in ("a.json", "a.csv"):
        write_annotations(tmp_path / name, videos)
        assert str(read_annotations(tmp_path / name)) == str(videos)  # as text, since NaN is not NaN
    with pytest.raises(ConfigError, match="annotations are written as"):
        write_annotations(tmp_path / "a.txt", videos)


# ---- THUMOS'14


def test_class_files_give_the_class_and_the_split_by_their_names(write, tmp_path):
    write("t/Diving_test.txt", "video_test_1  1.0 2.5\nvideo_test_1 4 6\n")
    write("t/Ambiguous_test.txt", "video_test_2  0.0 1.4\n")
    write("t/Diving_val.txt", "video_validation_1  1.0 2.5\n")
    videos = read_annotations(tmp_path / "t")
    assert {id: (v.subset, [s.label for s in v.segments]) for id, v in videos.items()} == {
        "video_test_1": ("test", ["Diving", "Diving"]),
        "video_test_2": ("test", ["Ambiguous"]),
        "video_validation_1": ("validation", ["Diving"]),
    }
    assert list(read_annotations(tmp_path / "t" / "Diving_test.txt")) == ["video_test_1"]
    write("t/Diving_val.txt", "video_validation_1  1.0\n")
    with pytest.raises(AnnotationError, match=r"Diving_val\.txt, line 1: found 2 words, expected three"):
        read_annotations(tmp_path / "t")


def test_gtads_tables_are_known_by_their_columns(write):
    videos = read_annotations(
        write("a.csv", "video,type,type_idx,start,end,startFrame,endFrame\nv,CricketBowling,23,0.2,1.1,6,33\n")
    )
    assert videos["v"].segments == (Segment(0.2, 1.1, "CricketBowling"),)
    header = "video-name,t-init,t-end,f-init,f-end,video-duration,frame-rate,video-frames,label-idx"
    rows = "v,0.2,1.1,6,33,33.7,30.0,1012,5\nv,3,4,6,33,33.7,30.0,1012,-1\n"
    videos = read_annotations(write("b.csv", f"{header}\n{rows}"))
    assert videos["v"].duration == 33.7
    assert videos["v"].segments == (Segment(0.2, 1.1, "CricketBowling"), Segment(3.0, 4.0, "Ambiguous"))
    with pytest.raises(AnnotationError, match="line 2, column 'label-idx': found 20"):
        read_annotations(write("b.csv", f"{header}\nv,3,4,6,33,33.7,30.0,1012,20\n"))


def _times(videos: dict[str, Video]) -> dict[str, set]:
    return {id: {(s.start, s.end, s.label) for s in v.segments} for id, v in videos.items()}


def test_every_form_of_thumos_is_the_same_ground_truth_by_gtads_protocol():
    folder = DATA / "thumos14"
    if not folder.is_dir():
        pytest.skip(f"no THUMOS'14 annotations at {folder} (set UPTAL_DATA to a folder that holds them)")
    protocol = PROTOCOLS["thumos14"]
    theirs = read_annotations(folder / "gtad" / "thumos_gt.json", "test")
    assert protocol.ground_truth(theirs)[1] == {
        "ambiguous": {"instances": 0, "treated_as": "dropped"},
        "absent_videos": [],
    }
    assert (len(theirs), sum(len(v.segments) for v in theirs.values())) == (210, 3311)
    for name in ("temporal_annotations_test", "gtad/test_Annotation.csv", "gtad/thumos14_test_groundtruth.csv"):
        videos, done = protocol.ground_truth(read_annotations(folder / name))
        assert _times(videos) == _times(theirs)
        assert len(done["absent_videos"]) == 3
    both = summarise(read_annotations(folder))
    assert both.subsets == {"test": 213, "validation": 200} and len(both.labels) == 21


# ---- the check


def test_the_check_lists_what_is_odd_and_fails_on_what_is_unusable(write, tmp_path, capsys):
    table = (
        "video,start,end,label,subset,duration\n"
        "a,1,2,x,training,10\na,1,2,x,training,10\na,1,2,y,training,10\na,1.5,3,x,training,10\n"
        "a,5,5,x,training,10\na,9,11,x,training,10\nb,1,2,y,validation,\nc,,,,validation,4\n"
    )
    assert main(["doctor", "annotations", str(write("a.csv", table)), "--json", str(tmp_path / "o.json")]) == 0
    found = json.loads((tmp_path / "o.json").read_text())
    assert {name: each["count"] for name, each in found["odd"].items()} == {
        "zero_length": 1, "beyond_duration": 1, "outside": 0, "duplicates": 1, "two_labels": 1, "overlapping": 2,
        "ambiguous": 0,
    }  # fmt: skip
    assert found["one_split_only"] == {"x": "training"}
    assert (found["videos"], found["instances"], found["without_instances"], found["without_duration"]) == (3, 7, 1, 1)
    assert found["classes"]["y"]["instances"] == {"training": 1, "validation": 1}
    assert "zero length: 1 ('a', 5 to 5 s, 'x')" in " ".join(capsys.readouterr().out.split())
    bad = table + "b,3,2,y,validation,\nb,-1,2,y,validation,\nb,1,soon,y,validation,\na,10,12,x,training,10\n"
    words = ["doctor", "annotations", str(write("b.csv", bad)), "--write", str(tmp_path / "good.csv")]
    assert main([*words, "--json", str(tmp_path / "o.json")]) == 1
    printed = capsys.readouterr()
    assert "3 instances cannot be read; 1 instances begin after the end of their video" in printed.err
    assert "line 10: the segment ends at 2.0 s, before its start at 3.0 s" in printed.out
    assert len(json.loads((tmp_path / "o.json").read_text())["problems"]) == 3
    assert check_annotations(str(tmp_path / "good.csv")).problems == []


def test_the_check_compares_with_videos_at_hand(write, tmp_path, capsys):
    path = write("a.csv", "video,start,end,label\nv_a,1,2,x\nb,1,2,x\n")
    shutil.copy(path, tmp_path / "a.mp4")  # only names count here
    words = ["doctor", "annotations", str(path), "--videos", str(tmp_path)]
    assert main(words) == 1
    out = capsys.readouterr()
    assert "1 more would match without the prefix 'v_'." in " ".join(out.out.split())
    assert "none of the annotated videos is among the videos" in out.err
    shutil.copy(path, tmp_path / "b.mp4")
    assert main(words) == 0


def test_the_check_leaves_out_classes_that_it_is_told_to(write, tmp_path):
    path = write("a.csv", "video,start,end,label\na,1,2,Diving\na,3,4,Ambiguous\nb,1,2,Ambiguous\n")
    out = tmp_path / "out.json"
    assert main(["doctor", "annotations", str(path), "--drop-labels", "Ambiguous", "--write", str(out)]) == 0
    assert segments(read_annotations(out)) == {"a": (Segment(1.0, 2.0, "Diving"),), "b": ()}


def test_the_check_points_at_ambiguous_stretches_until_they_are_left_out(write, tmp_path, capsys):
    path = write("a.csv", "video,start,end,label\na,1,2,Diving\na,3,4,Ambiguous\nb,1,2,Ambiguous\n")
    record = tmp_path / "o.json"
    assert main(["doctor", "annotations", str(path), "--json", str(record)]) == 0
    assert json.loads(record.read_text())["odd"]["ambiguous"]["count"] == 2
    assert "--drop-labels Ambiguous --write FILE" in capsys.readouterr().out
    assert main(["doctor", "annotations", str(path), "--drop-labels", "Ambiguous", "--json", str(record)]) == 0
    assert json.loads(record.read_text())["odd"]["ambiguous"]["count"] == 0
    assert "Ambiguous" not in capsys.readouterr().out


def test_a_class_to_leave_out_that_nothing_bears_is_refused(write, capsys):
    path = write("a.csv", "video,start,end,label\na,1,2,Diving\na,3,4,Ambiguous\n")
    assert main(["doctor", "annotations", str(path), "--drop-labels", "ambigous"]) == 1
    assert "no instance bears this label. Did you mean Ambiguous?" in capsys.readouterr().err
    assert main(["doctor", "annotations", str(path), "--drop-labels", "x"]) == 1
    assert "Labels there: Ambiguous, Diving." in capsys.readouterr().err


def test_the_digest_of_a_folder_is_that_of_the_files_that_are_read_there(write, tmp_path):
    one = write("t/temporal_annotations_test/Diving_test.txt", "video_test_1  0.0 1.4\n")
    whole = annotations_digest(tmp_path / "t")
    write("t/readme.md", "nothing")
    assert annotations_digest(tmp_path / "t") == whole
    write("t/temporal_annotations_test/Shotput_test.txt", "video_test_1  0.0 1.4\n")
    assert annotations_digest(tmp_path / "t") != whole
    assert annotations_digest(one) == digest(one)


def test_the_check_converts_between_formats(write, tmp_path):
    path = write("a.json", [task(*FRAMES)])
    assert main(["doctor", "annotations", str(path)]) == 1
    assert main(["doctor", "annotations", str(path), "--fps", "25", "--write", str(tmp_path / "a.csv")]) == 0
    assert [s.label for s in read_annotations(tmp_path / "a.csv")["abc"].segments] == ["Jump", "Run"]
    assert main(["doctor", "annotations"]) == 1
