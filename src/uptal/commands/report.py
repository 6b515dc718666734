"""`uptal report`: a page of videos with annotations, detections and similarity maps, or of how training goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from uptal.annotations import read_detections
from uptal.commands.options import new_parser
from uptal.errors import ConfigError, VideoError
from uptal.features import FeatureStore
from uptal.metrics import diagnose, only_present
from uptal.recipes.detecting import truth_of
from uptal.recipes.watching import Watched, describe_runs, run_report, watch
from uptal.report import Curve, Report, Table, VideoPanel, diagnosis_sections, write_report
from uptal.run import environment
from uptal.similarity import self_similarity
from uptal.types import Detections, Video
from uptal.video import find_videos, probe


def main(arguments: list[str]) -> None:
    """Writes one self-contained page."""
    parser = new_parser("report", "One self-contained HTML page; every input but the videos is optional.")
    parser.add_argument("--videos", help="folder of videos")
    parser.add_argument(
        "--run", nargs="+", help="run folders of `pretrain`, in the place of videos: curves, alarms, unreadable videos"
    )
    parser.add_argument("--annotations", help="ground truth")
    parser.add_argument(
        "--found", help="detections: ActivityNet submission JSON; with --annotations their errors are sorted by cause"
    )
    parser.add_argument("--features", help="feature store, for similarity maps")
    parser.add_argument("--max-videos", type=int, default=8, help="videos to show, the first ones by name")
    parser.add_argument("--title", default="Videos", help="heading")
    parser.add_argument("--out", help="page to write; with --run it may be left out, for lines in the terminal alone")
    parsed = parser.parse_args(arguments)
    if bool(parsed.run) == bool(parsed.videos) or (parsed.videos and not parsed.out):
        raise ConfigError("report needs --videos DIR --out FILE for videos, or --run RUN for training runs.")
    if parsed.max_videos < 1:
        raise ConfigError(f"--max-videos is 1 or more, found {parsed.max_videos}.")
    if parsed.run:
        return _runs([watch(Path(run)) for run in parsed.run], parsed.out)
    found = read_detections(parsed.found) if parsed.found else {}
    store = FeatureStore(parsed.features) if parsed.features else None
    paths = find_videos(parsed.videos)
    truth = truth_of(parsed.annotations, paths) if parsed.annotations else None
    named = [path for path in paths if path.stem in found] if parsed.found else paths
    if not named:
        raise ConfigError(
            f"{parsed.found} names none of the {len(paths)} videos in {parsed.videos}; ids are file stems."
        )
    panels, unreadable = [], []
    for path in named:
        if len(panels) == parsed.max_videos:
            break
        read = store.read(path.stem) if store is not None and path.stem in store else None
        annotated = None if truth is None else truth.get(path.stem)
        try:
            duration = read.duration if read is not None else probe(path).duration
        except VideoError as error:
            unreadable.append(str(error))
            continue
        panels.append(
            VideoPanel(
                id=path.stem,
                video_path=path,
                duration=duration,
                truth=None if annotated is None else annotated.segments,
                predictions=found.get(path.stem),
                similarity=None if read is None else self_similarity(read.values.numpy(), centre=True),
                timebase=None if read is None else read.timebase,
            )
        )
    if not panels:
        raise ConfigError(f"None of the videos can be read; the first: {unreadable[0]}")
    sections = [*panels, *_errors(truth, found)]
    report = Report(title=parsed.title, sections=sections, facts=environment())
    for message in (*write_report(Path(parsed.out), report), *(f"left out {line}" for line in unreadable)):
        print(message)
    print(f"open {parsed.out}")


def _runs(runs: list[Watched], out: str | None) -> None:
    print(describe_runs(runs))
    if out:
        for message in write_report(Path(out), run_report(runs, environment())):
            print(message)
        print(f"open {out}")


def _errors(truth: Mapping[str, Video] | None, found: Mapping[str, Detections]) -> list[Table | Curve]:
    """The diagnosis of all detections on annotated videos, where both are there and have labels."""
    annotated = only_present(truth or {}, found)
    of_them = {id: found[id] for id in annotated}
    if not any(v.segments for v in annotated.values()) or any(len(d) and not d.labels for d in of_them.values()):
        return []
    return diagnosis_sections(diagnose(annotated, of_them, unknown_labels="false-positive").to_json())
