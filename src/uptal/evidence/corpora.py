"""Which corpora experiments are run on, and the rule that nothing is compared on one that may still change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from uptal.errors import ConfigError
from uptal.evidence.films import Split
from uptal.evidence.methods import Method
from uptal.synthetic import CorpusConfig
from uptal.synthetic.corpus import config_digest
from uptal.synthetic.frozen import CORPORA, DIGESTS, frames_digest


@runtime_checkable
class Place(Protocol):
    """Where methods are compared: a built-in corpus (below) or a folder (`folders`)."""

    @property
    def name(self) -> str:
        """In results and files."""
        ...

    @property
    def digest(self) -> str:
        """A name for the frames."""
        ...

    @property
    def split(self) -> Split:
        """Which videos are for what."""
        ...

    @property
    def size(self) -> int:
        """Side of the pictures."""
        ...

    @property
    def batch(self) -> int:
        """Videos a step of PAL."""
        ...

    @property
    def lr(self) -> float:
        """Learning rate."""
        ...

    @property
    def frozen(self) -> bool:
        """Whether it can no longer change, so that anything may be run on it."""
        ...


@dataclass(frozen=True)
class Corpus:
    """A built-in corpus with its parts, and the batch (of PAL) and learning rate that suit its size."""

    name: str
    config: CorpusConfig
    split: Split
    batch: int = 32
    lr: float = 1e-3
    frozen: bool = True

    @property
    def digest(self) -> str:
        """A name for the frames."""
        return config_digest(self.config)

    @property
    def size(self) -> int:
        """Side of the pictures."""
        return self.config.shape[0]


SMOKE = CorpusConfig(
    size=20, num_trimmed=144, num_untrimmed=16, trimmed_frames=48, untrimmed_frames=128, num_classes=4, seed=7,
    max_trimmed_idle=0.0, period_frames=(14.0, 16.0), period_drift=0.0, amplitude_drift=0.0, style=0.0, scene_bank=1,
    figure_height=(0.66, 0.66), max_distractors=0, camera_motion=0.0, flicker=0.0, noise=1.0,
)  # fmt: skip
"""A corpus of seconds without anything that makes it hard, to see that everything runs; no experiment."""


def corpus(name: str) -> Corpus:
    """A corpus by its name.

    The videos that are tested on are more of the same kind, drawn after the corpus's own: a video depends on its number
    and on nothing else.

    Raises:
        ConfigError: There is no such corpus, or a frozen one no longer gives the frames that it was frozen with.
    """
    if name == "smoke":
        split = Split(trimmed=96, trimmed_test=48, untrimmed=8, untrimmed_test=8)
        return Corpus(name, SMOKE, split, batch=8, lr=3e-3)
    if name not in CORPORA:
        raise ConfigError(
            f"There is no corpus {name!r}. Corpora: {', '.join(CORPORA)}, and smoke to try things; tables also take a "
            "folder of videos, which must be there."
        )
    config = CORPORA[name]
    if name in DIGESTS and frames_digest(config) != DIGESTS[name]:
        raise ConfigError(
            f"Corpus {name} is frozen, and this machine draws other frames than those. Another version of numpy or of "
            "uptal may be the reason; numbers would not belong to the corpus."
        )
    split = Split(trimmed=config.num_trimmed, trimmed_test=240, untrimmed=100, untrimmed_test=140)
    return Corpus(name, replace(config, num_trimmed=1140, num_untrimmed=240), split, frozen=name in DIGESTS)


def allow(row: Method, where: Place) -> None:
    """Lets a method run on a corpus.

    Raises:
        ConfigError: PAL, before the corpus is frozen.
    """
    if not where.frozen and not row.calibrates:
        raise ConfigError(
            f"Corpus {where.name} is not frozen yet (docs/decisions/0013-corpus-gate.md), so {row.name} must not be "
            "run on it: its knobs could then be set by the outcome. Methods that may: those that calibrate it "
            "(random, frame_difference, tac, moco, moco_stride). `--corpus smoke` tries everything."
        )
