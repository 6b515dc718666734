"""Reads checkpoints of the public G-TAD code: recognises which of its two forms they are, checks every weight.

Reading the file itself is left to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from uptal.errors import CheckpointError
from uptal.localizers.bmn_weights import check_weights, stored_weights
from uptal.localizers.gtad import GTAD, GTADConfig, thumos14
from uptal.localizers.samples import GROUPS

_NEEDED = ("backbone1.0.weight", "backbone1.2.tconvs.0.weight", "backbone1.2.tconvs.2.weight", "localization.0.weight",
           "localization.2.weight", "localization.4.weight")  # fmt: skip


def from_official(checkpoint: Mapping[str, Any], cfg: GTADConfig | None = None) -> GTAD:
    """A G-TAD from a checkpoint of the public code: its state_dict, with or without the record around it.

    The kernel of the map's convolutions and the samples of a sub-graph tell the ActivityNet form (kernel 1, 32 or 36
    samples) from the THUMOS'14 form (kernel 3, 16 or 32). Neither the number of steps nor the difference between styles
    1 and 2 shows in the weights: without `cfg` they are the published ones.

    Raises:
        CheckpointError: A weight is missing, unknown or of another shape, or the form is neither of the two.
    """
    weights = stored_weights(checkpoint)
    model = GTAD(_config_of(weights) if cfg is None else cfg)
    check_weights(weights, model.state_dict(), "G-TAD")
    model.load_state_dict(weights)
    return model


def _config_of(weights: Mapping[str, Tensor]) -> GTADConfig:
    """The configuration that a checkpoint implies."""
    if missing := [key for key in _NEEDED if key not in weights]:
        raise CheckpointError(f"This is no G-TAD checkpoint: it holds {len(weights)} weights, but not {missing}.")
    stem, widen, grouped, pooled, cell, kernel = (weights[key].shape for key in _NEEDED)
    samples, rest = divmod(pooled[1], stem[0])
    published = {
        (1, 36): GTADConfig(in_channels=GROUPS),
        (1, 32): GTADConfig(in_channels=GROUPS, style=0),
        (3, 32): thumos14(GROUPS),
        (3, 16): replace(thumos14(GROUPS), style=0),
    }
    form = published.get((kernel[-1], samples))
    if form is None or rest or grouped[0] != widen[0]:
        raise CheckpointError(
            f"The checkpoint is neither the ActivityNet nor the THUMOS'14 form of G-TAD: its map has kernels of "
            f"{kernel[-1]} and {pooled[1] / stem[0]:g} samples a sub-graph; known are kernels of 1 with 36 or 32 "
            "samples and of 3 with 32 or 16. If its sizes are your own, pass a GTADConfig."
        )
    return replace(
        form,
        in_channels=stem[1] * GROUPS,
        hidden=(stem[0], cell[0], pooled[0]),
        groups=widen[0] // grouped[1],
        group_width=grouped[1],
    )
