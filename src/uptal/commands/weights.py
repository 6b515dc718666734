"""`uptal weights`: checkpoints of others as encoders, what a file is, and batch norm's statistics estimated anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uptal.commands.options import Parser, new_parser
from uptal.encoders.converting import Conversion, convert
from uptal.encoders.showing import describe
from uptal.errors import ConfigError
from uptal.recipes.calibrating import calibrated
from uptal.video import find_videos

_CLIP = ("frames", "stride", "size", "resize")


def main(arguments: list[str]) -> None:
    """Converts or shows."""
    parser = new_parser(
        "weights",
        "Makes encoders of checkpoints of other projects, or says what a file is; runs nothing that is in it. Also "
        "estimates the statistics of an encoder's batch norms anew, on one's own videos and without labels.",
    )
    parser.add_argument(
        "action",
        choices=["convert", "show", "calibrate"],
        help="write an encoder, print what a file is, or write an encoder with statistics of --videos",
    )
    parser.add_argument(
        "source",
        help="weight file (.pt .pth .pth.tar .safetensors .npz), or a folder with one; show: also an encoder; "
        "calibrate: a run folder, an encoder or the name of a shipped one",
    )
    parser.add_argument(
        "out", nargs="?", help="folder for encoder.safetensors and encoder.json, or a .safetensors file (not for show)"
    )
    parser.add_argument("--videos", help="calibrate: folder of videos to see")
    parser.add_argument("--limit", type=int, help="calibrate: so many of them, evenly spread (default: all)")
    parser.add_argument(
        "--labels", help="names of the classifier's classes, one a line (default: the *label*.txt beside the source)"
    )
    parser.add_argument("--vocabulary", help="what the list of classes is called (default: after its length)")
    parser.add_argument(
        "--prefix", help="which of several encoders in the file: the beginning of its names (default: the query's)"
    )
    _add_clip(parser)
    parsed = parser.parse_args(arguments)
    _refuse_what_nothing_reads(parsed)
    if parsed.action == "show":
        print("\n".join(describe(Path(parsed.source))))
        return
    if parsed.out is None:
        raise ConfigError(
            f"`weights {parsed.action}` needs a place for the encoder: uptal weights {parsed.action} SRC OUT."
        )
    if parsed.action == "calibrate":
        _calibrate(parsed.source, parsed.out, parsed.videos, parsed.limit)
        return
    _convert(parsed.source, parsed.out, parsed)


def _convert(source: str, out: str, parsed: Any) -> None:
    clip = {name: getattr(parsed, name) for name in _CLIP if getattr(parsed, name) is not None}
    done = convert(source, out, labels=parsed.labels, vocabulary=parsed.vocabulary, prefix=parsed.prefix, clip=clip)
    print("\n".join(_report(done)))
    print(f"wrote {out}; use it with `uptal extract --weights {out} --videos DIR --out STORE`")


def _refuse_what_nothing_reads(parsed: Any) -> None:
    """Options of another action."""
    of = {"convert": ("labels", "vocabulary", "prefix", *_CLIP), "calibrate": ("videos", "limit")}
    for action, names in of.items():
        given = [f"--{name}" for name in names if getattr(parsed, name) is not None]
        if given and action != parsed.action:
            raise ConfigError(f"{', '.join(given)}: for `weights {action}`, and nothing of `weights {parsed.action}`.")


def _calibrate(source: str, out: str, videos: str | None, limit: int | None) -> None:
    if videos is None or (limit is not None and limit < 1):
        raise ConfigError("`weights calibrate` needs --videos DIR, and --limit is 1 or more.")
    seen = calibrated(source, out, find_videos(videos), limit)
    print(
        f"wrote {out}, with the statistics of {seen} videos of {videos}; use it with `uptal extract --weights {out} …`"
    )


def _add_clip(parser: Parser) -> None:
    explanations: dict[str, str] = {
        "frames": "frames of a clip",
        "stride": "frames of the video from one frame of a clip to the next",
        "size": "crop in pixels",
        "resize": "short side in pixels before the crop",
    }
    for name in _CLIP:
        parser.add_argument(f"--{name}", type=int, help=f"{explanations[name]} (default: as the authors had it)")


def _report(done: Conversion) -> list[str]:
    found, clip, classes = done.recognised, done.clip, done.classes
    lines = [f"{found.foreign.path}: {found.layout.name}, {found.layout.architecture} with {found.options}"]
    if found.dropped:
        left = ", ".join(f"{name} ({count})" for name, count in found.dropped.items())
        lines.append(f"left out, tensors in brackets: {left}")
    lines.append(f"clips: {clip.frames} frames, stride {clip.stride}, {clip.size} pixels of {clip.resize}, RGB")
    if classes is not None:
        lines.append(f"classifier: {len(classes.names)} classes of {classes.vocabulary}, {classes.names[0]} first")
    elif found.options.get("num_classes"):
        count = found.options["num_classes"]
        lines.append(f"classifier: {count} classes without names; --labels FILE gives them, one a line")
    return lines
