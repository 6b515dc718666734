"""A folder of smaller copies: several at a time, resumable, with a manifest; one copy is made in `video.transcoding`.

OUT/<same path>.mp4   the copies
OUT/manifest.jsonl    a line for each: source and copy with SHA-256, bytes, frames, seconds, size
OUT/transcode.json    the settings; other ones are refused
OUT/quarantine.jsonl  videos that could not be copied
OUT/pack-*.uptalpack  in place of single files, where packs are asked for (`packing`)
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uptal.clips import TimelineConfig, draw_timeline
from uptal.errors import ConfigError, VideoError
from uptal.features import writing
from uptal.files import atomic_write, digest
from uptal.progress import Progress
from uptal.recipes.packing import COPIES, Packer, packed, sweep
from uptal.video import Quarantine, find_videos, probe, read
from uptal.video.packs import SUFFIX, open_video, size_of
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


def transcode_folder(
    videos: Path, out: Path, cfg: TranscodeConfig, *, workers: int = 2, max_bad: float = 0.01, pack: int = 0
) -> int:
    """Copies every video of a folder that has no copy yet; returns how many were made.

    Args:
        videos: The sources.
        out: Folder for the copies.
        cfg: What they are like.
        workers: Videos copied at once.
        max_bad: Share of videos that may fail.
        pack: Bytes from which on a pack is full; 0 makes a file a video.

    Raises:
        ConfigError: The folder holds copies of other settings. QuarantineError: Too many videos cannot be copied.
    """
    paths = find_videos(videos)
    place = out / COPIES if pack else out
    targets = _targets(videos, paths, out, place)
    if workers < 1:
        raise ConfigError(f"Copies need at least one worker, found {workers}.")
    with writing(out):
        _claim(out, cfg, pack)
        known = {entry["copy"]: entry for entry in read_manifest(out)}
        if pack:
            sweep(out)
            paths = _not_packed(paths, targets, out, known)
        todo = [path for path in paths if not _is_done(path, targets[path], place, known)]
        names = {path: targets[path].relative_to(place).as_posix() for path in paths}
        ready = {names[path]: known[names[path]] for path in paths if pack and path not in set(todo)}
        packer = Packer(out, list(names.values()), pack, ready) if pack else None
        quarantine = Quarantine(total=len(targets), limit=max_bad, folder=out)
        made = 0
        with Progress("transcoding", total=len(todo)) as progress, ThreadPoolExecutor(workers) as pool:
            jobs = {pool.submit(_copy, path, targets[path], videos, place, cfg): path for path in todo}
            try:
                for count, job in enumerate(as_completed(jobs), 1):
                    entry = _outcome(job, quarantine)
                    if entry is not None:
                        _append(out / MANIFEST, entry)
                        made += 1
                    if packer is not None:
                        packer.add(names[jobs[job]], entry)
                    progress.update(count)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if packer is not None:
            packer.finish()
    print(quarantine.summary(), end="", file=sys.stderr)
    return made


def _outcome(job: Future[dict[str, Any]], quarantine: Quarantine) -> dict[str, Any] | None:
    """The copy's line of the manifest; None if it could not be made.

    Raises:
        QuarantineError: Too many could not.
    """
    try:
        return job.result()
    except VideoError as error:
        quarantine.add(error)
        return None


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
    entries, in_packs = read_manifest(out), packed(out)
    rng = np.random.default_rng(seed)
    chosen = [entries[place] for place in rng.permutation(len(entries))[:count]]
    spent = {"source": 0.0, "copy": 0.0}
    for entry in chosen:
        places = {"source": videos / entry["source"], "copy": in_packs.get(entry["copy"], out / entry["copy"])}
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


def _targets(videos: Path, paths: Sequence[Path], out: Path, place: Path) -> dict[Path, Path]:
    """Where each copy goes.

    Raises:
        ConfigError: Two would have the same name, or copies would lie among the sources.
    """
    if out.resolve() == videos.resolve() or out.resolve().is_relative_to(videos.resolve()):
        raise ConfigError(f"{out} lies inside {videos}; copies would be taken for sources. Choose another --out.")
    folders = {path: [part for part in path.relative_to(videos).parts if not part.endswith(SUFFIX)] for path in paths}
    targets = {path: place.joinpath(*parts).with_suffix(".mp4") for path, parts in folders.items()}
    twice = [target for target, count in Counter(targets.values()).items() if count > 1]
    if twice:
        both = " and ".join(str(path) for path, target in targets.items() if target == twice[0])
        raise ConfigError(f"The copies of {both} would have the same name. Rename one.")
    return targets


def _not_packed(paths: Sequence[Path], targets: Mapping[Path, Path], out: Path, known: Mapping[str, Any]) -> list[Path]:
    """The sources whose copies are in no pack yet.

    Raises:
        ConfigError: One has changed since its copy was packed.
    """
    there, left = packed(out), []
    for path in paths:
        name = targets[path].relative_to(out / COPIES).as_posix()
        if name not in there:
            left.append(path)
        elif name not in known or size_of(path) != known[name]["source_bytes"]:
            raise ConfigError(f"{path} is another file than the one whose copy is {there[name]}. Choose another --out.")
    return left


def _claim(out: Path, cfg: TranscodeConfig, pack: int) -> None:
    note, settings = out / "transcode.json", asdict(cfg) | ({"pack_bytes": pack} if pack else {})
    if note.exists():
        before = json.loads(note.read_text("utf-8"))
        if before != settings:
            raise ConfigError(f"{out} holds copies made with {before}, not {settings}. Choose another --out.")
    with atomic_write(note) as file:
        json.dump(settings, file, indent=1)


def _is_done(source: Path, target: Path, place: Path, known: Mapping[str, Any]) -> bool:
    entry = known.get(target.relative_to(place).as_posix())
    if entry is None or not target.is_file():
        return False
    return target.stat().st_size == entry["copy_bytes"] and size_of(source) == entry["source_bytes"]


def _copy(source: Path, target: Path, videos: Path, place: Path, cfg: TranscodeConfig) -> dict[str, Any]:
    copy = transcode(source, target, cfg)
    return {
        "source": source.relative_to(videos).as_posix(),
        "source_sha256": _digest(source),
        "source_bytes": size_of(source),
        "copy": target.relative_to(place).as_posix(),
        "copy_sha256": digest(target),
        "copy_bytes": target.stat().st_size,
        "frames": copy.num_frames,
        "seconds": round(copy.duration, 6),
        "height": copy.height,
        "width": copy.width,
    }


def _digest(source: Path) -> str:
    with open_video(source) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _append(file: Path, entry: dict[str, Any]) -> None:
    """Adds a line, on a line of its own even after a kill in the midst of one."""
    torn = file.exists() and file.stat().st_size > 0 and file.read_bytes()[-1:] != b"\n"
    with open(file, "a", encoding="utf-8") as out:
        out.write(("\n" if torn else "") + json.dumps(entry) + "\n")
