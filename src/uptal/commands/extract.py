"""`uptal extract --weights RUN --videos DIR --out STORE`: clip features of whole videos."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from uptal.commands.options import Parser, new_parser, pick, shard
from uptal.distributed import announced
from uptal.encoders.shipped import DEFAULT
from uptal.errors import ConfigError
from uptal.recipes.extracting import ExtractConfig, extract_folder
from uptal.recipes.on_ray import extract_on_ray


def main(arguments: list[str]) -> None:
    """Extracts what the store does not hold yet."""
    parsed = _parser().parse_args(arguments)
    cfg = _config(parsed)
    weights, videos, out = Path(parsed.weights), Path(parsed.videos), Path(parsed.out)
    if parsed.ray is not None:
        if parsed.shard != "1/1":
            raise ConfigError("--shard and --ray both divide the videos; use one of them.")
        parts = extract_on_ray(
            weights, videos, out, cfg, address=parsed.ray, parts=parsed.ray_parts, trust=parsed.trust_imports
        )
        print(f"{out}: {sum(part.videos for part in parts)} videos written by {len(parts)} parts")
        return
    place, (index, count) = announced(), shard(parsed.shard)
    part = (index * place.size + place.rank, count * place.size)
    done = extract_folder(
        weights,
        videos,
        out,
        cfg,
        select=lambda paths: pick(paths, part),
        trust=parsed.trust_imports,
        local_rank=place.local_rank,
    )
    print(f"{out}: {done.videos} videos written{', ' if done.clips else ''}{done.describe()}")


def _config(parsed: Namespace) -> ExtractConfig:
    return ExtractConfig(
        interval=parsed.interval,
        fps=parsed.fps,
        frame_stride=parsed.frame_stride,
        window=parsed.window,
        backend=parsed.backend,
        resize_on=parsed.resize_on,
        precision=parsed.precision,
        compile=parsed.compile,
        batch=parsed.batch,
        threads=parsed.threads,
        max_bad=parsed.max_bad,
        device=parsed.device,
    )


def _parser() -> Parser:
    parser = new_parser("extract", "Clip features of untrimmed videos; skips what is finished, survives kills.")
    add = parser.add_argument
    add(
        "--weights", default=DEFAULT, help="run folder, feature store, encoder.safetensors, or a shipped encoder's name"
    )
    add("--videos", required=True, help="folder of videos")
    add("--out", required=True, help="feature store to write or to complete")
    add("--interval", type=int, help="frames from one clip to the next (default: the window, clips back to back)")
    add("--fps", type=float, help="rate at which frames are counted, such as 25 (default: each video's own)")
    add("--frame-stride", type=int, help="frames from one frame of a clip to the next (default: the encoder's)")
    add("--window", type=int, help="frames that a clip covers, a multiple of the frame stride (default: the encoder's)")
    add("--batch", type=int, default=32, help="clips per forward pass")
    add("--threads", type=int, help="videos decoded at once (default: one a core, 2 to 16)")
    add("--backend", choices=["pyav", "torchcodec", "nvdec"], default="pyav", help="decoder; nvdec: the GPU's")
    add("--resize-on", choices=["decoder", "device"], default="decoder", help="who shrinks the pictures")
    precisions = ["auto", "fp32", "bf16", "fp16"]
    add("--precision", choices=precisions, default="auto", help="arithmetic of the encoder; auto: bf16 on a GPU")
    add("--compile", action="store_true", help="compile the encoder first: worth its minute in long extractions")
    shards = "i/n: only the i-th of n parts of the videos, for several machines; torchrun's ranks divide them further"
    add("--shard", type=str, default="1/1", help=shards)
    add("--ray", help="divide the work over a Ray cluster: auto, local or its address (default: no Ray)")
    add("--ray-parts", type=int, help="with --ray: number of parts (default: one a GPU, or a core)")
    add("--max-bad", type=float, default=0.01, help="share of videos (at least one) that may be unreadable")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--trust-imports", action="store_true", help="allow encoder classes from outside uptal")
    return parser
