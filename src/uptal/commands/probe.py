"""`uptal probe knn|linear|finetune`: how well an encoder's clips can be told apart by class (Table 7)."""

from __future__ import annotations

import json
from pathlib import Path

from uptal.commands.options import add_settings, new_parser, take_settings
from uptal.files import atomic_write
from uptal.recipes.probing import ProbeConfig, probe_encoder


def main(arguments: list[str]) -> None:
    """Prints top-1 with its interval; writes everything else."""
    parser = new_parser("probe", "Classification of labelled clips: nearest neighbours, linear, or fine-tuned.")
    parser.add_argument("method", choices=["knn", "linear", "finetune"], help="how the encoder is used")
    parser.add_argument("--weights", required=True, help="run folder, feature store or encoder.safetensors")
    parser.add_argument("--videos", required=True, help="folder of videos")
    parser.add_argument("--train-list", required=True, help="training list: UCF101, HMDB51, Kinetics or video,label")
    parser.add_argument("--test-list", required=True, help="test list, in the same layouts")
    parser.add_argument("--run", help="finetune: folder for the training run (default: none)")
    parser.add_argument("--json", help="write the numbers to a file")
    add_settings(parser, ProbeConfig())
    parsed = parser.parse_args(arguments)
    cfg, run = take_settings(parsed, ProbeConfig), Path(parsed.run) if parsed.run else None
    weights, videos = Path(parsed.weights), Path(parsed.videos)
    lists = (Path(parsed.train_list), Path(parsed.test_list))
    found = probe_encoder(parsed.method, weights, videos, lists, cfg, run)
    if parsed.json:
        with atomic_write(parsed.json) as out:
            json.dump(found, out, indent=1)
    low, high = found["interval"]
    top5 = "" if found["top5"] is None else f", top-5 {100 * found['top5']:.1f}"
    print(
        f"top-1 {100 * found['top1']:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f}, "
        f"{found['videos']['test']} videos, {found['classes']} classes){top5}; "
        f"always the commonest class: {100 * found['chance']:.1f} %"
    )
    if found["videos"]["missing"]:
        print(f"{found['videos']['missing']} videos of the lists are not there and are left out")
