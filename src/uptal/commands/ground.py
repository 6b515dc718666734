"""`uptal ground RUN video.mp4 … --query TEXT … --out DIR`: my video and my sentences in, intervals and a page out."""

from __future__ import annotations

from pathlib import Path

from uptal.commands.options import new_parser
from uptal.recipes.asking import ground


def main(arguments: list[str]) -> None:
    """Writes groundings.jsonl, one CSV and one SRT a video, and report.html."""
    parser = new_parser("ground", "Finds sentences in videos with a run of `uptal train lgi`; works on a CPU.")
    parser.add_argument("run", help="run folder of `uptal train lgi`")
    parser.add_argument("videos", nargs="+", help="video files")
    parser.add_argument("--query", nargs="+", required=True, help="sentences; each is asked about each video")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parsed = parser.parse_args(arguments)
    for reply in ground(parsed.run, parsed.videos, parsed.query, parsed.out, device=parsed.device):
        start, end = reply.shown.interval
        unknown = f"  (unknown: {', '.join(reply.shown.unknown)})" if reply.shown.unknown else ""
        cut = f"  (the last {reply.left_out} words were not read)" if reply.left_out else ""
        print(f"{reply.query.video}: {start:7.2f} - {end:7.2f} s  {reply.query.sentence}{unknown}{cut}")
    print(f"open {Path(parsed.out) / 'report.html'}")
