"""The `uptal` command: finds the sub-command (a file of `uptal.commands`) and prints errors as one paragraph."""

from __future__ import annotations

import importlib
import os
import sys

COMMANDS = {
    "demo": "the whole story on the built-in corpus, or the label-free part on your own videos",
    "synthesize": "write the built-in corpus: encoded videos of procedural actions with exact annotations",
    "transcode": "smaller copies of videos, quicker to read in training",
    "pretrain": "pre-train a clip encoder on a folder of videos, without labels",
    "extract": "clip features of untrimmed videos",
    "features": "features from other projects into a store (npy, HDF5, CSV), and out of it",
    "train": "train a localizer on features (bmn, gtad, actionformer, lgi)",
    "predict": "detections or proposals for the videos of a feature store",
    "evaluate": "detection mAP, proposal recall or grounding recall of a result file",
    "probe": "classification of labelled clips: nearest neighbours, linear, fine-tuned",
    "detect": "my video in, segments and a page out",
    "segments": "my video in, segments and a page out, from an encoder alone: no labels",
    "ground": "my video and my sentences in, intervals and a page out",
    "encoders": "every encoder: width, native clip, parameters, multiply-adds; the FLOPs column of Table 1",
    "weights": "convert checkpoints of other projects; show what a weight file is",
    "report": "a page of videos, annotations and detections",
    "reproduce": "experiments on the built-in corpora, resumable, every number kept",
    "submit": "hand a run to SLURM; it saves before the time limit, is queued again and goes on",
    "bench": "what pre-training or extraction costs on this machine, measured",
    "doctor": "what is installed, missing or broken: machine, data, annotations, store, run",
}
"""Sub-commands in the order in which one meets them."""


def main(argv: list[str] | None = None) -> int:
    """Runs a sub-command.

    Args:
        argv: Words of the command line after `uptal`; those of this process when None.

    Returns:
        The exit code: 0 success, 1 something the user can mend, 2 a wrong option, 130 interrupted.
    """
    try:
        code = _main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output has left, such as `head`; what is still unwritten goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    name = arguments[0]
    if name in ("-V", "--version"):
        from uptal import __version__

        print(f"uptal {__version__}")
        return 0
    if name not in COMMANDS:
        return _fail(f"uptal: there is no command {name!r}. {_meant(name)}", 2)
    return _run(name, arguments[1:])


def _run(name: str, arguments: list[str]) -> int:
    from uptal.errors import UptalError

    try:
        importlib.import_module(f"uptal.commands.{name}").main(arguments)
    except SystemExit as leaving:  # the option parser has printed help or an error
        return leaving.code if isinstance(leaving.code, int) else 0
    except UptalError as error:
        return _fail(f"uptal {name}: {error}", 1)
    except KeyboardInterrupt:
        return _fail(f"uptal {name}: interrupted.", 130)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(
            f"uptal {name}: the system refused {error.filename or 'an operation'} ({error.strerror or error}). Check "
            "the path, its permissions and the space on the disk, then start the same command again; finished parts "
            "are kept.",
            1,
        )
    return 0


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def _meant(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, 1)
    return f"Did you mean `uptal {near[0]}`?" if near else f"Commands: {', '.join(COMMANDS)}."


def _help() -> str:
    lines = [
        "usage: uptal COMMAND [options]",
        "",
        "Pre-train a video encoder without labels; find actions in time.",
        "",
    ]
    lines += [f"  {name:<12}{text}" for name, text in COMMANDS.items()]
    lines += [
        "",
        "`uptal COMMAND --help` lists a command's options with their defaults; `uptal --version` the version.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
