"""`uptal features import|export`: features from other projects into a store, and out of it."""

from __future__ import annotations

from pathlib import Path

from uptal.commands.options import Parser, new_parser
from uptal.errors import ConfigError
from uptal.features import FeatureStore
from uptal.recipes.exchanging import Meaning, export_features, import_features, read_known


def main(arguments: list[str]) -> None:
    """Reads foreign features into a store, or writes a store's for others."""
    parsed = _parser().parse_args(arguments)
    source, out = Path(parsed.source), Path(parsed.out)
    if parsed.action == "export":
        steps = 100 if parsed.resampled_to is None and parsed.format == "csv" else parsed.resampled_to
        if steps is not None and steps < 1:
            raise ConfigError(f"--resampled-to counts rows and must be at least 1, found {steps}.")
        count = export_features(FeatureStore(source), out, parsed.format, steps, parsed.rule)
        print(f"{out}: {count} videos written")
        return
    meaning = Meaning(fps=parsed.fps, stride=parsed.stride, window=parsed.window, resampled_to=parsed.resampled_to)
    known = read_known(*(Path(path) if path else None for path in (parsed.durations, parsed.videos)))
    print(f"{out}: {import_features(source, out, meaning, known)} videos written")


def _parser() -> Parser:
    parser = new_parser("features", "Features from other projects into a store, and a store's features for others.")
    add = parser.add_argument
    add("action", choices=["import", "export"], help="import: SOURCE becomes a store; export: SOURCE is a store")
    add("source", help="import: folder of .npy or .csv files, or one .h5 file; export: feature store")
    add("--out", required=True, help="import: store to write or to complete; export: folder, or .h5 file")
    add("--fps", type=float, help="import: frames a second of the videos (default: each one's own, with --videos)")
    add("--stride", type=float, help="import: frames from one feature to the next (default: what the files say)")
    add("--window", type=float, help="import: frames that a feature covers (default: what the files say)")
    rows = "rows that each video has whatever its length (default: not resampled; export to csv: 100)"
    add("--resampled-to", type=int, help=rows)
    lengths = "import: table video,duration or annotations, to check against (default: what the files say)"
    add("--durations", help=lengths)
    add("--videos", help="import: folder of the videos themselves instead of --durations (default: none)")
    add("--format", choices=["npy", "h5", "csv"], default="npy", help="export: kind of files")
    rules = "export: rows linear in time, or as BMN's csv_mean_100 was made (clips back to back)"
    add("--rule", choices=["linear", "csv_mean"], default="linear", help=rules)
    return parser
