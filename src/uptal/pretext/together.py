"""Settings of the pretext task that make sense together only, looked at before anything is opened or built."""

from __future__ import annotations

from uptal.clips import TimelineConfig
from uptal.errors import ConfigError
from uptal.pretext.contrast import ContrastConfig
from uptal.pretext.pal import HeadConfig
from uptal.pretext.synthesis import PasteConfig


def check_together(timeline: TimelineConfig, paste: PasteConfig, head: HeadConfig, contrast: ContrastConfig) -> None:
    """Refuses options that could have no effect, or none that was meant.

    Raises:
        ConfigError: Naming the options.
    """
    if contrast.background and paste.source not in ("same", "diff"):
        raise ConfigError(
            f"contrast.background tells a region from the other video behind it, and with paste.source {paste.source} "
            "there is none. Use paste.source diff or same, or leave it out."
        )
    if paste.ramp and paste.source == "none":
        raise ConfigError("paste.ramp says how soon regions are pasted, and with paste.source none they never are.")
    if contrast.positives == "all" and timeline.regions == 1:
        raise ConfigError(
            "contrast.positives all is about several regions of a video, and data.timeline.regions is 1. Set "
            "data.timeline.regions 2 or more, or leave it out."
        )
    if contrast.motion and timeline.frames < 3:
        raise ConfigError(
            f"contrast.motion puts the frames of a clip in another order, and data.timeline.frames is "
            f"{timeline.frames}. Use clips of 3 frames or more, or leave it out."
        )
    if contrast.changes and timeline.frames < 2:
        raise ConfigError(
            "contrast.changes is about changes from frame to frame, and data.timeline.frames is "
            f"{timeline.frames}. Use clips of 2 frames or more, or leave it out."
        )
    nothing_around = timeline.context == "none" or timeline.region.min_clips == timeline.clips
    for name, wanted in (("contrast.own_outside", contrast.own_outside), ("head.boundary", head.boundary)):
        if wanted and nothing_around:
            raise ConfigError(
                f"{name} needs clips around the regions, and here a region is always the whole synthetic video "
                f"(data.timeline.context {timeline.context}, {timeline.clips} clips, regions of at least "
                f"{timeline.region.min_clips}). Leave it out, or use longer timelines with context own."
            )
