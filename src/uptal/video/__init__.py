"""Exact frames from video files, and one `VideoError` for every way in which a file can be unusable.

This package finds videos in a folder, says what is in them and decodes the frames asked for; which frames make a clip
is decided in `uptal.clips`, what happens to the pixels afterwards in `uptal.augment`.
"""

from uptal.video.folder import find_videos
from uptal.video.probing import VideoInfo, probe
from uptal.video.quarantine import Quarantine, QuarantineError
from uptal.video.reading import frames, read

__all__ = ["Quarantine", "QuarantineError", "VideoInfo", "find_videos", "frames", "probe", "read"]
