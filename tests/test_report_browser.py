"""The page in a real browser: what a reader does with mouse and keyboard, and what it must never do on its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import report_sample as sample
from uptal.report import Report, write_report
from uptal.report.sections import VideoPanel
from uptal.types import Detections, Segment

pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FRAME = 1 / sample.FPS
VIDEO = "document.querySelector('video')"


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Debian's Chromium with a fresh profile; the driver comes from pip, no browser is downloaded."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed here (Debian: apt-get install chromium)")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install playwright)"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return sample.write_clip(tmp_path_factory.mktemp("clip") / "swing.mp4")


@pytest.fixture(scope="module")
def folder(clip, tmp_path_factory) -> Path:
    """A page with everything on it, and one with three videos of which the last is lost."""
    folder = tmp_path_factory.mktemp("a page")
    write_report(folder / "report.html", sample.sample_report(clip))
    bad = sample.HOSTILE
    hostile = Detections(np.array([[2.0, 5.0], [6.0, 8.0]]), np.array([0.9, 0.4]), (bad, "wave"))
    lost = VideoPanel(
        id="lost",
        video_path=folder / "lost.mp4",
        duration=10.0,
        predictions=Detections(np.array([[2.0, 5.0]]), np.array([0.9])),
    )
    panels = (
        sample.panel(clip),
        sample.panel(clip, id=bad, predictions=hostile, truth=(Segment(1.0, 2.0, bad),)),
        lost,
    )
    write_report(folder / "three.html", Report(title="Three", sections=panels))
    return folder


class Visit:
    """An open page, with everything that it said and asked for."""

    def __init__(self, browser, file: Path, **context):
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 1000}} | context))
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())

    def wait_for_picture(self) -> None:
        self.page.wait_for_function(f"{VIDEO}.readyState >= 2 && !{VIDEO}.seeking", timeout=10_000)

    def time(self) -> float:
        return self.page.evaluate(f"{VIDEO}.currentTime")

    def playhead(self) -> float:
        return float(self.page.get_attribute(".overlay", "aria-valuenow"))

    def brightness(self) -> float:
        self.wait_for_picture()
        return self.page.evaluate(
            f"""async () => {{
              const canvas = new OffscreenCanvas(8, 8), context = canvas.getContext("2d");
              context.drawImage({VIDEO}, 0, 120, 320, 60, 0, 0, 8, 8);
              const data = context.getImageData(0, 0, 8, 8).data;
              return data.reduce((sum, value, index) => sum + (index % 4 === 3 ? 0 : value), 0) / 192;
            }}"""
        )


@pytest.fixture
def visit(browser, folder) -> Iterator:
    """Opens a page of the folder."""
    visits: list[Visit] = []

    def open_page(name: str = "report.html", **context) -> Visit:
        visits.append(Visit(browser, folder / name, **context))
        return visits[-1]

    yield open_page
    for one in visits:
        one.context.close()


def rows(page, selector: str = "table.segments tbody tr:not([hidden])") -> list[list[str]]:
    return [row.inner_text().split("\t") for row in page.query_selector_all(selector)]


def test_it_opens_from_a_file_quietly_and_asks_for_nothing(visit, folder):
    here = visit()
    here.wait_for_picture()
    own = (folder / "report.html").as_uri()
    assert here.said == []
    assert [url for url in here.asked if url != own and not url.startswith("blob:")] == []


def test_the_video_decodes_and_seeking_changes_the_picture(visit):
    here = visit()
    early = here.brightness()
    assert here.page.evaluate(f"{VIDEO}.error") is None
    assert here.page.evaluate(f"{VIDEO}.duration") == pytest.approx(sample.DURATION, abs=FRAME)
    here.page.keyboard.press("End")
    assert here.brightness() > early + 40  # the clip brightens by about 85 levels from its start to its end


def test_clicking_a_row_seeks_to_its_start(visit):
    here = visit()
    here.wait_for_picture()
    row = here.page.locator("tbody.found tr", has_text="0.930")
    row.click()
    assert (here.time(), here.playhead()) == (pytest.approx(1.4, abs=1e-3), 1.4)  # browsers keep microseconds
    assert "now" in row.get_attribute("class").split()
    assert row.get_attribute("aria-current") == "true"


def test_rows_are_reached_and_used_by_keyboard(visit):
    here = visit()
    first, second = (float(row[1]) for row in rows(here.page)[:2])
    here.page.locator("tbody tr[tabindex='0']").focus()
    here.page.keyboard.press("Enter")
    assert here.playhead() == pytest.approx(first, abs=0.005)  # the table shows hundredths
    here.page.keyboard.press("ArrowDown")
    here.page.keyboard.press("Enter")
    assert here.playhead() == pytest.approx(second, abs=0.005)


def test_the_table_sorts_by_the_column_that_is_clicked(visit):
    here = visit()
    here.page.get_by_role("button", name="score", exact=True).click()
    scores = [float(row[4]) for row in rows(here.page, "tbody.found tr")]
    assert scores == sorted(scores, reverse=True) and len(scores) == 24
    assert here.page.locator("th[aria-sort='descending']").inner_text().startswith("score")


def test_the_slider_hides_weak_predictions_and_counts_the_rest(visit):
    here = visit()
    scores = sample.predictions().scores
    assert here.page.inner_text(".count") == "24 of 24 shown"
    here.page.locator("input.threshold").fill("0.4")
    kept = int((scores >= 0.4).sum())
    assert here.page.inner_text(".count") == f"{kept} of 24 shown"
    assert len(rows(here.page, "tbody.found tr:not([hidden])")) == kept
    assert len(here.page.query_selector_all(".bar.found")) == kept
    assert len(here.page.query_selector_all(".bar.truth")) == 2  # the ground truth has no score and stays
    here.page.locator("input.threshold").fill("0.9")
    assert here.page.inner_text(".count") == "1 of 24 shown"


def test_bars_are_as_opaque_as_their_scores(visit):
    here = visit()
    read = "bars => bars.map(bar => [Number(bar.title.split('score ')[1]), bar.style.getPropertyValue('--strength')])"
    strengths = here.page.eval_on_selector_all(".bar.found", read)
    ordered = [float(strength) for _, strength in sorted(strengths)]
    assert ordered == sorted(ordered) and ordered[-1] == 1.0 and ordered[0] < 0.4


def test_keys_move_the_time(visit):
    here = visit()
    here.wait_for_picture()
    press, step = here.page.keyboard.press, sample.BASE.stride / sample.BASE.fps
    for key, expected in [
        ("ArrowRight", step),
        ("ArrowRight", 2 * step),
        ("ArrowLeft", step),
        ("End", 12.0),
        ("Home", 0.0),
    ]:
        press(key)
        assert here.playhead() == pytest.approx(expected, abs=1e-9)  # float sums
    press("Shift+ArrowRight")
    assert here.playhead() == pytest.approx(5 * step, abs=1e-9)


def test_j_and_k_walk_through_the_visible_segments(visit):
    here = visit()
    here.page.locator("input.threshold").fill("0.7")
    here.page.keyboard.press("Tab")  # leave the slider, which has its own keys
    visited = []
    for key in "jjjkk":
        here.page.keyboard.press(key)
        visited.append(here.playhead())
    assert visited == [1.4, 7.2, 7.2, 1.4, 1.4]


def test_space_plays_and_pauses(visit):
    here = visit()
    here.wait_for_picture()
    here.page.keyboard.press("Space")
    here.page.wait_for_function(f"{VIDEO}.currentTime > 0.3", timeout=10_000)
    here.page.keyboard.press("Space")
    assert here.page.evaluate(f"{VIDEO}.paused")
    assert here.playhead() > 0.2
    here.page.locator("button.play").focus()
    here.page.keyboard.press("Space")  # the button's own key: once, not twice
    assert not here.page.evaluate(f"{VIDEO}.paused")


def test_keys_belong_to_the_reader_when_no_player_is_in_sight(visit):
    here = visit()
    here.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    here.page.wait_for_function("scrollY > 0 && document.querySelector('.player').getBoundingClientRect().bottom < 0")
    here.page.keyboard.press("ArrowRight")
    assert here.playhead() == 0.0


def test_dragging_in_the_timeline_scrubs(visit):
    here = visit()
    here.wait_for_picture()
    here.page.locator(".overlay").scroll_into_view_if_needed()
    box = here.page.locator(".overlay").bounding_box()
    here.page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 5)
    here.page.mouse.down()
    assert here.playhead() == pytest.approx(3.0, abs=12 / box["width"])  # a pixel
    here.page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 5)
    here.page.mouse.up()
    assert here.playhead() == pytest.approx(9.0, abs=12 / box["width"])
    here.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 5)  # the button is up
    assert here.playhead() == pytest.approx(9.0, abs=12 / box["width"])


def test_clicking_a_bar_goes_to_the_start_of_its_segment(visit):
    here = visit()
    here.page.locator(".bar.truth", has_text="turn").click()
    assert here.playhead() == 7.0


def cross(page) -> tuple[float, float]:
    """The crosshair as shares of the map's sides."""
    return tuple(
        page.eval_on_selector(
            ".map .plane",
            """plane => {
              const box = plane.getBoundingClientRect(), middle = (part, low, size) => {
                const line = plane.querySelector(part).getBoundingClientRect(); return line[low] + line[size] / 2; };
              return [(middle(".cross.x", "left", "width") - box.left) / box.width,
                      (middle(".cross.y", "top", "height") - box.top) / box.height];
            }""",
        )
    )


