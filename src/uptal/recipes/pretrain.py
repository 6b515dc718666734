"""A whole pre-training run as one value, and the names under which the paper's runs are known.

Every recipe is a function that returns a full configuration; `recipe(name)` finds it. Costs and expected results stand
in the docstrings. `small` turns any of them into its twin for a laptop.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from uptal.augment import AugmentConfig
from uptal.clips import RegionConfig, TimelineConfig
from uptal.clipspec import ClipSpec
from uptal.errors import ConfigError
from uptal.pretext.contrast import ContrastConfig
from uptal.pretext.data import DataConfig
from uptal.pretext.pal import HeadConfig
from uptal.pretext.synthesis import PasteConfig
from uptal.pretext.together import check_together
from uptal.train import OptimConfig


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that decides a pre-training run; the defaults are the paper's."""

    method: Literal["pal", "supervised"] = "pal"
    """Contrast of pasted regions (one clip and no paste: MoCo-v2 on video), or classification with labels (TAC)."""
    encoder: str = "i3d"
    """F^b: a file of `uptal.encoders`, or `package.module.Class` (Sec. 4.1.1: I3D)."""
    encoder_options: dict[str, Any] = field(default_factory=dict)
    """Options of the encoder, such as `{"final_temporal_stride": 1}`."""
    init: str | None = None
    """Run folder or weight file to start from; random when not given. The paper does not say."""
    extraction_stride: int = 2
    """Stride at which features are extracted later; stored with the encoder. The paper does not say."""
    data: DataConfig = field(default_factory=DataConfig)
    """Videos, clips and regions."""
    paste: PasteConfig = field(default_factory=PasteConfig)
    """Blending onto other videos."""
    aug: AugmentConfig = field(default_factory=AugmentConfig)
    """Spatial augmentation."""
    head: HeadConfig = field(default_factory=HeadConfig)
    """F^n and F^t."""
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    """Queue, temperature, momentum."""
    dropout: float = 0.5
    """Before the classifier of supervised training. The paper does not say."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedule."""
    compile: bool = False
    """Have `torch.compile` fuse the encoders' operations: minutes at the start, and then faster on GPUs."""
    recompute: bool = False
    """Keep only what goes between the encoder's blocks and compute the rest again in the backward pass: less memory, a
    third more arithmetic for the trained encoder, the same numbers."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`."""

    def __post_init__(self) -> None:
        if self.method == "pal":
            check_together(self.data.timeline, self.paste, self.head, self.contrast)
        try:
            _ = self.clip  # now, and not when a trained encoder is to be saved
        except ConfigError as error:
            raise ConfigError(
                f"{error} Clips for the trained encoder are made of data.resize ({self.data.resize}), aug.size "
                f"({self.aug.size}), data.timeline.frames and extraction_stride ({self.extraction_stride})."
            ) from error

    @property
    def clip(self) -> ClipSpec:
        """How clips must be cut when the trained encoder extracts features."""
        data = self.data
        return ClipSpec(
            frames=data.timeline.frames,
            stride=self.extraction_stride,
            size=self.aug.size,
            resize=data.resize,
            mean=data.mean,
            std=data.std,
        )


def paper() -> PretrainConfig:
    """PAL as in Tables 1 and 2: I3D, 8 clips of 8x112x112, batch 512, 200 epochs of Kinetics.

    The paper ran it on 64 V100. ActivityNet average mAP 33.4 (G-TAD), AUC 66.8 (BMN) after K400.
    """
    return PretrainConfig(data=DataConfig(val_videos=4096, workers=8))


def pal_plus() -> PretrainConfig:
    """The paper's run and one thing that is not in the paper: a loss that asks of every clip whether the pasted region
    begins, ends or is there.

    Of all that was tried the one setting that was better than PAL on equal clips, by three seeds and more on two drawn
    corpora and on real clips; what it costs, too, is in docs/evidence.md.
    """
    return replace(paper(), head=replace(paper().head, boundary=1.0))


def paper_one_gpu() -> PretrainConfig:
    """The paper's run on one GPU: the batch of 512 in eight parts, keys of all parts enqueued together.

    Batch statistics are those of a part of 64, in the place of 512. What it costs on your GPU: `uptal bench pretrain
    paper_one_gpu`; `--recompute true` where memory does not suffice.
    """
    return with_optim(paper(), accumulate=8)


def small_files() -> PretrainConfig:
    """PAL for a few thousand short clips: decoded once and kept in memory, a batch of 128, rate by the square root.

    Not in the paper. A quarter of the queue, so that it does not hold the whole set; cosine, since there are too few
    videos to set enough of them aside.
    """
    data = replace(paper().data, val_videos=0, workers=4, cache_mib=4096)
    optim = replace(paper().optim, batch=128, lr_scaling="sqrt", schedule="cosine", warmup_epochs=5.0)
    return replace(paper(), data=data, optim=optim, contrast=replace(paper().contrast, queue=4096))


