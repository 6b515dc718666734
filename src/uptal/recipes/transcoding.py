"""A folder of smaller copies: several at a time, resumable, with a manifest; one copy is made in `video.transcoding`.

OUT/<same path>.mp4   the copies
OUT/manifest.jsonl    a line for each: source and copy with SHA-256, bytes, frames, seconds, size
OUT/transcode.json    the settings; other ones are refused
OUT/quarantine.jsonl  videos that could not be copied
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uptal.clips import TimelineConfig, draw_timeline
from uptal.errors import ConfigError, VideoError
from uptal.features import writing
from uptal.files import atomic_write, digest
from uptal.progress import Progress
from uptal.video import Quarantine, find_videos, probe, read
from uptal.video.transcoding import TranscodeConfig, transcode

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What copies save, measured on a few of them as pre-training reads videos."""

    videos: int
    before: float
    """CPU seconds a video, from the sources."""
    after: float
    """CPU seconds a video, from the copies."""
    bytes_before: int
    bytes_after: int

    def describe(self) -> str:
        """In words."""
        return (
            f"reading the 24 clips of a PAL sample from {self.videos} videos takes {1e3 * self.before:.1f} ms of CPU "
            f"time each before and {1e3 * self.after:.1f} ms after ({self.before / self.after:.1f}x less); "
            f"{self.bytes_before / 2**20:.1f} MB became {self.bytes_after / 2**20:.1f} MB"
        )


def transcode_folder(videos: Path, out: Path, cfg: TranscodeConfig, *, workers: int = 2, max_bad: float = 0.01) -> int:
    """Copies every video of a folder that has no copy yet; returns how many were made.

    Raises:
        ConfigError: The folder holds copies of other settings. QuarantineError: Too many videos cannot be copied.
    """
    paths = find_videos(videos)
    targets = _targets(videos, paths, out)
    if workers < 1:
        raise ConfigError(f"Copies need at least one worker, found {workers}.")
    with writing(out):
        _claim(out, cfg)
        known = {entry["copy"]: entry for entry in read_manifest(out)}
        todo = [path for path in paths if not _is_done(path, targets[path], out, known)]
        quarantine = Quarantine(total=len(paths), limit=max_bad, folder=out)
        made = 0
        with Progress("transcoding", total=len(todo)) as progress, ThreadPoolExecutor(workers) as pool:
            jobs = {pool.submit(_copy, path, targets[path], videos, out, cfg): path for path in todo}
            try:
                for count, job in enumerate(as_completed(jobs), 1):
                    try:
                        _append(out / MANIFEST, job.result())
                        made += 1
                    except VideoError as error:
                        quarantine.add(error)
                    progress.update(count)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    print(quarantine.summary(), end="", file=sys.stderr)
    return made


def read_manifest(out: Path) -> list[dict[str, Any]]:
    """What has been copied, the newest line of each copy; one cut short by a kill is left out."""
    entries: dict[str, Any] = {}
    file = out / MANIFEST
    for line in file.read_text("utf-8").splitlines() if file.exists() else []:
        try:
            entry = json.loads(line)
            entries[entry["copy"]] = entry
        except (ValueError, KeyError, TypeError):
            continue
    return list(entries.values())


def measure_gain(videos: Path, out: Path, count: int = 8, seed: int = 0) -> Gain | None:
    """Reads what a PAL sample reads from a few sources and their copies, at the copies' size; None without any."""
    entries = read_manifest(out)
    rng = np.random.default_rng(seed)
    chosen = [entries[place] for place in rng.permutation(len(entries))[:count]]
    spent = {"source": 0.0, "copy": 0.0}
    for entry in chosen:
        places = {"source": videos / entry["source"], "copy": out / entry["copy"]}
        line = draw_timeline(rng, int(entry["frames"]), TimelineConfig(), paste=True)
        wanted = np.unique(np.concatenate([line.clips.ravel(), line.region.ravel()]))
        size = (int(entry["height"]), int(entry["width"]))
        for _ in range(2):  # alternating, so that what else the machine does falls on both
            for name, path in places.items():
                info = probe(path)  # pre-training keeps this, so it is not counted
                begin = time.thread_time()
                read(path, wanted, size, info=info)
                spent[name] += time.thread_time() - begin
    if not chosen:
        return None
    sizes = {name: sum(int(entry[f"{name}_bytes"]) for entry in entries) for name in spent}
    each = {name: seconds / (2 * len(chosen)) for name, seconds in spent.items()}
    return Gain(
        videos=len(chosen),
        before=each["source"],
        after=each["copy"],
        bytes_before=sizes["source"],
        bytes_after=sizes["copy"],
    )


def _targets(videos: Path, paths: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Where each copy goes.

    Raises:
        ConfigError: Two would have the same name, or copies would lie among the sources.
    """
    if out.resolve() == videos.resolve() or out.resolve().is_relative_to(videos.resolve()):
        raise ConfigError(f"{out} lies inside {videos}; copies would be taken for sources. Choose another --out.")
    targets = {path: (out / path.relative_to(videos)).with_suffix(".mp4") for path in paths}
    twice = [target for target, count in Counter(targets.values()).items() if count > 1]
    if twice:
        both = " and ".join(str(path) for path, target in targets.items() if target == twice[0])
        raise ConfigError(f"The copies of {both} would have the same name. Rename one.")
    return targets


def _claim(out: Path, cfg: TranscodeConfig) -> None:
    note, settings = out / "transcode.json", asdict(cfg)
    if note.exists():
        before = json.loads(note.read_text("utf-8"))
        if before != settings:
            raise ConfigError(f"{out} holds copies made with {before}, not {settings}. Choose another --out.")
    with atomic_write(note) as file:
        json.dump(settings, file, indent=1)


def _is_done(source: Path, target: Path, out: Path, known: dict[str, Any]) -> bool:
    entry = known.get(target.relative_to(out).as_posix())
    if entry is None or not target.is_file():
        return False
    return target.stat().st_size == entry["copy_bytes"] and source.stat().st_size == entry["source_bytes"]


def _copy(source: Path, target: Path, videos: Path, out: Path, cfg: TranscodeConfig) -> dict[str, Any]:
    copy = transcode(source, target, cfg)
    return {
        "source": source.relative_to(videos).as_posix(),
        "source_sha256": digest(source),
        "source_bytes": source.stat().st_size,
        "copy": target.relative_to(out).as_posix(),
        "copy_sha256": digest(target),
        "copy_bytes": target.stat().st_size,
        "frames": copy.num_frames,
        "seconds": round(copy.duration, 6),
        "height": copy.height,
        "width": copy.width,
    }


def _append(file: Path, entry: dict[str, Any]) -> None:
    """Adds a line, on a line of its own even after a kill in the midst of one."""
    torn = file.exists() and file.stat().st_size > 0 and file.read_bytes()[-1:] != b"\n"
    with open(file, "a", encoding="utf-8") as out:
        out.write(("\n" if torn else "") + json.dumps(entry) + "\n")
