"""Sentences as word ids: tokens, a vocabulary from training sentences, and word vectors for it.

Source: the public LGI code, whose ids this reproduces: lower case, ASCII punctuation deleted (not replaced by a blank),
words in the order of their code points.
"""

from __future__ import annotations

import itertools
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from uptal.errors import AnnotationError, ConfigError

SPECIAL = ("<PAD>", "<UNK>", "<S>", "<E>")
"""Ids 0 to 3; the last two never occur in a query."""
UNKNOWN = 1

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def tokens(sentence: str) -> tuple[str, ...]:
    """Words of a sentence.

    >>> tokens("A person's standing-up, twice.")
    ('a', 'persons', 'standingup', 'twice')
    """
    return tuple(sentence.lower().translate(_NO_PUNCTUATION).strip().split())


@dataclass(frozen=True)
class Vocabulary:
    """Known words in the order of their ids; the special ones come first."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[: len(SPECIAL)] != SPECIAL or len(set(self.words)) != len(self.words):
            raise ConfigError(f"A vocabulary starts with {', '.join(SPECIAL)} and names every word once.")

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def of(cls, sentences: Iterable[str], min_count: int = 1) -> Vocabulary:
        """All words that occur often enough; the public code takes every word of the training sentences."""
        counts = Counter(word for sentence in sentences for word in tokens(sentence))
        return cls(SPECIAL + tuple(sorted(word for word, count in counts.items() if count >= min_count)))

    @property
    def ids(self) -> Mapping[str, int]:
        """Id of every word."""
        return {word: index for index, word in enumerate(self.words)}

    def encode(self, sentences: Sequence[str], max_words: int) -> Int[Tensor, "B L"]:
        """Word ids, cut after `max_words` and filled with zeros; words that are not known become `<UNK>`.

        Raises:
            AnnotationError: A sentence has no word.
        """
        known = self.ids
        table = torch.zeros(len(sentences), max_words, dtype=torch.int64)
        for row, sentence in zip(table, sentences, strict=True):
            words = tokens(sentence)[:max_words]
            if not words:
                raise AnnotationError(f"The query {sentence!r} has no word; expected a sentence such as 'a man waves'.")
            row[: len(words)] = torch.tensor([known.get(word, UNKNOWN) for word in words])
        return table

    def unknown(self, sentence: str) -> tuple[str, ...]:
        """Words of a sentence that have no id of their own."""
        known = set(self.words)
        return tuple(word for word in tokens(sentence) if word not in known)


def word_vectors(path: str | Path, vocabulary: Vocabulary) -> Float[Tensor, "V D"]:
    """Vectors for a vocabulary from a table such as GloVe's; words that it lacks are zero (public code).

    Args:
        path: `.npz` with arrays `words` (V) and `vectors` (V, D), or text with a word and its numbers a line.
        vocabulary: Whose words.

    Raises:
        AnnotationError: The file is something else; the message names the line.
    """
    path = Path(path)
    try:
        table = _from_npz(path) if path.suffix == ".npz" else _from_text(path, set(vocabulary.words))
    except (OSError, ValueError, KeyError, UnicodeDecodeError) as error:
        raise AnnotationError(
            f"{path}: cannot be read as word vectors ({error}). Expected .npz with `words` and `vectors`, or lines of "
            "a word and its numbers."
        ) from error
    if not table:
        raise AnnotationError(f"{path}: holds none of the {len(vocabulary)} words of the vocabulary.")
    width = len(next(iter(table.values())))
    vectors = np.zeros((len(vocabulary), width), np.float32)
    for word, index in vocabulary.ids.items():
        if word in table and index >= len(SPECIAL):
            vectors[index] = table[word]
    return torch.from_numpy(vectors)


def table_words(path: str | Path, count: int) -> list[str]:
    """The first words of a word-vector table, in its order.

    Raises:
        AnnotationError: The file cannot be read.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            return list(_from_npz(path))[:count]
        with open(path, encoding="utf-8") as lines:
            return [line.partition(" ")[0] for line in itertools.islice(lines, count)]
    except (OSError, ValueError, KeyError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: cannot be read as word vectors ({error}).") from error


def _from_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        words, vectors = stored["words"], stored["vectors"]
    if vectors.ndim != 2 or len(words) != len(vectors):
        raise ValueError(f"words {words.shape} and vectors {vectors.shape} do not belong together")
    return {str(word): vector for word, vector in zip(words, vectors, strict=True)}


def _from_text(path: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    table: dict[str, np.ndarray] = {}
    width = 0
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            word, _, rest = line.rstrip("\n").partition(" ")
            if word in wanted:
                vector = np.array(rest.split(), np.float32)
                width = width or len(vector)
                if len(vector) != width:
                    raise ValueError(f"line {number} has {len(vector)} numbers, the first one had {width}")
                table[word] = vector
    return table
