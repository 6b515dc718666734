"""The screenplay of a video: who acts when, in which shots, seen by which camera; drawing is left to `render.py`.

Everything that chance decides is decided here or in `motion.py`, from generators seeded with (seed, kind, index).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from uptal.synthetic.config import CorpusConfig, Kind
from uptal.synthetic.motion import Instance, move
from uptal.synthetic.noise import smooth_noise
from uptal.types import Segment, Video

_STREAMS = {"trimmed": 1, "untrimmed": 2}


@dataclass(frozen=True, kw_only=True)
class Shot:
    """Frames [start, end) seen in one scene from one place."""

    start: int
    end: int
    scene: tuple[int, ...]
    """Seed of the scene: two shots with the same seed show the same place."""
    figure_x: float
    """Where the figure stands, in frame heights from the middle of the scene."""
    ground_y: float
    """Where it puts its feet, in frame heights below the middle of the scene."""
    figure_height: float
    """Height of the figure in frame heights."""
    absent: bool
    """The figure is away."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """All that is needed to draw one video."""

    video: Video
    num_frames: int
    instances: tuple[Instance, ...]
    shots: tuple[Shot, ...]
    poses: Float[np.ndarray, "F 12"]
    camera: Float[np.ndarray, "F 3"]
    """Middle (x, y) in frame heights and zoom."""
    brightness: Float[np.ndarray, " F"]
    prop: int | None
    """Class whose object the figure holds while it acts."""
    mirrored: bool


def rng_for(config: CorpusConfig, kind: Kind, index: int, topic: int) -> np.random.Generator:
    """The generator of one topic of one video; topics are independent, so that a knob changes only what it names."""
    return np.random.default_rng([config.seed, _STREAMS[kind], index, topic])


def video_id(kind: Kind, index: int) -> str:
    """The name of a video without suffix."""
    return f"{kind}_{index:05d}"


def write_script(config: CorpusConfig, kind: Kind, index: int) -> Script:
    """Decide everything about one video."""
    instances, num_frames = _cast(config, kind, index)
    rng = rng_for(config, kind, index, 1)
    shots = _shoot(instances, num_frames, config, kind, index)
    return Script(
        video=annotate(config, kind, index),
        num_frames=num_frames,
        instances=instances,
        shots=shots,
        poses=move(instances, num_frames, config, rng_for(config, kind, index, 2)),
        camera=_film(shots, config, rng_for(config, kind, index, 3)),
        brightness=1 + config.flicker * smooth_noise(num_frames, 0.7, rng),
        prop=instances[0].label if rng.uniform() < config.p_prop else None,
        mirrored=bool(rng.uniform() < 0.5),
    )


def annotate(config: CorpusConfig, kind: Kind, index: int) -> Video:
    """The annotation of one video, without drawing it."""
    instances, num_frames = _cast(config, kind, index)
    segments = (Segment(i.start / config.fps, i.end / config.fps, config.labels[i.label]) for i in instances)
    share = config.validation_share
    held_out = kind == "untrimmed" and int((index + 1) * share + 1e-9) > int(index * share + 1e-9)
    return Video(
        id=video_id(kind, index),
        duration=num_frames / config.fps,
        subset="validation" if held_out else "training",
        segments=tuple(segments),
    )


def _cast(config: CorpusConfig, kind: Kind, index: int) -> tuple[tuple[Instance, ...], int]:
    """Instances and number of frames of a video. Every block of `num_classes` videos holds each class once."""
    rng = rng_for(config, kind, index, 0)
    block, place = divmod(index, config.num_classes)
    order = np.random.default_rng([config.seed, _STREAMS[kind], block, 99]).permutation(config.num_classes)
    label = int(order[place])
    if kind == "trimmed":
        longest = int(config.trimmed_frames * config.max_trimmed_idle)
        head, tail = (int(value) for value in rng.integers(0, longest + 1, size=2))
        return (Instance(head, config.trimmed_frames - tail, label),), config.trimmed_frames
    others = [c for c in rng.permutation(config.num_classes) if c != label][: config.classes_per_video - 1]
    return _spread([label, *(int(c) for c in others)], config, rng), config.untrimmed_frames


def _spread(labels: list[int], config: CorpusConfig, rng: np.random.Generator) -> tuple[Instance, ...]:
    """Put 1 to `max_instances` instances into the frames of an untrimmed video, with gaps everywhere."""
    num, gap = int(rng.integers(1, config.max_instances + 1)), config.min_gap_frames
    shortest, longest = config.instance_frames
    num = min(num, (config.untrimmed_frames - gap) // (shortest + gap))
    room = config.untrimmed_frames - (num + 1) * gap
    lengths = np.exp(rng.uniform(np.log(shortest), np.log(longest), size=num))
    spare = room - shortest * num
    excess = lengths - shortest
    lengths = shortest + np.floor(excess * min(1.0, spare / max(excess.sum(), 1e-9))).astype(int)
    slack = rng.dirichlet(np.ones(num + 1)) * (room - lengths.sum())
    starts = np.floor(np.cumsum(slack[:-1])).astype(int) + gap * np.arange(1, num + 1)
    starts += np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(int)
    chosen = [labels[0], *rng.choice(labels, size=num - 1)]
    return tuple(Instance(int(s), int(s + n), int(c)) for s, n, c in zip(starts, lengths, chosen, strict=True))


def _shoot(
    instances: tuple[Instance, ...], num_frames: int, config: CorpusConfig, kind: Kind, index: int
) -> tuple[Shot, ...]:
    """Cut a video into shots: at absences, near boundaries, and anywhere for no reason."""
    rng = rng_for(config, kind, index, 4)
    borders = [0, *(frame for i in instances for frame in (i.start, i.end)), num_frames]
    away = [span for span in zip(borders[::2], borders[1::2], strict=True) if rng.uniform() < config.p_absent]
    away = [(start, end) for start, end in away if end - start >= 8]
    cuts = {frame for span in away for frame in span}
    near = [frame + int(rng.integers(-6, 7)) for frame in borders[1:-1] if rng.uniform() < config.p_cut]
    anywhere = rng.integers(1, num_frames, size=rng.poisson(config.cut_rate * num_frames / 100))
    for frame in (*near, *(int(f) for f in anywhere)):
        if all(abs(frame - other) >= 8 for other in (*cuts, 0, num_frames)) and not _inside(frame, away):
            cuts.add(frame)
    marks = sorted({0, num_frames} | cuts)
    spans = list(pairwise(marks))
    label = instances[0].label
    return tuple(
        Shot(
            start=start,
            end=end,
            scene=_choose_scene(label, place, config, kind, index, rng),
            figure_x=float(rng.uniform(-0.2, 0.2)),
            ground_y=float(rng.uniform(0.36, 0.43)),
            figure_height=float(rng.uniform(*config.figure_height)),
            absent=_inside(start, away),
        )
        for place, (start, end) in enumerate(spans)
    )


def _inside(frame: int, spans: list[tuple[int, int]]) -> bool:
    return any(start <= frame < end for start, end in spans)


def _choose_scene(label: int, shot: int, config: CorpusConfig, kind: Kind, index: int, rng: np.random.Generator):
    """Seed of the scene of a shot: from the shared bank, from the part of the class, or one of its own."""
    own, place = rng.uniform() < config.scene_class_correlation, rng.uniform()
    if config.scene_bank == 0:
        return (config.seed, 7, _STREAMS[kind], index, shot)
    if own:
        part = max(1, config.scene_bank // config.num_classes)
        return (config.seed, 8, (label * part + int(place * part)) % config.scene_bank)
    return (config.seed, 8, int(place * config.scene_bank))


def _film(shots: tuple[Shot, ...], config: CorpusConfig, rng: np.random.Generator) -> Float[np.ndarray, "F 3"]:
    """Camera path: a slow pan and zoom within each shot, and the unsteady hand that holds it."""
    paths = []
    for shot in shots:
        num = shot.end - shot.start
        drift = np.stack([smooth_noise(num, 25.0, rng) for _ in range(3)], axis=1) * (0.03, 0.015, 0.03)
        hand = np.stack([smooth_noise(num, 1.5, rng) for _ in range(3)], axis=1) * (0.005, 0.005, 0.002)
        unsteady = np.exp(0.7 * smooth_noise(num, 8.0, rng) - 0.25)[:, None]
        path = config.camera_motion * (drift + hand * unsteady)
        aim = shot.figure_x * rng.uniform(0.0, 0.8)
        paths.append(np.stack([aim + path[:, 0], path[:, 1], np.exp(path[:, 2])], axis=1))
    return np.concatenate(paths)
