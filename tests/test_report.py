"""The page as text: what stands in it, what is escaped, which way a video takes into it. No browser is needed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import report_sample as sample
from uptal.cli import main
from uptal.errors import AnnotationError, UptalError, VideoError
from uptal.report import Column, Curve, HeatmapGrid, Measured, Report, Table, VideoPanel, write_report
from uptal.report.curves import curve_svg, thin, ticks
from uptal.report.embed import make_web_video
from uptal.report.figures import action_contrast, map_payload
from uptal.report.panel import best_overlap, panel_payload
from uptal.report.tables import best_row, table_html
from uptal.types import Detections, Segment, Timebase


class Elements(HTMLParser):
    """Every element of a page as (tag, attributes), and the text of scripts by class."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts.append((self.found[-1][1], data))

    def data(self, kind: str) -> list[dict]:
        return [json.loads(text) for attributes, text in self.scripts if attributes.get("class") == kind]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return sample.write_clip(tmp_path_factory.mktemp("clip") / "swing.mp4", seconds=2.0)


@pytest.fixture(scope="module")
def full_page(clip, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert write_report(path, sample.sample_report(clip)) == []
    return path.read_text(encoding="utf-8")


# The page


def test_the_page_asks_for_nothing_outside_itself(full_page):
    page = Elements(full_page)
    linked = [value for _, attributes in page.found for name, value in attributes.items() if name in ("src", "href")]
    assert linked == ["data:,"]  # the empty icon
    assert not re.search(r"@import|url\(|https?://", full_page)


def test_only_the_script_of_the_page_may_run(full_page):
    page = Elements(full_page)
    [policy] = [a["content"] for tag, a in page.found if tag == "meta" and "http-equiv" in a]
    [script] = [text for attributes, text in page.scripts if attributes.get("type") == "module"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None and "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_the_same_report_gives_the_same_page(clip, tmp_path):
    for name in ("one", "two"):
        write_report(tmp_path / name / "report.html", sample.sample_report(clip))
    assert (tmp_path / "one/report.html").read_bytes() == (tmp_path / "two/report.html").read_bytes()


def test_hostile_names_stay_text_everywhere(clip, tmp_path):
    bad = sample.HOSTILE
    file = tmp_path / "<script>window.stolen = 1<!--.mp4"
    file.write_bytes(clip.read_bytes())
    found = Detections(np.array([[0.0, 1.0]]), np.array([0.5]), (bad,))
    panel = sample.panel(file, id=bad, predictions=found, truth=(Segment(0.0, 1.0, bad),), note=bad)
    map_ = sample.similarity(1.0)
    grid = HeatmapGrid(
        title=bad, row_names=[bad], column_names=[bad], maps=[[map_]], truth=[[]], timebase=sample.BASE, note=bad
    )
    table = Table(title=bad, columns=(bad, Column(bad)), rows=((bad, bad),), note=bad)
    curve = Curve(title=bad, x_label=bad, y_label=bad, series={bad: ([0, 1], [0, 1])}, note=bad)
    report = Report(title=bad, summary=(bad,), sections=(panel, table, curve, grid), facts={bad: {bad: bad}})
    path = tmp_path / "report.html"
    write_report(path, report)
    page = Elements(path.read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.found if tag == "img"] == []
    kinds = [attributes.get("class") or attributes.get("type") for tag, attributes in page.found if tag == "script"]
    assert kinds == ["panel-data", "curve-data", "grid-data", "module"]
    [data] = page.data("panel-data")
    assert (data["id"], data["predictions"][0]["label"], data["truth"][0]["label"]) == (bad, bad, bad)


def test_neighbouring_videos_share_a_player(clip, tmp_path):
    panels = tuple(sample.panel(clip, id=name) for name in "abc")
    path = tmp_path / "report.html"
    write_report(path, Report(title="three", sections=(*panels[:2], sample.comparison(), panels[2])))
    page = Elements(path.read_text(encoding="utf-8"))
    assert sum("player" in (a.get("class") or "").split() for _, a in page.found) == 2
    assert [data["id"] for data in page.data("panel-data")] == ["a", "b", "c"]


def test_facts_are_flattened(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, Report(title="t", facts={"seed": 3, "optim": {"lr": 0.1}}))
    page = path.read_text(encoding="utf-8")
    assert "<dt>seed</dt><dd>3</dd><dt>optim.lr</dt><dd>0.1</dd>" in page


def test_a_failed_report_leaves_the_old_page_and_nothing_else(clip, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("the old page")
    overflowed = Detections(np.array([[0.0, 1.0]]), np.array([np.nan]), None)
    with pytest.raises(AnnotationError, match="finite numbers"):
        write_report(path, Report(title="t", sections=(sample.panel(clip, predictions=overflowed),)))
    assert path.read_text() == "the old page"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_page_without_videos_is_refused(clip, capsys, tmp_path):
    assert main(["report", "--videos", str(clip.parent), "--out", str(tmp_path / "p.html"), "--max-videos", "0"]) == 1
    assert "--max-videos is 1 or more, found 0" in capsys.readouterr().err


def test_a_place_that_is_a_folder_is_refused_in_words(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UptalError, match=r"report\.html"):
        write_report(tmp_path / "report.html", Report(title="t"))


# Videos


def describe(path: Path) -> tuple:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.codec.name, stream.format.name, stream.width, stream.height, len(container.streams)


def test_a_small_video_is_embedded_as_it_is_or_repacked_without_loss(clip, tmp_path):
    repacked = make_web_video(clip, tmp_path / "a.mp4")
    assert repacked.way == "repacked"  # PyAV writes the index last
    again = make_web_video(repacked.path, tmp_path / "b.mp4")
    assert (again.way, again.path) == ("as it is", repacked.path)
    with av.open(str(clip)) as one, av.open(str(repacked.path)) as other:
        pairs = zip(one.decode(video=0), other.decode(video=0), strict=True)
        assert all((a.to_ndarray() == b.to_ndarray()).all() and a.time == b.time for a, b in pairs)


@pytest.mark.parametrize(
    ("name", "size", "codec", "expected"),
    [("big.mp4", (1280, 720), "libx264", (854, 480)), ("odd.avi", (320, 180), "mpeg4", (320, 180))],
)
def test_other_videos_are_encoded_for_browsers(tmp_path, name, size, codec, expected):
    source = sample.write_clip(tmp_path / name, size=size, seconds=0.5, codec=codec)
    made = make_web_video(source, tmp_path / "web.mp4")
    assert made.way == "re-encoded"
    assert describe(made.path) == ("h264", "yuv420p", *expected, 1)
    with av.open(str(source)) as one, av.open(str(made.path)) as other:
        assert [round(a.time, 3) for a in one.decode(video=0)] == [round(b.time, 3) for b in other.decode(video=0)]


def test_odd_sides_become_even(tmp_path):
    source = tmp_path / "odd.avi"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 101, 75, "yuv444p"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((75, 101, 3), np.uint8), "rgb24")))
        out.mux(stream.encode(None))
    _, _, width, height, _ = describe(make_web_video(source, tmp_path / "web.mp4").path)
    assert (width % 2, height % 2) == (0, 0)


