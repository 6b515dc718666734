"""The actor: from a pose to coloured capsules; where the joints go in time and how capsules are drawn is elsewhere.

Letters: F frames. Points are in body heights from the point on the ground between the feet,
x to the right and y up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import cos, sin

_SHIRTS = ("e4572e", "f3a712", "2e86ab", "a23b72", "3bb273", "f6f5f0", "e15b97", "5b5f97", "ffc145", "1b998b")
_TROUSERS = ("2b2d42", "3d405b", "6b705c", "7f4f24", "1d3557", "582f0e", "4a4e69", "264653")
_SKINS = ("f6d3bd", "eebf9f", "d9a07a", "b97f57", "8d5a3a", "63402b")
_HAIR = ("2a211c", "4a3226", "7b4b2a", "b8793a", "d8b26e", "5c5c63", "8c2f1b")
_SHOES = ("f4f4f2", "22223b", "c1121f", "2a9d8f", "ffb703")


@dataclass(frozen=True)
class Stroke:
    """One capsule, tapered, over all frames. A disc is a capsule with equal ends."""

    start: Float[np.ndarray, "F 2"]
    end: Float[np.ndarray, "F 2"]
    radii: tuple[float, float]
    """At start and end, in the unit of the points."""
    colour: Float[np.ndarray, " 3"]
    """Red, green, blue in 0..255."""
    stripes: float = 0.0
    """Bands along the capsule: their contrast in 0..1."""
    shadow: float = 0.35
    """Strength of the soft shade thrown on what lies behind."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Build and clothes of one figure."""

    shirt: Float[np.ndarray, " 3"]
    trousers: Float[np.ndarray, " 3"]
    skin: Float[np.ndarray, " 3"]
    hair: Float[np.ndarray, " 3"]
    shoes: Float[np.ndarray, " 3"]
    stripes: float
    long_sleeves: bool
    shorts: bool
    build: float
    """Thickness of the limbs, 1 on average."""


def dress(rng: np.random.Generator) -> Look:
    """Draw a look."""
    return Look(
        shirt=_pick(_SHIRTS, rng),
        trousers=_pick(_TROUSERS, rng),
        skin=_pick(_SKINS, rng),
        hair=_pick(_HAIR, rng),
        shoes=_pick(_SHOES, rng),
        stripes=float(rng.choice([0.0, 0.0, 0.3])),
        long_sleeves=bool(rng.uniform() < 0.5),
        shorts=bool(rng.uniform() < 0.4),
        build=float(rng.uniform(0.9, 1.15)),
    )


def rgb(name: str) -> Float[np.ndarray, " 3"]:
    """A colour from six hexadecimal digits."""
    return np.array([int(name[i : i + 2], 16) for i in (0, 2, 4)], dtype=float)


def _pick(names: tuple[str, ...], rng: np.random.Generator) -> Float[np.ndarray, " 3"]:
    return rgb(names[rng.integers(len(names))])


@dataclass(frozen=True, kw_only=True)
class _Side:
    """Joints of the limbs on one side, (F, 2) each."""

    shoulder: Float[np.ndarray, "F 2"]
    elbow: Float[np.ndarray, "F 2"]
    hand: Float[np.ndarray, "F 2"]
    hip: Float[np.ndarray, "F 2"]
    knee: Float[np.ndarray, "F 2"]
    ankle: Float[np.ndarray, "F 2"]
    toe: Float[np.ndarray, "F 2"]


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """All joints over all frames."""

    left: _Side
    right: _Side
    pelvis: Float[np.ndarray, "F 2"]
    neck: Float[np.ndarray, "F 2"]
    head: Float[np.ndarray, "F 2"]
    up: Float[np.ndarray, "F 2"]
    """Direction of the head."""


def pose_skeleton(poses: Float[np.ndarray, "F 12"]) -> Skeleton:
    """Place all joints; the lower foot stands on the ground unless the figure hops."""
    lean, tilt, sway, hop = poses[:, 8], poses[:, 8] + poses[:, 9], poses[:, 10], poses[:, 11]
    spine, across = _toward(lean), _toward(lean + np.pi / 2)
    origin = np.zeros_like(spine)
    neck = origin + 0.325 * spine
    head = neck + 0.095 * _toward(tilt)
    left = _side(poses[:, 0:2], poses[:, 4:6], -1, lean, neck - 0.025 * spine, across)
    right = _side(poses[:, 2:4], poses[:, 6:8], 1, lean, neck - 0.025 * spine, across)
    lowest = np.minimum(left.ankle[:, 1], right.ankle[:, 1])
    shift = np.stack([sway, hop + 0.03 - lowest], axis=1)
    left, right = (_Side(**{name: joint + shift for name, joint in vars(side).items()}) for side in (left, right))
    return Skeleton(
        left=left, right=right, pelvis=origin + shift, neck=neck + shift, head=head + shift, up=_toward(tilt)
    )


