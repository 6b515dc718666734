"""LGI, local-global video-text interactions: a sentence and a video in, one interval out.

Losses and labels are in `lgi_targets`, words in `queries`, training and prediction on samples in `lgi_task`. Parameters
have the names of the public code, whose outputs this network reproduces. Source: Mun, Cho and Han, Local-Global
Video-Text Interactions for Temporal Grounding (CVPR 2020), and its public code of July 2021.
Letters: B queries, T segments of a video, L words, N phrases, D width, C feature width, W width of a word's vector.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from uptal.errors import ConfigError

NOTHING = -1e9
"""Logit of what is masked (the lowest number there is in half precision)."""


@dataclass(frozen=True, kw_only=True)
class LGIConfig:
    """Sizes and variants of an LGI. The defaults are the published Charades-STA model's."""

    in_channels: int
    """Feature width C; 1024 for I3D."""
    vocabulary: int
    """Words that have an embedding, the four special ones among them; 0 when words come as vectors."""
    num_segments: int = 128
    """Segments T to which a video is sampled (Sec. 4.2)."""
    word_width: int = 300
    """Width of a word's embedding (public code), or of its vector."""
    lstm_width: int = 256
    """Units of each direction of the two-layer LSTM; twice that is D (Sec. 4.2)."""
    attention_width: int = 256
    """Hidden units of every additive attention (public code)."""
    regression_width: int = 512
    """Hidden units of the regression (public code)."""
    dropout: float = 0.5
    """Between the LSTM's layers and behind both video embeddings (public code)."""
    num_phrases: int = 3
    """Semantic phrases N (Sec. 4.2). With 1 the sentence's own feature is used and there is no query attention: the
    variant LGI-SQAN of Table 3."""
    fusion: Literal["mul", "add", "concat"] = "mul"
    """How a phrase meets a segment (Sec. 3.3.1, Table 6)."""
    local: Literal["res_block", "masked_nl"] = "res_block"
    """Local context: a residual block of two convolutions, or non-local blocks in a window (Sec. 3.3.2, Table 5)."""
    local_kernel: int = 15
    """Width of the convolutions, or of the window (Sec. 4.2)."""
    local_dilation: int = 1
    """`masked_nl`: distance between the segments that a window holds."""
    local_blocks: int = 2
    """`masked_nl`: blocks in a row."""
    local_heads: int = 1
    """`masked_nl`: heads of a block."""
    global_blocks: int = 2
    """Non-local blocks in a row (public code; 1 in its ablations and for ActivityNet Captions)."""
    global_heads: int = 4
    """Heads of a non-local block (public code; 1 in its ablations and for ActivityNet Captions)."""
    output: Literal["relu", "sigmoid"] = "relu"
    """Range of the predicted positions: ReLU for Charades-STA, whose intervals may end after the video, sigmoid for
    ActivityNet Captions (public code)."""
    tag_weight: float = 1.0
    """Weight of the temporal attention guidance loss (Eq. 17)."""
    dqa_weight: float = 1.0
    """Weight of the distinct query attention loss (Eq. 18); 0 is the variant LGI-Ldqa."""
    dqa_lambda: float = 0.3
    """How far phrases may share words, r in Eq. 18 (0.2 for ActivityNet Captions)."""

    def __post_init__(self) -> None:
        counts = (
            "in_channels", "num_segments", "word_width", "lstm_width", "attention_width", "num_phrases",
            "regression_width", "local_kernel", "local_dilation", "local_blocks", "global_blocks",
        )  # fmt: skip
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"lgi.{name} must be at least 1, found {getattr(self, name)}.")
        if self.vocabulary < 0:
            raise ConfigError(f"lgi.vocabulary must be at least 0, found {self.vocabulary}.")
        for name in ("local_heads", "global_heads"):
            if getattr(self, name) < 1 or self.width % getattr(self, name):
                raise ConfigError(f"lgi.{name} must divide the width {self.width}, found {getattr(self, name)}.")
        if self.local_kernel % 2 == 0:
            raise ConfigError(
                f"lgi.local_kernel must be odd, a segment stands in its middle; found {self.local_kernel}."
            )

    @property
    def width(self) -> int:
        """D."""
        return 2 * self.lstm_width


@dataclass(frozen=True)
class Grounding:
    """What the network says of a batch of queries."""

    location: Float[Tensor, "B 2"]
    """Start and end as shares of the video's duration. Nothing keeps the start before the end."""
    over_time: Float[Tensor, "B T"]
    """Temporal attention; sums to one over the video's own segments."""
    over_words: Float[Tensor, "B N L"] | None
    """Attention of every phrase over the words; none for a single phrase."""


