"""The `uptal` command: finds the sub-command, prints errors as one paragraph. Sub-commands are files of `uptal.commands`."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "demo": "the whole story on the built-in corpus, or the label-free part on your own videos",
    "synthesize": "write the built-in corpus: encoded videos of procedural actions with exact annotations",
    "pretrain": "pre-train a clip encoder on a folder of videos, without labels",
    "extract": "clip features of untrimmed videos",
    "train": "train a localizer on features (bmn)",
    "predict": "detections or proposals for the videos of a feature store",
    "evaluate": "detection mAP or proposal recall of a result file",
    "detect": "my video in, segments and a page out",
    "report": "a page of videos, annotations and detections",
    "doctor": "what is installed, missing or broken: machine, data",
}
"""Sub-commands in the order in which one meets them."""


def main(argv: list[str] | None = None) -> int:
    """Runs a sub-command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        import uptal

        print(f"uptal {uptal.__version__}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"Did you mean `uptal {near[0]}`?" if near else f"Commands: {', '.join(COMMANDS)}."
        print(f"uptal: there is no command {name!r}. {hint}", file=sys.stderr)
        return 2
    return _run(name, arguments[1:])


def _run(name: str, arguments: list[str]) -> int:
    from uptal.errors import UptalError

    try:
        importlib.import_module(f"uptal.commands.{name}").main(arguments)
    except UptalError as error:
        print(f"uptal {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"uptal {name}: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        print(
            f"uptal {name}: the system refused {error.filename or 'an operation'} ({error.strerror or error}). Check the path, "
            "its permissions and the space on the disk, then start the same command again; finished parts are kept.",
            file=sys.stderr,
        )
        return 1
    return 0


def _help() -> str:
    lines = ["usage: uptal COMMAND [options]", "", "Pre-train a video encoder without labels; find actions in time.", ""]
    lines += [f"  {name:<12}{text}" for name, text in COMMANDS.items()]
    lines += ["", "`uptal COMMAND --help` lists a command's options with their defaults; `uptal --version` the version."]
    return "\n".join(lines)
