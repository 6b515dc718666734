"""`uptal detect RUN video.mp4 … --out DIR`: my video in, segments and a page out."""

from __future__ import annotations

from pathlib import Path

from uptal.commands.options import new_parser
from uptal.recipes.detecting import detect, visible


def main(arguments: list[str]) -> None:
    """Writes detections.json, one CSV and one SRT a video, and report.html."""
    parser = new_parser("detect", "Finds actions in videos with a run of `uptal train`; works on a CPU.")
    parser.add_argument("run", help="run folder of `uptal train`")
    parser.add_argument("videos", nargs="+", help="video files")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--annotations", help="ground truth to show beside the predictions")
    parser.add_argument("--min-score", type=float, help="lowest score in subtitles (default: 0.3 of the video's best)")
    parser.add_argument(
        "--classes",
        help="name segments with the encoder's own classifier for this vocabulary, such as kinetics400 "
        "(default: with the classes that the run was trained on)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parsed = parser.parse_args(arguments)
    found = detect(
        parsed.run,
        parsed.videos,
        parsed.out,
        annotations=parsed.annotations,
        device=parsed.device,
        min_score=parsed.min_score,
        classes=parsed.classes,
    )
    for id, detections in found.items():
        for segment in visible(detections, parsed.min_score).as_segments()[:5]:
            print(f"{id}: {segment.start:7.2f} - {segment.end:7.2f} s  {segment.label}  {segment.score:.3f}")
    print(f"open {Path(parsed.out) / 'report.html'}")