class LGI(nn.Module):
    """The network (Fig. 2)."""

    def __init__(self, cfg: LGIConfig):
        super().__init__()
        self.cfg = cfg
        self.query_enc = QueryEncoder(cfg)
        self.video_enc = VideoEncoder(cfg)
        if cfg.num_phrases > 1:
            self.sqan = PhraseAttention(cfg)
        self.vti_fn = Interaction(cfg)
        self.ta_reg_fn = Regression(cfg)

    def forward(
        self,
        words: Int[Tensor, "B L"] | Float[Tensor, "B L W"],
        known: Bool[Tensor, "B L"],
        features: Float[Tensor, "B T C"],
        valid: Bool[Tensor, "B T"],
    ) -> Grounding:
        """Intervals of queries in videos.

        Args:
            words: Word ids, or vectors, zero behind the query's end.
            known: Where there is a word; at least the first place of every query.
            features: Sampled features, zero behind the video's end.
            valid: Where there are features.
        """
        word_features, sentence = self.query_enc(words, known)
        segments = self.video_enc(features, valid)
        over_words = None
        phrases = sentence[:, None]
        if self.cfg.num_phrases > 1:
            phrases, over_words = self.sqan(sentence, word_features, known)
        context = self.vti_fn(segments, valid, phrases)
        location, over_time = self.ta_reg_fn(context, valid)
        return Grounding(location, over_time, over_words)


class QueryEncoder(nn.Module):
    """Word and sentence features from a two-layer bidirectional LSTM (Sec. 3.2)."""

    def __init__(self, cfg: LGIConfig):
        super().__init__()
        if cfg.vocabulary:
            self.embedding = nn.Embedding(cfg.vocabulary, cfg.word_width)
        self.rnn = nn.LSTM(cfg.word_width, cfg.lstm_width, 2, batch_first=True, bidirectional=True, dropout=cfg.dropout)

    def forward(
        self, words: Int[Tensor, "B L"] | Float[Tensor, "B L W"], known: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B D"]]:
        """Features of words, zero behind the end, and of sentences: forward at the last word, backward at the first."""
        lengths, vectors = known.sum(1), words if words.is_floating_point() else self.embedding(words)
        packed = pack_padded_sequence(vectors, lengths.cpu(), batch_first=True, enforce_sorted=False)
        features, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=words.shape[1])
        forward, backward = features.chunk(2, dim=2)
        last = (lengths - 1)[:, None, None].expand(-1, 1, forward.shape[2])
        return features, torch.cat((forward.gather(1, last)[:, 0], backward[:, 0]), dim=1)


