"""What the recipes of one localizer have to say, in a form that training and prediction can use without knowing which.

A localizer is added by a file like `bmn` and a line in `heads`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from torch import nn

from uptal.errors import ConfigError
from uptal.localizers.samples import CutConfig
from uptal.train import OptimConfig


@dataclass(frozen=True, kw_only=True)
class LocalizeConfig:
    """What the training of every localizer on stored features has in common."""

    cut: CutConfig = field(default_factory=CutConfig)
    """How videos become samples."""
    optim: OptimConfig
    """Optimiser and schedule."""
    subset: str = "training"
    """Subset of the annotations to train on."""
    class_scores: Literal["video", "segment"] = "video"
    """Classes of a whole video times proposal scores, as published numbers have it, or classes of each proposal. Not
    for an ActionFormer that tells classes apart itself."""
    top_classes: int = 2
    """Classes that every proposal is written out with. Not for an ActionFormer that tells classes apart itself."""
    classifier_decay: float = 1e-2
    """Weight decay of the class-score classifier."""
    ema: float = 0.0
    """Decay of a running mean of the weights, which is then kept in their place; 0 keeps the last ones. It starts
    quickly: after n steps it is (1 + n) / (10 + n) at most."""
    seed: int = 0
    """Seed of initial weights, order and loss sampling."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`."""

    def __post_init__(self) -> None:
        if self.top_classes < 1:
            raise ConfigError(f"top_classes counts the classes of a proposal, at least 1; found {self.top_classes}.")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema is a decay from 0 (none) to below 1, found {self.ema}.")
        if not self.classifier_decay >= 0:
            raise ConfigError(f"classifier_decay must not be negative, found {self.classifier_decay}.")


def refuse_whole(cfg: LocalizeConfig, kind: str) -> None:
    """Refuses videos of any number of steps for a localizer whose map has a fixed size.

    Raises:
        ConfigError: `cut.mode` is `whole`.
    """
    if cfg.cut.mode == "whole":
        raise ConfigError(
            f"{kind} looks at a fixed number of steps: cut.mode must be resample or windows, found whole."
        )


S = TypeVar("S", bound=LocalizeConfig)


@dataclass(frozen=True, kw_only=True)
class Head(Generic[S]):
    """A localizer with its recipes."""

    settings: type[S]
    """What is set when it is trained."""
    recipes: Mapping[str, Callable[[], S]]
    """Whole configurations by name; the first is the default."""
    fit_to: Callable[[S, int], S]
    """The settings of a network for features of that width."""
    build: Callable[[S, Sequence[str]], nn.Module]
    """A new network (`localizers.training.Localizer`); the classes are for localizers that tell them apart."""
    num_steps: Callable[[S], int]
    """Steps of a sample when videos are resampled or cut into windows."""
    names_classes: Callable[[S], bool] = lambda cfg: False
    """Whether a network of these settings tells classes apart itself, so that class scores have nothing to name."""
    from_official: Callable[[S, Mapping[str, Any]], nn.Module] | None = None
    """A network from a checkpoint of the localizer's public code, where one can be read."""
