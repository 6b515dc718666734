"""What the readers take, what they refuse and how they say so, and what the writers leave behind."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uptal.annotations import (
    match_ids,
    read_activitynet,
    read_annotations,
    read_csv,
    read_detections,
    read_labels,
    safe_id,
    summarise,
    write_csv,
    write_detections,
    write_srt,
    write_vtt,
)
from uptal.errors import AnnotationError
from uptal.types import Detections, Segment, Video

FUZZ = int(os.environ.get("UPTAL_FUZZ", "250"))
"""Examples of each fuzz test; the nightly run sets 5000."""

ENTRY = {"subset": "validation", "duration": 30.0, "annotations": [{"segment": [1, 2.5], "label": "Jump"}]}
OFFICIAL = {"version": "VERSION 1.3", "taxonomy": [], "database": {"abc": ENTRY}}
FOUND = {
    "version": "VERSION 1.3",
    "external_data": {},
    "results": {"abc": [{"segment": [1, 2.5], "label": "Jump", "score": 0.75}]},
}
TABLE = "video,start,end,label,subset,duration\nabc,1,2.5,Jump,validation,30\n"


@pytest.fixture
def write(tmp_path):
    """Write content (text, bytes, or something to become JSON) to a file and give its path."""

    def write(content: object) -> Path:
        path = tmp_path / "file"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def changed(content: dict, *way: str | int, to: object) -> dict:
    """A copy of the JSON value with one place replaced; `to=...` removes it."""
    copy = json.loads(json.dumps(content))
    here = copy
    for step in way[:-1]:
        here = here[step]
    if to is ...:
        del here[way[-1]]
    else:
        here[way[-1]] = to
    return copy


# ---- what is read

EXPECTED = {"abc": Video(id="abc", duration=30.0, subset="validation", segments=(Segment(1.0, 2.5, "Jump"),))}


def test_the_official_layout(write):
    assert read_activitynet(write(OFFICIAL)) == EXPECTED


def test_the_layout_of_bmn(write):
    path = write({"v_abc": {"duration_second": 30.0, "duration_frame": 900, "annotations": ENTRY["annotations"]}})
    assert read_activitynet(path) == {
        "v_abc": Video(id="v_abc", duration=30.0, subset="", segments=(Segment(1.0, 2.5, "Jump"),))
    }


def test_a_table(write):
    assert read_csv(write(TABLE)) == EXPECTED


def test_the_content_tells_the_layout(write):
    assert read_annotations(write(OFFICIAL)) == read_annotations(write(TABLE)) == EXPECTED


@pytest.mark.parametrize("encoded", [TABLE.encode("utf-8-sig"), TABLE.replace("\n", "\r\n").encode()])
def test_byte_order_marks_and_windows_line_ends_do_not_matter(write, encoded):
    assert read_annotations(write(encoded)) == EXPECTED
    text = json.dumps(OFFICIAL, indent=1).replace("\n", "\r\n")
    assert read_annotations(write(text.encode("utf-8-sig"))) == EXPECTED


def test_numbers_written_as_text_are_numbers(write):
    path = write(changed(OFFICIAL, "database", "abc", "annotations", 0, "segment", to=["1", "2.5"]))
    assert read_activitynet(path) == EXPECTED


def test_a_duration_that_is_not_given_is_not_a_number(write):
    without = read_activitynet(write(changed(OFFICIAL, "database", "abc", "duration", to=...)))
    assert math.isnan(without["abc"].duration)
    assert math.isnan(read_csv(write("video,start,end,label\nabc,1,2.5,Jump\n"))["abc"].duration)


def test_a_subset_is_chosen_and_a_wrong_one_named(write):
    path = write({"database": {"abc": ENTRY, "other": {**ENTRY, "subset": "training"}}})
    assert list(read_annotations(path, "training")) == ["other"]
    with pytest.raises(AnnotationError, match=r"subset 'test'; the file has 'validation', 'training'"):
        read_annotations(path, "test")


def test_columns_may_stand_in_any_order_with_spaces_capitals_blank_lines_and_others_between(write):
    path = write('Label, note, Start,End,video\n\n"Jump, high",x,1,2.5, a\n,,,,b\nRun,,3,4,a\n')
    assert read_csv(path) == {
        "a": Video(
            id="a", duration=math.nan, subset="", segments=(Segment(1.0, 2.5, "Jump, high"), Segment(3.0, 4.0, "Run"))
        ),
        "b": Video(id="b", duration=math.nan, subset=""),
    }


def test_empty_instances_and_those_beyond_the_end_are_taken_and_counted(write):
    odd = [{"segment": [5, 5], "label": "Jump"}, {"segment": [20, 31], "label": "Run"}]
    summary = summarise(read_activitynet(write(changed(OFFICIAL, "database", "abc", "annotations", to=odd))))
    assert (summary.instances, len(summary.zero_length), len(summary.beyond_duration)) == (2, 1, 1)
    assert (summary.labels, summary.subsets) == (("Jump", "Run"), {"validation": 1})


def test_detections_come_with_labels_and_proposals_without(write):
    found = read_detections(write(FOUND))["abc"]
    assert (found.segments.tolist(), found.scores.tolist(), found.labels) == ([[1.0, 2.5]], [0.75], ("Jump",))
    assert read_detections(write(changed(FOUND, "results", "abc", 0, "label", to=...)))["abc"].labels is None
    assert len(read_detections(write(changed(FOUND, "results", "abc", to=[])))["abc"]) == 0


def test_odd_predictions_are_left_to_the_evaluation(write):
    for segment in ([5, 2], [-1, 2], ["1", 2]):
        found = read_detections(write(changed(FOUND, "results", "abc", 0, "segment", to=segment)))["abc"]
        assert found.segments.tolist() == [[float(value) for value in segment]]


def test_labels_of_trimmed_videos(write):
    assert read_labels(write("video,label\na,Jump\nb,Run\n")) == {"a": "Jump", "b": "Run"}


# ---- what is refused

_ANNOTATIONS = ("database", "abc", "annotations")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \n ", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n", "line 1: byte 0x89 is not UTF-8 text"),
        (b"video,start,end,label\nM\xfcller,1,2,x\n", "line 2: byte 0xfc is not UTF-8"),
        (TABLE.encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
        (b"video,start\0,end,label\n", "binary file"),
        ("{", "line 1, column 2: this is not JSON"),
        (json.dumps(OFFICIAL)[:-20], "this is not JSON .*Is the file complete?"),
        ("[1, 2]", r'found \[1, 2\], expected an object with the key "database"'),
        ("[" * 100_000, "nested too deeply"),
        ('{"database": ' + "9" * 5000 + "}", "a number cannot be read"),
        ('{"database": {"abc": {"annotations": []}, "abc": {"annotations": []}}}', "'abc' stands twice"),
        (FOUND, "these are predictions .*expected annotations"),
        ({"database": {}}, "no video is listed"),
        ({"database": []}, r"database: found \[\], expected an object"),
        ({"database": {"": ENTRY}}, "expected an id"),
        ({"database": {"\ud800": ENTRY}}, "surrogate"),
        ({"abc": 3}, "video 'abc': found 3, expected an object"),
        (changed(OFFICIAL, *_ANNOTATIONS, to=...), "video 'abc', annotations: found None, expected a list"),
        (changed(OFFICIAL, *_ANNOTATIONS, to={}), "annotations: found {}, expected a list"),
        (changed(OFFICIAL, *_ANNOTATIONS, 0, to="x"), r"annotations\[0\]: found 'x', expected an object"),
        (
            changed(OFFICIAL, *_ANNOTATIONS, 0, "segment", to=[1]),
            r"annotations\[0\], segment: found \[1\], .*two numbers",
        ),
        (changed(OFFICIAL, *_ANNOTATIONS, 0, "segment", to=[3, 2]), r"ends at 2.0 s, before its start at 3.0 s"),
        (changed(OFFICIAL, *_ANNOTATIONS, 0, "segment", to=[-1, 2]), r"starts at -1.0 s, expected 0 or later"),
        (changed(OFFICIAL, *_ANNOTATIONS, 0, "segment", 1, to=math.nan), "segment, end: found nan, .*neither NaN"),
        (changed(OFFICIAL, *_ANNOTATIONS, 0, "segment", 1, to="soon"), "segment, end: found 'soon', expected seconds"),
        (changed(OFFICIAL, *_ANNOTATIONS, 0, "segment", 1, to="1_0"), "found '1_0'"),
        (changed(OFFICIAL, *_ANNOTATIONS, 0, "segment", 1, to=True), "found True, expected seconds"),
        (changed(OFFICIAL, *_ANNOTATIONS, 0, "segment", 1, to=10**400), "segment, end: found 1000.*, expected seconds"),
        (changed(OFFICIAL, *_ANNOTATIONS, 0, "label", to=7), "label: found 7, expected a label"),
        (changed(OFFICIAL, *_ANNOTATIONS, 0, "label", to=" "), "label: found ' ', expected a label"),
        (changed(OFFICIAL, "database", "abc", "duration", to=0), "duration: found 0, expected a positive"),
        (changed(OFFICIAL, "database", "abc", "duration", to=[1]), r"duration: found \[1\]"),
        (changed(OFFICIAL, "database", "abc", "subset", to=1), "subset: found 1"),
        ("just some words\n", "line 1: found the header 'just some words', expected the columns video,start,end,label"),
        (TABLE.replace(",", ";"), "separated by commas"),
        ("video,start,end,label\n", "no video is listed"),
        ("video,start,end,label,label\na,1,2,x,y\n", "line 1: a column name stands twice"),
        ("video,start,end,label\na,1,2\n", "line 2: found 3 cells, expected 4"),
        ("video,start,end,label\n\na,3,2,x\n", "line 3: the segment ends at 2.0 s"),
        ("video,start,end,label\na,nan,2,x\n", "line 2, column 'start': found 'nan'"),
        ("video,start,end,label\na,1,,x\n", "line 2, column 'end': found '', expected seconds"),
        ("video,start,end,label\n,1,2,x\n", "line 2, column 'video': found ''"),
        ("video,start,end,label\na,1,2,\n", "line 2, column 'label': found ''"),
        ('video,start,end,label\n"a"b,1,2,x\n', "line 2: this is not CSV"),
        ("video,start,end,label,subset\na,1,2,x,train\na,3,4,x,test\n", "line 3: video 'a' has .*an earlier row"),
    ],
)
def test_what_is_wrong_in_annotations_is_named_with_its_place(write, content, message):
    path = write(content)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video,start\n", "this is not JSON"),
        (OFFICIAL, "These are annotations, not predictions"),
        ({"version": 1}, r"found the keys \['version'\], expected \"results\""),
        (changed(FOUND, "results", to=[]), "results: found"),
        (changed(FOUND, "results", "abc", to={}), "video 'abc': found {}, expected a list"),
        (changed(FOUND, "results", "abc", 0, to=5), "video 'abc', entry 0: found 5"),
        (changed(FOUND, "results", "abc", 0, "segment", to="ab"), "entry 0, segment: found 'ab', expected a list"),
        (changed(FOUND, "results", "abc", 0, "segment", to=[1, 2, 3]), "two numbers"),
        (changed(FOUND, "results", "abc", 0, "segment", 0, to=math.inf), "segment, start: found inf"),
        (changed(FOUND, "results", "abc", 0, "score", to=...), "entry 0, score: found None, expected a score"),
        (changed(FOUND, "results", "abc", 0, "score", to=math.nan), "entry 0, score: found nan"),
        (changed(FOUND, "results", "abc", 0, "score", to=True), "entry 0, score: found True"),
        (changed(FOUND, "results", "abc", 0, "label", to=["x"]), r"entry 0, label: found \['x'\]"),
        (changed(FOUND, "results", "abc", 0, "label", to=""), "entry 0, label: found ''"),
        ('{"results": {"a": [], "a": []}}', "'a' stands twice"),
    ],
)
def test_what_is_wrong_in_detections_is_named_with_its_place(write, content, message):
    path = write(content)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_detections(path)
    assert str(caught.value).startswith(str(path))


def test_labels_must_be_on_all_predictions_of_a_video_or_on_none(write):
    entry = FOUND["results"]["abc"][0]
    path = write({"results": {"abc": [entry, {"segment": [1, 2], "score": 1}]}})
    with pytest.raises(AnnotationError, match="entry 1: the label is missing"):
        read_detections(path)


def test_a_trimmed_video_listed_twice_is_refused(write):
    with pytest.raises(AnnotationError, match="line 3: video 'a' is listed twice"):
        read_labels(write("video,label\na,Jump\na,Run\n"))


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path):
        for read in (read_annotations, read_detections, read_labels):
            with pytest.raises(AnnotationError, match="cannot be read"):
                read(path)


# ---- whatever the bytes: records, or an error that names the file

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def _places(value: object, way: tuple = ()) -> list[tuple]:
    """The ways to all values inside a JSON value."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [deeper for step, each in steps for deeper in [(*way, step), *_places(each, (*way, step))]]


