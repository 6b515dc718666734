"""How fast augmentation is: one pass for the batch over a loop of ordinary torch operations, video by video.

    python benchmarks/augment.py --threads 1 --videos 16 --size 48

The loop does what a straightforward data set class does to each video (crop, antialiased resize, flip, blur,
brightness, contrast, saturation, hue), skips what was not drawn, and gives the same pictures but for a shorter blur
kernel; the largest difference is printed. Rounds are interleaved and the best of each is kept. With a GPU at hand, it
is measured there, too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uptal import augment
from uptal.augment import AugmentConfig, AugmentParams

REACH = 6
"""Pixels on either side that the loop's blur looks at: three standard deviations of 2 pixels."""


def main() -> None:
    options = read_options()
    torch.set_num_threads(options.threads)
    print(f"{options.videos} videos of {options.frames} frames, {options.source} -> {options.size} pixels")
    for device in options.device or ["cpu"] + ["cuda"] * torch.cuda.is_available():
        compare(torch.device(device), options)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--source", type=int, default=56, help="side of decoded pictures")
    parser.add_argument("--size", type=int, default=48, help="side after the crop")
    parser.add_argument("--resize", choices=["exact", "fast"], default="exact", help="`aug.resize` of the batch")
    parser.add_argument("--device", action="append", help="cpu or cuda; may be repeated; all there are when not given")
    parser.add_argument("--rounds", type=int, default=8)
    return parser.parse_args()


def compare(device: torch.device, options: argparse.Namespace) -> None:
    shape = (options.videos, options.frames, 3, options.source, options.source)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)
    drawn = whole_pixels(augment.draw(np.random.default_rng(0), options.videos, 1.0, AugmentConfig()), options.source)
    params = drawn.map(lambda value: torch.as_tensor(value, device=device))

    def batched() -> Tensor:
        return augment.apply(frames, params, options.size, options.resize)

    def looped() -> Tensor:
        return torch.stack([one_video(frames[i], drawn, i, options.size) for i in range(options.videos)])

    difference = float((batched() - looped()).abs().max())
    best = {"batched": float("inf"), "loop": float("inf")}
    for _ in range(options.rounds):
        best["batched"] = min(best["batched"], seconds(batched, device))
        best["loop"] = min(best["loop"], seconds(looped, device))
    pictures = options.videos * options.frames
    speeds = ", ".join(
        f"{name} {1e3 * value:.1f} ms ({pictures / value:.0f} pictures/s)" for name, value in best.items()
    )
    threads = f", {options.threads} thread(s)" if device.type == "cpu" else ""
    print(f"{device}{threads}: {speeds}")
    print(
        f"  ratio {best['loop'] / best['batched']:.2f}x (above 1 the batch wins), largest difference {difference:.1e}"
    )


def whole_pixels(params: AugmentParams, source: int) -> AugmentParams:
    """Crops moved to whole pixels, which is all that slicing can do."""
    box = np.maximum(np.round(params.box * source), [0, 0, 1, 1]) / source
    box[:, 2:] = np.minimum(box[:, 2:], 1 - box[:, :2])
    return AugmentParams(box.astype(np.float32), params.flip, params.colour, params.sigma)


def one_video(frames: Tensor, params: AugmentParams, sample: int, size: int) -> Tensor:
    """Augments the frames (F, 3, H, W) of one video, one operation after the other."""
    top, left, height, width = np.round(params.box[sample] * frames.shape[-1]).astype(int).tolist()
    pictures = frames[..., top : top + height, left : left + width].float() / 255
    pictures = F.interpolate(pictures, (size, size), mode="bilinear", antialias=True)
    if params.flip[sample]:
        pictures = pictures.flip(-1)
    if params.sigma[sample] > 0:
        pictures = blurred(pictures, float(params.sigma[sample]))
    brightness, contrast, saturation, hue = params.colour[sample].tolist()
    if (brightness, contrast, saturation, hue) == (1.0, 1.0, 1.0, 0.0):
        return pictures
    pictures = pictures * brightness
    pictures = contrast * pictures + (1 - contrast) * grey(pictures).mean((-2, -1), keepdim=True)
    pictures = saturation * pictures + (1 - saturation) * grey(pictures)
    turn = 255 * augment._colour_matrix(torch.tensor([[1.0, 1.0, 1.0, hue]], device=pictures.device))[0]
    return torch.einsum("dc,fchw->fdhw", turn, pictures).clamp(0, 1)


def blurred(pictures: Tensor, sigma: float) -> Tensor:
    """A separable Gaussian as two convolutions."""
    taps = torch.arange(-REACH, REACH + 1, device=pictures.device)
    kernel = torch.exp(-(taps**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    padded = F.pad(pictures, (REACH,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel[:, :, None], groups=3), kernel[..., None], groups=3)


def grey(pictures: Tensor) -> Tensor:
    weights = torch.tensor((0.299, 0.587, 0.114), device=pictures.device)
    return torch.einsum("fchw,c->fhw", pictures, weights)[:, None]


def seconds(action: Callable[[], Tensor], device: torch.device) -> float:
    start = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
