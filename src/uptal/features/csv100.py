"""The public BMN code's way from snippet features to a hundred rows a video, to make or to check such files.

Reading and writing the files is left to others. Letters: N snippets, T rows, D feature width.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from uptal.errors import AnnotationError

_MARGIN = 1e-4
"""Seconds that samples stay away from the first and the last snippet."""


def csv_mean_100(
    values: Float[np.ndarray, "N D"],
    num_frames: float | int,
    seconds: float | int,
    *,
    num_steps: int = 100,
    snippet: int = 16,
    samples: int = 3,
) -> Float[np.ndarray, "T D"]:
    """`csv_mean_100`: each row is the mean of three samples of the features, interpolated linearly in time.

    Snippet k lies at its middle, (k + 1/2) * `snippet` frames. Row i samples the i-th of `num_steps` equal parts of the
    stretch that the snippets cover, both ends included, cut to what lies between the first and the last snippet's
    middle; a part that lies wholly outside gives zeros, so short videos begin and end with zeros. A single snippet is
    repeated. BMN's public data were made so; `resample` has no zeros, and looks at the middle of each part alone.

    Args:
        values: Snippet features in order of time.
        num_frames: Frames of the video (`duration_frame` of the annotations).
        seconds: Length of the video (`duration_second`).
        num_steps: Rows T.
        snippet: Frames of a snippet.
        samples: Samples of a row.

    Raises:
        AnnotationError: There are no features, or the video has no length.
    """
    if not len(values) or not (num_frames > 0 and seconds > 0):
        raise AnnotationError(
            f"csv_mean_100 needs features and a video of some length, found {len(values)} snippets, {num_frames} "
            f"frames and {seconds} seconds."
        )
    if len(values) == 1:
        return np.repeat(values, num_steps, axis=0)
    step = snippet * seconds / num_frames
    first, last, covered = step / 2, step / 2 + (len(values) - 1) * step, len(values) * step
    edges = np.arange(num_steps + 1) / num_steps * covered
    low, high = np.maximum(first + _MARGIN, edges[:-1]), np.minimum(last - _MARGIN, edges[1:])
    seen = (high >= first) & (low <= last)
    times = low[seen, None] + (high - low)[seen, None] / (samples - 1) * np.arange(samples)
    place = (times - first) / step
    before = place.astype(np.int64).clip(0, len(values) - 2)
    share = (place - before)[..., None]
    rows = np.zeros((num_steps, values.shape[1]), values.dtype)
    rows[seen] = ((1 - share) * values[before] + share * values[before + 1]).mean(axis=1)
    return rows
