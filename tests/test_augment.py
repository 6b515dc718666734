"""One draw serves all frames of a role; each operation is what torch and kornia make of it."""

from __future__ import annotations

from dataclasses import replace

import kornia
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from torch.overrides import TorchFunctionMode

from uptal.augment import AugmentConfig, AugmentParams, apply, centre, draw, tables
from uptal.errors import ConfigError

EXACT = 2e-6
"""Rounding of a few float32 sums of values up to 1."""


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Smooth random pictures (2 samples of 3 frames), so that resampling has something to agree about."""
    noise = torch.rand(2, 3, 3, 10, 12, generator=torch.Generator().manual_seed(0))
    return (interpolate(noise.flatten(0, 1), (40, 48), mode="bicubic").clamp(0, 1) * 255).byte().view(2, 3, 3, 40, 48)


def params(count=2, box=(0.0, 0.0, 1.0, 1.0), flip=False, colour=(1.0, 1.0, 1.0, 0.0), sigma=0.0) -> AugmentParams:
    return AugmentParams(
        box=torch.tensor(box).expand(count, 4),
        flip=torch.tensor(flip).expand(count),
        colour=torch.tensor(colour).expand(count, 4),
        sigma=torch.tensor(sigma).expand(count),
    )


def square(pictures):
    return pictures[..., :40].contiguous()


def draw_tensors(seed, count, cfg, aspect=1.2):
    return draw(np.random.default_rng(seed), count, aspect, cfg).map(torch.from_numpy)


def test_nothing_drawn_changes_nothing(pictures):
    same = apply(square(pictures), params(), 40)
    torch.testing.assert_close(same, square(pictures) / 255, atol=EXACT, rtol=0)


@pytest.mark.parametrize(
    ("top", "left", "height", "width"), [(0, 0, 40, 48), (5, 8, 30, 24), (11, 3, 10, 12), (7, 0, 33, 48)]
)
@pytest.mark.parametrize("size", [16, 28])
def test_a_crop_is_torchs_antialiased_resize_of_the_box(pictures, top, left, height, width, size):
    box = (top / 40, left / 48, height / 40, width / 48)
    found = apply(pictures, params(box=box), size)
    crop = pictures[..., top : top + height, left : left + width].float() / 255
    expected = interpolate(crop.flatten(0, 1), (size, size), mode="bilinear", antialias=True).view(found.shape)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # the box passes through float32 shares


def test_a_flip_is_kornias(pictures):
    expected = kornia.geometry.hflip(square(pictures).flatten(0, 1) / 255).view(2, 3, 3, 40, 40)
    torch.testing.assert_close(apply(square(pictures), params(flip=True), 40), expected, atol=EXACT, rtol=0)


def test_a_flip_comes_after_the_crop(pictures):
    box = (0.1, 0.2, 0.5, 0.4)
    plain, flipped = apply(pictures, params(box=box), 20), apply(pictures, params(box=box, flip=True), 20)
    torch.testing.assert_close(flipped, plain.flip(-1), atol=EXACT, rtol=0)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0, 4.0])
def test_a_blur_is_kornias_with_mirrored_borders(pictures, sigma):
    found = apply(square(pictures), params(sigma=sigma), 40)
    frames = square(pictures).flatten(0, 1) / 255
    expected = kornia.filters.gaussian_blur2d(frames, (25, 25), (sigma, sigma), border_type="reflect")
    torch.testing.assert_close(found, expected.view(found.shape), atol=1e-5, rtol=0)  # sums of 25 x 25 products


@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_brightness_is_kornias_factor(pictures, factor):
    found = apply(square(pictures), params(colour=(factor, 1.0, 1.0, 0.0)), 40)
    expected = kornia.enhance.adjust_brightness_accumulative(square(pictures) / 255, factor)
    torch.testing.assert_close(found, expected, atol=EXACT, rtol=0)


@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_contrast_is_kornias_about_the_mean_grey_of_each_frame(pictures, factor):
    found = apply(square(pictures), params(colour=(1.0, factor, 1.0, 0.0)), 40)
    expected = kornia.enhance.adjust_contrast_with_mean_subtraction(square(pictures).flatten(0, 1) / 255, factor)
    torch.testing.assert_close(found, expected.view(found.shape), atol=1e-5, rtol=0)  # means of 1600 pixels


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.4])
def test_saturation_is_kornias_mixture_with_grey(pictures, factor):
    found = apply(square(pictures), params(colour=(1.0, 1.0, factor, 0.0)), 40)
    expected = kornia.enhance.adjust_saturation_with_gray_subtraction(square(pictures).flatten(0, 1) / 255, factor)
    torch.testing.assert_close(found, expected.view(found.shape), atol=1e-5, rtol=0)  # kornia rounds the luma weights


def test_a_hue_shift_keeps_greys_and_brightness_and_a_whole_turn_changes_nothing(pictures):
    dull = (square(pictures).float() * 0.3 + 90).byte()  # away from the clamp
    luma = torch.tensor([0.299, 0.587, 0.114])
    plain, turned = apply(dull, params(), 40), apply(dull, params(colour=(1.0, 1.0, 1.0, 0.1)), 40)
    assert (plain - turned).abs().max() > 0.01
    for picture in (plain, turned):
        grey = torch.einsum("bfchw,c->bfhw", picture, luma)
        torch.testing.assert_close(grey, torch.einsum("bfchw,c->bfhw", plain, luma), atol=1e-4, rtol=0)  # 4-digit YIQ
    whole = apply(dull, params(colour=(1.0, 1.0, 1.0, 1.0)), 40)
    torch.testing.assert_close(whole, plain, atol=1e-5, rtol=0)


def test_values_stay_between_black_and_white(pictures):
    bright = apply(pictures, params(colour=(3.0, 3.0, 3.0, 0.1)), 24)
    assert bright.min() == 0 and bright.max() == 1


def test_all_frames_of_a_sample_get_the_same_draw(pictures):
    still = pictures[:, :1].expand(-1, 5, -1, -1, -1)
    found = apply(still, draw_tensors(0, 2, AugmentConfig(size=24)), 24)
    torch.testing.assert_close(found, found[:, :1].expand_as(found), atol=0, rtol=0)


def test_samples_of_a_batch_do_not_touch_each_other(pictures):
    chosen = draw_tensors(3, 2, AugmentConfig(size=24))
    batch = apply(pictures, chosen, 24)
    for sample in range(2):
        alone = apply(pictures[sample : sample + 1], chosen.map(lambda x, i=sample: x[i : i + 1]), 24)
        torch.testing.assert_close(batch[sample : sample + 1], alone, atol=EXACT, rtol=0)


def test_any_number_of_axes_may_lie_between_sample_and_colour(pictures):
    chosen = draw_tensors(1, 2, AugmentConfig(size=24))
    clips = apply(pictures.view(2, 3, 1, 3, 40, 48), chosen, 24)
    assert clips.shape == (2, 3, 1, 3, 24, 24)
    assert torch.equal(clips[:, :, 0], apply(pictures, chosen, 24))


def whole_pixels(chosen: AugmentParams) -> AugmentParams:
    """The draw with its crop moved to whole pixels of 40 x 48."""
    box, sides = torch.as_tensor(chosen.box), torch.tensor([40.0, 48.0])
    extent = (box[:, 2:] * sides).round().clamp(min=1)
    begin = torch.minimum((box[:, :2] * sides).round(), sides - extent)
    return replace(chosen, box=torch.cat([begin / sides, extent / sides], 1))


@pytest.mark.parametrize("seed", range(6))
def test_fast_is_the_same_on_whole_pixels_but_for_rounding_to_grey_levels(pictures, seed):
    chosen = draw_tensors(seed, 2, AugmentConfig(size=24, blur=0.5, jitter=0.8))
    found, exact = apply(pictures, chosen, 24, "fast"), apply(pictures, whole_pixels(chosen), 24)
    gain = float(chosen.colour[:, :3].prod(1).max()) * 2  # what colours and hue make of a level, at most
    assert float((found - exact).abs().max()) <= max(1.0, gain) * 1.5 / 255  # two roundings of half a level, kept apart
    assert float((found - exact).abs().mean()) < 0.5 / 255


def test_fast_in_float32_differs_in_nothing_but_the_crop(pictures):
    chosen = draw_tensors(1, 2, AugmentConfig(size=24))
    found = apply(pictures.float(), chosen, 24, "fast")
    torch.testing.assert_close(found, apply(pictures, whole_pixels(chosen), 24), atol=1e-5, rtol=0)


@pytest.mark.parametrize("resize", ["exact", "fast"])
def test_a_draw_may_serve_several_samples_and_none(pictures, resize):
    chosen, several = draw_tensors(2, 3, AugmentConfig(size=20)), pictures[[0, 1, 0, 1]]
    rows = torch.tensor([0, 2, 2, 2])
    plan = tables(chosen, (40, 48), 20, resize)
    expected = apply(several, chosen.map(lambda x: x[rows]), 20, resize)
    torch.testing.assert_close(plan.on(several, rows), expected, atol=EXACT, rtol=0)
    into = torch.empty(4, 3, 20, 20, 3)
    assert torch.equal(plan.on(several, rows, out=into), into.movedim(-1, -3))
    torch.testing.assert_close(into.movedim(-1, -3), expected, atol=EXACT, rtol=0)


@pytest.mark.parametrize("resize", ["exact", "fast"])
def test_means_and_deviations_may_be_taken_out_on_the_way(pictures, resize):
    chosen, mean, std = draw_tensors(4, 2, AugmentConfig(size=20)), (0.4, 0.5, 0.1), (0.2, 0.3, 0.5)
    found = tables(chosen, (40, 48), 20, resize, mean=mean, std=std).on(pictures)
    expected = apply(pictures, chosen, 20, resize) - torch.tensor(mean)[:, None, None]
    expected = expected / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # a few sums of numbers up to 5


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_a_fast_blur_is_the_exact_one(pictures, sigma):
    exact, fast = (apply(square(pictures), params(sigma=sigma), 40, resize) for resize in ("exact", "fast"))
    torch.testing.assert_close(fast, exact, atol=1e-5, rtol=0)  # nothing is resized, so nothing rounded


class Tf32(TorchFunctionMode):
    """Matrix products of operands that keep 10 bits behind the first, as a GPU's tensor cores round float32."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.matmul, torch.Tensor.__matmul__, torch.baddbmm):
            first = 1 if func is torch.baddbmm else 0  # what is added is not rounded
            args = (*args[:first], *map(self.rounded, args[first:]))
        return func(*args, **(kwargs or {}))

    @staticmethod
    def rounded(values: torch.Tensor) -> torch.Tensor:
        return (values.contiguous().view(torch.int32) + 0x1000 & -0x2000).view(torch.float32)


