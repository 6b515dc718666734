"""What LGI learns from: how a video is sampled to segments, where a sentence's interval lies in them, and the losses.

Source: LGI (CVPR 2020, Sec. 3.5) and its public code, roundings included. Letters: B queries, T segments, N phrases,
L words, C feature width.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from torch import Tensor

from uptal.localizers.lgi import Grounding, LGIConfig

EPSILON = 1e-8
"""Added to attention before the logarithm (public code)."""


def num_offsets(length: int, num_segments: int) -> int:
    """How many different first features training may sample a video from; evaluation takes the first."""
    reach = _stride(length, num_segments) - 0.5
    return int(reach - 1 if reach.is_integer() else reach) + 1


def sample_steps(length: int, num_segments: int, offset: int = 0) -> Int[np.ndarray, " M"]:
    """Which of a video's features become its segments: all of a short one, evenly spread ones of a long one.

    Args:
        length: Features of the video.
        num_segments: Segments at most.
        offset: First feature, below `num_offsets`.
    """
    stride = _stride(length, num_segments)
    return np.round(np.arange(offset, length - 0.5, stride)).astype(np.int64)[:num_segments]


def _stride(length: int, num_segments: int) -> float:
    return 1.0 if length <= num_segments else length / num_segments


def attention_target(
    start: float, end: float, duration: float, length: int, num_segments: int
) -> Float32[np.ndarray, " T"]:
    """Ones on the segments of an interval, at least two unless the last segment cuts them off.

    The places are those of a video sampled from its first feature, whatever training samples (public code). They may
    lie behind a short video's last segment when the interval ends after the video.
    """
    count = min(length, num_segments)
    first = min(round(start / duration * count), count - 1)
    last = max(round(end / duration * count), first + 1)
    target = np.zeros(num_segments, np.float32)
    target[first : last + 1] = 1
    return target


def attention_on_clock(
    start: float, end: float, centres: Float[np.ndarray, " M"], num_segments: int
) -> Float32[np.ndarray, " T"]:
    """Ones on the segments whose middle lies in the interval, or on the nearest one; by the store's own time base.

    Args:
        start: Seconds.
        end: Seconds.
        centres: Second of the middle of each sampled feature.
        num_segments: Segments at most.
    """
    inside = (centres >= start) & (centres <= end)
    if not inside.any():
        inside[np.abs(centres - (start + end) / 2).argmin()] = True
    return np.pad(inside.astype(np.float32), (0, num_segments - len(centres)))


def grounding_losses(
    found: Grounding,
    location: Float[Tensor, "B 2"],
    attention: Float[Tensor, "B T"],
    cfg: LGIConfig,
) -> dict[str, Tensor]:
    """`loss` = `grounding` + `tag` + `dqa` (Eq. 16 to 18), each with its weight and averaged over the queries.

    Args:
        found: The network's answer.
        location: True start and end as shares of the duration.
        attention: Where the interval is, from `attention_target`.
        cfg: Weights.
    """
    start, end = found.location.float().unbind(1)
    losses = {"grounding": F.smooth_l1_loss(start, location[:, 0]) + F.smooth_l1_loss(end, location[:, 1])}
    if cfg.tag_weight:
        inside = -(attention * torch.log(found.over_time.float() + EPSILON)).sum(1) / attention.sum(1)
        losses["tag"] = cfg.tag_weight * inside.mean()
    if cfg.dqa_weight and found.over_words is not None:
        with torch.autocast(found.over_words.device.type, enabled=False):  # losses are float32
            words = found.over_words.float()
            apart = words @ words.transpose(1, 2) - cfg.dqa_lambda * torch.eye(words.shape[1], device=words.device)
        losses["dqa"] = cfg.dqa_weight * apart.square().sum((1, 2)).mean()
    return {"loss": torch.stack(list(losses.values())).sum()} | losses
