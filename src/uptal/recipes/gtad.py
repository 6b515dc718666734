"""Recipes of G-TAD (Xu et al., CVPR 2020): proposals as sub-graphs of a video's steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from uptal.localizers.gtad import GTAD, GTADConfig
from uptal.localizers.gtad import thumos14 as thumos14_net
from uptal.localizers.gtad_weights import from_official
from uptal.localizers.samples import CutConfig, filled_width
from uptal.recipes.head import Head, LocalizeConfig, refuse_whole
from uptal.train import OptimConfig


def _schedule() -> OptimConfig:
    return OptimConfig(
        lr=4e-3, lr_batch=16, weight_decay=1e-4, batch=16, epochs=10, schedule="multistep", milestones=(5,), log_every=5
    )


@dataclass(frozen=True, kw_only=True)
class GTADSettings(LocalizeConfig):
    """Training of a G-TAD; the defaults are the published ActivityNet recipe's."""

    gtad: GTADConfig = field(default_factory=lambda: GTADConfig(in_channels=400))
    """The network; `in_channels` is the width of the store, up to a multiple of four."""
    optim: OptimConfig = field(default_factory=_schedule)
    """Adam 4e-3, weight decay 1e-4, batch 16, 10 epochs, a tenth of the rate for the last five (public code)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_whole(self, "G-TAD")


def activitynet() -> GTADSettings:
    """G-TAD on whole videos resampled to 100 steps (Table 1; ActivityNet v1.3)."""
    return GTADSettings()


def thumos14() -> GTADSettings:
    """G-TAD on windows of 256 steps at the features' own rate (Table 6; THUMOS'14).

    Adam 4e-5, batch 8, 10 epochs with the rate divided after five, gradients clipped at norm 1 (public code). The paper
    trains 100 epochs on its own features: `--optim.epochs 100`. Up to a fifth of a window at the end of a video is left
    out, as in the public code; `--cut.tail 0` leaves out nothing.
    """
    schedule = replace(_schedule(), lr=4e-5, lr_batch=8, batch=8, clip_norm=1.0)
    return GTADSettings(gtad=thumos14_net(2048), optim=schedule, cut=CutConfig(mode="windows", tail=0.2))


def small() -> GTADSettings:
    """A reduced G-TAD for short videos and two CPU cores: 32 steps, 8 + 4 samples, narrow layers, 20 epochs."""
    cfg = activitynet()
    net = replace(cfg.gtad, num_steps=32, max_duration=32, inner=8, hidden=(64, 32, 128), groups=16)
    optim = replace(cfg.optim, lr=2e-3, epochs=20, milestones=(16,), log_every=2)
    return replace(cfg, gtad=net, optim=optim)


def _fit_to(cfg: GTADSettings, width: int) -> GTADSettings:
    return replace(cfg, gtad=replace(cfg.gtad, in_channels=filled_width(width)))


def _build(cfg: GTADSettings, labels: Sequence[str]) -> nn.Module:
    return GTAD(cfg.gtad)


HEAD = Head(
    settings=GTADSettings,
    recipes={"activitynet": activitynet, "thumos14": thumos14, "small": small},
    fit_to=_fit_to,
    build=_build,
    num_steps=lambda cfg: cfg.gtad.num_steps,
    from_official=lambda cfg, checkpoint: from_official(checkpoint, cfg.gtad),
)