@st.composite
def _damaged(draw, content: dict) -> bytes:
    """Valid JSON with one place replaced, or its text with some bytes replaced, cut or doubled."""
    if draw(st.booleans()):
        content = changed(content, *draw(st.sampled_from(_places(content))), to=draw(_json | st.just(...)))
    data = json.dumps(content).encode()
    if draw(st.booleans()):
        start, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
        data = data[:start] + draw(st.binary(max_size=6)) + data[draw(st.sampled_from([start, end])) :]
    return data


def _reads_or_refuses(read, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        assert isinstance(read(path), dict)
    except AnnotationError as error:
        assert str(path) in str(error)
        assert len(str(error)) < 1000


_fuzz = settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.reliability
@_fuzz
@given(data=_damaged(OFFICIAL))
def test_damaged_annotations_are_read_or_refused(tmp_path, data):
    _reads_or_refuses(read_annotations, tmp_path / "file.json", data)


@pytest.mark.reliability
@_fuzz
@given(data=_damaged(FOUND))
def test_damaged_detections_are_read_or_refused(tmp_path, data):
    _reads_or_refuses(read_detections, tmp_path / "file.json", data)


_cells = st.lists(
    st.sampled_from(["a", "1", "2.5", "-1", "nan", "", '"', "x\ny", "é", "\0"]) | st.text(max_size=4), max_size=7
)
_tables = st.lists(_cells.map(",".join), max_size=5).map("\n".join)


@pytest.mark.reliability
@_fuzz
@given(rows=_tables, whole=st.booleans())
def test_damaged_tables_are_read_or_refused(tmp_path, rows, whole):
    data = ((TABLE if whole else "video,start,end,label\n") + rows).encode("utf-8", "surrogatepass")
    _reads_or_refuses(read_csv, tmp_path / "file.csv", data)
    _reads_or_refuses(read_labels, tmp_path / "file.csv", b"video,label\n" + rows.encode("utf-8", "surrogatepass"))


@pytest.mark.reliability
@_fuzz
@given(data=st.binary(max_size=60))
def test_arbitrary_bytes_are_refused(tmp_path, data):
    for read in (read_annotations, read_detections, read_labels):
        _reads_or_refuses(read, tmp_path / "file", data)


# ---- what is written


def found(*rows: tuple[float, float, float], label: str | None = "Jump") -> Detections:
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Detections(table[:, :2], table[:, 2], None if label is None else (label,) * len(table))


_finite = st.floats(allow_nan=False, allow_infinity=False)
_names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6).filter(str.strip)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(_names, st.lists(st.tuples(_finite, _finite, _finite, _names), max_size=4), max_size=3))
def test_detections_survive_writing_and_reading_to_the_last_bit(tmp_path, drawn):
    given_ = {
        id: Detections(
            np.array([row[:2] for row in rows]).reshape(-1, 2),
            np.array([row[2] for row in rows], dtype=np.float64),
            tuple(row[3] for row in rows) or None,
        )
        for id, rows in drawn.items()
    }
    write_detections(tmp_path / "found.json", given_)
    back = read_detections(tmp_path / "found.json")
    assert list(back) == list(given_)
    for id, each in given_.items():
        np.testing.assert_array_equal(back[id].segments, each.segments)
        np.testing.assert_array_equal(back[id].scores, each.scores)
        assert back[id].labels == each.labels


