"""How much is spent on a table: corpora, seeds, region pairs, and how far the localizers are reduced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from uptal.errors import ConfigError
from uptal.evidence.methods import Method
from uptal.localizers.gtad import thumos14
from uptal.localizers.samples import CutConfig
from uptal.recipes import bmn, gtad, lgi
from uptal.recipes.head import LocalizeConfig
from uptal.recipes.lgi import LGISettings
from uptal.synthetic.frozen import DIGESTS


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One size of all experiments."""

    name: str
    corpora: tuple[str, ...]
    """Corpora when none is named."""
    seeds: int
    pairs: int
    """Region pairs that PAL sees; the other rows see as many clips (or, where they say so, videos)."""
    labelled: int
    """The same for rows that learn from labels, which learn faster, up to the row's own end."""
    full: bool = False
    """Localizers at the size of their publications, in the place of those that fit a CPU."""
    head_epochs: int | None = None
    """Epochs of G-TAD and BMN; None for those of their recipes."""
    lgi_epochs: int | None = None
    """Epochs of LGI; None for those of its recipe."""
    finetune_steps: int = 1000
    """Steps of fine-tuning, 64 clips each."""
    device: str = "cpu"

    def budget(self, row: Method) -> int:
        """Region pairs' worth of what a row sees; 0 where nothing is trained."""
        if row.kind != "trained" or row.config is None:
            return 0
        wanted = self.labelled if row.config.method == "supervised" else self.pairs
        return wanted if row.most is None else min(wanted, row.most)

    def describe(self) -> str:
        """The reduction in words."""
        size = "at published size" if self.full else "reduced (32 steps a video, narrow layers)"
        return (
            f"profile {self.name}: {self.pairs:,} region pairs or as many clips, labels {self.labelled:,} pairs' worth "
            f"at most; localizers {size}"
        )


PROFILES = {
    "smoke": Profile(name="smoke", corpora=("smoke",), seeds=1, pairs=64, labelled=1200, head_epochs=2, lgi_epochs=2,
                     finetune_steps=4),
    "cpu": Profile(name="cpu", corpora=tuple(name for name in ("B", "C") if name in DIGESTS), seeds=3, pairs=16_000,
                   labelled=16_000),
    "gpu": Profile(name="gpu", corpora=tuple(DIGESTS), seeds=5, pairs=512_000, labelled=16_000, full=True,
                   device="cuda"),
}  # fmt: skip
"""`smoke`: seconds, to see that everything runs. `cpu`: hours on two cores. `gpu`: not run yet."""


def profile(name: str) -> Profile:
    """A profile by its name.

    Raises:
        ConfigError: There is no such profile.
    """
    if name not in PROFILES:
        raise ConfigError(f"There is no profile {name!r}. Profiles: {', '.join(PROFILES)}.")
    return PROFILES[name]


def localizer(name: str, size: Profile, seed: int) -> LocalizeConfig:
    """Settings of `bmn`, `gtad` (whole videos) or `gtad_windows` (as on THUMOS'14)."""
    makers: dict[str, Any] = {
        "bmn": (bmn.activitynet, bmn.small),
        "gtad": (gtad.activitynet, gtad.small),
        "gtad_windows": (gtad.thumos14, _small_windows),
    }
    cfg = makers[name][0 if size.full else 1]()
    optim = cfg.optim if size.head_epochs is None else replace(cfg.optim, epochs=size.head_epochs)
    return replace(cfg, optim=optim, seed=seed, device=size.device)


def _small_windows() -> gtad.GTADSettings:
    """G-TAD in the form for THUMOS'14, on windows of 24 steps that overlap by half, narrow layers, 20 epochs."""
    cfg, net = gtad.small(), thumos14(400)
    net = replace(
        net, num_steps=24, max_duration=20, longest=None, inner=8, context=4, hidden=(64, 32, 128), groups=16,
        num_proposals=100,
    )  # fmt: skip
    return replace(cfg, gtad=net, cut=CutConfig(mode="windows", tail=0.2))


def grounder(size: Profile, seed: int) -> LGISettings:
    """Settings of LGI; the last epoch counts, so that nothing is selected."""
    cfg = lgi.charades() if size.full else lgi.small()
    optim = cfg.optim if size.lgi_epochs is None else replace(cfg.optim, epochs=size.lgi_epochs)
    return replace(cfg, optim=optim, select="last", seed=seed, device=size.device)
