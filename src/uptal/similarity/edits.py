"""The temporal edits of Sec. 4.4 as index arithmetic: which frames to show, where the action went; no pixels.

Letters: N clips of the original, M clips of the edited video, F frames of the edited video.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from uptal.types import Timebase

Span = tuple[int, int]
"""Half-open range of frames."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A video in which one action was cut out, played at another speed and put back at another place.

    ```
    original   ......AAAAAAAA........     action [6, 14)
    edited     ...AAAA...........         speed 2, position 3: action [3, 7)
    pieces     000111122233333333         the background closes over the old place between 2 and 3
    ```
    """

    frames: Int[np.ndarray, " F"]
    """Which frame of the original each frame of the edited video shows."""
    pieces: Int[np.ndarray, " F"]
    """Number of the piece that each frame belongs to: within one, the original plays without a cut at one speed."""
    action: Span
    """The action in the edited video: the ground truth, carried along."""


def edit_video(num_frames: int, action: Span, *, speed: float, position: int) -> Edit:
    """Cut the action out, play it `speed` times as fast, insert it after `position` frames of what is left.

    Frames are dropped or repeated, never mixed: frame i of the new action shows frame floor(i * speed) of the old one.

    Args:
        num_frames: Frames of the original.
        action: Its action, in frames.
        speed: 2 halves the action's length, 0.5 doubles it.
        position: Frames of background before the new action.

    Raises:
        ValueError: The action is empty or leaves the video, the speed is not positive, or the position is outside.
    """
    start, end = action
    if not 0 <= start < end <= num_frames:
        raise ValueError(f"The action [{start}, {end}) must be a non-empty part of [0, {num_frames}).")
    if not speed > 0:
        raise ValueError(f"The speed must be positive, found {speed}.")
    background = np.r_[0:start, end:num_frames]
    if not 0 <= position <= len(background):
        raise ValueError(f"The position must be in 0..{len(background)}, the frames that are left; found {position}.")
    played = start + np.floor(np.arange(np.ceil((end - start) / speed)) * speed).astype(np.int64)
    frames = np.r_[background[:position], played, background[position:]]
    new = (position, position + len(played))
    return Edit(frames=frames, pieces=_pieces(frames, new, speed), action=new)


def down_sample_and_move_backward(num_frames: int, action: Span, rng: np.random.Generator) -> Edit:
    """The paper's first edit: twice as fast, at a random earlier place (where it was, if the video begins with it)."""
    return edit_video(num_frames, action, speed=2.0, position=int(rng.integers(max(action[0], 1))))


def up_sample_and_move_forward(num_frames: int, action: Span, rng: np.random.Generator) -> Edit:
    """The paper's second edit: half as fast, at a random later place (where it was, if the video ends with it)."""
    last = num_frames - (action[1] - action[0])
    return edit_video(num_frames, action, speed=0.5, position=int(rng.integers(min(action[0] + 1, last), last + 1)))


def move(num_frames: int, action: Span, rng: np.random.Generator) -> Edit:
    """A pure shift: the same speed, at a random other place (where it was, if the video is all action)."""
    last = num_frames - (action[1] - action[0])
    others = [position for position in range(last + 1) if position != action[0]] or [action[0]]
    return edit_video(num_frames, action, speed=1.0, position=int(rng.choice(others)))


def clip_map(edit: Edit, grid: Timebase, num_clips: int, num_original: int) -> Int[np.ndarray, " M"]:
    """For each clip of the edited video, the clip of the original that shows the same moment (tau), or -1.

    The clip whose middle is nearest is taken. A clip that crosses a cut, or reaches beyond the video's end, has none.

    Args:
        edit: What was done.
        grid: Where clips lie; the same for both videos. Its frame rate plays no part.
        num_clips: Clips of the edited video (M).
        num_original: Clips of the original (N), at least one.
    """
    starts = np.round(np.arange(num_clips) * grid.stride).astype(np.int64)
    lasts = starts + round(grid.window) - 1
    within = lasts < len(edit.frames)
    first, last = (np.minimum(index, len(edit.frames) - 1) for index in (starts, lasts))
    middles = (edit.frames[first] + edit.frames[last] + 1) / 2
    nearest = np.floor((middles - grid.window / 2) / grid.stride + 0.5).astype(np.int64)
    whole = within & (edit.pieces[first] == edit.pieces[last])
    return np.where(whole, np.clip(nearest, 0, num_original - 1), -1)


def clips_inside(span: Span, grid: Timebase, num_clips: int) -> Bool[np.ndarray, " N"]:
    """Which clips have their middle in the span of frames."""
    middles = np.arange(num_clips) * grid.stride + grid.window / 2
    return (span[0] <= middles) & (middles < span[1])


def _pieces(frames: Int[np.ndarray, " F"], action: Span, speed: float) -> Int[np.ndarray, " F"]:
    """Count up wherever frames do not follow on each other, and wherever the speed changes."""
    cut = np.diff(frames) != 1
    if speed != 1:
        start, end = action
        cut[start : end - 1] = False
        cut[[edge - 1 for edge in (start, end) if 0 < edge < len(frames)]] = True
    return np.r_[0, np.cumsum(cut)]