def test_the_crosshair_follows_the_time(visit):
    here = visit()
    here.page.locator("tbody.found tr", has_text="0.930").click()
    expected = sample.BASE.index(1.4) + 0.5  # the cell of clip i reaches from i to i + 1
    assert cross(here.page) == pytest.approx((expected / sample.NUM_CLIPS,) * 2, abs=0.005)  # a pixel of about 400


def test_clicking_the_map_seeks(visit):
    here = visit()
    here.wait_for_picture()
    plane = here.page.locator(".map .plane")
    box = plane.bounding_box()
    plane.click(position={"x": box["width"] * 0.75, "y": box["height"] * 0.1})
    expected = sample.BASE.centre(0.75 * sample.NUM_CLIPS - 0.5)
    assert here.playhead() == pytest.approx(expected, abs=0.05)  # a pixel is 0.03 s
    assert here.time() == pytest.approx(here.playhead(), abs=0.006)  # the label holds hundredths


def test_the_map_is_painted_brighter_where_clips_are_more_alike(visit):
    here = visit()
    pixels = here.page.eval_on_selector(
        ".map canvas",
        "c => ({side: [c.width, c.height], data: [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]})",
    )
    assert pixels["side"] == [sample.NUM_CLIPS] * 2
    image = np.array(pixels["data"]).reshape(sample.NUM_CLIPS, sample.NUM_CLIPS, 4)
    luminance = image[..., :3] @ [0.2126, 0.7152, 0.0722]
    values = sample.similarity(1.6)
    order = np.argsort(values.ravel())
    assert (np.diff(luminance.ravel()[order]) >= -2.5).all()  # two neighbouring levels may round the other way
    assert luminance.max() - luminance.min() > 200 and (image[..., 3] == 255).all()


