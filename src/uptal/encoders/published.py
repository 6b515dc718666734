"""The FLOPs column of the paper's Table 1, as encoders of ours that give it; `docs/encoders.md` explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from uptal.clipspec import ClipSpec
from uptal.encoders.contract import build
from uptal.encoders.cost import count_macs, count_norm_outputs


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of Table 1 and the network that was counted for it."""

    row: str
    """Method, as the paper names it."""
    architecture: str
    """Name for `build`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options for `build`."""
    frames: int
    """Frames of a clip."""
    size: int
    """Height and width of a clip."""
    paper: float
    """GFLOPs that the paper prints."""
    verdict: str
    """How the printed number comes about."""

    def count(self) -> tuple[int, int]:
        """Multiply-adds of a clip, and the same with two operations for every number that a batch norm gives."""
        with torch.device("meta"):
            encoder = build(self.architecture, **self.options)
        clip = replace(ClipSpec(), frames=self.frames, size=self.size, resize=self.size)
        macs = count_macs(encoder, clip)
        return macs, macs + 2 * count_norm_outputs(encoder, clip)


_EXACT = "exact, with norms"

TABLE_1 = (
    Row(row="XDC, R(2+1)D-18", architecture="r2plus1d", frames=32, size=224, paper=325.2,
        verdict=f"{_EXACT}; of torchvision's network, XDC's own has 333.0"),
    Row(row="VideoMoCo, R(2+1)D-18", architecture="r2plus1d", frames=32, size=112, paper=81.3, verdict=_EXACT),
    Row(row="RSPNet, R(2+1)D-18", architecture="r2plus1d", frames=16, size=112, paper=40.6,
        verdict=f"{_EXACT}; for 18 layers, but the weights that RSPNet released are of 10 layers and 21.4"),
    Row(row="TSP, R(2+1)D-34", architecture="r2plus1d", options={"depth": 34, "rule": "vmz"}, frames=16, size=112,
        paper=76.4, verdict=_EXACT),
    Row(row="TSM-Res50", architecture="tsm", frames=8, size=224, paper=33.0,
        verdict="agrees, rounded to a whole number"),
    Row(row="LoFi, TSM-Res18", architecture="tsm", options={"depth": 18}, frames=8, size=224, paper=14.6,
        verdict="agrees to 0.1"),
    Row(row="CoCLR, S3D", architecture="s3d", frames=32, size=128, paper=47.2,
        verdict="four times the truth: CoCLR's network has every layer under two names, each counted twice"),
    Row(row="PAL, I3D", architecture="i3d", options={"final_temporal_stride": 1}, frames=8, size=112, paper=3.6,
        verdict="agrees with the last pool keeping time; stock I3D has 3.5"),
)  # fmt: skip
"""The rows whose network can be named."""
