"""How I3D, the encoder of the paper, runs fastest: on a CPU by memory layout, on a GPU by batch, compiled or not.

    python benchmarks/i3d.py --rounds 5              # CPU seconds of a forward pass, as ratios to plain tensors
    python benchmarks/i3d.py --device cuda           # clips a second in bf16, and the share of the measured matmul peak

Sides are timed in turn within a run, in CPU time on a CPU, so that other work on the machine falls on all alike; the
best round of each is kept. Every side must give the features of the first one, or the run fails.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor

from uptal.device import move
from uptal.encoders import build, count_macs
from uptal.features.encoding import make_ready

TOLERANCE = 1e-4
"""Largest difference of features, relative to the largest: other kernels sum in another order."""
BATCHES = (64, 128, 256, 512)


def main(arguments: list[str] | None = None) -> None:
    options = read_options(arguments)
    torch.manual_seed(0)
    if options.device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit("benchmarks/i3d.py: PyTorch finds no GPU here; leave --device cuda out.")
        on_gpu(options.rounds)
    else:
        torch.set_num_threads(options.threads)
        on_cpu(options)


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--batch", type=int, default=8, help="clips, on a CPU")
    parser.add_argument("--size", type=int, default=112, help="pixels, on a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="on a CPU: a side more; a GPU always has both")
    return parser.parse_args(arguments)


def on_cpu(options: argparse.Namespace) -> None:
    """CPU seconds a batch of every side, and how many times faster than plain tensors that is."""
    x = torch.randn(options.batch, 3, 8, options.size, options.size)
    sides = cpu_sides(x, options.compile)
    first = next(iter(sides.values()))()
    best = dict.fromkeys(sides, float("inf"))
    for turn in range(options.rounds + 1):
        for name, forward in sides.items():
            start = time.process_time()
            found = forward()
            if turn:  # the round before warms up
                best[name] = min(best[name], time.process_time() - start)
            error = float((found - first).abs().max() / first.abs().max())
            if error > TOLERANCE:
                raise SystemExit(f"{name}: features differ by {error:.1e}")
    print(f"torch {torch.__version__}, {options.threads} thread(s), {options.batch} clips of 8 x {options.size}², fp32")
    plain = best["plain tensors"]
    for name, took in best.items():
        print(f"{name:48} {1e3 * took / options.batch:8.1f} ms CPU a clip {plain / took:6.2f} x")


def cpu_sides(x: Tensor, compiled: bool) -> dict[str, Callable[[], Tensor]]:
    """Ways to run the same weights on the same clips; the last but the compiled one is what extraction does."""
    plain = build("i3d").eval()
    for norm in (part for part in plain.modules() if isinstance(part, torch.nn.BatchNorm3d)):
        torch.nn.init.normal_(norm.running_mean, std=0.1)  # so that a norm forgotten while folding would show
    moved, ready = copy.deepcopy(plain), make_ready(plain, torch.device("cpu"))
    move(moved, torch.device("cpu"))
    clips = x.contiguous(memory_format=torch.channels_last_3d)

    def side(encoder: Callable[[Tensor], Tensor], batch: Tensor, mode: type[torch.no_grad | torch.inference_mode]):
        def forward() -> Tensor:
            with mode():
                return encoder(batch)

        return forward

    sides = {
        "plain tensors": side(plain, x, torch.no_grad),
        "channels_last_3d": side(moved, clips, torch.no_grad),
        "the same, norms in the convolutions": side(ready, clips, torch.no_grad),
        "the same, inference_mode (extraction)": side(ready, clips, torch.inference_mode),
    }
    if compiled:
        sides["the same, compiled"] = side(torch.compile(ready), clips, torch.inference_mode)
    return sides


def on_gpu(rounds: int) -> None:
    """Clips a second of extraction's configuration in bf16, and which share of the card's matmul rate that is."""
    device = torch.device("cuda")
    peak = matmul_peak(device, rounds)
    macs = count_macs(build("i3d"))
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, bf16 matmul {peak / 1e12:.0f} TFLOP/s")
    for compiled in (False, True):
        encoder = make_ready(build("i3d"), device, compiled)
        for batch in BATCHES:
            x = torch.randn(batch, 3, 8, 112, 112, device=device).contiguous(memory_format=torch.channels_last_3d)

            def forward(encoder: Callable[[Tensor], Tensor] = encoder, x: Tensor = x) -> None:
                with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
                    encoder(x)

            rate = batch / gpu_seconds(forward, rounds)
            share = 100 * 2 * macs * rate / peak
            print(
                f"batch {batch:4d} {'compiled' if compiled else 'eager':9} {rate:9.0f} clips/s {share:5.1f} % of peak"
            )


def matmul_peak(device: torch.device, rounds: int, size: int = 8192) -> float:
    """Floating-point operations a second of a large product in bf16, measured."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / gpu_seconds(lambda: torch.mm(a, b), rounds)


def gpu_seconds(action: Callable[[], object], rounds: int, repeats: int = 10) -> float:
    """Seconds of one call: the best of rounds of several calls, after three that warm up."""
    for _ in range(3):
        action()
    best = float("inf")
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            action()
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / repeats)
    return best


if __name__ == "__main__":
    main()
