"""Encoders that come with the package, by name; what they have seen and what they are worth is in docs/shipped.md."""

from __future__ import annotations

from pathlib import Path

DEFAULT = "slim-v1"
"""Taken wherever an encoder is needed and none is named."""


def shipped() -> dict[str, Path]:
    """Weight file of every encoder in the package, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.safetensors"))}


def locate(path: str | Path) -> Path:
    """The weight file where `path` is the name of an encoder of the package, and `path` itself otherwise.

    A file or folder of that name in the working directory comes first.
    """
    path = Path(path)
    return path if path.exists() else shipped().get(str(path), path)
