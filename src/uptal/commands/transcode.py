"""`uptal transcode --videos DIR --out DIR`: smaller, quickly seekable copies for training."""

from __future__ import annotations

from pathlib import Path

from uptal.commands.options import add_settings, new_parser, take_settings
from uptal.errors import ConfigError
from uptal.recipes.transcoding import measure_gain, transcode_folder
from uptal.video.transcoding import TranscodeConfig


def main(arguments: list[str]) -> None:
    """Copies what has no copy yet, and says what was gained."""
    parser = new_parser("transcode", "Smaller copies with more keyframes: same frames, same seconds, quicker to read.")
    parser.add_argument("--videos", required=True, help="folder of videos")
    parser.add_argument("--out", required=True, help="folder for the copies; the same folders inside it")
    parser.add_argument("--workers", type=int, default=2, help="videos copied at once")
    parser.add_argument("--sample", type=int, default=8, help="videos on which the gain is measured; 0: it is not")
    parser.add_argument("--max-bad", type=float, default=0.01, help="share of videos (at least one) that may fail")
    parser.add_argument(
        "--pack", action="store_true", help="few large files in place of one a video, for network file systems"
    )
    parser.add_argument("--pack-mib", type=int, default=1024, help="size from which on a pack is full")
    add_settings(parser, TranscodeConfig())
    parsed = parser.parse_args(arguments)
    videos, out = Path(parsed.videos), Path(parsed.out)
    cfg = take_settings(parsed, TranscodeConfig)
    if parsed.pack_mib < 1:
        raise ConfigError(f"--pack-mib must be at least 1, found {parsed.pack_mib}.")
    pack = parsed.pack_mib * 2**20 if parsed.pack else 0
    made = transcode_folder(videos, out, cfg, workers=parsed.workers, max_bad=parsed.max_bad, pack=pack)
    packs = f", {len(list(out.glob('*.uptalpack')))} packs" if pack else ""
    print(f"{out}: {made} videos copied{packs}")
    gain = measure_gain(videos, out, parsed.sample) if parsed.sample > 0 else None
    if gain is not None:
        print(gain.describe())
