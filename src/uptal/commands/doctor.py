"""`uptal doctor machine|data`: what is installed, missing or broken, before a long run finds out."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

from uptal.commands.options import new_parser
from uptal.errors import ConfigError, UptalError, VideoError
from uptal.files import atomic_write
from uptal.run import environment


def main(arguments: list[str]) -> None:
    """Prints findings; exits with an error when something is broken."""
    parser = new_parser("doctor", "Checks the machine, or a folder of videos against its annotations.")
    parser.add_argument("what", choices=["machine", "data"], nargs="?", default="machine", help="what to check")
    parser.add_argument("--videos", help="data: folder of videos")
    parser.add_argument("--annotations", help="data: annotations to compare with")
    parser.add_argument(
        "--decode", action="store_true", help="data: decode every video to its end (slow, finds damage inside)"
    )
    parser.add_argument("--json", help="write the findings to a file")
    parsed = parser.parse_args(arguments)
    if parsed.what == "data" and not parsed.videos:
        raise ConfigError("doctor data needs --videos DIR (and --annotations FILE to compare with).")
    findings = machine() if parsed.what == "machine" else data(parsed.videos, parsed.annotations, parsed.decode)
    if parsed.json:
        with atomic_write(parsed.json) as out:
            json.dump(findings, out, indent=1)
    for key, value in findings.items():
        print(f"{key:<14}{value if not isinstance(value, (list, dict)) else json.dumps(value)}")
    if findings.get("unreadable"):
        raise UptalError(f"{len(findings['unreadable'])} videos cannot be used; they are listed above.")


def machine() -> dict[str, Any]:
    """Versions, cores, memory, GPUs, codecs and optional packages."""
    import av
    import torch

    facts = environment()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    optional = {name: importlib.util.find_spec(name) is not None for name in ("torchcodec", "tensorboard")}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "python": facts["python"],
        "packages": facts["packages"],
        "commit": facts["commit"],
        "machine": facts["machine"],
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory, 1),
        "disk_free_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "gpus": gpus or "none: everything runs on the CPU",
        "bf16": bool(gpus) and torch.cuda.is_bf16_supported(),
        "h264": {"decode": "h264" in av.codecs_available, "encode": "libx264" in av.codecs_available},
        "optional": optional,
    }


def data(videos: str, annotations: str | None, decode: bool) -> dict[str, Any]:
    """Every video probed (or decoded), durations compared with the annotations, names missing on either side."""
    from uptal.annotations import match_ids, read_annotations
    from uptal.video import find_videos, frames, probe

    paths = find_videos(videos)
    truth = read_annotations(annotations) if annotations else {}
    unreadable, mismatched, seconds = [], [], 0.0
    for path in paths:
        try:
            info = probe(path)
            if decode:
                for _ in frames(path, 16):
                    pass
        except VideoError as error:
            unreadable.append({"video": error.path, "reason": error.reason})
            continue
        seconds += info.duration
        known = truth.get(Path(path).stem)
        if known is not None and abs(known.duration - info.duration) > max(0.5, 0.02 * info.duration):
            mismatched.append({"video": path.stem, "annotated": known.duration, "file": round(info.duration, 3)})
    findings: dict[str, Any] = {"videos": len(paths), "hours": round(seconds / 3600, 3), "unreadable": unreadable}
    if annotations:
        match = match_ids(list(truth), [path.stem for path in paths])
        findings |= {"annotated": len(truth), "match": match.describe(), "durations": mismatched}
    return findings