def test_a_submission_has_the_official_keys(tmp_path):
    write_detections(tmp_path / "found.json", {"abc": found((1.0, 2.5, 0.75)), "none": found(label=None)})
    assert json.loads((tmp_path / "found.json").read_text()) == {
        **FOUND,
        "results": {**FOUND["results"], "none": []},
    }


def test_what_no_reader_could_read_is_not_written(tmp_path):
    path = tmp_path / "found.json"
    write_detections(path, {"abc": found((1.0, 2.5, 0.75))})
    before = path.read_bytes()
    for wrong in ({"abc": found((1.0, math.nan, 0.5))}, {"\ud800": found()}, {"abc": found((1.0, 2.0, 0.5), label="")}):
        with pytest.raises(AnnotationError, match=r"found\.json"):
            write_detections(path, wrong)
    assert path.read_bytes() == before


def test_the_table_of_detections_can_be_read_as_annotations(tmp_path):
    write_csv(tmp_path / "found.csv", {"abc": found((1.0, 2.5, 0.75), label='say "hi", loudly')})
    rows = list(csv.reader((tmp_path / "found.csv").read_text().splitlines()))
    assert rows == [["video", "start", "end", "label", "score"], ["abc", "1.0", "2.5", 'say "hi", loudly', "0.75"]]
    assert read_csv(tmp_path / "found.csv")["abc"].segments == (Segment(1.0, 2.5, 'say "hi", loudly'),)


