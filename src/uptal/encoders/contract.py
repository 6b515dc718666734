"""What an encoder is, and how a name becomes one by Python's own import; the architectures are one file each, beside.

Letters: N clips, T frames, H height, W width, D feature width.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import fields
from types import ModuleType
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from uptal.clipspec import ClipSpec
from uptal.errors import ConfigError

PACKAGE = "uptal.encoders"


class ClipEncoder(Protocol):
    """What an encoder brings besides being an `nn.Module` (PAL's F^b, Sec. 3.2.3).

    Its class is built from one argument, an instance of `Config`. A file in this package names its class `Encoder`, so
    that the file's name suffices; a class elsewhere is named in full. The classes of this package also have `variants`,
    the configurations that have a name in the literature, and `classify`, which gives class scores of features where
    the option `num_classes` asks for a classifier. Modules inside may have a method `fold()`, which extraction calls on
    a copy: it replaces layers by fewer that give the same in evaluation, such as a convolution with its norm in it.
    """

    Config: Any
    """Frozen dataclass of the options: plain values with defaults, as they go into JSON."""
    native: ClipSpec
    """The clips that it is made for."""
    config: Any
    """The options of this instance."""
    width: int
    """Numbers in the feature of a clip."""

    def __call__(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        """Features of normalised RGB clips."""
        ...


def build(name: str, *, trust: bool = False, **options: Any) -> Any:
    """An encoder with fresh weights: an `nn.Module` that keeps the promises of `ClipEncoder`.

    Args:
        name: `i3d`, `slim` or the name of another file of this package; or `package.module.Class`.
        trust: Import classes from outside `uptal`. An import runs code, so a name from a file must not decide it.
        options: Fields of the class's `Config`.

    Raises:
        ConfigError: No such encoder, an untrusted name, or an option that it does not have.
    """
    cls = find(name, trust=trust)
    known = {field.name: field.default for field in fields(cls.Config)}
    unknown = sorted(set(options) - set(known))
    if unknown:
        listed = ", ".join(f"{key} (default {value!r})" for key, value in known.items()) or "none"
        raise ConfigError(f"Encoder {name} has no option {', '.join(unknown)}. Its options: {listed}.")
    return cls(cls.Config(**options))


def find(name: str, *, trust: bool = False) -> Any:
    """The class behind the name of an encoder; arguments and errors as in `build`."""
    if "." not in name or not all(part.isidentifier() for part in name.split(".")):
        if name not in available():
            listed = ", ".join(available())
            raise ConfigError(f"There is no encoder {name!r}. There are {listed}; others go by package.module.Class.")
        return importlib.import_module(f"{PACKAGE}.{name}").Encoder
    path, _, attribute = name.rpartition(".")
    if name.split(".")[0] != "uptal" and not trust:
        raise ConfigError(
            f"Encoder {name!r} lies outside uptal; importing it would run its code. "
            "If you trust it, name it on the command line or add --trust-imports."
        )
    cls = getattr(_import(path, name), attribute, None)
    _check_contract(cls, name)
    return cls


def available() -> list[str]:
    """Names of the encoders of this package."""
    package = importlib.import_module(PACKAGE)
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return [name for name in names if hasattr(importlib.import_module(f"{PACKAGE}.{name}"), "Encoder")]


def variants() -> dict[str, tuple[str, Any]]:
    """The encoders of this package by the names of the literature: the file and the configuration of each."""
    found = {name: find(name).variants for name in available()}
    return {title: (name, config) for name, titles in found.items() for title, config in titles.items()}


def name_of(encoder: nn.Module) -> str:
    """The name under which `build` finds the encoder's class."""
    cls = type(encoder)
    package, _, file = cls.__module__.rpartition(".")
    return file if package == PACKAGE else f"{cls.__module__}.{cls.__qualname__}"


def _import(path: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise ConfigError(f"Encoder {name!r}: there is no module {error.name!r} on Python's path.") from error


def _check_contract(cls: Any, name: str) -> None:
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ConfigError(f"Encoder {name!r} must be a class derived from torch.nn.Module, found {cls!r}.")
    missing = [attribute for attribute in ("Config", "native") if not hasattr(cls, attribute)]
    if missing:
        raise ConfigError(f"Encoder {name!r} lacks {' and '.join(missing)}: see uptal.encoders.ClipEncoder.")
