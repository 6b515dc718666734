"""The places behind the figure, each painted once on a canvas larger than the frame; the camera is elsewhere.

Coordinates are in frame heights from the middle of the scene, x to the right and y down, so that a scene looks the same
at every size. Letters: R C pixels of a scene; colours are 0..255.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8

from uptal.synthetic.easel import FLOOR, Easel, box, disc, floor, frame, gradient, stretch

MARGIN = 0.3
"""How far the canvas reaches beyond the frame on every side, in frame heights."""

_PALETTES = (
    ("f6d6ad", "f2a65a", "d9705a", "7d5a7d", "3b3f66"),  # sunset
    ("dff1f2", "9ccfd8", "6fb1a0", "4b8073", "2f4f4f"),  # lagoon
    ("f7efe2", "e6cfae", "c9a27a", "8c6e58", "4a3f3a"),  # sand
    ("e3e7f7", "b4bfe6", "8390c8", "545f96", "2c3158"),  # dusk
    ("f3f6de", "cfe0a3", "97bb73", "5f8a58", "31543f"),  # meadow
    ("fbe4e4", "f0b8b8", "cf8a9b", "86607f", "46385a"),  # rose
    ("eef0f0", "c6cfd3", "93a3ab", "5f7079", "323f47"),  # concrete
    ("fdf0c4", "f5cf74", "d99a4e", "95643d", "4c3a33"),  # amber
)


@lru_cache(maxsize=48)
def paint_scene(seed: tuple[int, ...], height: int, width: int) -> UInt8[np.ndarray, "R C 3"]:
    """The scene of this seed for frames of height x width pixels, with a margin for the camera."""
    rng = np.random.default_rng(seed)
    easel = stretch(height, width, round(MARGIN * height))
    palette = _colours(_PALETTES[rng.integers(len(_PALETTES))], rng)
    paint = _FAMILIES[rng.integers(len(_FAMILIES))]
    paint(easel, palette, rng)
    _grain(easel, rng)
    return frame(easel)


def _colours(names: tuple[str, ...], rng: np.random.Generator) -> Float[np.ndarray, "5 3"]:
    """A palette from light to dark, slightly shifted in colour and brightness."""
    table = np.array([[int(name[i : i + 2], 16) for i in (0, 2, 4)] for name in names], dtype=np.float32)
    return np.clip(table * rng.uniform(0.92, 1.06, size=3) * rng.uniform(0.9, 1.04), 0, 255).astype(np.float32)


def _ridge(easel: Easel, level: float, swing: float, rng: np.random.Generator):
    """Signed distance below a rolling skyline."""
    waves = rng.uniform(1.5, 9.0, size=4)
    line = sum(np.sin(w * easel.x + rng.uniform(0, 6.3)) / w**0.7 for w in waves)
    return level + swing * line - easel.y


def _sun(easel: Easel, colour, rng: np.random.Generator, highest: float = -0.4, lowest: float = -0.15) -> None:
    x, y, radius = rng.uniform(-0.45, 0.45), rng.uniform(highest, lowest), rng.uniform(0.05, 0.1)
    distance = disc(easel, x, y, radius)
    easel.blend(colour, 0.55 * np.exp(-np.maximum(distance, 0) / 0.12))
    easel.cover(np.clip(colour * 1.08, 0, 255), distance, 0.9)


def _clouds(easel: Easel, colour, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 4)):
        x, y, size = rng.uniform(-0.7, 0.7), rng.uniform(-0.55, -0.2), rng.uniform(0.03, 0.06)
        puffs = [disc(easel, x + dx * size, y - dy * size, r * size) for dx, dy, r in
                 ((-1.6, 0.0, 0.8), (-0.5, 0.5, 1.1), (0.8, 0.3, 1.0), (1.8, 0.0, 0.7))]  # fmt: skip
        easel.cover(colour, np.maximum(np.minimum.reduce(puffs), easel.y - y - 0.35 * size), 0.75)


def _hills(easel: Easel, palette, rng: np.random.Generator) -> None:
    gradient(easel, palette[1], palette[0], -0.6, 0.15)
    _sun(easel, palette[0], rng)
    _clouds(easel, np.clip(palette[0] * 1.06, 0, 255), rng)
    for depth, level in enumerate((-0.08, 0.03, 0.12)):
        haze = 0.35 * (2 - depth) / 2
        easel.cover(palette[2 + min(depth, 1)] * (1 - haze) + palette[0] * haze, _ridge(easel, level, 0.06, rng))
    floor(easel, palette[3], 0.6 * palette[2] + 0.4 * palette[3])
    for _ in range(40):
        x, y = rng.uniform(-0.9, 0.9), rng.uniform(FLOOR + 0.03, 0.75)
        size = 0.004 + 0.012 * (y - FLOOR)
        easel.cover(palette[2] * 1.1, disc(easel, x, y, size), 0.5)


def _room(easel: Easel, palette, rng: np.random.Generator) -> None:
    gradient(easel, palette[0] * 0.93, palette[1], -0.9, 0.4)
    pattern, pitch = rng.integers(3), rng.uniform(0.08, 0.16)
    paper = 0.6 * palette[1] + 0.4 * palette[2]
    if pattern == 0:
        easel.cover(paper, np.abs((easel.x / pitch) % 1 - 0.5) * pitch - 0.22 * pitch, 0.45)
    elif pattern == 1:
        cell = np.hypot((easel.x / pitch) % 1 - 0.5, (easel.y / pitch) % 1 - 0.5) * pitch
        easel.cover(paper, cell - 0.18 * pitch, 0.6)
    else:
        easel.cover(
            paper, (np.abs((easel.x / pitch) % 1 - 0.5) + np.abs((easel.y / pitch) % 1 - 0.5) - 0.3) * pitch, 0.5
        )
    for x in rng.permutation([-0.62, -0.3, 0.3, 0.62])[: rng.integers(1, 4)]:
        _picture(easel, float(x), palette, rng)
    floor(easel, palette[3] * 1.1, palette[2])
    slope = easel.x / np.maximum(0.35 + easel.y - FLOOR, 0.05)
    planks = np.abs((slope * 3.5) % 1 - 0.5)
    easel.blend(palette[3], np.where(easel.y > FLOOR, 0.35 * np.clip((0.06 - planks) / 0.03, 0, 1), 0.0))
    easel.cover(palette[0], np.abs(easel.y - FLOOR + 0.012) - 0.014)


def _picture(easel: Easel, x: float, palette, rng: np.random.Generator) -> None:
    y, half_width, half_height = rng.uniform(-0.32, -0.15), rng.uniform(0.07, 0.12), rng.uniform(0.08, 0.14)
    easel.blend(palette[4], 0.25 * np.exp(-np.maximum(box(easel, x, y + 0.015, half_width, half_height), 0) / 0.015))
    easel.cover(palette[3], box(easel, x, y, half_width, half_height))
    inside = box(easel, x, y, half_width - 0.014, half_height - 0.014)
    easel.cover(palette[0], inside)
    easel.cover(palette[2], np.maximum(inside, disc(easel, x + 0.03, y - 0.02, 0.04)))
    easel.cover(palette[1], np.maximum(inside, y + 0.02 + 0.03 * np.sin(18 * easel.x) - easel.y))


def _city(easel: Easel, palette, rng: np.random.Generator) -> None:
    gradient(easel, palette[3], palette[1], -0.7, 0.2)
    _sun(easel, palette[0], rng)
    for depth in range(2):
        colour = (0.55 * palette[2] + 0.45 * palette[3]) if depth == 0 else 0.45 * palette[3] + 0.55 * palette[4]
        x = -1.1
        while x < 1.1:
            half_width, top = rng.uniform(0.05, 0.1), rng.uniform(-0.4, 0.0) + 0.08 * depth
            tower = box(easel, x + half_width, (top + 0.3) / 2, half_width, (0.3 - top) / 2)
            easel.cover(colour * rng.uniform(0.92, 1.06), tower)
            if depth:
                _windows(easel, tower, palette[0], rng)
            x += 2 * half_width + rng.uniform(-0.01, 0.05)
    floor(easel, palette[2], palette[3])
    easel.cover(palette[1], np.abs(easel.y - FLOOR - 0.01) - 0.008, 0.7)


def _windows(easel: Easel, tower, colour, rng: np.random.Generator) -> None:
    pitch = rng.uniform(0.026, 0.036)
    column, row = np.floor(easel.x / pitch).astype(int), np.floor(easel.y / (1.3 * pitch)).astype(int)
    lit = ((column * 73 + row * 151 + int(rng.integers(1000))) * 2654435761 % 97) < 38
    pane = (
        np.maximum(np.abs(easel.x / pitch % 1 - 0.5) - 0.26, np.abs(easel.y / (1.3 * pitch) % 1 - 0.5) - 0.26) * pitch
    )
    easel.cover(colour, np.where(lit & (tower < -0.008), pane, 1.0), 0.75)


def _beach(easel: Easel, palette, rng: np.random.Generator) -> None:
    gradient(easel, palette[1], palette[0], -0.6, 0.1)
    _sun(easel, palette[0], rng)
    _clouds(easel, np.clip(palette[0] * 1.05, 0, 255), rng)
    sea = np.clip((easel.y - 0.02) / 0.2, 0, 1)[..., None]
    easel.cover(palette[3] + sea * (palette[2] - palette[3]), 0.02 - easel.y)
    for _ in range(9):
        x, y = rng.uniform(-0.9, 0.9), rng.uniform(0.04, FLOOR - 0.02)
        easel.cover(palette[0], box(easel, x, y, rng.uniform(0.03, 0.12), 0.003), 0.6)
    shore = FLOOR + 0.012 * np.sin(5 * easel.x + rng.uniform(0, 6))
    sand = np.array([236, 214, 172], np.float32) * 0.7 + palette[0] * 0.3
    easel.cover(palette[0], shore - 0.015 - easel.y)
    depth = np.clip((easel.y - shore) / 0.6, 0, 1)[..., None]
    easel.cover(sand * (1 - 0.25 * depth), shore - easel.y)
    x = float(rng.choice([-1, 1]) * rng.uniform(0.42, 0.62))
    easel.cover(palette[4], box(easel, x, 0.1, 0.006, 0.16))
    easel.cover(palette[2] * 1.15, np.maximum(disc(easel, x, 0.0, 0.16), easel.y + 0.02))
    stripes = np.abs((np.arctan2(easel.x - x, -easel.y) * 2.2) % 1 - 0.5) - 0.25
    easel.cover(palette[0], np.maximum(np.maximum(disc(easel, x, 0.0, 0.16), easel.y + 0.02), stripes * 0.1))


def _stage(easel: Easel, palette, rng: np.random.Generator) -> None:
    gradient(easel, palette[4], palette[3], -0.8, FLOOR)
    folds = 0.5 + 0.5 * np.sin(easel.x * rng.uniform(26, 40) + 1.5 * np.sin(3 * easel.x))
    easel.blend(palette[4] * 0.7, 0.5 * folds * np.ones_like(easel.y))
    floor(easel, palette[2], 0.5 * palette[3] + 0.5 * palette[2])
    for x in rng.uniform(-0.5, 0.5, size=2):
        middle = float(x) + (easel.y + 0.8) * rng.uniform(-0.35, 0.35)
        beam = np.abs(easel.x - middle) / (0.06 + 0.22 * np.maximum(easel.y + 0.8, 0))
        easel.blend(palette[0], np.where(easel.y < 0.42, 0.28 * np.clip(1.2 - beam, 0, 1), 0.0))
    pool = np.hypot(easel.x / 0.55, (easel.y - 0.38) / 0.14)
    easel.blend(palette[0], np.where(easel.y > FLOOR, 0.5 * np.clip(1.15 - pool, 0, 1), 0.0))


def _forest(easel: Easel, palette, rng: np.random.Generator) -> None:
    gradient(easel, palette[1], palette[0], -0.6, 0.2)
    for depth in range(3):
        mix = depth / 2
        leaf = palette[2] * (1 - mix) * 0.9 + palette[3] * mix + palette[0] * 0.25 * (1 - mix)
        for _ in range(6 - depth):
            x, size = rng.uniform(-0.95, 0.95), rng.uniform(0.1, 0.16) * (0.8 + 0.25 * depth)
            crown = rng.uniform(-0.32, -0.1) + 0.02 * depth
            easel.cover(
                0.5 * leaf + 0.5 * palette[4], box(easel, x, (crown + 0.24) / 2, 0.1 * size, (0.24 - crown) / 2)
            )
            puffs = [disc(easel, x + dx * size, crown - dy * size, r * size) for dx, dy, r in
                     ((-0.6, 0.0, 0.7), (0.0, 0.55, 0.8), (0.6, 0.05, 0.7))]  # fmt: skip
            easel.cover(leaf * rng.uniform(0.94, 1.06), np.minimum.reduce(puffs))
    floor(easel, palette[3] * 1.05, palette[2])


def _mural(easel: Easel, palette, rng: np.random.Generator) -> None:
    gradient(easel, palette[0], palette[1], -0.8, 0.6)
    for _ in range(rng.integers(5, 10)):
        colour = palette[rng.integers(1, 4)]
        x, y, radius = rng.uniform(-0.8, 0.8), rng.uniform(-0.7, 0.15), rng.uniform(0.08, 0.25)
        ring = disc(easel, x, y, radius)
        easel.cover(colour, np.abs(ring) - 0.02 if rng.uniform() < 0.35 else ring, 0.55)
    waves = np.sin(rng.uniform(6, 14) * easel.x + rng.uniform(4, 12) * easel.y)
    easel.blend(palette[2], 0.12 * np.clip(waves, 0, 1))
    floor(easel, palette[2] * 0.95, palette[3])


_FAMILIES: tuple[Callable[[Easel, Float[np.ndarray, "5 3"], np.random.Generator], None], ...] = (
    _hills, _room, _city, _beach, _stage, _forest, _mural,
)  # fmt: skip


def _grain(easel: Easel, rng: np.random.Generator) -> None:
    """A fine texture and a soft darkening towards the corners."""
    rows, columns = easel.image.shape[:2]
    coarse = rng.standard_normal((rows // 4 + 1, columns // 4 + 1)).astype(np.float32)
    fine = np.repeat(np.repeat(coarse, 4, axis=0), 4, axis=1)[:rows, :columns]
    corner = 1 - 0.16 * np.clip(easel.x**2 + easel.y**2, 0, 1)
    easel.image[:] = easel.image * (corner * (1 + 0.012 * fine))[..., None]
