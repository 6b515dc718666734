"""What is compared: every method as a whole configuration, all with one encoder, one optimiser, one augmentation.

A budget is counted in region pairs. A PAL step encodes eight clips a pair and view, so the methods that see single
clips get eight of them for each: all of a budget's rows have encoded equally many clips (`clips_of`). Queues hold
equally many batches, not keys, since what makes keys useless is their age.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from uptal.errors import ConfigError
from uptal.pretext.synthesis import PasteConfig
from uptal.recipes.pretrain import PretrainConfig, pal_plus, paper, t3_0, t3_2, tac, with_region
from uptal.recipes.settings import from_plain
from uptal.run import flatten, plain

CLIPS = 8
"""Clips of a synthetic video (Sec. 4.1.1), so the clips of one view of a region pair."""
EXTRACTION_STRIDE = 2
"""Stride of the clips of which features are made; methods that vary no stride train at it."""

_PLUS: dict[str, Any] = {"head.boundary": pal_plus().head.boundary}
"""What `pal_plus` changes of PAL."""

Kind = Literal["trained", "random", "frame_difference", "luminance"]


@dataclass(frozen=True)
class Method:
    """A row of a table."""

    name: str
    title: str
    kind: Kind = "trained"
    config: PretrainConfig | None = None
    """None for what is not a network."""
    most: int | None = None
    """Budget beyond which it is not trained; None for no end."""
    calibrates: bool = False
    """Whether it may be run on a corpus that is not frozen."""
    equal: Literal["clips", "videos"] = "clips"
    """What it has seen as much of as PAL has at the same budget."""
    warm: Warm | None = None
    """Where it starts from; None from random weights. What that has seen does not count in its budgets."""

    def clips_of(self, videos: int) -> int:
        """Clips of one view that the trained encoder has seen after so many videos."""
        return 0 if self.config is None else videos * _clips_a_video(self.config)

    def pairs_of(self, videos: int) -> int:
        """Region pairs that so many videos have given; 0 for what is not PAL."""
        return videos * self.config.data.timeline.regions if self.config and self.config.method == "pal" else 0

    def steps_for(self, budget: int) -> int:
        """Steps after which as many clips (or videos) are seen as in so many region pairs; 0 if untrained."""
        if self.config is None or self.kind != "trained":
            return 0
        if self.equal == "videos":
            return round(budget / self.config.optim.batch)
        return round(budget * CLIPS / (self.config.optim.batch * _clips_a_video(self.config)))


@dataclass(frozen=True)
class Warm:
    """The encoder that a row has at a budget, with the seed of the run that starts from it."""

    row: Method
    budget: int


def warm_start(row: Method, said: str, known: Mapping[str, Method]) -> Method:
    """A row that starts from another's encoder, `moco@16000`, rather than from random weights.

    Raises:
        ConfigError: There is no such row, or it is not trained, or not so far.
    """
    name, _, pairs = said.partition("@")
    start, budget = known.get(name), int(pairs) if pairs.isdecimal() else 0
    if start is None or start.kind != "trained" or start.steps_for(budget) < 1:
        able = ", ".join(one.name for one in known.values() if one.kind == "trained")
        raise ConfigError(
            f"--warm expects METHOD@PAIRS with pairs for a step or more, such as moco@16000, found {said!r}. Methods: "
            f"{able}."
        )
    if start.most is not None and budget > start.most:
        raise ConfigError(f"--warm {said}: {name} is trained up to {start.most} pairs.")
    if row.kind != "trained":
        return row
    assert row.config is not None and start.config is not None
    ours, theirs = ((cfg.encoder, cfg.encoder_options) for cfg in (row.config, start.config))
    if ours != theirs:
        raise ConfigError(f"--warm {said}: {row.name} has the encoder {ours}, and {name} has {theirs}.")
    where = f"{name}@{budget}"
    return replace(row, name=f"{row.name}+warm={where}", title=f"{row.title}, from {where}", warm=Warm(start, budget))


def _clips_a_video(config: PretrainConfig) -> int:
    return config.data.timeline.clips * config.data.timeline.regions


def tiny(cfg: PretrainConfig, size: int, batch: int, lr: float) -> PretrainConfig:
    """A recipe at the size of the built-in corpora in memory: the tiny encoder, one constant rate.

    The rate is constant, so that a run measured at one budget goes on to the next, and its curve is one run.
    """
    data = replace(cfg.data, resize=size, val_videos=0, workers=0)
    aug = replace(cfg.aug, size=round(size * 7 / 8), area=(0.4, 1.0), blur=0.2, sigma=(0.1, 0.6))
    head = replace(cfg.head, hidden=128, width=64, ft_width=64)
    contrast = replace(cfg.contrast, queue=4 * batch, momentum=0.99, negatives="both")
    optim = replace(
        cfg.optim, batch=batch, lr=lr, lr_batch=batch, schedule="constant", warmup_epochs=2.0, epochs=10**6,
        precision="fp32", log_every=50, checkpoint_every=10**9, keep=1,
    )  # fmt: skip
    cfg = replace(cfg, encoder="uptal.evidence.tiny.Tiny", extraction_stride=EXTRACTION_STRIDE, dropout=0.2)
    return replace(cfg, data=data, aug=aug, head=head, contrast=contrast, optim=optim, device="cpu")


def methods(size: int, batch: int = 32, lr: float = 1e-3) -> dict[str, Method]:
    """Every row by name, for pictures of `size` pixels `batch` region pairs a step and a rate of `lr`."""
    pal, dense = tiny(paper(), size, batch, lr), tiny(t3_2(), size, batch, lr)
    clip = more_videos(tiny(t3_0(), size, batch, lr))
    fixed = with_region(clip, min_stride=EXTRACTION_STRIDE, max_stride=EXTRACTION_STRIDE)
    varied = with_region(clip, min_stride=1, max_stride=4)
    labelled = more_videos(tiny(tac(), size, batch, lr), times=2)
    labelled = with_region(labelled, min_stride=EXTRACTION_STRIDE, max_stride=EXTRACTION_STRIDE)
    same = replace(pal, paste=PasteConfig(source="same"))
    rows = (
        Method("random", "untrained encoder", "random", pal, calibrates=True),
        Method("frame_difference", "frame differences, 3 x 3 fields", "frame_difference", calibrates=True),
        Method("tac", "TAC (with labels)", config=labelled, most=16_000, calibrates=True),
        Method("moco", "MoCo-v2, stride 2, equal clips", config=fixed, calibrates=True),
        Method("moco_stride", "MoCo-v2, strides 1-4, equal clips", config=varied, calibrates=True),
        Method("pal", "PAL", config=pal),
        Method("pal_no_paste", "PAL without paste", config=dense),
        Method("pal_same", "PAL, both views on one video", config=same),
    )
    known = {row.name: row for row in rows}
    # its results have the name of what is changed, as every other variant's
    plus = method("pal", known, _PLUS)
    return known | {"pal_plus": replace(plus, title="pal_plus: PAL and a boundary loss")}


def method(name: str, known: dict[str, Method], changes: dict[str, Any]) -> Method:
    """A row of `known` by name, with other settings (dotted names) where asked for.

    Raises:
        ConfigError: There is no such row, or no such setting.
    """
    if name not in known:
        raise ConfigError(f"There is no method {name!r}. Methods: {', '.join(known)}.")
    row = known[name]
    if not changes:
        return row
    if name == "pal_plus":  # a variant of PAL with more changes is one, too, and has their name
        return method("pal", known, _PLUS | changes)
    if row.config is None:
        raise ConfigError(f"{name} is not a network and has no settings to change ({', '.join(changes)}).")
    said = ", ".join(f"{key}={_said(value)}" for key, value in sorted(changes.items()))
    return replace(
        row,
        name=f"{name}+{said}".replace(" ", ""),
        title=f"{row.title}, {said}",
        config=with_settings(row.config, changes, name),
    )


def _said(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def with_settings(cfg: PretrainConfig, changes: Mapping[str, Any], name: str) -> PretrainConfig:
    """A recipe with other settings, by dotted names.

    Args:
        cfg: The recipe.
        changes: Values by name, such as `{"contrast.tau": 0.1}`.
        name: What the recipe is called in an error.

    Raises:
        ConfigError: There is no such setting, or it cannot have that value.
    """
    tree = plain(cfg)
    for key, value in changes.items():
        *path, last = key.split(".")
        inner = tree
        for part in path:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or last not in inner:
            near = ", ".join(known for known in flatten(tree) if known.endswith(last))
            raise ConfigError(f"{name} has no setting {key!r}." + (f" Did you mean {near}?" if near else ""))
        inner[last] = value
    return from_plain(PretrainConfig, tree)


def more_videos(cfg: PretrainConfig, times: int = CLIPS) -> PretrainConfig:
    """`times` as many videos in a batch; the queue holds as many batches, and the warm-up as many steps, as before."""
    contrast = replace(cfg.contrast, queue=times * cfg.contrast.queue)
    optim = replace(cfg.optim, batch=times * cfg.optim.batch, warmup_epochs=times * cfg.optim.warmup_epochs)
    return replace(cfg, optim=optim, contrast=contrast)
