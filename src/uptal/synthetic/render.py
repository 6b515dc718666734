"""From a script to frames: the scene as the camera sees it, the figure and all that moves, the sensor.

Drawing a single capsule is left to `paint.py`, painting a scene to `scenes.py`. Letters: F frames, H W pixels of a
frame, R C pixels of a scene; colours are planar (F, 3, H, W) until the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from uptal.synthetic.config import CorpusConfig, Kind
from uptal.synthetic.figure import Skeleton, Stroke, draw_figure, dress, hold, pose_skeleton, rgb
from uptal.synthetic.noise import smooth_noise
from uptal.synthetic.paint import darken_ellipse, draw_capsule
from uptal.synthetic.scenes import paint_scene
from uptal.synthetic.script import Script, Shot, rng_for, write_script
from uptal.types import Video

_RUN = 16
"""Frames whose patches are computed together; their numbers fit into the cache of a core."""
_BALLS = ("d62828", "f77f00", "fcbf49", "2a9d8f", "457b9d", "9d4edd", "ff70a6", "edf2f4")


def render_video(config: CorpusConfig, kind: Kind, index: int) -> tuple[UInt8[np.ndarray, "F H W 3"], Video]:
    """Frames (RGB) and annotation of one video: a pure function of (config, kind, index)."""
    script = write_script(config, kind, index)
    return render_script(script, config, rng_for(config, kind, index, 5)), script.video


def render_script(script: Script, config: CorpusConfig, rng: np.random.Generator) -> UInt8[np.ndarray, "F H W 3"]:
    """Frames (RGB) of a script, whoever wrote it."""
    height, width = config.shape
    skeleton = pose_skeleton(script.poses)
    layers = _layers(script, skeleton, config, rng)
    grain = config.noise * rng.standard_normal((3, 2 * height, 2 * width)).astype(np.float32)
    film = np.empty((script.num_frames, height, width, 3), np.uint8)
    for shot in script.shots:
        for start in range(shot.start, shot.end, _RUN):
            frames = slice(start, min(start + _RUN, shot.end))
            canvas = _pan(paint_scene(shot.scene, height, width), script.camera[frames], height, width)
            if not shot.absent:
                _cast_shadow(canvas, skeleton, frames, shot, script)
            for layer in layers:
                _draw(canvas, layer, frames, shot, script)
            film[frames] = _expose(canvas, script.brightness[frames], grain, rng)
    return film


@dataclass(frozen=True)
class _Layer:
    """A stroke of the figure (in body heights from its ground point) or of the scene (in frame heights)."""

    stroke: Stroke
    of_figure: bool
    shown: Float[np.ndarray, " F"] | None = None
    """1 where the stroke is there, 0 where it is not; None is always."""


def _layers(script: Script, skeleton: Skeleton, config: CorpusConfig, rng: np.random.Generator) -> list[_Layer]:
    """Everything that is drawn over the scene, from back to front."""
    balls = [_ball(script, rng) for _ in range(rng.integers(0, config.max_distractors + 1))]
    num_behind = int(rng.integers(0, len(balls) + 1))
    figure = [_Layer(stroke, True) for stroke in draw_figure(skeleton, dress(rng))]
    if script.prop is not None:
        acting = np.zeros(script.num_frames)
        for instance in script.instances:
            acting[instance.start : instance.end] = 1
        figure += [_Layer(stroke, True, acting) for stroke in hold(skeleton, script.prop)]
    return [*balls[:num_behind], *figure, *balls[num_behind:]]


def _ball(script: Script, rng: np.random.Generator) -> _Layer:
    """A ball that wanders about as fast as a hand moves."""
    scale = float(np.exp(rng.uniform(np.log(4), np.log(12))))
    home = np.array([rng.choice([-1, 1]) * rng.uniform(0.2, 0.5), rng.uniform(-0.4, 0.3)])
    way = np.stack([smooth_noise(script.num_frames, scale, rng) for _ in range(2)], axis=1) * rng.uniform(0.05, 0.2)
    radius, colour = float(rng.uniform(0.025, 0.06)), rgb(_BALLS[rng.integers(len(_BALLS))])
    return _Layer(Stroke(home + way, home + way, (radius, radius), colour, shadow=0.2), False)


def _pan(scene: UInt8[np.ndarray, "R C 3"], camera: Float[np.ndarray, "F 3"], height: int, width: int):
    """The part of the scene that the camera sees in every frame, bilinear: (F, 3, H, W)."""
    planes = np.ascontiguousarray(scene.transpose(2, 0, 1)).astype(np.float32)
    canvas = np.empty((len(camera), 3, height, width), np.float32)
    for image, (x, y, zoom) in zip(canvas, camera, strict=True):
        row, down = _taps(y, zoom, height, height, planes.shape[1])
        column, right = _taps(x, zoom, width, height, planes.shape[2])
        first, last = int(column[0]), int(column[-1]) + 2
        strip = planes[:, :, first:last]
        upper = strip[:, row]
        upper += (strip[:, row + 1] - upper) * down[:, None]
        left = upper[:, :, column - first]
        np.add(left, (upper[:, :, column - first + 1] - left) * right, out=image)
    return canvas


def _taps(middle: float, zoom: float, count: int, unit: int, limit: int):
    """For each of `count` pixels the first of two neighbouring scene pixels, and the share of the second."""
    place = middle * unit + (np.arange(count) + 0.5 - count / 2) / zoom + limit / 2 - 0.5
    place = np.clip(place, 0, limit - 1.001)
    first = place.astype(int)
    return first, (place - first).astype(np.float32)


def _draw(canvas, layer: _Layer, frames: slice, shot: Shot, script: Script) -> None:
    """Draw one layer into a run of frames of one shot."""
    shown = None if layer.shown is None else layer.shown[frames]
    if (layer.of_figure and shot.absent) or (shown is not None and not shown.any()):
        return
    stroke, camera = layer.stroke, script.camera[frames]
    start, end, unit = stroke.start[frames], stroke.end[frames], 1.0
    if layer.of_figure:
        start, end, unit = _stand(start, shot, script), _stand(end, shot, script), shot.figure_height
    scale = unit * camera[:, 2:] * canvas.shape[2]
    radii = np.array(stroke.radii) * scale * (1.0 if shown is None else shown[:, None])
    draw_capsule(
        canvas,
        _to_pixels(start, camera, canvas),
        _to_pixels(end, camera, canvas),
        radii,
        stroke.colour,
        stripes=stroke.stripes,
        shadow=stroke.shadow,
        softness=0.022 * canvas.shape[2],
    )


def _stand(points: Float[np.ndarray, "F 2"], shot: Shot, script: Script) -> Float[np.ndarray, "F 2"]:
    """From body heights (y up) to frame heights of the scene (y down)."""
    across = -points[:, 0] if script.mirrored else points[:, 0]
    return np.stack([shot.figure_x + shot.figure_height * across, shot.ground_y - shot.figure_height * points[:, 1]], 1)


def _to_pixels(points: Float[np.ndarray, "F 2"], camera, canvas) -> Float[np.ndarray, "F 2"]:
    height, width = canvas.shape[2:]
    return (points - camera[:, :2]) * camera[:, 2:] * height + (width / 2, height / 2)


def _cast_shadow(canvas, skeleton: Skeleton, frames: slice, shot: Shot, script: Script) -> None:
    """A soft pool under the feet, fainter and wider when the figure hops."""
    left, right = skeleton.left.ankle[frames], skeleton.right.ankle[frames]
    camera = script.camera[frames]
    spread = np.abs(left[:, 0] - right[:, 0])
    lift = np.maximum(np.minimum(left[:, 1], right[:, 1]) - 0.03, 0)
    ground = np.stack([(left[:, 0] + right[:, 0]) / 2 + 0.03, np.full_like(spread, 0.005)], axis=1)
    axes = np.stack([0.1 + 0.35 * spread + 0.3 * lift, 0.03 + 0.06 * lift], axis=1)
    scale = shot.figure_height * camera[:, 2:] * canvas.shape[2]
    middle = _to_pixels(_stand(ground, shot, script), camera, canvas)
    darken_ellipse(canvas, middle, axes * scale, 0.5 / (1 + 4 * lift))


def _expose(canvas: Float[np.ndarray, "F 3 H W"], brightness, grain, rng) -> UInt8[np.ndarray, "F H W 3"]:
    """Flicker and grain, then eight bits."""
    height, width = canvas.shape[2:]
    canvas *= brightness[:, None, None, None].astype(np.float32)
    for image in canvas:
        top, left = int(rng.integers(0, height + 1)), int(rng.integers(0, width + 1))
        image += grain[:, top : top + height, left : left + width]
    np.clip(canvas, 0, 255, out=canvas)
    return canvas.astype(np.uint8).transpose(0, 2, 3, 1)
