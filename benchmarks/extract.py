"""Extraction: share of the bound 1 / (decode + encode), ratio to seek-and-decode extraction, store, memory; one run.

    python benchmarks/extract.py [--encoder slim --encoder i3d] [--size 112] [--threads 2] [--hours 2]

CPU times of everything are measured in turn in the same run, on made videos of 640 x 360. The straightforward extractor
opens the file, seeks and decodes for every clip, shrinks full-size pictures and encodes clips one by one, with the
encoder as PyTorch builds it. No extractor can lead it by more than `times_faster_at_most`, its time over that of
decoding once and encoding; an encoder that costs much more than decoding leaves little to win. With --hours a long
video of 5 frames a second is made and extracted, and the growth of the process is printed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from uptal.recipes.measuring_extract import ExtractBench, measure_extract, memory_over_a_long_video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", action="append", help="repeatable; default: slim and i3d")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch and of decoding")
    parser.add_argument("--hours", type=float, default=0.0, help="length of the long video; 0: leave it out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.hours:
        with tempfile.TemporaryDirectory() as folder:
            for key, value in memory_over_a_long_video(options.hours, Path(folder)).items():
                print(f"{key:<28}{value}")
    for encoder in options.encoder or ("slim", "i3d"):
        cfg = ExtractBench(
            encoder=encoder,
            size=options.size,
            seconds=options.seconds,
            threads=options.threads,
            rounds=options.rounds,
            device="cpu",
        )
        print()
        for key, value in measure_extract(cfg).items():
            print(f"{key:<28}{value}")


if __name__ == "__main__":
    main()
