"""How long Soft-NMS takes for a whole validation set, with all videos of a map sharing what depends on segments alone.

    python benchmarks/soft_nms.py [--videos 4728] [--num-steps 100]

The plain loop of `evaluate.py` does a few videos, the package all of them; processor time, so that other programs count
for little. Candidates are those of BMN: every pair of steps. Their scores are random.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from evaluate import loop_soft_nms
from uptal.localizers.bmn import shared_soft_nms
from uptal.postprocess import soft_nms
from uptal.types import Detections


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=4728, help="videos of the set (ActivityNet's validation: 4,728)")
    parser.add_argument("--num-steps", type=int, default=100)
    parser.add_argument("--loop-videos", type=int, default=4, help="videos that the plain loop does")
    args = parser.parse_args()
    shared = shared_soft_nms(args.num_steps, "start_end", 0.4, 0.5, 0.9)
    generator, count = np.random.default_rng(0), len(shared.segments)
    few = draw(generator, args.loop_videos, count)

    begin = time.process_time()
    slow = [loop_soft_nms(np.column_stack((shared.segments, row))) for row in few]
    loop = (time.process_time() - begin) / len(few)
    begin = time.process_time()
    single = [soft_nms(Detections(shared.segments, row)) for row in few]
    one = (time.process_time() - begin) / len(few)
    begin, wall, found = time.process_time(), time.perf_counter(), []
    for first in range(0, args.videos, 16):
        found += shared(draw(generator, min(16, args.videos - first), count), 100)
    every = (time.process_time() - begin) / args.videos
    wall = time.perf_counter() - wall

    error = max(np.abs(a[:, 2] - b.scores).max() for a, b in zip(slow, shared(few, 100), strict=True))
    same = all(np.array_equal(a.scores, b.scores) for a, b in zip(single, shared(few, 100), strict=True))
    print(f"Soft-NMS, {count:,} candidates to 100; processor time a video")
    print(f"  plain loop      {loop * 1e3:8.2f} ms   ({len(few)} videos)")
    print(f"  one video alone {one * 1e3:8.2f} ms   {loop / one:6.0f} x")
    print(f"  videos together {every * 1e3:8.2f} ms   {loop / every:6.0f} x   ({args.videos} videos, drawing included)")
    print(f"  all {args.videos} videos: {every * args.videos:.1f} s of processor time, {wall:.1f} s on the clock")
    print(f"  largest difference from the loop {error:.1e}; together equals alone to the bit: {same}")


def draw(generator: np.random.Generator, num_videos: int, count: int) -> np.ndarray:
    """Scores as products of four probabilities are distributed: most of them small."""
    return generator.random((4, num_videos, count)).prod(0)


if __name__ == "__main__":
    main()
