"""Which frames make a clip, and which clips a region: pure index arithmetic on one video, no pixels.

Letters: J clips of a synthetic video, L clips of a region, R the most clips a region may have, T frames of a clip,
V views (query, key), k stride between the frames of a clip. A clip of T frames at stride k spans (T-1)k+1 frames:

    stride 3, T = 4      |x..x..x..x|        span 10, slot 12 (the pitch of back-to-back clips)

Pixels are read by `uptal.video`; what is pasted where is decided here and done in `uptal.pretext.synthesis`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from uptal.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BackgroundConfig:
    """Clips of the video that is pasted onto (`docs/paper.md`, T1 and T2)."""

    layout: Literal["segments", "contiguous", "segments_shared_jitter"] = "segments"
    """"8 clips uniformly sampled" (Sec. 4.1.1). The paper does not say how: a random clip in each of J equal parts."""
    stride: int | Literal["random_per_video", "same_as_region"] = 1
    """Frames from one frame of a clip to the next; the paper varies only the action region's (Sec. 3.2.1).
    `random_per_video` draws from the region's range. `same_as_region` is for regions that stay in their own video: with
    paste it is the stride of the lending video's own region, of which the region pasted there knows nothing."""
    share: bool = False
    """Use one draw of background clips for both views (fewer frames to decode). The paper does not say."""


@dataclass(frozen=True, kw_only=True)
class RegionConfig:
    """The pseudo action: consecutive clips cut out of one video (T3 to T8)."""

    min_clips: int = 2
    """Fewest clips. The paper: "multiple consecutive clips" (Sec. 1)."""
    max_clips: int = 6
    """Most clips (Sec. 4.1.1)."""
    equal: bool = False
    """Give both views the same number of clips. The paper: "random temporal lengths" (Sec. 1), so independent."""
    min_stride: int = 1
    """Smallest stride (Sec. 4.1.1: chosen from [1, 4])."""
    max_stride: int = 4
    """Largest stride (Sec. 4.1.1). Equal to `min_stride` switches scale-aware sampling off (Table 3, #1)."""
    stride_law: Literal["uniform", "log_uniform"] = "uniform"
    """How the stride is drawn. The paper does not say; log-uniform weighs stride k by 1/k."""
    stride_scope: Literal["region", "clip"] = "region"
    """One stride for all clips of a region, or one for each clip. The paper does not say."""
    scale_mode: Literal["keep_clips", "resample_clips"] = "keep_clips"
    """What a larger stride changes: the stretch of source video (playback speed), or the number of clips, as in the
    literal transform of Figure 3: L clips at stride 1 become L // k at stride k, never larger than L. The paper does
    not say; 6 clips x 8 frames x stride 4 = 192 fit a 10 s video."""
    layout: Literal["contiguous", "segments"] = "contiguous"
    """Clips back to back in the source, or one in each of L neighbouring parts of J. The paper does not say."""
    min_overlap: float = 0.0
    """Smallest share of the shorter view's source stretch that the other must cover; only when pasting. The paper draws
    independently."""


@dataclass(frozen=True, kw_only=True)
class TimelineConfig:
    """How clips lie in time."""

    clips: int = 8
    """J, clips of a synthetic video (Sec. 4.1.1)."""
    frames: int = 8
    """T, frames of a clip (Sec. 4.1.1)."""
    views: int = 2
    """Query and key; 1 for supervised classification."""
    regions: int = 1
    """Regions of each video in a step, each with draws of its own: so many pairs from one pass over the file. The paper
    says nothing of it and draws one."""
    background: BackgroundConfig = field(default_factory=BackgroundConfig)
    """Clips outside the region."""
    region: RegionConfig = field(default_factory=RegionConfig)
    """Clips of the pseudo action."""
    context: Literal["own", "none"] = "own"
    """What surrounds a region that stays in its own video (Table 3, #1 and #2): the video's other clips, or nothing, so
    that the region is all there is (J = L). The paper does not say."""

    def __post_init__(self) -> None:
        region = self.region
        if self.clips < 1 or self.frames < 1 or self.regions < 1 or self.views not in (1, 2):
            raise ConfigError("A timeline needs clips, frames and regions of at least 1, and one or two views.")
        if not 1 <= region.min_clips <= region.max_clips <= self.clips:
            raise ConfigError(
                f"A region of {region.min_clips} to {region.max_clips} clips does not fit {self.clips} clips; "
                "set 1 <= region.min_clips <= region.max_clips <= clips."
            )
        if not 1 <= region.min_stride <= region.max_stride:
            raise ConfigError(f"Strides need 1 <= min <= max, found {region.min_stride} and {region.max_stride}.")
        if not 0 <= region.min_overlap <= 1:
            raise ConfigError(f"region.min_overlap is a share between 0 and 1, found {region.min_overlap}.")
        if region.min_overlap > 0 and region.layout != "contiguous":
            raise ConfigError("region.min_overlap needs region.layout 'contiguous'; otherwise the place is not free.")
        if region.scale_mode == "resample_clips" and region.stride_scope != "region":
            raise ConfigError("region.scale_mode 'resample_clips' needs region.stride_scope 'region'.")
        if isinstance(self.background.stride, int) and self.background.stride < 1:
            raise ConfigError(f"background.stride must be at least 1, found {self.background.stride}.")