def turn_in_header(path: Path) -> None:
    """Write the matrix of a quarter turn clockwise into the track header, as a phone held upright does."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # version-0 header: 40 bytes stand before the matrix
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(content))


def test_a_turned_video_stands_upright(tmp_path):
    source = tmp_path / "phone.mp4"
    image = np.zeros((96, 160, 3), np.uint8)
    image[:, :40] = 255  # bright on the left: after a quarter turn clockwise, bright at the top
    with av.open(str(source), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))
    turn_in_header(source)
    made = make_web_video(source, tmp_path / "web.mp4")
    with av.open(str(made.path)) as container:
        frame = next(container.decode(video=0))
        picture = frame.to_ndarray(format="gray")
    assert (picture.shape, frame.rotation) == ((160, 96), 0)
    assert picture[:30].min() > 200 and picture[50:].max() < 50


def test_what_does_not_fit_lies_beside_the_page(clip, tmp_path):
    path = tmp_path / "out" / "report.html"
    size = make_web_video(clip, tmp_path / "probe.mp4").path.stat().st_size
    panels = tuple(sample.panel(clip, id=name) for name in ("first", "second"))
    messages = write_report(path, Report(title="t", sections=panels), embed_limit=size)
    first, second = Elements(path.read_text(encoding="utf-8")).data("panel-data")
    assert first["video"]["data"].startswith("data:video/mp4;base64,")
    assert second["video"] == {"file": "report-2-swing.mp4"}
    assert describe(path.parent / "report-2-swing.mp4")[:2] == ("h264", "yuv420p")
    assert len(messages) == 1 and "report-2-swing.mp4" in messages[0] and "beside the page" in messages[0]


@pytest.mark.parametrize("damage", ["absent", "empty", "noise", "cut", "sound only"])
def test_a_damaged_video_does_not_stop_the_page(clip, tmp_path, damage):
    source, path = tmp_path / "bad.mp4", tmp_path / "report.html"
    whole = make_web_video(clip, tmp_path / "whole.mp4").path.read_bytes()  # index first: a cut opens without an error
    contents = {"empty": b"", "noise": bytes(range(256)) * 20, "cut": whole[: len(whole) // 2]}
    if damage in contents:
        source.write_bytes(contents[damage])
    elif damage == "sound only":
        with av.open(str(source), "w") as out:
            stream = out.add_stream("aac", rate=16000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate = 16000
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    with pytest.raises(VideoError):
        make_web_video(source, tmp_path / "web.mp4")
    [message] = write_report(path, Report(title="t", sections=(sample.panel(source, duration=0.0),)))
    [data] = Elements(path.read_text(encoding="utf-8")).data("panel-data")
    assert "bad.mp4" in message and data["video"]["reason"].startswith("The video could not be embedded. bad.mp4: ")
    assert data["duration"] > 0 and len(data["predictions"]) == 24


# Segments


def test_proposals_without_labels_are_called_action():
    panel = VideoPanel(
        id="v", video_path=Path("v.mp4"), duration=4.0, predictions=Detections(np.array([[0.0, 1.0]]), np.array([0.7]))
    )
    data = panel_payload(panel, {"reason": "-"})
    assert data["predictions"] == [{"start": 0.0, "end": 1.0, "label": "action", "score": 0.7, "overlap": None}]
    assert data["truth"] is None and data["map"] is None


def test_nothing_searched_differs_from_nothing_found():
    nothing = Detections(np.zeros((0, 2)), np.zeros(0))
    panels = [VideoPanel(id="v", video_path=Path("v"), duration=1.0, predictions=found) for found in (None, nothing)]
    assert [panel_payload(panel, {})["predictions"] for panel in panels] == [None, []]


def test_overlap_counts_only_segments_of_the_same_label():
    truth = [Segment(1.0, 3.0, "jump"), Segment(0.0, 2.0, "run")]
    assert best_overlap(Segment(0.0, 2.0, "jump"), truth) == 1 / 3
    assert best_overlap(Segment(0.0, 2.0), truth) == 1.0
    assert best_overlap(Segment(0.0, 2.0, "swim"), truth) == 0.0


# Tables


@pytest.mark.parametrize(
    ("cells", "better", "expected"),
    [
        ([Measured(41.0, 0.5), Measured(38.0, 0.7)], "higher", 0),
        ([Measured(41.0, 0.5), Measured(38.0, 0.7)], "lower", 1),
        ([Measured(41.0, 2.5), Measured(38.0, 0.7)], "higher", None),  # 3 ahead, deviation of the difference 2.6
        ([Measured(41.0, 0.5), Measured(30.0, 0.1), Measured(39.0, 3.0)], "higher", None),  # the third is uncertain
        ([Measured(41.0, 0.0), Measured(41.0, 0.0)], "higher", None),
        ([41.04, 41.01], "higher", None),  # equal in the digit shown
        ([41.2, 41.0], "higher", 0),
        ([41.2, None, float("nan")], "higher", None),  # nothing to compare with
        ([41.2, 10.0], None, None),
    ],
)
def test_the_best_row_leads_beyond_doubt_or_is_not_marked(cells, better, expected):
    assert best_row(cells, Column("mAP", better, digits=1)) == expected


def test_the_table_marks_the_winner_and_says_by_which_rule():
    page = table_html(sample.comparison())
    assert page.count("<strong>") == 1 and "<strong>25.1 " in page
    assert "two standard deviations" in page and "five seeds" in page


def test_a_table_without_a_winner_says_so():
    rows = (("a", Measured(1.0, 1.0)), ("b", Measured(2.0, 1.0)))
    table = Table(title="t", columns=("name", Column("mAP", "higher")), rows=rows)
    assert "<strong>" not in table_html(table) and "none is bold" in table_html(table)


def test_rows_and_columns_must_agree():
    with pytest.raises(ValueError, match="row 0 of table 't' has 1 cells for 2 columns"):
        table_html(Table(title="t", columns=("a", "b"), rows=(("x",),)))


# Maps


def unpack(payload: dict) -> np.ndarray:
    levels = np.frombuffer(base64.b64decode(payload["bytes"]), np.uint8).reshape(payload["side"], payload["side"])
    return payload["low"] + levels / 255.0 * (payload["high"] - payload["low"])


def test_a_map_arrives_within_half_a_level():
    values = sample.similarity(1.5)
    payload = map_payload(values, sample.BASE, 12.0)
    half = (values.max() - values.min()) / 255 / 2
    np.testing.assert_allclose(unpack(payload), values, rtol=0, atol=half * 1.0001)  # 8 bits, and rounding of floats


def test_cells_are_centred_on_their_clips():
    payload = map_payload(np.eye(10), Timebase(fps=25.0, stride=16.0, window=32.0), 99.0)
    base = Timebase(fps=25.0, stride=16.0, window=32.0)
    width = (payload["end"] - payload["start"]) / 10
    assert payload["start"] + 3.5 * width == pytest.approx(base.centre(3.0), abs=1e-12)  # float rounding
    assert width == pytest.approx(16 / 25, abs=1e-12)


def test_without_a_time_base_the_map_spans_the_video():
    payload = map_payload(np.eye(4), None, 8.0)
    assert (payload["start"], payload["end"]) == (0.0, 8.0)


def test_a_large_map_is_averaged():
    values = np.kron(np.array([[1.0, 0.0], [0.0, 0.5]]), np.ones((500, 500)))
    payload = map_payload(values, None, 8.0)
    assert (payload["clips"], payload["side"]) == (1000, 512)
    small = unpack(payload)
    assert small.mean() == pytest.approx(values.mean(), abs=1 / 255)  # 8 bits
    assert (small[0, 0], small[0, -1]) == (1.0, 0.0)


def test_a_map_of_equal_values_and_one_with_holes_can_be_drawn():
    assert set(unpack(map_payload(np.ones((3, 3)), None, 1.0)).ravel()) == {1.0}
    holes = np.array([[1.0, np.nan], [np.inf, 0.5]])
    np.testing.assert_array_equal(unpack(map_payload(holes, None, 1.0)), [[1.0, 0.5], [1.0, 0.5]])


def test_contrast_compares_pairs_inside_with_pairs_across():
    base = Timebase(fps=1.0, stride=1.0, window=1.0)
    values = np.array([[1.0, 0.8, 0.1], [0.8, 1.0, 0.3], [0.1, 0.3, 1.0]])
    assert action_contrast(values, [Segment(0.0, 2.0)], base) == (0.8, 0.2)
    assert action_contrast(values, [Segment(0.0, 3.0)], base) is None


def test_a_grid_with_a_missing_map_is_refused(tmp_path):
    grid = HeatmapGrid(
        title="g", row_names=["a", "b"], column_names=["c"], maps=[[np.eye(2)]], truth=[[]], timebase=sample.BASE
    )
    with pytest.raises(ValueError, match="2 rows and 1 columns"):
        write_report(tmp_path / "r.html", Report(title="t", sections=(grid,)))


# Curves


@settings(max_examples=100, deadline=None)
@given(
    st.floats(-1e6, 1e6, allow_nan=False), st.floats(1e-6, 1e6, allow_nan=False), st.integers(2, 12)
)  # fmt: skip
def test_ticks_enclose_the_range_in_round_steps(low, width, count):
    high = low + width
    marks = ticks(low, high, count)
    steps = np.diff(marks)
    slack = 1e-6 * max(abs(low), width)  # the marks are rounded
    assert marks[0] <= low + slack and marks[-1] >= high - slack
    assert len(marks) <= count + 2
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3, atol=1e-9)


def test_thinning_keeps_ends_and_extremes():
    xs = np.arange(50_000.0)
    ys = np.sin(xs / 900)
    ys[31_415], ys[27_182] = 9.0, -9.0
    kept_xs, kept_ys = thin(xs, ys)
    assert len(kept_xs) <= 610
    assert (kept_xs[0], kept_xs[-1]) == (0.0, 49_999.0)
    assert {31_415.0, 27_182.0} <= set(kept_xs.tolist()) and (kept_ys.max(), kept_ys.min()) == (9.0, -9.0)


def test_a_value_that_is_not_a_number_leaves_a_gap():
    curve = Curve(title="t", x_label="step", y_label="loss", series={"a": ([0, 1, 2, 3], [1, 2, np.nan, 4])})
    [path] = re.findall(r'<path class="series series-0" d="([^"]*)"', curve_svg(curve))
    assert (path.count("M"), path.count("L")) == (2, 1)


def test_a_curve_without_values_says_so():
    curve = Curve(title="t", x_label="step", y_label="loss", series={"a": ([], [])})
    assert "No values" in curve_svg(curve)