def test_the_strip_shows_what_is_like_the_present(visit):
    here = visit()
    read = "c => [...c.getContext('2d').getImageData(0, 0, c.width, 1).data]"
    for time, key in [(0.0, "Home"), (12.0, "End")]:
        here.page.keyboard.press(key)
        clip = int(np.clip(sample.BASE.index(time) + 0.5, 0, sample.NUM_CLIPS - 1))
        strip = np.array(here.page.eval_on_selector("canvas.strip", read))
        row = np.array(
            here.page.eval_on_selector(
                ".map canvas", f"c => [...c.getContext('2d').getImageData(0, {clip}, c.width, 1).data]"
            )
        )
        assert (strip == row).all()


def test_the_pointer_reads_values_from_the_map(visit):
    here = visit()
    box = here.page.locator(".map .plane").bounding_box()
    here.page.locator(".map .plane").hover(position={"x": box["width"] / 2, "y": box["height"] / 2})
    assert here.page.inner_text(".map .readout").endswith("similarity 1.00")  # the diagonal


def test_hostile_labels_and_names_stay_text(visit):
    here = visit("three.html")
    here.page.select_option("select.chooser", "1")
    assert here.page.inner_text(".player h2") == sample.HOSTILE
    assert here.page.locator("tbody.found th").first.inner_text() == sample.HOSTILE
    assert here.page.evaluate("window.stolen") is None and here.page.query_selector("img") is None
    assert here.said == []


