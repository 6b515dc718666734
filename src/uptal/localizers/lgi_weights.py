"""Reads checkpoints of the public LGI code: sizes and variant from the weights themselves, every weight checked.

Reading the file itself is left to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from uptal.errors import CheckpointError
from uptal.localizers.lgi import LGI, LGIConfig

PARTS = ("query_enc", "video_enc", "sqan", "vti_fn", "ta_reg_fn")
"""Modules of the network, which are the keys of a public checkpoint."""


def from_official(checkpoint: Mapping[str, Any], cfg: LGIConfig | None = None) -> LGI:
    """An LGI from a checkpoint of the public code: one state_dict a module, or all weights under dotted names.

    What weights cannot tell is taken from `cfg`: heads, dropout, the range of the output and the losses' weights; by
    default those of the Charades-STA model (four heads; one where there is a single non-local block, as in the public
    configurations). The vocabulary's words are not in the checkpoint: they are those of the training sentences, in the
    order of `queries.Vocabulary`.

    Raises:
        CheckpointError: A weight is missing, unknown or of another shape.
    """
    weights: dict[str, Tensor] = {}
    for name, part in checkpoint.items():
        if name in PARTS and isinstance(part, Mapping):
            weights |= {f"{name}.{key}": tensor for key, tensor in part.items()}
        elif isinstance(part, Tensor):
            weights[name] = part
    model = LGI(_config_of(weights, cfg))
    expected = model.state_dict()
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    shapes = [key for key in expected.keys() & weights.keys() if expected[key].shape != weights[key].shape]
    if missing or unknown or shapes:
        raise CheckpointError(
            f"These weights are not those of an LGI: {len(missing)} are missing {missing[:3]}, {len(unknown)} unknown "
            f"{unknown[:3]}, {len(shapes)} of another shape {sorted(shapes)[:3]}."
        )
    model.load_state_dict(weights)
    return model.eval()


def _config_of(weights: Mapping[str, Tensor], cfg: LGIConfig | None) -> LGIConfig:
    """The configuration that weights imply."""
    try:
        vocabulary, word_width = weights["query_enc.embedding.weight"].shape
        in_channels = weights["video_enc.vid_emb_fn.0.weight"].shape[1]
        num_segments = weights["video_enc.pos_emb_fn.0.weight"].shape[0]
        lstm_width = weights["query_enc.rnn.weight_hh_l0"].shape[1]
        attention_width = weights["ta_reg_fn.tatt.feat2att.weight"].shape[0]
        regression_width = weights["ta_reg_fn.MLP_reg.0.weight"].shape[0]
    except KeyError as error:
        raise CheckpointError(f"This is no LGI checkpoint: it holds {len(weights)} weights, but not {error}.") from None
    phrases, blocks = _count(weights, "vti_fn.local_fn"), _count(weights, "vti_fn.global_fn")
    residual = "vti_fn.local_fn.0.blocks.0.0.weight"
    start = cfg or LGIConfig(
        in_channels=in_channels, vocabulary=vocabulary, lstm_width=lstm_width, global_heads=4 if blocks > 1 else 1
    )
    more: dict[str, Any] = {}
    if residual in weights:
        more["local_kernel"] = weights[residual].shape[2]
    else:
        more["local_blocks"] = _count(weights, "vti_fn.local_fn.0")
    return replace(
        start,
        in_channels=in_channels,
        vocabulary=vocabulary,
        num_segments=num_segments,
        word_width=word_width,
        lstm_width=lstm_width,
        attention_width=attention_width,
        regression_width=regression_width,
        num_phrases=phrases,
        fusion="mul"
        if _count(weights, "vti_fn.fusion_fn")
        else "concat"
        if _count(weights, "vti_fn.lin_fn")
        else "add",
        local="res_block" if residual in weights else "masked_nl",
        global_blocks=blocks,
        **more,
    )


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """Modules of a list: 1 + the largest number behind the prefix."""
    numbers = {key.removeprefix(f"{prefix}.").split(".")[0] for key in weights if key.startswith(f"{prefix}.")}
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)
