"""`uptal extract --weights RUN --videos DIR --out STORE`: clip features of whole videos."""

from __future__ import annotations

from pathlib import Path

from uptal.commands.options import new_parser, pick, shard
from uptal.recipes.extracting import extract_folder


def main(arguments: list[str]) -> None:
    """Extracts what the store does not hold yet."""
    parser = new_parser("extract", "Clip features of untrimmed videos; skips what is finished, survives kills.")
    parser.add_argument("--weights", required=True, help="run folder, feature store or encoder.safetensors")
    parser.add_argument("--videos", required=True, help="folder of videos")
    parser.add_argument("--out", required=True, help="feature store to write or to complete")
    parser.add_argument(
        "--shard", type=str, default="1/1", help="i/n: only the i-th of n parts of the videos, for several machines"
    )
    parser.add_argument(
        "--interval", type=int, help="frames from one clip to the next (default: frames x stride of a clip)"
    )
    parser.add_argument("--batch", type=int, default=32, help="clips per forward pass")
    parser.add_argument("--threads", type=int, default=2, help="videos decoded at once")
    parser.add_argument("--backend", choices=["pyav", "torchcodec"], default="pyav", help="decoder")
    parser.add_argument(
        "--max-bad", type=float, default=0.01, help="share of videos (at least one) that may be unreadable"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--trust-imports", action="store_true", help="allow encoder classes from outside uptal")
    parsed = parser.parse_args(arguments)
    part = shard(parsed.shard)
    written = extract_folder(
        Path(parsed.weights),
        Path(parsed.videos),
        Path(parsed.out),
        select=lambda paths: pick(paths, part),
        interval=parsed.interval,
        batch=parsed.batch,
        threads=parsed.threads,
        backend=parsed.backend,
        max_bad=parsed.max_bad,
        device=parsed.device,
        trust=parsed.trust_imports,
    )
    print(f"{parsed.out}: {written} videos written")
