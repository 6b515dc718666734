"""What a run would find on this machine: versions, cores, memory, GPUs, codecs, optional packages."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Any

from jsonargparse import Namespace

from uptal.commands.doctor.printing import show
from uptal.run import environment

OPTIONAL = ("torchcodec", "tensorboard", "h5py", "ray", "submitit", "transformers")
"""Packages that switch something on when they are there."""


def examine(parsed: Namespace) -> tuple[dict[str, Any], str]:
    """Facts by name; nothing about a machine is a problem by itself."""
    import av
    import torch

    facts = environment()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    codecs = av.codecs_available
    findings = {
        "python": facts["python"],
        "packages": facts["packages"],
        "commit": facts["commit"],
        "machine": facts["machine"],
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory, 1),
        "disk_free_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "gpus": gpus or "none: everything runs on the CPU",
        "bf16": bool(gpus) and torch.cuda.is_bf16_supported(),
        "h264": {"decode": "h264" in codecs, "encode": "libx264" in codecs},
        "decoders": {name: name in codecs for name in ("h264", "hevc", "vp9", "av1", "mpeg4")},
        "optional": {name: importlib.util.find_spec(name) is not None for name in OPTIONAL},
    }
    return show(findings, "this machine")