@pytest.mark.parametrize("seed", range(4))
def test_in_tf32_pictures_are_less_than_one_of_255_steps_off(pictures, seed):
    chosen = draw_tensors(seed, 2, AugmentConfig(size=20, blur=1.0))
    with Tf32():
        rough = apply(pictures, chosen, 20)
    off = (rough - apply(pictures, chosen, 20)).abs() * 255
    assert 0.01 < off.max() < 1


def test_crops_cover_the_shares_and_ratios_asked_for():
    boxes = draw(np.random.default_rng(0), 4000, 16 / 9, AugmentConfig()).box
    height, width = boxes[:, 2], boxes[:, 3]
    area, ratio = height * width, width / height * 16 / 9
    assert area.min() >= 0.2 - 1e-6 and area.max() > 0.6  # a whole 16:9 picture has no allowed ratio
    assert ratio.min() >= 3 / 4 - 1e-4 and ratio.max() <= 4 / 3 + 1e-4
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= 1 + 1e-6).all()
    assert abs((boxes[:, 0] / (1 - height + 1e-9)).mean() - 0.5) < 0.03  # four standard errors of a uniform mean


def test_where_no_crop_fits_the_largest_allowed_in_the_centre_is_taken():
    strip = draw(np.random.default_rng(0), 50, 8.0, AugmentConfig(area=(0.9, 1.0))).box
    np.testing.assert_allclose(strip, np.tile([0, 0.5 - 1 / 12, 1, 1 / 6], (50, 1)), atol=1e-6)


