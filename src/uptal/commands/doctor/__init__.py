"""`uptal doctor [machine|data|annotations|store|run]`: what is installed, missing or broken.

One file a subject, each with `examine`, which prints its findings and returns them with the reason to fail, or "".
"""

from __future__ import annotations

import json

from uptal.commands.doctor import data, machine, run, store, truth
from uptal.commands.options import Parser, new_parser
from uptal.errors import UptalError
from uptal.files import atomic_write

CHECKS = {
    "machine": machine.examine,
    "data": data.examine,
    "annotations": truth.examine,
    "store": store.examine,
    "run": run.examine,
}
"""What can be checked."""


def main(arguments: list[str]) -> None:
    """Prints findings; exits with an error when something is broken."""
    parsed = _parser().parse_args(arguments)
    findings, broken = CHECKS[parsed.what](parsed)
    if parsed.json:
        with atomic_write(parsed.json) as out:
            json.dump(findings, out, indent=1)
    if broken:
        raise UptalError(broken)


def _parser() -> Parser:
    parser = new_parser("doctor", "Checks the machine, videos, annotations, a feature store or a run.")
    add = parser.add_argument
    add("what", choices=list(CHECKS), nargs="?", default="machine", help="what to check")
    add("path", nargs="?", help="annotations: file or folder in any format that uptal reads; store, run: the folder")
    add("--videos", help="data, annotations: folder of videos")
    add("--annotations", help="data: annotations to compare with")
    add("--features", help="annotations: feature store to compare with")
    add("--subset", help="annotations: only this split")
    add("--fps", type=float, help="annotations: frame rate of Label Studio's frames")
    add("--drop-labels", nargs="+", default=[], help="annotations: leave out instances of these classes")
    add("--write", help="annotations: write what can be used as .json (ActivityNet) or .csv")
    add("--decode", action="store_true", help="data: decode every video to its end (slow, finds damage inside)")
    add("--digests", action="store_true", help="data: list every file with its size, length and SHA-256")
    add("--json", help="write the findings to a file")
    return parser
