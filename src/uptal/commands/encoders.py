"""`uptal encoders [--json OUT]`: what every encoder is and costs, and the FLOPs column of the paper's Table 1."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from uptal.commands.options import new_parser
from uptal.encoders import build, count_macs, count_parameters, load_encoder, shipped, variants
from uptal.encoders.published import TABLE_1

_GIGA = 1e9
_WIDTH = 116
"""Columns of the screen that the tables take, also where it is narrower or no screen."""


def main(arguments: list[str]) -> None:
    """Prints two tables, or JSON."""
    parser = new_parser("encoders", "Every encoder: feature width, native clip, parameters, multiply-adds of a clip.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables (default: no)")
    parser.add_argument("--encoder", help="only variants of this file, such as r2plus1d (default: all)")
    parser.add_argument("--no-table1", action="store_true", help="leave the paper's Table 1 out (default: no)")
    parsed = parser.parse_args(arguments)
    encoders = [describe(title) for title, (name, _) in variants().items() if parsed.encoder in (None, name)]
    rows = [] if parsed.no_table1 else table_1()
    came = [describe_shipped(name) for name in shipped()] if parsed.encoder in (None, "slim") else []
    if parsed.json:
        print(json.dumps({"encoders": encoders, "shipped": came, "table1": rows}, indent=2))
        return
    _print_encoders(encoders)
    _print_shipped(came)
    if rows:
        _print_table_1(rows)


def describe(title: str) -> dict[str, Any]:
    """What an encoder is, without making its weights."""
    name, config = variants()[title]
    with torch.device("meta"):
        encoder = build(name, **asdict(config))
    return {
        "title": title,
        "name": name,
        "options": asdict(config),
        "width": encoder.width,
        "native": asdict(encoder.native) | {"colour": "RGB"},
        "parameters": count_parameters(encoder),
        "macs": count_macs(encoder),
    }


def describe_shipped(name: str) -> dict[str, Any]:
    """An encoder whose weights come with the package."""
    saved = load_encoder(name)
    made = (saved.source or {}).get("method", "")
    return {"weights": name, "encoder": type(saved.encoder).__name__, "digest": saved.digest, "trained": made}


def table_1() -> list[dict[str, Any]]:
    """The FLOPs column: what the paper prints, and what its networks have."""
    found = []
    for row in TABLE_1:
        macs, with_norms = row.count()
        found.append(asdict(row) | {"macs": macs, "macs_and_norms": with_norms})
    return found


def _print_encoders(encoders: list[dict[str, Any]]) -> None:
    table = Table(title="Encoders, with the clips that their weights were trained on (RGB)")
    for column in ("encoder", "--encoder", "width", "clip", "parameters", "GMACs"):
        table.add_column(column, justify="left" if column in ("encoder", "--encoder") else "right")
    for each in encoders:
        clip, size = each["native"], f"{each['parameters'] / 1e6:.3f} M"
        seen = f"{clip['frames']} x {clip['size']}², stride {clip['stride']}"
        table.add_row(each["title"], each["name"], str(each["width"]), seen, size, f"{each['macs'] / _GIGA:.3f}")
    Console(width=_WIDTH).print(table)
    print("`uptal encoders --json` adds the options that make each of them, and the normalisation.\n")


def _print_shipped(came: list[dict[str, Any]]) -> None:
    for each in came:
        print(f"`--weights {each['weights']}` comes with uptal: {each['encoder']}, {each['trained']} (docs/shipped.md)")
    print()


def _print_table_1(rows: list[dict[str, Any]]) -> None:
    table = Table(title="FLOPs column of Table 1, in G: printed, multiply-adds, and with 2 for every output of a norm")
    for column in ("row", "clip", "paper", "counted", "with norms", "the paper's number"):
        table.add_column(column, justify="right" if column in ("paper", "counted", "with norms") else "left")
    for each in rows:
        clip = f"{each['frames']} x {each['size']}²"
        counted = (f"{each['macs'] / _GIGA:.3f}", f"{each['macs_and_norms'] / _GIGA:.3f}")
        table.add_row(each["row"], clip, f"{each['paper']:.1f}", *counted, each["verdict"])
    Console(width=_WIDTH).print(table)
