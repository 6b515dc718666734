"""Recipes of BMN (Lin et al., ICCV 2019): proposals from a map of all pairs of boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from uptal.localizers.bmn import BMN, BMNConfig
from uptal.localizers.bmn_weights import from_official
from uptal.localizers.samples import filled_width
from uptal.recipes.head import Head, LocalizeConfig, refuse_whole
from uptal.train import OptimConfig


def _schedule() -> OptimConfig:
    return OptimConfig(
        lr=1e-3, lr_batch=16, weight_decay=1e-4, batch=16, epochs=9, schedule="multistep", milestones=(7,), log_every=5
    )


@dataclass(frozen=True, kw_only=True)
class BMNSettings(LocalizeConfig):
    """Training of a BMN; the defaults are the published ActivityNet recipe's."""

    bmn: BMNConfig = field(default_factory=lambda: BMNConfig(in_channels=400))
    """The network; `in_channels` is the width of the store, up to a multiple of four."""
    optim: OptimConfig = field(default_factory=_schedule)
    """Adam 1e-3, weight decay 1e-4, batch 16, 9 epochs, a tenth of the rate for the last two (public BMN code)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_whole(self, "BMN")


def activitynet() -> BMNSettings:
    """BMN on whole videos resampled to 100 steps (Table 1; ActivityNet v1.3)."""
    return BMNSettings()


def small() -> BMNSettings:
    """A reduced BMN for short videos and two CPU cores: 32 steps, 8 samples, narrow layers, 20 epochs."""
    cfg = activitynet()
    net = replace(cfg.bmn, num_steps=32, num_samples=8, hidden=(64, 32, 128))
    return replace(cfg, bmn=net, optim=replace(cfg.optim, epochs=20, milestones=(16,), log_every=2))


def _fit_to(cfg: BMNSettings, width: int) -> BMNSettings:
    return replace(cfg, bmn=replace(cfg.bmn, in_channels=filled_width(width)))


def _build(cfg: BMNSettings, labels: Sequence[str]) -> nn.Module:
    return BMN(cfg.bmn)


HEAD = Head(
    settings=BMNSettings,
    recipes={"activitynet": activitynet, "small": small},
    fit_to=_fit_to,
    build=_build,
    num_steps=lambda cfg: cfg.bmn.num_steps,
    from_official=lambda cfg, checkpoint: from_official(checkpoint, cfg.bmn),
)
