"""A few clips spread evenly over each of many videos, and what a function makes of them; for judging by classification.

Letters: N clips of a video, V videos, D width, T frames of a clip, C H W picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from uptal.clips import clip_frames, clip_span, fitting_stride, uniform_starts
from uptal.clipspec import ClipSpec
from uptal.errors import AnnotationError, VideoError
from uptal.features.grid import crop
from uptal.progress import Progress
from uptal.video import Quarantine, probe, read


@dataclass(frozen=True)
class VideoClips:
    """Features of the clips of several videos."""

    values: Float[Tensor, "V N D"]
    target: Int[Tensor, " V"]


def spread_clips(path: Path, spec: ClipSpec, count: int) -> UInt8[Tensor, "N T C H W"]:
    """Clips spread evenly over a video, each in the middle of its part; a video shorter than a clip is looped.

    Raises:
        VideoError: It cannot be read.
    """
    info = probe(path)
    stride = fitting_stride(info.num_frames, spec.frames, spec.stride)
    starts = uniform_starts(None, info.num_frames, count, clip_span(spec.frames, stride))
    wanted = clip_frames(starts, np.full(count, stride), spec.frames, info.num_frames)
    frames, place = np.unique(wanted, return_inverse=True)
    pictures = crop(read(path, frames, spec.resize, info=info), spec.size)
    return pictures[torch.from_numpy(place.reshape(wanted.shape))]


def through(
    function: Callable[[Tensor], Tensor],
    labelled: Sequence[tuple[Path, str]],
    classes: Sequence[str],
    spec: ClipSpec,
    count: int,
    quarantine: Quarantine,
) -> VideoClips:
    """What the function makes of the clips of every video that can be read."""
    values, target = [], []
    with Progress("probing", total=len(labelled)) as progress:
        for done, ((_, label), clips) in enumerate(zip(labelled, decoded(labelled, spec, count), strict=True), 1):
            if isinstance(clips, VideoError):
                quarantine.add(clips)
            else:
                values.append(function(clips))
                target.append(classes.index(label))
            progress.update(done)
    if not values:
        raise AnnotationError("None of the videos of a list can be read.")
    return VideoClips(torch.stack(values), torch.tensor(target))


def decoded(labelled: Sequence[tuple[Path, str]], spec: ClipSpec, count: int) -> Iterator[Tensor | VideoError]:
    """Clips of the videos in order, a few decoded ahead."""

    def work(path: Path) -> Tensor | VideoError:
        try:
            return spread_clips(path, spec, count)
        except VideoError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        ahead: deque[Future[Tensor | VideoError]] = deque()
        for path, _ in labelled:
            ahead.append(pool.submit(work, path))
            if len(ahead) > 4:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