def test_how_often_things_happen():
    drawn = draw(np.random.default_rng(0), 10000, 1.0, AugmentConfig(grey=0.2))
    spread = 4 * 0.5 / 100  # four standard errors
    assert abs(drawn.flip.mean() - 0.5) < spread
    assert abs((drawn.sigma > 0).mean() - 0.5) < spread
    assert abs((drawn.colour[:, 0] != 1).mean() - 0.8) < spread
    assert abs((drawn.colour[:, 2] == 0).mean() - 0.2) < spread
    jittered = drawn.colour[drawn.colour[:, 0] != 1]
    assert 0.6 <= jittered[:, :2].min() < 0.61 and 1.39 < jittered[:, :2].max() <= 1.4
    assert -0.1 <= jittered[:, 3].min() < -0.099
    assert 0.1 <= drawn.sigma[drawn.sigma > 0].min() < 0.11 and 1.99 < drawn.sigma.max() <= 2.0


def test_everything_off_is_a_plain_resize():
    still = AugmentConfig(area=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, blur=0.0)
    drawn = draw(np.random.default_rng(0), 5, 1.0, still)
    expected = centre(5, 1.0)
    for name in vars(drawn):
        np.testing.assert_allclose(getattr(drawn, name), getattr(expected, name), atol=1e-7)


def test_the_centre_view_is_the_central_square(pictures):
    found = apply(pictures, centre(2, 48 / 40).map(torch.from_numpy), 40)
    torch.testing.assert_close(found, pictures[..., 4:44] / 255, atol=1e-5, rtol=0)  # float32 shares


@pytest.mark.parametrize(
    "changes",
    [{"size": 0}, {"area": (0.0, 1.0)}, {"ratio": (2.0, 1.0)}, {"flip": 1.5}, {"sigma": (0.1, 5.0)}, {"hue": 0.7}],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ConfigError):
        replace(AugmentConfig(), **changes)
