"""How fast encoders are: clips a second forward, and forward with backward, as a ratio to I3D measured in the same run.

    python benchmarks/encoders.py --threads 2 --size 48 --size 64

Every encoder is timed in both memory formats; rounds are interleaved and the best of each is kept, so that other work
on the machine does not fall on one encoder alone. Parameters and multiply-adds are counted, not measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from uptal.device import move
from uptal.encoders import available, build, count_macs, count_parameters

FORMATS = {"contiguous": torch.contiguous_format, "channels_last_3d": torch.channels_last_3d}
YARDSTICK = "i3d"


@dataclass(frozen=True)
class Case:
    """One encoder, clip size and memory format, ready to run."""

    name: str
    size: int
    format: str
    macs: int
    parameters: int
    batch: int
    forward: Callable[[], None]
    step: Callable[[], None]

    @property
    def key(self) -> tuple[str, int, str]:
        return self.name, self.size, self.format


def main() -> None:
    options = read_options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    cases = [
        prepare(name, size, name_of_format, options)
        for size in options.size or (48, 64, 112)
        for name in sorted({*options.encoder, YARDSTICK})
        for name_of_format in FORMATS
    ]
    fastest = measure(cases, options.rounds)
    report(cases, fastest, options)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", action="append", default=None, help="repeatable; default: all")
    parser.add_argument("--size", action="append", type=int, help="crop in pixels, repeatable; default: 48 64 112")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=0, help="clips; default: about 2 G multiply-adds, 8 to 64 clips")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    options.encoder = options.encoder or available()
    return options


def prepare(name: str, size: int, name_of_format: str, options: argparse.Namespace) -> Case:
    encoder = build(name).to(options.device)
    if name_of_format != "contiguous":
        move(encoder, torch.device(options.device))
    clip = replace(encoder.native, size=size, resize=size)
    macs = count_macs(encoder, clip)
    batch = options.batch or min(max(2_000_000_000 // macs, 8), 64)
    x = torch.randn(batch, 3, clip.frames, size, size, device=options.device)
    x = x.to(memory_format=FORMATS[name_of_format])

    def forward() -> None:
        with torch.no_grad():
            encoder(x)

    def step() -> None:
        encoder.zero_grad()
        encoder(x).square().mean().backward()

    return Case(name, size, name_of_format, macs, count_parameters(encoder), batch, forward, step)


def measure(cases: list[Case], rounds: int) -> dict[tuple[str, int, str], tuple[float, float]]:
    """Clips a second of forward and of forward with backward: the best round after one that warms up."""
    best = {case.key: (0.0, 0.0) for case in cases}
    for turn in range(rounds + 1):
        for case in cases:
            found = case.batch / seconds(case.forward), case.batch / seconds(case.step)
            if turn:
                best[case.key] = max(best[case.key][0], found[0]), max(best[case.key][1], found[1])
    return best


def seconds(action: Callable[[], None]) -> float:
    wait()
    start = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - start


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def report(cases: list[Case], fastest: dict[tuple[str, int, str], tuple[float, float]], options) -> None:
    print(
        f"torch {torch.__version__}, {options.device}, {options.threads} thread(s), clips of 8 frames, best of rounds"
    )
    print(f"'x' is the speed over {YARDSTICK} of the same size in channels_last_3d")
    heads = ("encoder", "size", "format", "params", "MACs", "forward/s", "x", "fwd+bwd/s", "x")
    print("{:10} {:>4} {:16} {:>8} {:>9} {:>10} {:>6} {:>10} {:>6}".format(*heads))
    for case in cases:
        forward, step = fastest[case.key]
        base = fastest[YARDSTICK, case.size, "channels_last_3d"]
        print(
            f"{case.name:10} {case.size:4d} {case.format:16} {case.parameters / 1e6:7.2f}M {case.macs / 1e6:8.1f}M "
            f"{forward:10.1f} {forward / base[0]:6.2f} {step:10.1f} {step / base[1]:6.2f}"
        )


if __name__ == "__main__":
    main()