def test_subtitles_stand_in_order_of_time(tmp_path):
    write_srt(tmp_path / "a.srt", found((3723.0456, 3724.0, 0.5), (-0.5, 1.2345, 0.756)))
    assert (tmp_path / "a.srt").read_bytes().decode() == (
        "1\n00:00:00,000 --> 00:00:01,234\nJump (0.76)\n\n2\n01:02:03,046 --> 01:02:04,000\nJump (0.50)\n\n"
    )


def test_no_label_can_break_out_of_its_subtitle(tmp_path):
    write_srt(tmp_path / "a.srt", found((0.0, 1.0, 0.5), label="a\n\n2\n00:00 --> 00:01\nb"))
    assert (tmp_path / "a.srt").read_text().count("-->") == 1
    write_vtt(tmp_path / "a.vtt", found((0.0, 1.0, 0.5), label="<b>&\nNOTE --> x"))
    assert (tmp_path / "a.vtt").read_text() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n&lt;b&gt;&amp; NOTE → x (0.50)\n\n"
    )


def test_segments_that_last_no_time_have_no_subtitle_and_proposals_have_a_name(tmp_path):
    write_vtt(
        tmp_path / "a.vtt", found((5.0, 5.0, 0.5), (6.0, 5.0, 0.5), (-2.0, -1.0, 0.5), (7.0, 8.0, 0.25), label=None)
    )
    assert (tmp_path / "a.vtt").read_text() == "WEBVTT\n\n00:00:07.000 --> 00:00:08.000\nproposal (0.25)\n\n"


