"""Whether a folder of videos can be used and fits its annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from uptal.commands.doctor.printing import show
from uptal.errors import ConfigError, VideoError
from uptal.files import digest


def examine(parsed: Namespace) -> tuple[dict[str, Any], str]:
    """Every video probed (or decoded), durations compared with the annotations, names missing on either side."""
    if not parsed.videos:
        raise ConfigError("doctor data needs --videos DIR (and --annotations FILE to compare with).")
    from uptal.annotations import match_ids, read_annotations
    from uptal.video import find_videos

    paths = find_videos(parsed.videos)
    truth = read_annotations(parsed.annotations) if parsed.annotations else {}
    durations, unreadable = _durations(paths, parsed.decode)
    findings: dict[str, Any] = {
        "videos": len(paths),
        "hours": round(sum(durations.values()) / 3600, 3),
        "unreadable": unreadable,
        "truncated": [found["video"] for found in unreadable if "cut off" in found["reason"]],
    }
    if truth:
        names = {path: path.stem for path in durations}
        mismatched = [
            {"video": name, "annotated": truth[name].duration, "file": round(durations[path], 3)}
            for path, name in names.items()
            if name in truth and abs(truth[name].duration - durations[path]) > max(0.5, 0.02 * durations[path])
        ]
        match = match_ids(list(truth), [path.stem for path in paths])
        findings |= {
            "annotated": len(truth),
            "present": len(match.both),
            "missing": list(match.only_annotated),
            "match": match.describe(),
            "durations": mismatched,
        }
    if parsed.digests:
        findings["files"] = [
            {
                "video": str(path),
                "bytes": path.stat().st_size,
                "seconds": round(durations[path], 3),
                "sha256": digest(path),
            }
            for path in durations
        ]
    findings["problems"] = [f"{found['video']}: {found['reason']}" for found in unreadable]
    findings["problems"] += [
        f"{found['video']}: {found['file']} s long, annotated as {found['annotated']} s"
        for found in findings.get("durations", ())
    ]
    if truth and not findings["present"]:
        findings["problems"].append(f"{parsed.annotations} names none of the videos; ids are file stems")
    return show(findings, str(parsed.videos))


def _durations(paths: list[Path], decode: bool) -> tuple[dict[Path, float], list[dict[str, str]]]:
    """Seconds of each video that can be read, and why the others cannot."""
    from uptal.progress import Progress
    from uptal.video import frames, probe

    durations, unreadable = {}, []
    with Progress("looking at videos", total=len(paths)) as progress:
        for count, path in enumerate(paths):
            progress.update(count)
            try:
                info = probe(path)
                if decode:
                    for _ in frames(path, 16, info=info):
                        pass
                durations[path] = info.duration
            except VideoError as error:
                unreadable.append({"video": error.path, "reason": error.reason})
    return durations, unreadable
