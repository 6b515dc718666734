"""How much faster and smaller G-TAD's pooling is when it is fused with the convolution behind it; seconds an epoch.

    python benchmarks/gtad.py [--form activitynet] [--batch 1] [--threads 1] [--videos 1000]

The straightforward form pools every anchor into a (B, C * R, D, T) tensor, by one product with a dense matrix, and
convolves that, as the public code does behind its extension. Each form runs in a process of its own, so that its peak
memory is its own; their outputs and gradients are compared. Then: training steps of BMN and G-TAD at their published
sizes and batch on features of width 1024, each in a process of its own, from which the time of an epoch is
*extrapolated*. Layers: processor time. Epochs: time on the clock, on `--threads` threads, and peak memory.

    python benchmarks/gtad.py --only epochs --threads 2       # seconds an epoch of 1,000 videos on two cores
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from timing import best_time, in_its_own_process, peak_memory
from uptal.localizers.align import SGAlign, anchors, sampling_weights
from uptal.localizers.bmn import BMN, BMNConfig
from uptal.localizers.gtad import GTAD, GTADConfig, thumos14
from uptal.localizers.samples import Sample

CHANNELS_IN, CHANNELS_OUT = 256, 512
FORMS = {"activitynet": GTADConfig(in_channels=4), "thumos14": thumos14(4)}

Form = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def plain_form(cfg: GTADConfig) -> Form:
    """Pool with a dense matrix, own features and neighbours' features apart, concatenate, convolve."""
    shape = (cfg.num_steps, cfg.max_duration, cfg.inner, cfg.context, 0, 0)
    row, column, weight, size = sampling_weights(*shape, dtype=torch.float32)
    dense = torch.zeros(size)
    dense[row, column] = torch.from_numpy(weight)
    cells = anchors(cfg.num_steps, cfg.max_duration).of_cell
    mask = dense.unflatten(1, (cfg.num_steps, -1))[cells.flatten()].permute(1, 2, 0)  # (T, R, D * T)
    inner, context = mask[:, : cfg.inner].flatten(1), mask[:, cfg.inner :].flatten(1)

    def run(x: torch.Tensor, around: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        parts = [(part @ matrix).unflatten(2, (-1, cells.numel())) for part, matrix in ((x, inner), (around, context))]
        pooled = torch.cat(parts, dim=2).flatten(1, 2).unflatten(2, cells.shape)
        return F.conv2d(pooled, kernel.flatten(1)[..., None, None])

    return run


def fused_form(cfg: GTADConfig) -> Form:
    align = SGAlign(cfg.num_steps, cfg.max_duration, cfg.inner, cfg.context)
    return lambda x, around, kernel: align.spread(align(x, around, kernel))


def measure(form: str, name: str, batch: int, threads: int) -> tuple[float, float, float, list[np.ndarray]]:
    """One form in its own process: seconds forward, seconds forward and backward, peak MB, what it computed."""
    torch.set_num_threads(threads)
    idle = peak_memory()
    cfg = FORMS[name]
    run = {"plain": plain_form, "fused": fused_form}[form](cfg)
    torch.manual_seed(0)
    width = cfg.inner + cfg.context
    x, around = (torch.randn(batch, CHANNELS_IN, cfg.num_steps, requires_grad=True) for _ in range(2))
    kernel = (torch.randn(CHANNELS_OUT, CHANNELS_IN, width) / math.sqrt(CHANNELS_IN * width)).requires_grad_()

    def both() -> tuple[torch.Tensor, ...]:
        out = run(x, around, kernel)
        return out, *torch.autograd.grad(out.square().sum(), (x, around, kernel))

    with torch.no_grad():
        forward = best_time(lambda: run(x, around, kernel), 1)
    together = best_time(both, 1)
    peak = peak_memory() - idle
    return forward, together, peak, [part.detach().numpy() for part in both()]


def compare_forms(args: argparse.Namespace) -> None:
    plain, fused = (
        in_its_own_process(measure, form, args.form, args.batch, args.threads) for form in ("plain", "fused")
    )
    cfg = FORMS[args.form]
    print(
        f"sub-graph pooling + 1x1 convolution, {args.form}: {cfg.num_steps} steps, {cfg.max_duration} durations, "
        f"{CHANNELS_IN} * {cfg.inner + cfg.context} -> {CHANNELS_OUT}, batch {args.batch}, {args.threads} thread(s)"
    )
    for name, i, unit in (("forward", 0, "s"), ("forward + backward", 1, "s"), ("peak memory", 2, "MB")):
        print(
            f"  {name:20} plain {plain[i]:9.3f} {unit:2}  fused {fused[i]:9.3f} {unit:2} {plain[i] / fused[i]:6.1f} x"
        )
    for name, one, other in zip(("output", "grad x", "grad around", "grad kernel"), fused[3], plain[3], strict=True):
        error = np.abs(one - other).max() / np.abs(other).max()
        print(f"  {name:20} largest difference / largest value {error:.1e}")


def time_steps(name: str, args: argparse.Namespace) -> tuple[float, float, float]:
    """Training steps in a process of its own: seconds and processor seconds a video, peak MB above the idle process."""
    torch.set_num_threads(args.threads)
    idle = peak_memory()
    model = {"BMN": BMN(BMNConfig(in_channels=1024)), "G-TAD": GTAD(replace(FORMS["activitynet"], in_channels=1024))}[
        name
    ]
    generator, num_steps, width = np.random.default_rng(0), model.cfg.num_steps, model.cfg.in_channels
    samples = [
        Sample(
            id=str(i),
            values=torch.randn(width, num_steps),
            num_valid=num_steps,
            first=0,
            start=0.0,
            step=1.0,
            duration=float(num_steps),
            segments=np.sort(generator.random((2, 2)), axis=1) * num_steps,
            labels=("x", "x"),
        )
        for i in range(args.step_videos)
    ]
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model.loss(model.collate(samples), generator)["loss"].backward()
        optimizer.step()

    step()
    clock, busy = time.perf_counter(), time.process_time()
    for _ in range(args.steps):
        step()
    count = args.steps * len(samples)
    clock, busy = (time.perf_counter() - clock) / count, (time.process_time() - busy) / count
    return clock, busy, peak_memory() - idle


def seconds_an_epoch(name: str, args: argparse.Namespace) -> None:
    """Prints what an epoch takes, extrapolated from some steps."""
    clock, busy, peak = in_its_own_process(time_steps, name, args)
    print(
        f"  {name:5} {clock:6.3f} s a video ({busy:6.3f} s of processor time), {clock * args.videos:6.0f} s an epoch "
        f"of {args.videos} videos, extrapolated from {args.steps} steps of {args.step_videos}; peak {peak:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=list(FORMS), default="activitynet")
    parser.add_argument("--batch", type=int, default=1, help="videos of the compared layers")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--videos", type=int, default=1000, help="videos of an epoch")
    parser.add_argument("--step-videos", type=int, default=16, help="videos of a timed training step")
    parser.add_argument("--steps", type=int, default=3, help="timed training steps, after one that is not counted")
    parser.add_argument("--only", choices=["layers", "epochs"], help="leave out the other half")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}")
    if args.only != "epochs":
        compare_forms(args)
    if args.only != "layers":
        print(f"training on features of 100 steps and width 1024, {args.threads} thread(s)")
        for name in ("BMN", "G-TAD"):
            seconds_an_epoch(name, args)


if __name__ == "__main__":
    main()
