"""Recipes of LGI (Mun, Cho and Han, CVPR 2020): what is trained, on which words, and how the epoch is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from uptal.errors import ConfigError
from uptal.localizers.lgi import LGIConfig
from uptal.localizers.lgi_task import Clock
from uptal.train import OptimConfig


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How sentences become words."""

    kind: Literal["scratch", "vectors", "encoder"] = "scratch"
    """`scratch`: an embedding trained with the network, as published. `vectors`: a word-vector table such as GloVe.
    `encoder`: word-piece vectors of a language model on this disk, which is not trained."""
    max_words: int = 10
    """Words of a query that count; "maximum length of a text query is 10" (UP-TAL, Sec. 4.1.3)."""
    min_count: int = 1
    """Occurrences in the training sentences that make a word known (public code)."""
    vectors: str | None = None
    """`vectors`: `.npz` with `words` and `vectors`, or text with a word and its numbers a line."""
    learn_vectors: bool = False
    """`vectors`: whether they are trained further."""
    extra_words: int = 20000
    """`vectors`: words of the table, from its first on, that are known beside those of the training sentences."""
    encoder: str | None = None
    """`encoder`: folder of the language model."""

    def __post_init__(self) -> None:
        if self.max_words < 1 or self.min_count < 1 or self.extra_words < 0:
            raise ConfigError("text.max_words and text.min_count must be at least 1, text.extra_words at least 0.")
        for kind, given in (("vectors", self.vectors), ("encoder", self.encoder)):
            if self.kind == kind and not given:
                raise ConfigError(
                    f"text.kind {kind} needs --text.{kind}: a {'file' if kind == 'vectors' else 'folder'}."
                )


def _schedule() -> OptimConfig:
    return OptimConfig(
        lr=4e-4, lr_batch=100, weight_decay=0.0, batch=100, epochs=500, schedule="constant", log_every=20,
        checkpoint_every=2480, keep=1,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LGISettings:
    """Training of an LGI; the defaults are the public code's for Charades-STA."""

    lgi: LGIConfig = field(default_factory=lambda: LGIConfig(in_channels=1024, vocabulary=1111))
    """The network; `in_channels`, `vocabulary` and `word_width` are taken from store and text."""
    text: TextConfig = field(default_factory=TextConfig)
    """The words."""
    optim: OptimConfig = field(default_factory=_schedule)
    """Adam 4e-4, batch 100, no weight decay, no schedule, 500 epochs, the incomplete last batch left out."""
    clock: Clock = "share"
    """How intervals are laid on features for the attention's target: `share` of the annotated duration as in the public
    code, or the `timebase` of the store."""
    select: Literal["held-out", "test", "last"] = "held-out"
    """Which epoch is kept: the one with the highest R@1 at 0.5 on held-out training videos; `test`: on the test set, as
    the public code does, so that its numbers are the best of many looks at the test set; or simply the last."""
    held_out: float = 0.05
    """`held-out`: share of the training videos that is not trained on. The papers hold nothing out."""
    subset: str | None = "training"
    """Subset of the queries to train on; files that name none are used whole."""
    memory_mib: int = 4096
    """Features kept in memory; others are read again whenever they are needed."""
    seed: int = 0
    """Seed of initial weights, order, sampling and held-out videos. The public code sets none."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`."""

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1 or (self.select == "held-out" and not self.held_out):
            raise ConfigError(f"held_out must lie between 0 and 1, found {self.held_out}. Or use --select last.")


def charades() -> LGISettings:
    """LGI on Charades-STA, Table 2 of the paper with `--features` of the encoder under test.

    12,408 training queries, 124 steps an epoch, 500 epochs: 62,000 steps of 100 queries at 3.7 GMAC a query forward, 11
    with the way back: about 70 PMAC, an hour or two on one H100-class GPU by arithmetic (not measured here), weeks on a
    laptop's CPU. `--optim.epochs 50` shows where it goes. Published: R@1 at 0.3/0.5/0.7 and mIoU of 63.7/50.0/27.2/46.8
    with PAL's features, 61.6/46.8/24.6/44.3 with supervised ones (TAC), all selected on the test set.
    """
    return LGISettings()


def captions() -> LGISettings:
    """LGI on ActivityNet Captions by the public code's settings for it: five phrases, one block, one head, 25 words.

    37,421 training queries, 300 epochs: 112,200 steps. The public code feeds C3D features of width 500; any store does.
    """
    cfg = LGISettings()
    net = replace(cfg.lgi, num_phrases=5, global_blocks=1, global_heads=1, output="sigmoid", dqa_lambda=0.2)
    return replace(cfg, lgi=net, text=TextConfig(max_words=25), optim=replace(cfg.optim, epochs=300))


def small() -> LGISettings:
    """A narrow LGI for short videos and two CPU cores: 32 segments, width 64, kernel 5, batch 20, 40 epochs.

    Its output is a sigmoid: at its higher learning rate the published ReLU can die, and then every answer is [0, 0].
    """
    cfg = LGISettings()
    net = replace(
        cfg.lgi,
        num_segments=32,
        word_width=48,
        lstm_width=32,
        attention_width=32,
        regression_width=64,
        dropout=0.2,
        local_kernel=5,
        output="sigmoid",
    )
    optim = replace(cfg.optim, lr=1e-3, lr_batch=20, batch=20, epochs=40, log_every=5, checkpoint_every=500)
    return replace(cfg, lgi=net, text=TextConfig(max_words=12), optim=optim, held_out=0.15)


def no_query_attention(cfg: LGISettings) -> LGISettings:
    """The variant LGI-SQAN of the LGI paper: the sentence's feature alone, one non-local block with one head."""
    net = replace(cfg.lgi, num_phrases=1, global_blocks=1, global_heads=1, dqa_weight=0.0)
    return replace(cfg, lgi=net)


def no_distinct_queries(cfg: LGISettings) -> LGISettings:
    """The variant LGI-Ldqa: nothing keeps the phrases apart; one non-local block with one head."""
    return replace(cfg, lgi=replace(cfg.lgi, global_blocks=1, global_heads=1, dqa_weight=0.0))


RECIPES: Mapping[str, Callable[[], LGISettings]] = {
    "charades": charades,
    "captions": captions,
    "small": small,
    "charades_sqan": lambda: no_query_attention(charades()),
    "charades_ldqa": lambda: no_distinct_queries(charades()),
}
"""Recipes by name; the first is the default."""