def _side(arm, leg, sign: int, lean, shoulders, across) -> _Side:
    """Joints of one side before the body is put on the ground; angles turn outward from hanging down."""
    shoulder = shoulders + sign * 0.1 * across
    elbow = shoulder + 0.165 * _hang(sign * arm[:, 0] - lean)
    hand = elbow + 0.155 * _hang(sign * (arm[:, 0] + arm[:, 1]) - lean)
    hip = np.broadcast_to(np.array([sign * 0.055, -0.01]), shoulders.shape)
    knee = hip + 0.23 * _hang(sign * leg[:, 0])
    shin = sign * (leg[:, 0] - leg[:, 1])
    ankle = knee + 0.22 * _hang(shin)
    toe = ankle + 0.05 * _hang(shin + sign * 1.25)
    return _Side(shoulder=shoulder, elbow=elbow, hand=hand, hip=hip, knee=knee, ankle=ankle, toe=toe)


def _toward(angle) -> Float[np.ndarray, "F 2"]:
    """Unit vectors at an angle to the right of upward."""
    return np.stack([sin(angle), cos(angle)], axis=1)


def _hang(angle) -> Float[np.ndarray, "F 2"]:
    """Unit vectors at an angle to the right of downward."""
    return np.stack([sin(angle), -cos(angle)], axis=1)


def draw_figure(skeleton: Skeleton, look: Look) -> list[Stroke]:
    """The strokes of the figure, from back to front."""
    legs = [stroke for side in (skeleton.left, skeleton.right) for stroke in _leg(side, look)]
    arms = [stroke for side in (skeleton.left, skeleton.right) for stroke in _arm(side, look)]
    chest, belly = skeleton.neck * 0.8 + skeleton.pelvis * 0.2, skeleton.pelvis
    torso = [
        Stroke(belly, belly, (0.072, 0.072), look.trousers),
        Stroke(chest, 0.15 * chest + 0.85 * belly, (0.098 * look.build, 0.076 * look.build), look.shirt, look.stripes),
    ]
    return [*legs, *torso, *_head(skeleton, look), *arms]


def _leg(side: _Side, look: Look) -> list[Stroke]:
    b = look.build
    return [
        Stroke(side.ankle, side.toe, (0.032, 0.026), look.shoes),
        Stroke(side.knee, side.ankle, (0.042 * b, 0.03 * b), look.skin if look.shorts else look.trousers),
        Stroke(side.hip, side.knee, (0.062 * b, 0.045 * b), look.trousers),
    ]


def _arm(side: _Side, look: Look) -> list[Stroke]:
    b, sleeve = look.build, look.shirt if look.long_sleeves else look.skin
    return [
        Stroke(side.shoulder, side.elbow, (0.043 * b, 0.036 * b), look.shirt),
        Stroke(side.elbow, side.hand, (0.034 * b, 0.026 * b), sleeve),
        Stroke(side.hand, side.hand, (0.034, 0.034), look.skin),
    ]


def _head(skeleton: Skeleton, look: Look) -> list[Stroke]:
    up, head = skeleton.up, skeleton.head
    side = np.stack([up[:, 1], -up[:, 0]], axis=1)
    face = head - 0.014 * up
    eyes = [
        Stroke(face + s * 0.03 * side, face + s * 0.03 * side, (0.0105, 0.0105), rgb("2b2430"), 0.0, 0.0)
        for s in (-1, 1)
    ]
    return [
        Stroke(skeleton.neck - 0.02 * up, head, (0.035, 0.035), look.skin * 0.92),
        Stroke(head + 0.014 * up, head + 0.01 * up, (0.086, 0.086), look.hair),
        Stroke(face, face - 0.006 * up, (0.074, 0.07), look.skin, 0.0, 0.15),
        *eyes,
    ]


def hold(skeleton: Skeleton, label: int) -> list[Stroke]:
    """The object of a class in the hands: a ball, a pair of clubs or a staff, in the colour of the class."""
    colour = rgb(("ef476f", "ffd166", "06d6a0", "118ab2")[label // 3 % 4])
    left, right = skeleton.left, skeleton.right
    if label % 3 == 0:
        return [Stroke(right.hand, right.hand, (0.06, 0.06), colour)]
    if label % 3 == 1:
        clubs = [(side.hand, side.hand + 0.75 * (side.hand - side.elbow)) for side in (left, right)]
        return [Stroke(start, end, (0.012, 0.034), colour) for start, end in clubs]
    across = 0.9 * (right.hand - right.elbow)
    staff = np.stack([across[:, 1], -across[:, 0]], axis=1)
    return [Stroke(right.hand - staff, right.hand + staff, (0.014, 0.014), colour)]
