"""The text side of grounding: sentences as word ids of a vocabulary, or as vectors of a language model on this disk.

Tokens, vocabulary and word-vector tables are in `queries`. Letters: B queries, L words, W width of a word's vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor

from uptal.errors import AnnotationError, ConfigError
from uptal.localizers.queries import Vocabulary, tokens


@dataclass(frozen=True)
class Words:
    """Sentences as a network takes them."""

    values: Int[Tensor, "B L"] | Float[Tensor, "B L W"]
    """Ids or vectors; zero behind a sentence's end."""
    known: Bool[Tensor, "B L"]
    """Where there is a word."""

    def pick(self, rows: Int[Tensor, " K"]) -> Words:
        """Some of the sentences."""
        return Words(self.values[rows], self.known[rows])


@runtime_checkable
class Text(Protocol):
    """How sentences become words; one object serves training, prediction and the page."""

    @property
    def vocabulary_size(self) -> int:
        """Ids that there are; 0 when words come as vectors."""
        ...

    def encode(self, sentences: Sequence[str]) -> Words:
        """Sentences as ids or vectors, cut after so many words.

        Raises:
            AnnotationError: A sentence has no word.
        """
        ...

    def shown(self, sentence: str) -> tuple[str, ...]:
        """The words at the places of `encode`, for people."""
        ...

    def left_out(self, sentence: str) -> int:
        """Number of words behind the last one that counts."""
        ...

    def unknown(self, sentence: str) -> tuple[str, ...]:
        """Words that mean nothing to the network."""
        ...


@dataclass(frozen=True)
class VocabularyText:
    """Ids of a vocabulary: the paper's way, and that of a word-vector table."""

    vocabulary: Vocabulary
    max_words: int

    @property
    def vocabulary_size(self) -> int:
        """Words with an id."""
        return len(self.vocabulary)

    def encode(self, sentences: Sequence[str]) -> Words:
        """Ids; zero is no word."""
        ids = self.vocabulary.encode(sentences, self.max_words)
        return Words(ids, ids > 0)

    def shown(self, sentence: str) -> tuple[str, ...]:
        """Tokens up to the last one that counts."""
        return tokens(sentence)[: self.max_words]

    def left_out(self, sentence: str) -> int:
        """Tokens behind those."""
        return max(len(tokens(sentence)) - self.max_words, 0)

    def unknown(self, sentence: str) -> tuple[str, ...]:
        """Words outside the vocabulary."""
        return self.vocabulary.unknown(sentence)


@dataclass(frozen=True)
class EncoderText:
    """Word-piece vectors of a language model, as they come out of its last layer; it is not trained any further."""

    tokenizer: Any
    model: Any
    max_words: int
    width: int
    """W."""

    @property
    def vocabulary_size(self) -> int:
        """Words come as vectors."""
        return 0

    @torch.inference_mode()
    def encode(self, sentences: Sequence[str]) -> Words:
        """Vectors of the pieces that are no marks of the model's own, the whole sentence in view of each."""
        values = torch.zeros(len(sentences), self.max_words, self.width)
        known = torch.zeros(len(sentences), self.max_words, dtype=torch.bool)
        for begin in range(0, len(sentences), 64):
            part = list(sentences[begin : begin + 64])
            given, pieces = self._pieces(part)
            states = self.model(**given).last_hidden_state
            for row, places in enumerate(pieces, begin):
                places = places[: self.max_words]
                if not len(places) or not tokens(sentences[row]):
                    raise AnnotationError(f"The query {sentences[row]!r} has no word; expected one as 'a man waves'.")
                values[row, : len(places)] = states[row - begin, places].float()
                known[row, : len(places)] = True
        return Words(values, known)

    def shown(self, sentence: str) -> tuple[str, ...]:
        """Word pieces up to the last one that counts."""
        given, pieces = self._pieces([sentence])
        read = pieces[0][: self.max_words]
        return tuple(self.tokenizer.convert_ids_to_tokens(given["input_ids"][0, read].tolist()))

    def left_out(self, sentence: str) -> int:
        """Word pieces behind those, of as many as the language model itself takes."""
        return max(len(self._pieces([sentence])[1][0]) - self.max_words, 0)

    def unknown(self, sentence: str) -> tuple[str, ...]:
        """None: words that a language model has not seen are spelt in pieces."""
        return ()

    def _pieces(self, sentences: list[str]) -> tuple[dict[str, Tensor], list[Int[Tensor, " _"]]]:
        """What the model takes, and the places of each sentence that are words."""
        given = dict(
            self.tokenizer(
                sentences, padding=True, truncation=True, return_tensors="pt", return_special_tokens_mask=True
            )
        )
        words = (given.pop("special_tokens_mask") == 0) & (given["attention_mask"] == 1)
        return given, [row.nonzero()[:, 0] for row in words]


def read_encoder(folder: str | Path, max_words: int) -> EncoderText:
    """A language model from a folder on this disk, such as a sentence encoder's; nothing is downloaded.

    Weights must be safetensors and code in the folder is never run.

    Raises:
        ConfigError: The extra is not installed, or the folder holds no model.
    """
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            "A sentence encoder needs the package transformers: pip install 'uptal[text]'. Without it use text.kind "
            "scratch or vectors."
        ) from error
    if not Path(folder).is_dir():
        raise ConfigError(f"text.encoder {folder}: no such folder. Nothing is downloaded; put a model there first.")
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **local)
        model = transformers.AutoModel.from_pretrained(str(folder), use_safetensors=True, **local).eval()
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split()[:40])
        raise ConfigError(
            f"text.encoder {folder}: holds no model that transformers can read ({reason}). Expected config.json, "
            "model.safetensors and the tokenizer's files."
        ) from error
    if 2 * len(tokenizer) < model.config.vocab_size:
        raise ConfigError(
            f"text.encoder {folder}: the tokenizer knows {len(tokenizer)} word pieces, the model "
            f"{model.config.vocab_size}. The tokenizer's files are missing or another model's; expected tokenizer.json "
            "or vocab.txt beside model.safetensors."
        )
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    if tokenizer.model_max_length > positions:  # tokenizers that know no limit; some models begin at the third position
        tokenizer.model_max_length = positions - 2
    return EncoderText(tokenizer, model, max_words, int(model.config.hidden_size))