@dataclass(frozen=True)
class Timeline:
    """What was drawn for one video: frame indices and places, for every view."""

    clips: Int[np.ndarray, "V J T"]
    """The video's own J clips: the background it lends to others, or, without paste, the whole synthetic video (with
    `context` none R clips, of which those beyond `length` are never looked at)."""
    region: Int[np.ndarray, "V R T"]
    """The region's clips; entries beyond `length` repeat the last clip and are never looked at."""
    start: Int[np.ndarray, " V"]
    """First slot that the region is pasted to (0-based; the paper's s minus 1)."""
    length: Int[np.ndarray, " V"]
    """L, number of clips of the region."""
    stride: Int[np.ndarray, " V"]
    """Stride of the region's first clip; smaller than what was drawn where the video is too short for that."""
    lent: Int[np.ndarray, "V J T"]
    """The video's own J clips without its region: what it can lend to others even when its region stays at home."""


def clip_span(frames: int, stride: int) -> int:
    """Frames from the first to the last of a clip, both counted.

    >>> clip_span(8, 4)
    29
    """
    return (frames - 1) * stride + 1


def fitting_stride(num_frames: int, frames: int, stride: int) -> int:
    """The largest stride up to `stride` whose clip still fits the video; 1 when none does.

    >>> fitting_stride(20, 8, 4)
    2
    """
    return stride if frames == 1 else max(1, min(stride, (num_frames - 1) // (frames - 1)))


def clip_frames(
    starts: Int[np.ndarray, " L"], strides: Int[np.ndarray, " L"], frames: int, num_frames: int
) -> Int[np.ndarray, "L T"]:
    """Frame indices of clips; a video shorter than a clip is played in a loop."""
    return (starts[:, None] + strides[:, None] * np.arange(frames)) % num_frames


def uniform_starts(
    rng: np.random.Generator | None, num_frames: int, clips: int, span: int, shared: bool = False
) -> Int[np.ndarray, " J"]:
    """First frames of one clip in each of `clips` equal parts of the video (T1); centred when `rng` is None.

    Where a part is shorter than the clip the clip starts with the part, and never runs past the end of the video.

    >>> uniform_starts(None, 64, 4, 8).tolist()
    [4, 20, 36, 52]
    """
    slack = max(0.0, num_frames / clips - span)
    jitter = np.full(clips, 0.5) if rng is None else rng.random(1 if shared else clips)
    starts = np.floor(np.arange(clips) * num_frames / clips + jitter * slack).astype(np.int64)
    return np.minimum(starts, max(0, num_frames - span))


def contiguous_starts(
    rng: np.random.Generator | None,
    num_frames: int,
    frames: int,
    strides: Int[np.ndarray, " L"],
    within: tuple[int, int] | None = None,
) -> Int[np.ndarray, " L"]:
    """First frames of back-to-back clips (T6), at a random place, or centred when `rng` is None.

    Clips lie one slot (frames x stride) apart; in a short video they move together evenly and overlap rather than
    fail. `within` bounds the first frame further (used for `min_overlap`).

    >>> contiguous_starts(None, 100, 8, np.array([2, 2, 2])).tolist()
    [26, 42, 58]
    """
    pitches = frames * strides[:-1]
    last = clip_span(frames, int(strides[-1]))
    room = max(0, num_frames - last)
    if pitches.sum() > room:
        pitches = pitches * room // max(1, int(pitches.sum()))
    offsets = np.concatenate([[0], np.cumsum(pitches)]).astype(np.int64)
    free = max(0, room - int(offsets[-1]))
    low, high = (0, free) if within is None else (min(max(0, within[0]), free), min(within[1], free))
    first = (low + high) // 2 if rng is None else int(rng.integers(low, max(low, high) + 1))
    spans = (frames - 1) * strides + 1
    return np.minimum(first + offsets, np.maximum(0, num_frames - spans))


def draw_strides(rng: np.random.Generator, cfg: RegionConfig, length: int) -> Int[np.ndarray, " L"]:
    """Strides of a region's clips (T4), before the video's length is looked at."""
    shares = _stride_shares(cfg.min_stride, cfg.max_stride, cfg.stride_law)
    count = length if cfg.stride_scope == "clip" else 1
    drawn = cfg.min_stride + shares.searchsorted(rng.random(count), side="right")
    return drawn if count == length else drawn.repeat(length)  # the draws of `rng.choice`, without its many checks


@lru_cache
def _stride_shares(least: int, most: int, law: str) -> Float[np.ndarray, " S"]:
    """The share of strides up to each."""
    values = np.arange(least, most + 1)
    weights = np.ones(len(values)) if law == "uniform" else 1 / values
    shares = np.cumsum(weights / weights.sum())
    return shares / shares[-1]


def draw_length(rng: np.random.Generator, cfg: RegionConfig) -> int:
    """Number of clips of a region (T3)."""
    return int(rng.integers(cfg.min_clips, cfg.max_clips + 1))


def draw_timeline(
    rng: np.random.Generator, num_frames: int, cfg: TimelineConfig, *, paste: bool, centred: bool = False
) -> Timeline:
    """Draws everything that concerns time for one video.

    With `paste`, the region is cut from anywhere (T6) and goes to a random slot of another video (T7). Without, the
    synthetic video is the video itself and the region's slots are re-sampled in place (Table 3, #0 to #2). `centred`
    puts the video's own clips in the middle of their room instead of drawing them (validation, T1).

    Raises:
        ConfigError: The video has no frames.
    """
    if num_frames < 1:
        raise ConfigError("A video without frames has no timeline.")
    length = draw_length(rng, cfg.region)
    fixed = length if cfg.region.equal else None
    views = [_draw_view(rng, num_frames, cfg, paste, centred, fixed) for _ in range(cfg.views)]
    if paste and cfg.region.min_overlap > 0 and cfg.views == 2:
        views[1] = _overlapping(rng, num_frames, cfg, views)
    if not paste and cfg.context == "none":
        alone = [_padded(view.region, cfg.region.max_clips) for view in views]
        views = [replace(view, clips=clips, lent=clips, start=0) for view, clips in zip(views, alone, strict=True)]
    clips, lent = [view.clips for view in views], [view.lent for view in views]
    if cfg.background.share:
        lent = [lent[0]] * len(lent)
        clips = lent if paste else clips
    return Timeline(
        clips=np.stack(clips),
        region=np.stack([_padded(view.region, cfg.region.max_clips) for view in views]),
        start=np.array([view.start for view in views]),
        length=np.array([len(view.region) for view in views]),
        stride=np.array([int(view.strides[0]) for view in views]),
        lent=np.stack(lent),
    )


def extraction_frames(num_frames: int, frames: int, stride: int, interval: int) -> Int[np.ndarray, "N T"]:
    """Frame indices of clips that cover a whole video, one every `interval` frames, for feature extraction.

    The number of clips is (num_frames - frames x stride) / interval + 1, rounded, at least 1: a tail of half an
    interval or more gets a clip of its own, whose frames past the end repeat the last frame.
    """
    count = max(1, int(np.floor((num_frames - frames * stride) / interval + 0.5)) + 1)
    indices = np.arange(count)[:, None] * interval + stride * np.arange(frames)
    return np.minimum(indices, num_frames - 1)


@dataclass(frozen=True)
class _View:
    clips: np.ndarray
    region: np.ndarray
    start: int
    strides: np.ndarray
    lent: np.ndarray


def _draw_view(
    rng: np.random.Generator, num_frames: int, cfg: TimelineConfig, paste: bool, centred: bool, length: int | None
) -> _View:
    strides = _draw_region(rng, num_frames, cfg, length)
    length = len(strides)
    start = int(rng.integers(0, cfg.clips - length + 1))
    clip_strides = np.full(cfg.clips, _draw_background_stride(rng, num_frames, cfg, int(strides[0])))
    clip_starts = _place_background(None if centred else rng, num_frames, cfg, clip_strides)
    own = clip_frames(clip_starts, clip_strides, cfg.frames, num_frames)
    if paste:
        starts = _cut(rng, num_frames, cfg, strides)
        return _View(own, clip_frames(starts, strides, cfg.frames, num_frames), start, strides, own)
    latest = np.maximum(0, num_frames - ((cfg.frames - 1) * strides + 1))
    starts = np.minimum(clip_starts[start : start + length], latest)
    region, lent = clip_frames(starts, strides, cfg.frames, num_frames), own.copy()
    own[start : start + length] = region
    return _View(own, region, start, strides, lent)


def _draw_region(
    rng: np.random.Generator, num_frames: int, cfg: TimelineConfig, length: int | None
) -> Int[np.ndarray, " L"]:
    """Strides of the region's clips, as many as it has, none too large for the video (T3 to T6)."""
    length = draw_length(rng, cfg.region) if length is None else length
    drawn = draw_strides(rng, cfg.region, length)
    strides = np.array([fitting_stride(num_frames, cfg.frames, stride) for stride in drawn.tolist()])
    if cfg.region.scale_mode == "resample_clips":
        strides = np.minimum(strides, length)[: length // min(int(strides[0]), length)]
    return strides


def _draw_background_stride(rng: np.random.Generator, num_frames: int, cfg: TimelineConfig, region_stride: int) -> int:
    wanted = cfg.background.stride
    if wanted == "random_per_video":
        wanted = int(rng.integers(cfg.region.min_stride, cfg.region.max_stride + 1))
    return fitting_stride(num_frames, cfg.frames, region_stride if wanted == "same_as_region" else wanted)


def _place_background(
    rng: np.random.Generator | None, num_frames: int, cfg: TimelineConfig, strides: Int[np.ndarray, " J"]
) -> Int[np.ndarray, " J"]:
    if cfg.background.layout == "contiguous":
        return contiguous_starts(rng, num_frames, cfg.frames, strides)
    shared = cfg.background.layout == "segments_shared_jitter"
    return uniform_starts(rng, num_frames, cfg.clips, clip_span(cfg.frames, int(strides[0])), shared)


def _cut(
    rng: np.random.Generator,
    num_frames: int,
    cfg: TimelineConfig,
    strides: Int[np.ndarray, " L"],
    within: tuple[int, int] | None = None,
) -> Int[np.ndarray, " L"]:
    """First frames of the clips of a region that is going to be pasted."""
    if cfg.region.layout == "contiguous":
        return contiguous_starts(rng, num_frames, cfg.frames, strides, within)
    first = int(rng.integers(0, cfg.clips - len(strides) + 1))
    starts = uniform_starts(rng, num_frames, cfg.clips, clip_span(cfg.frames, int(strides.max())))
    return starts[first : first + len(strides)]


def _overlapping(rng: np.random.Generator, num_frames: int, cfg: TimelineConfig, views: list[_View]) -> _View:
    """Moves the second view's region so that it covers `min_overlap` of the shorter one's stretch (T8)."""
    first, second = views
    reach = [int(view.region.max() - view.region.min()) + 1 for view in views]
    shared = cfg.region.min_overlap * min(reach)
    begin = int(first.region.min())
    within = (math.ceil(begin - reach[1] + shared), math.floor(begin + reach[0] - shared))
    starts = _cut(rng, num_frames, cfg, second.strides, within)
    region = clip_frames(starts, second.strides, cfg.frames, num_frames)
    return replace(second, region=region)


def _padded(region: np.ndarray, most: int) -> np.ndarray:
    short = most - len(region)
    return np.concatenate([region, region[-1:].repeat(short, 0)]) if short else region
