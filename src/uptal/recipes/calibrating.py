"""Running statistics of batch norm from clean clips: those of training are of augmented ones, those of an untrained
encoder of none at all. Labels play no part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from uptal.clipspec import ClipSpec
from uptal.encoders import load_encoder, save_encoder
from uptal.encoders.contract import name_of
from uptal.errors import ConfigError, VideoError
from uptal.features import encode
from uptal.recipes.spread_clips import decoded

CLIPS = 4
"""Clips of a video that are looked at."""


@contextmanager
def fresh_statistics(encoder: nn.Module) -> Iterator[None]:
    """What goes through the encoder within the block decides the running statistics of its batch norms, all batches
    alike; afterwards it is in evaluation mode."""
    norms = [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches, not a running one
    encoder.train()
    yield
    encoder.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def calibrate(encoder: nn.Module, videos: Sequence[Path], clip: ClipSpec, batch: int = 16) -> int:
    """Estimates the statistics of every batch norm anew, as the mean over batches of some videos' clips.

    Args:
        encoder: A `ClipEncoder` on the CPU; changed in place and left in evaluation mode.
        videos: Files; those that cannot be read are left out.
        clip: How clips are cut.
        batch: Videos whose clips make one batch.

    Returns:
        How many videos were read.

    Raises:
        ConfigError: None of them could be.
    """
    seen, waiting, device = 0, [], torch.device("cpu")
    with fresh_statistics(encoder):
        for clips in decoded([(path, "") for path in videos], clip, CLIPS):
            if isinstance(clips, VideoError):
                continue
            seen += 1
            waiting.append(clips)
            if len(waiting) == batch:
                encode(encoder, torch.cat(waiting), clip, device, precision="fp32")
                waiting = []
        if waiting and seen <= batch:  # a small last batch would count as much as a full one
            encode(encoder, torch.cat(waiting), clip, device, precision="fp32")
    if not seen:
        raise ConfigError(f"None of the {len(videos)} videos can be read, so no statistics can be estimated from them.")
    return seen


def calibrated(source: str | Path, out: str | Path, videos: Sequence[Path], limit: int | None = None) -> int:
    """Writes an encoder with the statistics of `videos` in the place of its own.

    Args:
        source: Anything that `load_encoder` reads.
        out: Folder, or name of a `.safetensors` file.
        videos: Files of the kind that features will be made of.
        limit: So many of them at most, evenly spread.

    Returns:
        How many videos were read.

    Raises:
        ConfigError: The encoder has no batch norm, or no video can be read.
    """
    saved = load_encoder(source)
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in saved.encoder.modules()):
        raise ConfigError(f"{source}: {name_of(saved.encoder)} has no batch norm, so there is nothing to estimate.")
    chosen = [videos[at] for at in np.linspace(0, len(videos) - 1, min(len(videos), limit or len(videos)), dtype=int)]
    seen = calibrate(saved.encoder, chosen, saved.clip)
    about = {**(saved.source or {}), "statistics": f"of {seen} videos", "calibrated from": saved.digest}
    save_encoder(out, saved.encoder, saved.clip, classes=saved.classes, source=about)
    return seen
