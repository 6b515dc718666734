"""`uptal detect RUN video.mp4 … --out DIR`: my video in, segments and a page out.

Without RUN: label-free segments of the encoder that comes with the package.
"""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from uptal.commands.options import new_parser
from uptal.encoders.shipped import DEFAULT
from uptal.errors import ConfigError
from uptal.recipes.detecting import detect, visible
from uptal.recipes.extracting import ExtractConfig
from uptal.recipes.segmenting import segment
from uptal.types import Detections


def main(arguments: list[str]) -> None:
    """Writes detections.json, one CSV and one SRT a video, and report.html."""
    parser = new_parser(
        "detect",
        "Finds actions in videos with a run of `uptal train`; without one, cuts them into label-free segments.",
    )
    parser.add_argument("run", help="run folder of `uptal train`; or the first video, for segments without labels")
    parser.add_argument("videos", nargs="*", default=[], help="video files")
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
    run, videos = Path(parsed.run), list(parsed.videos)
    if parsed.run == DEFAULT and not run.exists():
        raise ConfigError(
            f"{DEFAULT} is an encoder and no run of `uptal train`. Leave it out: `uptal detect video.mp4 --out DIR` "
            "takes it by itself."
        )
    if run.is_dir() or (videos and not run.exists()):
        if not videos:
            raise ConfigError(
                f"{run} is a folder, and no video follows it: `uptal detect {run} video.mp4 --out DIR` if it is a run, "
                f"`uptal detect {run}/*.mp4 --out DIR` if it holds the videos."
            )
        found = detect(
            run,
            videos,
            parsed.out,
            annotations=parsed.annotations,
            device=parsed.device,
            min_score=parsed.min_score,
            classes=parsed.classes,
        )
    else:
        found = _without_labels([str(run), *videos], parsed)
    for id, detections in found.items():
        for one in visible(detections, parsed.min_score).as_segments()[:5]:
            print(f"{id}: {one.start:7.2f} - {one.end:7.2f} s  {one.label}  {one.score:.3f}")
    print(f"open {Path(parsed.out) / 'report.html'}")


def _without_labels(videos: list[str], parsed: Namespace) -> dict[str, Detections]:
    """Segments of the shipped encoder, and a line that says what they are."""
    if parsed.classes is not None:
        raise ConfigError(
            "--classes names the segments of a localizer, and no run of `uptal train` is given: `uptal detect RUN "
            "video.mp4 --classes ...`."
        )
    print(
        f"No run of `uptal train` is given, so these are label-free segments of the encoder {DEFAULT}: stretches whose "
        "clips resemble each other, with letters in the place of names. They are no detected actions."
    )
    how = ExtractConfig(device=parsed.device)
    return segment(DEFAULT, videos, parsed.out, how=how, annotations=parsed.annotations, min_score=parsed.min_score)
