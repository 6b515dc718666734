"""`uptal bench extract`: what a clip costs to decode and to encode here, and what the pipeline makes of it."""

from __future__ import annotations

import json
from pathlib import Path

from uptal.commands.options import add_settings, new_parser, take_settings
from uptal.files import atomic_write
from uptal.recipes.measuring_extract import ExtractBench, measure_extract
from uptal.run import environment


def main(arguments: list[str]) -> None:
    """Measures and prints; a minute or two."""
    parser = new_parser("bench extract", "Measures extraction on this machine: CPU time a clip, and what limits it.")
    parser.add_argument("--video", help="video to measure with (default: one of 640 x 360 is made)")
    parser.add_argument("--json", help="write the numbers to a file, with the machine that they are of")
    add_settings(parser, ExtractBench())
    parsed = parser.parse_args(arguments)
    found = measure_extract(take_settings(parsed, ExtractBench), Path(parsed.video) if parsed.video else None)
    if parsed.json:
        with atomic_write(parsed.json) as out:
            json.dump({**found, "environment": environment()}, out, indent=1)
    for key, value in found.items():
        print(f"{key:<28}{value}")
