"""`uptal segments video.mp4 … --out DIR [--weights W]`: my video in, segments and a page out, without any label."""

from __future__ import annotations

from pathlib import Path

from uptal.commands.options import add_settings, new_parser, take_settings
from uptal.encoders.shipped import DEFAULT
from uptal.recipes.detecting import visible
from uptal.recipes.extracting import ExtractConfig
from uptal.recipes.segmenting import segment
from uptal.similarity import SegmentConfig


def main(arguments: list[str]) -> None:
    """Writes detections.json, one CSV and one SRT a video, and report.html."""
    parser = new_parser(
        "segments", "Cuts videos where their clips stop resembling each other; no labels, only an encoder."
    )
    parser.add_argument("videos", nargs="+", help="video files")
    parser.add_argument(
        "--weights", default=DEFAULT, help="run folder, feature store, encoder.safetensors, or a shipped encoder's name"
    )
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--interval", type=int, help="frames from one clip to the next (default: half a clip)")
    parser.add_argument("--annotations", help="ground truth to show beside the segments")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add_settings(parser, SegmentConfig())
    parsed = parser.parse_args(arguments)
    found = segment(
        parsed.weights,
        parsed.videos,
        parsed.out,
        take_settings(parsed, SegmentConfig),
        ExtractConfig(interval=parsed.interval, device=parsed.device),
        parsed.annotations,
    )
    for id, detections in found.items():
        for one in visible(detections, None).as_segments()[:5]:
            print(f"{id}: {one.start:7.2f} - {one.end:7.2f} s  {one.label}  {one.score:.3f}")
    print(f"open {Path(parsed.out) / 'report.html'}")