# ---- names


def test_ids_on_either_side_only_are_told():
    result = match_ids(["a", "b", "c"], ["c", "d"])
    assert (result.both, result.only_annotated, result.only_at_hand, result.hint) == (("c",), ("a", "b"), ("d",), None)
    assert result.describe() == ("1 videos match, 2 (a, b) annotated but not at hand, 1 (d) at hand but not annotated.")


@pytest.mark.parametrize(
    ("annotated", "at_hand", "hint"),
    [
        (["v_abc"], ["abc"], "1 more would match without the prefix 'v_'."),
        (["abc.mp4", "x"], ["abc"], "1 more would match without file name endings."),
        (["ABC"], ["abc"], "1 more would match if case did not count."),
        ([], ["abc"], None),
    ],
)
def test_known_habits_of_naming_are_pointed_out(annotated, at_hand, hint):
    assert match_ids(annotated, at_hand).hint == hint


@pytest.mark.slow
def test_two_hundred_megabytes_are_read_whole_and_a_cut_file_is_told(tmp_path):
    """As many predictions as 4,000 videos with 500 each."""
    row = (
        '{"segment": [12.345678901234567, 23.456789012345678], "label": "Playing the bagpipes", "score": 0.98765432101}'
    )
    video = ", ".join([row] * 500)
    path = tmp_path / "large.json"
    with path.open("w") as file:
        file.write('{"version": "VERSION 1.3", "results": {')
        file.writelines(f'{", " * bool(n)}"v{n}": [{video}]' for n in range(4000))
        file.write('}, "external_data": {}}')
    assert path.stat().st_size >= 200e6
    found = read_detections(path)
    assert len(found) == 4000 and all(len(each) == 500 for each in found.values())
    del found
    read = "import resource, sys; from uptal.annotations import read_detections; read_detections(sys.argv[1]); "
    peak = "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    said = subprocess.run([sys.executable, "-c", read + peak, path], check=True, capture_output=True, text=True).stdout
    assert 1024 * int(said) < 2e9, f"{int(said) / 1e6:.2f} GB at the peak"
    with path.open("r+b") as file:
        file.truncate(150_000_000)
    with pytest.raises(AnnotationError, match=r"this is not JSON .*Is the file complete"):
        read_detections(path)


@pytest.mark.parametrize("id", ["abc", "-abc_1", "video.test 1", "héllo", "a" * 200])
def test_ordinary_ids_become_file_names(id):
    assert safe_id(id) == id


@pytest.mark.parametrize(
    "id",
    ["", " ", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a..b", ".hidden", "a\nb", "a\0b", "a" * 201, "\ud800"],
)
def test_ids_that_could_lead_elsewhere_are_refused(id):
    with pytest.raises(AnnotationError, match="cannot become a file name"):
        safe_id(id)