def untrimmed() -> PretrainConfig:
    """PAL on long unlabelled videos: each sample sees ten seconds at a random place, as the paper's videos are long.

    Not in the paper. An epoch is one stretch of every video, so epochs are many; one background for both views, since
    seeking in long files is what costs.
    """
    data = replace(paper().data, stretch=10.0, val_videos=0)
    timeline = replace(data.timeline, background=replace(data.timeline.background, share=True))
    optim = replace(paper().optim, batch=64, lr_scaling="sqrt", schedule="cosine", epochs=2000, warmup_epochs=5.0)
    contrast = replace(paper().contrast, queue=4096)
    return replace(paper(), data=replace(data, timeline=timeline), optim=optim, contrast=contrast)


def ablation() -> PretrainConfig:
    """PAL as in the ablations of Section 4.3: the same with 100 epochs. Average mAP 32.8."""
    return with_optim(paper(), epochs=100)


def t3_0() -> PretrainConfig:
    """Table 3 #0, the baseline: MoCo-v2 on single clips. Average mAP 29.6."""
    base = t3_1()
    region = replace(base.data.timeline.region, min_clips=1, max_clips=1)
    data = replace(base.data, timeline=replace(base.data.timeline, clips=1, region=region))
    return replace(base, data=data, head=replace(base.head, ft_layers=0))


def t3_1() -> PretrainConfig:
    """Table 3 #1, dense: regions of several clips, in their own video, at stride 1. Average mAP 30.1."""
    base = t3_2()
    return with_region(base, min_stride=1, max_stride=1)


def t3_2() -> PretrainConfig:
    """Table 3 #2, dense and scale-aware: the region's stride varies. Average mAP 30.7."""
    return replace(ablation(), paste=PasteConfig(source="none"))


def t3_3() -> PretrainConfig:
    """Table 3 #3: both regions are pasted onto the same video. Average mAP 32.1."""
    return replace(ablation(), paste=PasteConfig(source="same"))


def t3_4() -> PretrainConfig:
    """Table 3 #4, PAL: regions are pasted onto different videos. Average mAP 32.8."""
    return ablation()


def t4(layers: int) -> PretrainConfig:
    """Table 4: 0 to 3 temporal convolutions. Average mAP 30.8, 32.1, 32.8, 32.5."""
    base = ablation()
    return replace(base, head=replace(base.head, ft_layers=layers))


def t5(low: float, high: float) -> PretrainConfig:
    """Table 5: range of the blend ratio. Average mAP 32.2 (hard), 30.7, 31.5, 32.8, 31.3 ([0, 1])."""
    return replace(ablation(), paste=PasteConfig(beta=(low, high)))


def moco() -> PretrainConfig:
    """The MoCo-v2 row of Tables 1 and 2: Table 3 #0 for 200 epochs. Average mAP 30.3, AUC 64.0."""
    return with_optim(t3_0(), epochs=200)


def moco_matched() -> PretrainConfig:
    """MoCo-v2 that encodes as many clips as PAL: eight times the epochs. Not in the paper; a control."""
    return with_optim(t3_0(), epochs=1600)


def tac() -> PretrainConfig:
    """The TAC row: I3D trained with labels on single clips. The paper gives no schedule. Average mAP 32.5, AUC 65.6."""
    base = t3_0()
    data = replace(base.data, timeline=replace(base.data.timeline, views=1))
    optim = replace(base.optim, lr=1e-3, epochs=100, schedule="cosine")
    return replace(base, method="supervised", data=data, optim=optim)


def random() -> PretrainConfig:
    """An encoder that was never trained: the floor of every table. Seconds."""
    return with_optim(paper(), max_steps=0)


def demo() -> PretrainConfig:
    """PAL on the built-in corpus, for a laptop: a minute on two cores, some thousand region pairs instead of the
    paper's 48 million, which is below the point where the method starts to pay (see docs/paper.md)."""
    return with_optim(_easy(paper()), max_steps=DEMO_STEPS["demo"])


def demo_moco() -> PretrainConfig:
    """MoCo-v2 with the demo's encoder and as many clips: eight times the videos a step, at the stride of extraction."""
    base = with_region(_easy(moco()), min_stride=2, max_stride=2)
    optim = replace(base.optim, batch=8 * base.optim.batch, max_steps=DEMO_STEPS["demo_moco"])
    return replace(base, optim=optim, contrast=replace(base.contrast, queue=8 * base.contrast.queue))


