"""Recipes of ActionFormer (Zhang et al., ECCV 2022): an anchor-free pyramid that tells classes apart itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from uptal.localizers.actionformer import ActionFormer, ActionFormerConfig
from uptal.localizers.samples import CutConfig
from uptal.recipes.head import Head, LocalizeConfig
from uptal.train import OptimConfig


def _schedule() -> OptimConfig:
    return OptimConfig(
        algorithm="adamw", lr=1e-4, lr_batch=2, weight_decay=0.05, decay_vectors=False, batch=2, epochs=35,
        schedule="cosine", warmup_epochs=5.0, clip_norm=1.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ActionFormerSettings(LocalizeConfig):
    """Training of an ActionFormer; the defaults are the published THUMOS'14 recipe's."""

    actionformer: ActionFormerConfig = field(default_factory=lambda: ActionFormerConfig(in_channels=2048))
    """The network; `in_channels` is taken from the store."""
    cut: CutConfig = field(default_factory=lambda: CutConfig(mode="whole"))
    """Videos as they are, of any length."""
    optim: OptimConfig = field(default_factory=_schedule)
    """AdamW 1e-4, weight decay 0.05 (not on biases, norms and scales), batch 2, 5 epochs of warm-up and 30 on a cosine,
    gradients clipped at 1 (public code)."""
    ema: float = 0.999
    """The weights that are kept are a running mean (public code)."""


def thumos14() -> ActionFormerSettings:
    """Long videos at their own rate: about 200 of 2,304 steps at most, 35 epochs; for a GPU. Never trained here.

    Settings of `thumos_i3d.yaml` in the public code at 88f6110, and of OpenTAD at cd0ca96. At 18e5860 that file trains
    5 + 45 epochs and takes names from external class scores.
    """
    return ActionFormerSettings()


def activitynet() -> ActionFormerSettings:
    """Whole videos resampled to 192 steps, any class; names come from the class scores. About 10,000 videos; a GPU.

    Never trained here. Settings of `anet_i3d.yaml` in the public code at bc9c4c6, with which OpenTAD's for TSP features
    agree (cd0ca96). The paper's have 160 steps; for TSP features `anet_tsp.yaml` at 18e5860 has up to 768 steps of each
    video at its own rate, window 25, a normaliser of 400, sigma 0.8, votes from 0.85, regression weight 1.
    """
    cfg = thumos14()
    net = replace(
        cfg.actionformer, num_steps=192, width=256, window=7, last_window=0, position=True, label_smoothing=0.1,
        regression_weight=2.0, loss_norm=200.0, class_agnostic=True, min_duration=0.001, nms_sigma=0.75, voting=0.9,
        num_detections=100,
    )  # fmt: skip
    optim = replace(cfg.optim, lr=1e-3, batch=16, lr_batch=16, epochs=15)
    return replace(cfg, actionformer=net, cut=CutConfig(mode="resample"), optim=optim)


def small() -> ActionFormerSettings:
    """A narrow ActionFormer of four levels for short videos and two CPU cores: 25 epochs.

    About 15 seconds of one core for 96 videos of 31 features.
    """
    cfg = thumos14()
    net = replace(
        cfg.actionformer, num_steps=512, width=64, num_levels=4, num_stem=1, window=9, loss_norm=50.0,
        num_detections=100,
    )  # fmt: skip
    optim = replace(cfg.optim, lr=2e-3, batch=16, lr_batch=16, epochs=25, warmup_epochs=3.0, log_every=5)
    return replace(cfg, actionformer=net, optim=optim, ema=0.99)


def _fit_to(cfg: ActionFormerSettings, width: int) -> ActionFormerSettings:
    return replace(cfg, actionformer=replace(cfg.actionformer, in_channels=width))


def _build(cfg: ActionFormerSettings, labels: Sequence[str]) -> nn.Module:
    return ActionFormer(cfg.actionformer, labels)


HEAD = Head(
    settings=ActionFormerSettings,
    recipes={"thumos14": thumos14, "activitynet": activitynet, "small": small},
    fit_to=_fit_to,
    build=_build,
    num_steps=lambda cfg: cfg.actionformer.num_steps,
    names_classes=lambda cfg: not cfg.actionformer.class_agnostic,
)
