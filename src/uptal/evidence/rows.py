"""More rows than the onset study has: the settings of Tables 3, 4 and 5, and controls that the paper does not have.

The rows of `methods` are among them under their own names, so what was decided there holds here.
"""

from __future__ import annotations

from dataclasses import replace

from uptal.evidence.methods import EXTRACTION_STRIDE, Method, methods, more_videos, tiny
from uptal.pretext.synthesis import PasteConfig
from uptal.recipes.pretrain import PretrainConfig, t3_0, t3_1, t4, t5, tac, with_region


def rows(size: int, batch: int = 32, lr: float = 1e-3) -> dict[str, Method]:
    """Every row of every table by name; arguments as in `methods`."""
    few = tiny(t3_0(), size, batch, lr)
    clip = more_videos(few)
    frame = _at_stride(_one_frame(more_videos(tiny(tac(), size, batch, lr), times=2)), EXTRACTION_STRIDE)
    mixed = _at_stride(_background_stride(clip, EXTRACTION_STRIDE), EXTRACTION_STRIDE)
    mixed = replace(mixed, paste=PasteConfig(source="diff"))
    strides = {stride: _at_stride(clip, stride) for stride in (1, 3, 4)}
    ranges = {"hard": (1.0, 1.0), "0_04": (0.0, 0.4), "04_06": (0.4, 0.6), "0_1": (0.0, 1.0)}
    more = (
        Method("luminance", "brightness, 3 x 3 fields", "luminance", calibrates=True),
        Method("tac_frame", "labels, single frames", config=frame, most=16_000, calibrates=True),
        *(Method(f"moco_{n}", f"MoCo-v2, stride {n}, equal clips", config=c, calibrates=True)
          for n, c in strides.items()),
        Method("moco_videos", "MoCo-v2, stride 2, equal videos", config=_at_stride(few, EXTRACTION_STRIDE),
               calibrates=True, equal="videos"),
        Method("moco_mixup", "MoCo-v2 + blending (mixup), equal clips", config=mixed),
        Method("t3_1", "dense, stride 1", config=tiny(t3_1(), size, batch, lr)),
        *(Method(f"t4_{n}", f"{n} temporal layers", config=tiny(t4(n), size, batch, lr)) for n in (0, 1, 3)),
        *(Method(f"t5_{name}", f"beta in [{low:g}, {high:g}]", config=tiny(t5(low, high), size, batch, lr))
          for name, (low, high) in ranges.items()),
    )  # fmt: skip
    return methods(size, batch, lr) | {row.name: row for row in more}


def _at_stride(cfg: PretrainConfig, stride: int) -> PretrainConfig:
    return with_region(cfg, min_stride=stride, max_stride=stride)


def _background_stride(cfg: PretrainConfig, stride: int) -> PretrainConfig:
    timeline = cfg.data.timeline
    timeline = replace(timeline, background=replace(timeline.background, stride=stride))
    return replace(cfg, data=replace(cfg.data, timeline=timeline))


def _one_frame(cfg: PretrainConfig) -> PretrainConfig:
    """Clips of a single frame, when features are made, too: no motion is seen."""
    return replace(cfg, data=replace(cfg.data, timeline=replace(cfg.data.timeline, frames=1)))
