"""A trained LGI on disk: its run folder alone is enough to ask it about videos.

RUN/grounder.safetensors/json   network of the chosen epoch, settings, vocabulary
RUN/last.safetensors            network of the last epoch
RUN/text/                       the language model, where words come from one
RUN/encoder.safetensors/json    the encoder that the features came from, when it is known
RUN/features.json               how features are laid on a video
RUN/selection.json              which epoch was chosen and how, with the numbers of both
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file, save
from torch import Tensor

from uptal.checkpoint import UNREADABLE
from uptal.errors import CheckpointError
from uptal.features import Features, FeatureStore
from uptal.files import atomic_write, digest
from uptal.localizers.lgi import LGI
from uptal.localizers.lgi_task import QueryBatcher
from uptal.localizers.queries import Vocabulary
from uptal.localizers.text import Text, VocabularyText, read_encoder
from uptal.recipes.lgi import LGISettings
from uptal.recipes.localizer_files import save_features
from uptal.recipes.settings import from_plain
from uptal.run import plain

_ENCODER_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
"""What a language model's folder may hold that is no code."""


@dataclass(frozen=True)
class Grounder:
    """A trained LGI as it was read back."""

    model: LGI
    text: Text
    settings: LGISettings
    features: dict[str, Any]
    """Description of the store that it was trained on."""
    path: Path

    def batcher(self, read: Callable[[str], Features]) -> QueryBatcher:
        """What turns queries about these features into batches."""
        return QueryBatcher(self.text, read, self.settings.lgi.num_segments, self.settings.clock)


def is_grounder(path: Path) -> bool:
    """Whether a run folder is one of `uptal train lgi`, finished or not."""
    return (path / "grounder.json").is_file() or _unfinished(path)


def save_grounder(
    path: Path,
    weights: Mapping[str, Tensor],
    last: Mapping[str, Tensor],
    text: Text,
    cfg: LGISettings,
    store: FeatureStore,
) -> None:
    """Writes the chosen and the last weights, words, settings and a copy of the encoder into the run."""
    for name, tensors in (("grounder", weights), ("last", last)):
        with atomic_write(path / f"{name}.safetensors", "wb") as out:
            out.write(save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}))
    record = {"kind": "lgi", "settings": plain(cfg)}
    if isinstance(text, VocabularyText):
        record["vocabulary"] = list(text.vocabulary.words)
    digests = {name: digest(path / f"{name}.safetensors") for name in ("grounder", "last")}
    with atomic_write(path / "grounder.json") as out:
        json.dump(record | {"sha256": digests}, out, indent=1, ensure_ascii=False)
    save_features(path, store)


def load_grounder(path: Path, last: bool = False) -> Grounder:
    """Reads an LGI back.

    Args:
        path: Run folder.
        last: The weights of the last epoch instead of the chosen one's.

    Raises:
        CheckpointError: The run holds none yet, or its files are damaged or do not fit each other.
    """
    if _unfinished(path):
        raise CheckpointError(
            f"{path}: the training of this grounding run has not come to its end. Give the `uptal train lgi` that "
            "began it once more; it goes on from its last checkpoint."
        )
    name = "last" if last else "grounder"
    try:
        record = json.loads((path / "grounder.json").read_text("utf-8"))
        description = json.loads((path / "features.json").read_text("utf-8"))
        if digest(path / f"{name}.safetensors") != record["sha256"][name]:
            raise ValueError(f"{name}.safetensors is damaged")
        settings = from_plain(LGISettings, record["settings"])
        model = LGI(settings.lgi)
        model.load_state_dict(load_file(path / f"{name}.safetensors"))
        words = record.get("vocabulary")
    except UNREADABLE as error:
        reason = " ".join(str(error).split()[:40])
        raise CheckpointError(
            f"{path}: holds no usable grounding run ({reason}). Make one with `uptal train lgi --features STORE "
            "--annotations FILE --run RUN`."
        ) from error
    text = _text(path, settings, words)
    return Grounder(model.eval(), text, settings, description, path)


def copy_encoder_text(folder: Path, run: Path) -> None:
    """Puts the language model into the run, weights and word lists but no code."""
    for pattern in _ENCODER_FILES:
        for source in sorted(folder.glob(pattern)):
            with atomic_write(run / "text" / source.name, "wb") as out, open(source, "rb") as opened:
                shutil.copyfileobj(opened, out)


def text_digest(folder: Path) -> str:
    """SHA-256 over the files of a language model that count."""
    total = hashlib.sha256()
    for source in sorted(path for pattern in _ENCODER_FILES for path in folder.glob(pattern)):
        total.update(f"{source.name} {digest(source)}\n".encode())
    return total.hexdigest()


def _unfinished(path: Path) -> bool:
    """Whether the folder's settings are an LGI's and its network is still to come."""
    try:
        settings = yaml.safe_load((path / "config.yaml").read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    began = isinstance(settings, dict) and settings.get("localizer") == "lgi"
    return began and not (path / "grounder.json").exists()


def _text(path: Path, settings: LGISettings, words: Sequence[str] | None) -> Text:
    if words is not None:
        return VocabularyText(Vocabulary(tuple(words)), settings.text.max_words)
    return read_encoder(path / "text", settings.text.max_words)
