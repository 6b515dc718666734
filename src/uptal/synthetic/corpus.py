"""The corpus on disk: H.264 files, annotations, class list, settings; what is in a frame is decided by `render.py`.

    DIR/trimmed/trimmed_00000.mp4 …      one action each
    DIR/untrimmed/untrimmed_00000.mp4 …  actions and gaps
    DIR/annotations.json                 the untrimmed videos, in the layout of ActivityNet
    DIR/queries.csv                      sentences about them and when they are true
    DIR/trimmed.csv                      video,label
    DIR/corpus.json                      settings and their digest

Every file appears whole or not at all, and a finished one is never written again, so a run that was interrupted goes on
where it stopped.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import IO

import av
import numpy as np
from jaxtyping import UInt8

from uptal.errors import ConfigError
from uptal.files import atomic_write
from uptal.synthetic.config import CorpusConfig, Kind
from uptal.synthetic.render import render_video
from uptal.synthetic.script import annotate, video_id
from uptal.synthetic.sentences import write_queries

FORMAT = 2
"""Raised whenever equal settings give other frames than before."""

_Job = tuple[Kind, int]


def synthesize(out: Path, config: CorpusConfig, *, workers: int | None = None, progress: bool = True) -> None:
    """Write the corpus of `config` to the folder `out`, or finish one that was begun there.

    Args:
        out: Folder of the corpus; made when it is missing.
        config: What to draw.
        workers: Processes that draw and encode; None takes one per available core, 1 works in this process. The files
            do not depend on it. As with every use of `spawn`, a script that asks for more than one keeps its own work
            under `if __name__ == "__main__"`.
        progress: Show a progress bar on a terminal.

    Raises:
        ConfigError: `out` holds a corpus of other settings.
        UptalError: A file cannot be written.
    """
    out = Path(out)
    _claim(out, config)
    jobs = [job for job in _all_jobs(config) if not _path(out, job).exists()]
    jobs.sort(key=lambda job: job[0] == "trimmed")  # the long ones first, so that no core waits at the end
    for _ in _watch(_run(out, config, jobs, workers), len(jobs), progress):
        pass
    _write_class_list(out, config)
    _write_annotations(out, config)
    write_queries(out / "queries.csv", config)


def config_digest(config: CorpusConfig) -> str:
    """A name for everything that decides the frames: SHA-256 over the settings and the version of the generator."""
    settings = asdict(config)
    if not config.actions:  # younger than the first corpora, and no change to them
        del settings["actions"]
    text = json.dumps({"format": FORMAT, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def encode(file: IO[bytes], frames: UInt8[np.ndarray, "F H W 3"], *, fps: int, crf: int) -> None:
    """Write RGB frames to an open file as an MP4 of H.264, yuv420p, a key frame at least every two seconds."""
    with av.open(file, "w", format="mp4") as container:
        # one thread, because the corpus is parallel over videos and the bytes shall not depend on the machine's cores
        options = {"crf": str(crf), "preset": "veryfast", "g": str(2 * fps), "threads": "1"}
        options["x264-params"] = "mbtree=0"  # with it, small pictures come out in different bytes from run to run
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _claim(out: Path, config: CorpusConfig) -> None:
    """Note the settings in the folder, or check that they are the ones that it was begun with."""
    path = out / "corpus.json"
    settings = json.loads(json.dumps(asdict(config)))
    mine = {"format": FORMAT, "digest": config_digest(config), "config": settings}
    if not path.exists():
        with atomic_write(path) as file:
            json.dump(mine, file, indent=1)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        digest, theirs = found["digest"], found["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: not the settings of a built-in corpus ({error}). Choose an empty folder, or remove this one."
        ) from error
    if digest != mine["digest"]:
        other = [f"{k} = {theirs.get(k)!r}, asked for {v!r}" for k, v in settings.items() if theirs.get(k) != v]
        what = "; ".join(other) or f"written by format {found.get('format')} of the generator, this is {FORMAT}"
        raise ConfigError(
            f"{path}: this folder holds a corpus of other settings ({what}). "
            "Choose another folder, ask for the same settings, or remove the folder."
        )


def _all_jobs(config: CorpusConfig) -> list[_Job]:
    counts: dict[Kind, int] = {"trimmed": config.num_trimmed, "untrimmed": config.num_untrimmed}
    return [(kind, index) for kind, count in counts.items() for index in range(count)]


def _path(out: Path, job: _Job) -> Path:
    return out / job[0] / f"{video_id(*job)}.mp4"


def _run(out: Path, config: CorpusConfig, jobs: list[_Job], workers: int | None) -> Iterator[None]:
    """Write the videos of all jobs; yields once for each that is finished."""
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is 1 or more, found {workers}; without it there is one for each core.")
    workers = min(workers or len(os.sched_getaffinity(0)), len(jobs))
    if workers <= 1:
        for job in jobs:
            yield _write_video(out, config, job)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            for done in as_completed([pool.submit(_write_video, out, config, job) for job in jobs]):
                yield done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _write_video(out: Path, config: CorpusConfig, job: _Job) -> None:
    frames, _ = render_video(config, *job)
    with atomic_write(_path(out, job), "wb") as file:
        encode(file, frames, fps=config.fps, crf=config.crf)


def _watch(steps: Iterator[None], total: int, progress: bool) -> Iterator[None]:
    """The same steps behind a progress bar, when it is wanted and there are any."""
    if not (progress and total):
        yield from steps
        return
    from rich.progress import track  # only here: importing it costs as much as the rest of the package

    yield from track(steps, description="Drawing the corpus", total=total)


def _write_class_list(out: Path, config: CorpusConfig) -> None:
    with atomic_write(out / "trimmed.csv") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["video", "label"])
        for index in range(config.num_trimmed):
            video = annotate(config, "trimmed", index)
            table.writerow([video.id, video.segments[0].label])


def _write_annotations(out: Path, config: CorpusConfig) -> None:
    """The untrimmed videos as ActivityNet writes them: `database`, `taxonomy`, `version`."""
    videos = [annotate(config, "untrimmed", index) for index in range(config.num_untrimmed)]
    database = {
        video.id: {
            "duration": video.duration,
            "subset": video.subset,
            "resolution": f"{config.shape[1]}x{config.shape[0]}",
            "annotations": [{"segment": [s.start, s.end], "label": s.label} for s in video.segments],
        }
        for video in videos
    }
    root = {"nodeId": 0, "nodeName": "Root", "parentId": None, "parentName": None}
    leaves = [
        {"nodeId": place, "nodeName": label, "parentId": 0, "parentName": "Root"}
        for place, label in enumerate(config.labels, start=1)
    ]
    content = {"version": f"uptal-corpus-{FORMAT}", "taxonomy": [root, *leaves], "database": database}
    with atomic_write(out / "annotations.json") as file:
        json.dump(content, file, indent=1)