def demo_tac() -> PretrainConfig:
    """Supervised classification with the demo's encoder; clips at the stride of extraction, small steps and many, and
    pictures that are changed little: in a minute that teaches more."""
    base = with_region(_easy(tac()), min_stride=2, max_stride=2)
    optim = replace(base.optim, batch=2 * base.optim.batch, lr=1e-3, max_steps=DEMO_STEPS["demo_tac"])
    return replace(base, optim=optim, dropout=0.1, aug=replace(base.aug, area=(0.85, 1.0), blur=0.0, jitter=0.3))


def demo_random() -> PretrainConfig:
    """The demo's encoder, untrained."""
    return _easy(random())


def demo_frame_difference() -> PretrainConfig:
    """Frame differences in the place of an encoder: what motion energy alone is worth. Nothing is trained."""
    return replace(demo_random(), encoder="uptal.evidence.motion.FrameDifference")


DEMO_STEPS = {"demo": 180, "demo_moco": 180, "demo_tac": 900}
"""Steps that fit a demo of six minutes on two cores."""


def slim_v1() -> PretrainConfig:
    """The encoder of the package (`benchmarks/shipped.py`, docs/shipped.md): MoCo-v2 on single clips of 64 pixels at
    strides 1 to 4, on videos that are drawn for it alone."""
    base = with_region(_easy(moco()), min_stride=1, max_stride=4)
    optim = replace(base.optim, batch=128, max_steps=SHIPPED_STEPS)
    data = replace(base.data, resize=72, cache_mib=2048)
    return replace(
        base, data=data, optim=optim, aug=replace(base.aug, size=64), contrast=replace(base.contrast, queue=256)
    )


SHIPPED_STEPS = 1200
"""An hour on one thread; that more or fewer are better has not been measured."""


def _easy(cfg: PretrainConfig) -> PretrainConfig:
    """The small twin with milder crops and blur still: there are minutes to learn in."""
    cfg = small(cfg)
    return replace(cfg, aug=replace(cfg.aug, area=(0.6, 1.0), blur=0.2, sigma=(0.1, 0.6)))


def small(cfg: PretrainConfig) -> PretrainConfig:
    """The laptop's twin of a recipe: the slim encoder, 48-pixel clips, a batch of 16 and a queue of a few batches."""
    data = replace(cfg.data, resize=56, val_videos=0, workers=1, cache_mib=512)
    aug = replace(cfg.aug, size=48, sigma=(0.1, 1.0), area=(0.4, 1.0), resize="fast")
    head = replace(cfg.head, hidden=128, width=64, ft_width=64)
    contrast = replace(cfg.contrast, queue=96, momentum=0.99)
    optim = replace(
        cfg.optim, batch=16, lr=2e-3, lr_batch=16, schedule="cosine", epochs=1000, warmup_epochs=0.5, log_every=2,
        checkpoint_every=100, keep=2, max_steps=cfg.optim.max_steps,
    )  # fmt: skip
    cfg = replace(cfg, encoder="slim", encoder_options={})
    return replace(cfg, data=data, aug=aug, head=head, contrast=contrast, optim=optim)


def with_optim(cfg: PretrainConfig, **changes: Any) -> PretrainConfig:
    """The configuration with other optimiser settings."""
    return replace(cfg, optim=replace(cfg.optim, **changes))


def with_region(cfg: PretrainConfig, **changes: Any) -> PretrainConfig:
    """The configuration with other region settings."""
    timeline: TimelineConfig = cfg.data.timeline
    region: RegionConfig = replace(timeline.region, **changes)
    return replace(cfg, data=replace(cfg.data, timeline=replace(timeline, region=region)))


def recipes() -> dict[str, PretrainConfig]:
    """Every named run."""
    plain = (
        paper,
        pal_plus,
        paper_one_gpu,
        small_files,
        untrimmed,
        moco,
        moco_matched,
        tac,
        random,
        t3_0,
        t3_1,
        t3_2,
        t3_3,
        t3_4,
    )
    named = {
        function.__name__: function()
        for function in (*plain, demo, demo_moco, demo_tac, demo_random, demo_frame_difference, slim_v1)
    }
    named |= {f"t4_{layers}": t4(layers) for layers in range(4)}
    ranges = {"hard": (1, 1), "0_04": (0, 0.4), "04_06": (0.4, 0.6), "06_1": (0.6, 1), "0_1": (0, 1)}
    return named | {f"t5_{name}": t5(float(low), float(high)) for name, (low, high) in ranges.items()}


def recipe(name: str) -> PretrainConfig:
    """A run by its name.

    Raises:
        ConfigError: There is no such recipe; the message lists them.
    """
    known = recipes()
    if name not in known:
        raise ConfigError(f"There is no recipe {name!r}. Recipes: {', '.join(known)}; or give a run's config.yaml.")
    return known[name]
