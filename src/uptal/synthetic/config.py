"""The settings of the built-in corpus: what is drawn, how often, how fast; drawing itself is left to the neighbours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from uptal.errors import ConfigError
from uptal.synthetic.actions import ACTIONS

Kind = Literal["trimmed", "untrimmed"]


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Everything that decides a corpus: two equal configs give equal frames, video by video.

    The defaults are corpus B of the gate (`benchmarks/corpus_gate.py`): scenes shared by all classes, so that motion
    is the only cue; `unique_scenes` and `web_like` give the other two.
    """

    num_trimmed: int = 240
    """Trimmed videos, one action each, for pre-training."""
    num_untrimmed: int = 90
    """Untrimmed videos with annotated instances and gaps between them."""
    size: int | tuple[int, int] = 96
    """Pixels of a square frame, or (height, width); even numbers, because H.264 halves the colour planes."""
    fps: int = 25
    """Frames per second."""
    seed: int = 0
    """Seed of the whole corpus; a video is a pure function of (config, kind, index)."""
    num_classes: int = 8
    """How many of the actions of `actions.ACTIONS` are used, from the first on."""
    actions: tuple[str, ...] = ()
    """Names of the actions that are used, `num_classes` of them, where not the first are wanted."""
    trimmed_frames: int = 80
    """Length of a trimmed video."""
    untrimmed_frames: int = 256
    """Length of an untrimmed video."""
    validation_share: float = 0.4
    """Share of the untrimmed videos in the subset `validation`; the others are `training`."""

    max_trimmed_idle: float = 0.25
    """A trimmed video begins and ends with up to this share of its frames without action."""
    max_instances: int = 3
    """An untrimmed video has 1 to this many instances."""
    instance_frames: tuple[int, int] = (24, 110)
    """Shortest and longest instance; lengths are log-uniform between them."""
    min_gap_frames: int = 10
    """Shortest stretch without action before, between and after the instances."""
    classes_per_video: int = 1
    """Distinct classes in one untrimmed video; 1 as in most of ActivityNet."""

    period_frames: tuple[float, float] = (14.0, 26.0)
    """Shortest and longest period of an action, log-uniform; one video keeps one tempo."""
    period_drift: float = 0.15
    """Slow relative change of the period inside an instance (standard deviation of its logarithm)."""
    amplitude_drift: float = 0.25
    """Relative change of the amplitude between and inside instances (standard deviation)."""
    style: float = 0.3
    """How differently performers move: standard deviation of the logarithm of the size of their arm and of their body
    movements, and of the angle (radians) at which they hold their arms; one video has one performer."""
    idle_speed: float = 1.0
    """Speed of the idle motion along the curves of the actions, relative to the actions."""
    idle_amplitude: float = 1.0
    """Size of the idle motion relative to the actions."""
    idle_dwell: tuple[float, float] = (0.4, 0.9)
    """Shortest and longest stretch of one action's curve that an idle limb follows, in periods; drawn uniformly."""
    hand_over: float = 0.65
    """Time in which a limb passes from one curve to the next, in and out of actions as well, in periods."""
    idle_symmetry: float = 0.5
    """Probability that both arms (or both legs) share one idle path, so that symmetry does not mean action."""

    figure_height: tuple[float, float] = (0.5, 0.66)
    """Smallest and largest figure, in frame heights; one shot keeps one distance."""
    scene_bank: int = 24
    """Number of scenes that all videos share; 0 gives every shot a scene of its own."""
    scene_class_correlation: float = 0.0
    """Probability that a shot takes its scene from the part of the bank that belongs to the class of the video."""
    p_prop: float = 0.0
    """Probability that the figure holds the object of its class while it acts (in gaps its hands are empty)."""
    p_absent: float = 0.0
    """Probability that the figure is away during a gap; the gap is then a shot of its own."""
    p_cut: float = 0.0
    """Probability of a change of shot within six frames of a boundary of an instance."""
    cut_rate: float = 0.0
    """Expected number of changes of shot per 100 frames that mean nothing."""

    max_distractors: int = 3
    """0 to this many balls wander through a video."""
    camera_motion: float = 1.75
    """Strength of pan, zoom and jitter; 0 is a tripod."""
    flicker: float = 0.015
    """Standard deviation of the relative brightness from frame to frame."""
    noise: float = 2.0
    """Standard deviation of the sensor noise, in grey levels of 256."""
    crf: int = 20
    """Constant rate factor of x264: smaller is better and larger."""

    def __post_init__(self) -> None:
        height, width = self.shape
        _require(
            min(height, width) >= 16 and height % 2 == 0 and width % 2 == 0, "size", self.size, "even and at least 16"
        )
        _require(2 <= self.num_classes <= len(ACTIONS), "num_classes", self.num_classes, f"2 to {len(ACTIONS)}")
        if self.actions:
            names = [action.name for action in ACTIONS]
            fits = len(set(self.actions) & set(names)) == len(self.actions) == self.num_classes
            expected = f"num_classes (here {self.num_classes}) different ones of {', '.join(names)}"
            _require(fits, "actions", self.actions, expected)
        _require(
            1 <= self.classes_per_video <= self.num_classes, "classes_per_video", self.classes_per_video, "1 or more"
        )
        for name in ("num_trimmed", "num_untrimmed"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(self.fps >= 1, "fps", self.fps, "1 or more")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(self.max_instances >= 1, "max_instances", self.max_instances, "1 or more")
        _require(0 <= self.max_trimmed_idle < 0.5, "max_trimmed_idle", self.max_trimmed_idle, "in [0, 0.5)")
        shortest, longest = self.instance_frames
        _require(4 <= shortest <= longest, "instance_frames", self.instance_frames, "(shortest, longest) from 4 on")
        _require(self.trimmed_frames >= 8, "trimmed_frames", self.trimmed_frames, "8 or more")
        needed = shortest + 2 * self.min_gap_frames
        _require(
            self.untrimmed_frames >= needed, "untrimmed_frames", self.untrimmed_frames,
            f"{needed} or more (one shortest instance and a gap on either side)",
        )  # fmt: skip
        _require(
            2 <= self.period_frames[0] <= self.period_frames[1], "period_frames", self.period_frames, "(low, high)"
        )
        for name in ("validation_share", "scene_class_correlation", "p_prop", "p_absent", "p_cut", "idle_symmetry"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "in [0, 1]")
        for name in ("cut_rate", "max_distractors", "camera_motion", "flicker", "noise", "min_gap_frames",
                     "scene_bank", "period_drift", "amplitude_drift", "style", "idle_amplitude", "hand_over",
                     "crf"):  # fmt: skip
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        low, high = self.figure_height
        _require(0 < low <= high <= 1, "figure_height", self.figure_height, "(low, high) in (0, 1]")
        _require(0 < self.idle_dwell[0] <= self.idle_dwell[1], "idle_dwell", self.idle_dwell, "(low, high)")
        _require(self.idle_speed > 0, "idle_speed", self.idle_speed, "positive")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a frame."""
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes in use."""
        return self.actions or tuple(action.name for action in ACTIONS[: self.num_classes])


def unique_scenes(config: CorpusConfig) -> CorpusConfig:
    """Corpus A: every shot has a scene of its own, so that the scene identifies the video."""
    return replace(config, scene_bank=0)


def web_like(config: CorpusConfig) -> CorpusConfig:
    """Corpus C: objects that belong to actions, an actor who leaves, changes of shot, scenes that go with classes.

    Each as often as leaves frame differences and single frames without an advantage (docs/decisions/0013).
    """
    return replace(config, scene_class_correlation=0.25, p_prop=0.15, p_absent=0.1, p_cut=0.15, cut_rate=1.5)


def _require(holds: bool, name: str, found: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"CorpusConfig.{name} must be {expected}, found {found!r}.")
