"""Smooth random curves, which everything in the corpus that drifts or trembles is made of."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def smooth_noise(num_frames: int, scale: float, rng: np.random.Generator) -> Float[np.ndarray, " F"]:
    """Random values of unit variance that change over about `scale` frames."""
    reach = max(1, round(2 * scale))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / scale) ** 2)
    white = rng.standard_normal(num_frames + 2 * reach)
    return np.convolve(white, kernel / np.sqrt((kernel**2).sum()), mode="valid")
