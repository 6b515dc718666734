"""`uptal bench SUBJECT`: what a job costs on this machine, measured, so that a run can be sized beforehand.

One file a subject, each with `main`, which takes the words after its name.
"""

from __future__ import annotations

import importlib
import pkgutil

from uptal.errors import ConfigError

SUBJECTS = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
"""What can be measured: the files of this package."""


def main(arguments: list[str]) -> None:
    """Passes on to the subject."""
    subject = arguments[0] if arguments else ""
    if subject in ("-h", "--help"):
        print(f"usage: uptal bench {'|'.join(SUBJECTS)} …\n\n`uptal bench SUBJECT --help` lists its options.")
        return
    if subject not in SUBJECTS:
        raise ConfigError(f"bench needs a subject, one of {', '.join(SUBJECTS)}; found {subject or 'none'!r}.")
    importlib.import_module(f"uptal.commands.bench.{subject}").main(arguments[1:])