def test_a_script_that_slips_in_does_not_run(visit):
    here = visit()
    here.page.evaluate(
        "{ const s = document.createElement('script'); s.textContent = 'window.stolen = 1'; document.body.append(s); }"
    )
    assert here.page.evaluate("window.stolen") is None
    assert any("Content Security Policy" in line for line in here.said)


def test_the_chooser_changes_the_video(visit):
    here = visit("three.html")
    here.page.keyboard.press("End")
    here.page.select_option("select.chooser", "1")
    here.wait_for_picture()
    assert (len(rows(here.page, "tbody.found tr")), here.playhead(), here.time()) == (2, 0.0, 0.0)
    assert len(here.page.query_selector_all("video")) == 1


def test_without_a_picture_the_timeline_still_works(visit):
    here = visit("three.html")
    here.page.select_option("select.chooser", "2")
    assert "lost.mp4: there is no such file" in here.page.inner_text(".no-picture")
    assert here.page.locator("button.play").is_disabled()
    here.page.keyboard.press("j")
    assert here.playhead() == 2.0
    assert rows(here.page)[0][:3] == ["action", "2.00", "5.00"]
    assert here.said == []


def test_a_video_beside_the_page_plays_and_is_missed_when_it_is_left_behind(browser, clip, tmp_path):
    page = tmp_path / "report.html"
    write_report(page, Report(title="t", sections=(sample.panel(clip),)), embed_limit=0)
    here = Visit(browser, page)
    here.wait_for_picture()
    assert here.said == [] and here.page.evaluate(f"{VIDEO}.duration") == pytest.approx(12.0, abs=FRAME)
    here.context.close()
    (tmp_path / "report-1-swing.mp4").unlink()
    here = Visit(browser, page)
    here.page.wait_for_selector(".no-picture:not([hidden])", timeout=10_000)
    assert "report-1-swing.mp4" in here.page.inner_text(".no-picture:not([hidden])")
    here.context.close()


def test_curves_tell_their_values(visit):
    here = visit()
    curve = here.page.locator("svg.curve").first
    curve.focus()
    here.page.keyboard.press("End")
    assert curve.locator(".at").text_content() == "step 1999"
    assert here.page.locator(".legend").first.locator("output").nth(2).inner_text() == "6.93"
    here.page.keyboard.press("Home")
    assert curve.locator(".at").text_content() == "step 0"
    assert here.playhead() == 0.0
    box = curve.bounding_box()
    curve.hover(position={"x": box["width"] * 0.5, "y": box["height"] * 0.4})
    assert 800 < int(curve.locator(".at").text_content().split()[1]) < 1100  # the middle of the axis is near 1000


def test_figure_3_can_be_stretched_row_by_row(visit):
    here = visit()
    red = "data.filter((_, index) => index % 4 === 0)"
    read = f"""cs => cs.map(c => {{
      const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
      return Math.min(...{red}); }})"""
    assert here.page.locator(".grid canvas").count() == 9
    uniform = here.page.eval_on_selector_all(".grid canvas", read)
    here.page.get_by_label("stretch the colours of each row").check()
    stretched = here.page.eval_on_selector_all(".grid canvas", read)
    # The first row's values fill a narrow part of the common scale, so they start well above black until stretched.
    assert min(uniform[:3]) > min(stretched[:3]) == min(uniform)


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_nothing_hangs_over_the_edge(visit, width):
    here = visit("three.html", viewport={"width": width, "height": 800})
    here.page.select_option("select.chooser", "1")
    assert here.page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_is_dark_where_the_reader_likes_it_dark(visit):
    paper = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    light, dark = (sum(visit(color_scheme=scheme).page.evaluate(paper)) for scheme in ("light", "dark"))
    assert light > 3 * 200 and dark < 3 * 50


def test_every_control_and_picture_has_a_name(visit):
    nameless = visit().page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas, svg, video, [role]")]
          .filter(node => !node.closest("[aria-hidden=true], [hidden]"))
          .filter(node => !(node.ariaLabel || node.textContent.trim() || node.labels?.[0]?.textContent.trim()))
          .map(node => node.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
