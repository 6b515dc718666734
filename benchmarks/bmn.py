"""How much faster and smaller the fused, sparse boundary-matching layer is than the dense form of the public code.

    python benchmarks/bmn.py [--num-steps 100] [--batch 2] [--threads 1]

Both forms run the layer and the convolution behind it, forward and backward, at the published size, each in a process
of its own so that its peak memory is its own; their outputs and gradients are compared. Then: the mask built point by
point against built at once, and training steps of small heads, to see what fits a given time. Times are processor time.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from timing import best_time, in_its_own_process, peak_memory
from uptal.localizers.bmn import BMN, BMNConfig, BoundaryBatch, labels
from uptal.localizers.layers import BoundaryMatching, map_cells, sampling_weights

NUM_SAMPLES, NUM_POINTS, RATIO = 32, 3, 0.5
CHANNELS_IN, CHANNELS_OUT = 256, 512


def inputs(num_steps: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    kernel = torch.randn(CHANNELS_OUT, CHANNELS_IN, NUM_SAMPLES) / math.sqrt(CHANNELS_IN * NUM_SAMPLES)
    return torch.randn(batch, CHANNELS_IN, num_steps, requires_grad=True), kernel.requires_grad_()


def dense_form(num_steps: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Pool with a (T, N * T * T) matrix, then convolve the (B, C, N, T, T) result."""
    cells = map_cells(num_steps, "start_end")
    weights = sampling_weights(cells, num_steps, NUM_SAMPLES, NUM_POINTS, RATIO)
    mask = torch.zeros(num_steps, NUM_SAMPLES, num_steps, num_steps)
    mask[weights.step, weights.sample, cells.row[weights.cell], cells.column[weights.cell]] = torch.from_numpy(
        weights.weight
    )
    valid = torch.from_numpy(cells.row * num_steps + cells.column)

    def run(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        pooled = (x @ mask.flatten(1)).unflatten(2, (NUM_SAMPLES, num_steps, num_steps))
        return F.conv3d(pooled, kernel[..., None, None], stride=(NUM_SAMPLES, 1, 1)).flatten(2)[:, :, valid]

    return run


def fused_form(num_steps: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    matching = BoundaryMatching(num_steps, NUM_SAMPLES, NUM_POINTS, RATIO)
    return lambda x, kernel: matching(x, kernel).transpose(1, 2)


def measure(form: str, num_steps: int, batch: int, threads: int) -> tuple[float, float, float, list[np.ndarray]]:
    """One form in its own process: seconds forward, seconds forward and backward, peak MB above the idle process."""
    torch.set_num_threads(threads)
    idle = peak_memory()
    run = {"dense": dense_form, "fused": fused_form}[form](num_steps)
    x, kernel = inputs(num_steps, batch)

    def both() -> tuple[torch.Tensor, ...]:
        out = run(x, kernel)
        return out, *torch.autograd.grad(out.square().sum(), (x, kernel))

    with torch.no_grad():
        forward = best_time(lambda: run(x, kernel), 2)
    together = best_time(both, 2)
    peak = peak_memory() - idle
    return forward, together, peak, [part.detach().numpy() for part in both()]


def mask_point_by_point(num_steps: int) -> int:
    """The mask as the public code builds it: one Python step for every sampled point; its number of entries."""
    entries = 0
    for start in range(num_steps):
        for end in range(start + 1, num_steps + 1):
            low, high = start - (end - start + 1) * RATIO, end + (end - start + 1) * RATIO
            spacing = (high - low) / (NUM_SAMPLES * NUM_POINTS - 1)
            for n in range(NUM_SAMPLES):
                row = np.zeros(num_steps)
                for k in range(NUM_POINTS):
                    fraction, below = math.modf(low + spacing * (n * NUM_POINTS + k))
                    for step, weight in ((int(below), 1 - fraction), (math.ceil(below + fraction), fraction)):
                        if 0 <= step < num_steps:
                            row[step] += weight
                entries += np.count_nonzero((row / NUM_POINTS).astype(np.float32))
    return entries


def compare_layers(args: argparse.Namespace) -> None:
    dense, fused = (
        in_its_own_process(measure, form, args.num_steps, args.batch, args.threads) for form in ("dense", "fused")
    )
    print(f"boundary matching + convolution, T={args.num_steps}, batch {args.batch}, {args.threads} thread(s)")
    for name, i, unit in (("forward", 0, "s"), ("forward + backward", 1, "s"), ("peak memory", 2, "MB")):
        print(
            f"  {name:20} dense {dense[i]:9.3f} {unit:2}  fused {fused[i]:9.3f} {unit:2}  {dense[i] / fused[i]:6.1f} x"
        )
    errors = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(fused[3], dense[3], strict=True)]
    names = ("output", "grad x", "grad kernel")
    listed = ", ".join(f"{name} {error:.1e}" for name, error in zip(names, errors, strict=True))
    print(f"  largest difference / largest value: {listed}")
    met = dense[1] / fused[1] >= 15 and dense[2] / fused[2] >= 4 and max(errors) <= 1e-5
    print(f"  at least 15 times as fast, at most a quarter of the memory, within 1e-5: {'yes' if met else 'no'}")
    stored = [key for key in BMN(BMNConfig(in_channels=400)).state_dict() if not key.startswith("x_")]
    print(f"  in a checkpoint beside weights: {stored or 'nothing'}")


def compare_masks(num_steps: int) -> None:
    begun = time.perf_counter()
    entries = mask_point_by_point(num_steps)
    slow = time.perf_counter() - begun
    cells = map_cells(num_steps, "start_end")
    fast = best_time(lambda: sampling_weights(cells, num_steps, NUM_SAMPLES, NUM_POINTS, RATIO), 2)
    found = len(sampling_weights(cells, num_steps, NUM_SAMPLES, NUM_POINTS, RATIO).weight)
    size, stored = NUM_SAMPLES * num_steps**3 * 4 / 2**20, 2 * entries * 8 / 2**20
    print(f"mask, T={num_steps}: point by point {slow:.2f} s, at once {fast:.3f} s  {slow / fast:6.1f} x")
    print(f"  {entries} entries (both: {found == entries}); dense {size:.1f} MB, sparse both ways {stored:.1f} MB")


def small_heads(threads: int, seconds: float = 15.0, num_videos: int = 80, batch: int = 16) -> None:
    """Seconds a training step of reduced heads, and the epochs that fit."""
    torch.set_num_threads(threads)
    generator = np.random.default_rng(0)
    print(f"small heads, width 128, {num_videos} videos in batches of {batch}, {threads} thread(s)")
    for num_steps, num_samples, hidden in (
        (32, 8, (64, 32, 128)),
        (32, 16, (128, 64, 128)),
        (48, 16, (128, 64, 256)),
        (64, 16, (128, 64, 256)),
    ):
        model = BMN(BMNConfig(in_channels=128, num_steps=num_steps, num_samples=num_samples, hidden=hidden))
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, weight_decay=1e-4)
        segments = [np.sort(generator.random((3, 2)), axis=1) * 60 for _ in range(batch)]
        truth = [np.stack(part) for part in zip(*(labels(s, 60.0, num_steps) for s in segments), strict=True)]
        gt_map, gt_start, gt_end = (torch.from_numpy(part) for part in truth)
        features = torch.randn(batch, 128, num_steps)
        data = BoundaryBatch(features=features, gt_map=gt_map, gt_start=gt_start, gt_end=gt_end)

        def step(model=model, optimizer=optimizer, data=data) -> None:
            optimizer.zero_grad()
            model.loss(data, generator)["loss"].backward()
            optimizer.step()

        cost = best_time(step, 5)
        epochs = seconds / (cost * math.ceil(num_videos / batch))
        print(
            f"  T={num_steps} N={num_samples} hidden={hidden}: {cost * 1e3:.0f} ms a step, {epochs:.0f} epochs in 15 s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-steps", type=int, default=100, help="T of the compared layers")
    parser.add_argument("--batch", type=int, default=2, help="videos a step")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}")
    compare_layers(args)
    compare_masks(args.num_steps)
    small_heads(args.threads)


if __name__ == "__main__":
    main()
