"""Backgrounds from the region's own video: another time of it, or one of its frames, held still (not in the paper).

Pasted onto another video, a region still brings its whole scene along, and the scene tells what belongs together. Where
the background is of the same scene, only what happens in it is left to tell.

Letters: V views, J clips of a synthetic video, L clips of a region, T frames of a clip.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from uptal.clips import Timeline

WITHIN = ("own", "frozen")
"""Sources of backgrounds (`PasteConfig.source`) that need no other video."""


def elsewhere(rng: np.random.Generator, timeline: Timeline) -> Timeline:
    """The regions on slots where the video's own clips show other times than what is pasted there.

    Each view takes one of those places, all being as likely; where there is none, any place.
    """
    parts = zip(timeline.clips, timeline.region, timeline.length, strict=True)
    return replace(timeline, start=np.array([_slot(rng, clips, region[:length]) for clips, region, length in parts]))


def frozen(rng: np.random.Generator, timeline: Timeline, num_frames: int, share: bool) -> Timeline:
    """Every view's background clips all the same frame of the video, drawn for each view or, with `share`, for both."""
    views = len(timeline.clips)
    frames = np.broadcast_to(rng.integers(0, num_frames, 1 if share else views), (views,))
    clips = np.broadcast_to(frames[:, None, None], timeline.clips.shape).copy()
    return replace(timeline, clips=clips, lent=clips)


def _slot(rng: np.random.Generator, clips: Int[np.ndarray, "J T"], region: Int[np.ndarray, "L T"]) -> int:
    places = np.arange(len(clips) - len(region) + 1)
    covered = clips[places[:, None] + np.arange(len(region))]
    apart = (covered.min(2) > region.max(1)) | (covered.max(2) < region.min(1))
    good = places[apart.all(1)]
    return int(rng.choice(good if len(good) else places))