class VideoEncoder(nn.Module):
    """Segments in the width of the queries, with their positions."""

    def __init__(self, cfg: LGIConfig):
        super().__init__()
        self.vid_emb_fn = nn.Sequential(nn.Linear(cfg.in_channels, cfg.width), nn.ReLU(), nn.Dropout(cfg.dropout))
        self.pos_emb_fn = nn.Sequential(nn.Embedding(cfg.num_segments, cfg.width), nn.ReLU(), nn.Dropout(cfg.dropout))

    def forward(self, features: Float[Tensor, "B T C"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Embedded features; all videos of a batch lose the same position entries to dropout, as in the public code."""
        position = self.pos_emb_fn(torch.arange(features.shape[1], device=features.device))
        return (self.vid_emb_fn(features) + position) * valid[..., None]


class WordAttention(nn.Module):
    """Additive attention of a key over words."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.key2att = nn.Linear(width, hidden)
        self.feat2att = nn.Linear(width, hidden)
        self.to_alpha = nn.Linear(hidden, 1)

    def forward(
        self, key: Float[Tensor, "B D"], words: Float[Tensor, "B L D"], known: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B L"]]:
        """The words' weighted mean and the weights."""
        logits = self.to_alpha(torch.tanh(self.key2att(key)[:, None] + self.feat2att(words)))[..., 0]
        weights = masked(logits, known).softmax(1)
        return (weights[..., None] * words).sum(1), weights


class PhraseAttention(nn.Module):
    """Sequential query attention (Sec. 3.2): each phrase looks for words in the light of the one before it."""

    def __init__(self, cfg: LGIConfig):
        super().__init__()
        width = cfg.width
        self.global_emb_fn = nn.ModuleList(nn.Linear(width, width) for _ in range(cfg.num_phrases))
        self.guide_emb_fn = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU())
        self.att_fn = WordAttention(width, cfg.attention_width)

    def forward(
        self, sentence: Float[Tensor, "B D"], words: Float[Tensor, "B L D"], known: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B N L"]]:
        """Phrases and their attention over the words (Eq. 4 to 7)."""
        phrase, phrases, weights = torch.zeros_like(sentence), [], []
        for embed in self.global_emb_fn:
            guide = self.guide_emb_fn(torch.cat((embed(sentence), phrase), dim=1))
            phrase, weight = self.att_fn(guide, words, known)
            phrases.append(phrase)
            weights.append(weight)
        return torch.stack(phrases, 1), torch.stack(weights, 1)


class AttentivePooling(nn.Module):
    """Weighted mean of a sequence, the weights from the sequence alone."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.feat2att = nn.Linear(width, hidden, bias=False)
        self.to_alpha = nn.Linear(hidden, 1, bias=False)
        self.fc = nn.Linear(width, width)

    def weights(self, x: Float[Tensor, "B M D"], valid: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B M"]:
        """How much each element counts."""
        logits = self.to_alpha(torch.tanh(self.feat2att(x)))[..., 0]
        return (logits if valid is None else masked(logits, valid)).softmax(1)

    def forward(
        self, x: Float[Tensor, "B M D"], valid: Bool[Tensor, "B M"]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B M"]]:
        """The embedded mean and the weights."""
        weights = self.weights(x, valid)
        return self.fc((weights[..., None] * x).sum(1)), weights


class Hadamard(nn.Module):
    """Product of a segment and a phrase, embedded before and after (Eq. 8)."""

    def __init__(self, width: int):
        super().__init__()
        self.fc_1, self.fc_2, self.fc_3 = (nn.Linear(width, width) for _ in range(3))

    def forward(self, segments: Float[Tensor, "B T D"], phrase: Float[Tensor, "B 1 D"]) -> Float[Tensor, "B T D"]:
        """Fused segments; those behind the video's end are not zero, and nothing masks them (public code)."""
        return F.relu(self.fc_3(F.relu(self.fc_1(segments)) * F.relu(self.fc_2(phrase))))


class LocalBlock(nn.Module):
    """Two convolutions with a shortcut (Eq. 9); batch statistics include what is behind a video's end.

    `all_locally` runs several of them at once.
    """

    def __init__(self, width: int, kernel: int):
        super().__init__()
        pad = kernel // 2
        block = nn.Sequential(
            nn.Conv1d(width, width, kernel, padding=pad, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, kernel, padding=pad, bias=False),
            nn.BatchNorm1d(width),
        )
        self.blocks = nn.ModuleList([block])

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Segments that know their neighbourhood."""
        x = x.transpose(1, 2)
        return F.relu(self.blocks[0](x) + x).transpose(1, 2)


class NonLocal(nn.Module):
    """Attention among segments with a shortcut, without normalisation or output layer (Eq. 11 and 12).

    What the public code calls value makes the query here, and the two halves of its other layer key and value.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.c_lin = nn.Linear(width, 2 * width)
        self.v_lin = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B T D"], seen: Bool[Tensor, "B #T T"]) -> Float[Tensor, "B T D"]:
        """Segments that know the others; `seen` says which others each may look at."""
        key, value = self.c_lin(x).chunk(2, dim=2)
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.v_lin(x), key, value)
        )
        logits = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        weights = masked(logits, seen[:, None]).softmax(3)
        return x + (weights @ value).transpose(1, 2).flatten(2)


class Interaction(nn.Module):
    """Segments meet phrases: fusion, local context per phrase, global context over all (Sec. 3.3).

    The blocks of all phrases start as copies of one another (public code).
    """

    def __init__(self, cfg: LGIConfig):
        super().__init__()
        self.cfg = cfg
        width = cfg.width
        if cfg.fusion == "mul":
            self.fusion_fn = _copies(Hadamard(width), cfg.num_phrases)
        elif cfg.fusion == "concat":
            self.lin_fn = _copies(nn.Linear(2 * width, width), cfg.num_phrases)
        if cfg.local == "res_block":
            self.local_fn = _copies(LocalBlock(width, cfg.local_kernel), cfg.num_phrases)
        else:
            self.local_fn = _copies(_copies(NonLocal(width, cfg.local_heads), cfg.local_blocks), cfg.num_phrases)
        self.satt_fn = AttentivePooling(width, cfg.attention_width)
        self.global_fn = _copies(NonLocal(width, cfg.global_heads), cfg.global_blocks)

    def forward(
        self, segments: Float[Tensor, "B T D"], valid: Bool[Tensor, "B T"], phrases: Float[Tensor, "B N D"]
    ) -> Float[Tensor, "B T D"]:
        """Segments as far as they have to do with the query."""
        shares = self.satt_fn.weights(phrases)
        fused = [self.fuse(n, segments, phrases[:, n, None]) for n in range(self.cfg.num_phrases)]
        mixed = torch.zeros_like(segments)
        for index, local in enumerate(self.locally(fused, valid)):
            mixed = mixed + shares[:, index, None, None] * local
        for block in self.global_fn:
            mixed = block(mixed, valid[:, None])
        return mixed

    def fuse(
        self, index: int, segments: Float[Tensor, "B T D"], phrase: Float[Tensor, "B 1 D"]
    ) -> Float[Tensor, "B T D"]:
        """Segments in the light of one phrase (Eq. 8)."""
        if self.cfg.fusion == "mul":
            return self.fusion_fn[index](segments, phrase)
        if self.cfg.fusion == "add":
            return segments + phrase
        return F.relu(self.lin_fn[index](torch.cat((segments, phrase.expand_as(segments)), dim=2)))

    def locally(self, fused: list[Tensor], valid: Bool[Tensor, "B T"]) -> list[Tensor]:
        """Local context of every phrase's segments, (B, T, D) each (Eq. 9)."""
        if self.cfg.local == "res_block":
            blocks: list[Any] = list(self.local_fn)
            if valid.device.type != "cpu" and len(blocks) > 1:
                return all_locally(blocks, fused)
            return [block(x) for block, x in zip(blocks, fused, strict=True)]
        near = window(valid.shape[1], self.cfg.local_kernel, self.cfg.local_dilation, valid.device)
        for index, blocks in enumerate(self.local_fn):  # pyright: ignore[reportAssignmentType]
            for block in blocks:
                fused[index] = block(fused[index], valid[:, None] & near)
        return fused


class Regression(nn.Module):
    """Temporal attention, then start and end (Eq. 13 to 15)."""

    def __init__(self, cfg: LGIConfig):
        super().__init__()
        self.tatt = AttentivePooling(cfg.width, cfg.attention_width)
        self.MLP_reg = nn.Sequential(
            nn.Linear(cfg.width, cfg.regression_width),
            nn.ReLU(),
            nn.Linear(cfg.regression_width, 2),
            nn.ReLU() if cfg.output == "relu" else nn.Sigmoid(),
        )

    def forward(
        self, context: Float[Tensor, "B T D"], valid: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B T"]]:
        """Positions as shares of the duration, and the attention over time."""
        summary, weights = self.tatt(context, valid)
        return self.MLP_reg(summary), weights


def all_locally(blocks: Sequence[LocalBlock], fused: Sequence[Tensor]) -> list[Tensor]:
    """The local blocks of all phrases with their convolutions as one grouped convolution each; inputs (B, T, D).

    One launch in the place of one a phrase, for accelerators; on a CPU it is a fifth slower (docs/decisions/0010).
    """
    first = [x.transpose(1, 2) for x in fused]
    x = torch.cat(first, 1)
    for place in (0, 3):
        parts = [block.blocks[0][place : place + 2] for block in blocks]  # pyright: ignore[reportIndexIssue]
        weight = torch.cat([conv.weight for conv, _ in parts])
        x = F.conv1d(x, weight, padding=weight.shape[2] // 2, groups=len(blocks))
        x = torch.cat([norm(y) for (_, norm), y in zip(parts, x.chunk(len(blocks), 1), strict=True)], 1)
        if place == 0:
            x = F.relu(x)
    return [F.relu(y + z).transpose(1, 2) for y, z in zip(x.chunk(len(blocks), 1), first, strict=True)]


def masked(logits: Tensor, seen: Bool[Tensor, "..."]) -> Tensor:
    """Logits with `NOTHING` wherever `seen` is false."""
    return logits.masked_fill(~seen, max(NOTHING, torch.finfo(logits.dtype).min))


def window(length: int, kernel: int, dilation: int, device: torch.device) -> Bool[Tensor, "1 T T"]:
    """Which segments lie in each other's window of `kernel` places, `dilation` apart."""
    steps = torch.arange(length, device=device)
    apart = (steps[:, None] - steps).abs()
    return ((apart % dilation == 0) & (apart <= kernel // 2 * dilation))[None]


def _copies(module: nn.Module, count: int) -> nn.ModuleList:
    """The module and copies of it, all with the same weights at first."""
    return nn.ModuleList([module, *(copy.deepcopy(module) for _ in range(count - 1))])
