"""Puts a report together as one HTML page that needs no network and no server; its neighbours draw the parts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

from uptal.errors import VideoError
from uptal.files import atomic_write
from uptal.report.curves import curve_payload, curve_svg
from uptal.report.embed import make_web_video
from uptal.report.figures import grid_payload
from uptal.report.panel import panel_payload
from uptal.report.sections import Curve, Grounded, HeatmapGrid, Report, Section, Table, VideoPanel
from uptal.report.tables import table_html
from uptal.report.words import grounded_html

EMBED_LIMIT = 25_000_000
"""Bytes of video that a page carries inside itself; what does not fit lies beside it."""
SCRIPTS = ("dom.js", "heatmap.js", "timeline.js", "segments.js", "player.js", "charts.js", "report.js")
"""Parts of the page's script; they share one scope."""


def write_report(path: Path, report: Report, *, embed_limit: int = EMBED_LIMIT) -> list[str]:
    """Write `report` as a page at `path`; it appears there only when it is whole.

    Videos go into the page until they fill `embed_limit` bytes; further ones are written beside it, named after it.
    A video that cannot be used does not stop the page: its panel says why.

    Returns:
        What the user should know: files written beside the page, videos that could not be shown.

    Raises:
        UptalError: The page cannot be written (disk full, no permission), or a prediction is not a number.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = _resource("template.html")
    script, style = "\n".join(map(_resource, SCRIPTS)), _resource("report.css")
    with tempfile.TemporaryDirectory(prefix=".uptal-report-", dir=path.parent) as scratch:
        shelf = _Shelf(path, Path(scratch), embed_limit)
        body = "\n".join(_blocks(report.sections, shelf))
    page = Template(parts).substitute(
        title=escape(report.title),
        summary="".join(f"<p>{escape(paragraph)}</p>" for paragraph in report.summary),
        facts=_facts(report.facts),
        body=body,
        style=style,
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    with atomic_write(path) as file:
        file.write(page)
    return shelf.messages


def _blocks(sections: Sequence[Section], shelf: _Shelf) -> Iterator[str]:
    """One block a section, except that neighbouring videos share a player and neighbouring curves a row."""
    for kind, members in groupby(sections, key=type):
        if kind is VideoPanel:
            yield _player([one for one in members if isinstance(one, VideoPanel)], shelf)
        elif kind is Curve:
            yield f'<div class="curves">{"".join(_curve(one) for one in members if isinstance(one, Curve))}</div>'
        else:
            for one in members:
                yield _other(one)


def _other(section: Section) -> str:
    match section:
        case Table():
            return _table(section)
        case HeatmapGrid():
            return _grid(section)
        case Grounded():
            return grounded_html(section)
        case _:
            return ""


def _player(panels: list[VideoPanel], shelf: _Shelf) -> str:
    data = "".join(_data(panel_payload(panel, shelf.place(panel)), "panel-data", panel.id) for panel in panels)
    title = "Video" if len(panels) == 1 else "Videos"
    return f'<section class="card player" aria-label="{title}">{data}</section>'


def _table(table: Table) -> str:
    return f'<section class="card"><h2>{escape(table.title)}</h2>{table_html(table)}</section>'


def _curve(curve: Curve) -> str:
    return (
        f'<section class="card"><h2>{escape(curve.title)}</h2><div class="plot">{curve_svg(curve)}'
        f"{_data(curve_payload(curve), 'curve-data')}</div>{_caption(curve.note)}</section>"
    )


def _grid(grid: HeatmapGrid) -> str:
    return (
        f'<section class="card"><h2>{escape(grid.title)}</h2><div class="grid-figure">'
        f"{_data(grid_payload(grid), 'grid-data')}</div>{_caption(grid.note)}</section>"
    )


def _caption(note: str) -> str:
    return f'<p class="caption">{escape(note)}</p>' if note else ""


def _data(payload: Mapping[str, Any], kind: str, name: str = "") -> str:
    """JSON for the page's script; signs that could end the element or open another are written as escapes."""
    text = json.dumps(payload, allow_nan=False, ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return f'<script type="application/json" class="{kind}" data-name="{escape(name)}">{text}</script>'


def _facts(facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _flat(facts))
    return f'<details class="card facts"><summary>How this was made</summary><dl>{rows}</dl></details>'


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


@dataclass
class _Shelf:
    """Where the videos of a page go: inside it while there is room, beside it afterwards."""

    page: Path
    scratch: Path
    room: int

    def __post_init__(self) -> None:
        self.messages: list[str] = []
        self.count = 0

    def place(self, panel: VideoPanel) -> dict[str, str]:
        """Store the panel's video; returns its address for the page, or the reason why there is none."""
        self.count += 1
        try:
            video = make_web_video(panel.video_path, self.scratch / f"{self.count}.mp4")
        except VideoError as error:
            self.messages.append(f"{self.page.name} shows no picture for {panel.id}: {error}")
            return {"reason": f"The video could not be embedded. {panel.video_path.name}: {error.reason}"}
        size = video.path.stat().st_size
        if size <= self.room:
            self.room -= size
            content = base64.b64encode(video.path.read_bytes()).decode("ascii")
            return {"data": f"data:video/mp4;base64,{content}"}
        return {"file": self._put_beside(video.path, panel.video_path, size)}

    def _put_beside(self, video: Path, source: Path, size: int) -> str:
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{self.page.stem}-{self.count}-{source.stem}")
        sidecar = self.page.with_name(f"{safe[:120]}.mp4")
        with open(video, "rb") as reader, atomic_write(sidecar, "wb") as writer:
            shutil.copyfileobj(reader, writer)
        self.messages.append(
            f"{sidecar} ({size / 1e6:.0f} MB) lies beside the page because it is too large to be inside: "
            f"move or send the two together."
        )
        return sidecar.name


def _resource(name: str) -> str:
    return resources.files("uptal.report").joinpath(name).read_text(encoding="utf-8")
