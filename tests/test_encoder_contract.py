"""What every encoder of the package promises, each configuration that has a name in the literature."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import pytest
import torch

from uptal.clipspec import ClipSpec
from uptal.device import move
from uptal.encoders import available, build, count_macs, load_encoder, name_of, save_encoder, variants
from uptal.encoders.contract import find
from uptal.features import make_ready

TITLES = list(variants())
SMALLEST = ("I3D", "R(2+1)D-10 (RSPNet)", "S3D (CoCLR)", "I3D-R50", "Slim", "TSM-ResNet18")
"""One variant of each file, the one with the fewest weights where that is cheaper: what depends on the file alone."""
WIDTHS = {"i3d": 1024, "slim": 128, "r2plus1d": 512, "s3d": 1024, "resnet3d": 2048}


@cache
def trunk(title: str) -> Any:
    """The encoder of a variant with its first weights; tests leave it as it is."""
    name, config = variants()[title]
    torch.manual_seed(0)
    return build(name, **asdict(config)).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("title", TITLES)
def test_an_encoder_gives_one_feature_a_clip_the_mean_of_its_trunk(title):
    encoder, x = trunk(title), noise(2, 3, 2, 24, 24)
    with torch.no_grad():
        features, trunk_map = encoder(x), encoder.trunk(x)
    assert features.shape == (2, encoder.width)
    assert encoder.width == WIDTHS.get(name_of(encoder), {"TSM-ResNet18": 512}.get(title, 2048))
    assert torch.equal(features, trunk_map.mean(dim=(2, 3, 4)))


@pytest.mark.parametrize("title", TITLES)
@pytest.mark.parametrize("shape", [(1, 32, 32), (5, 33, 23)], ids=["one_frame", "odd"])
def test_a_clip_of_one_frame_or_of_odd_size_has_a_feature(title, shape):
    encoder = trunk(title)
    with torch.no_grad():
        feature = encoder(noise(1, 3, *shape))
    assert feature.shape == (1, encoder.width)
    assert feature.isfinite().all()


@pytest.mark.parametrize("title", SMALLEST)
def test_features_depend_neither_on_the_other_clips_nor_on_the_memory_format(title):
    encoder, x = trunk(title), noise(2, 3, 4, 32, 32)
    with torch.no_grad():
        together = encoder(x)
        alone = encoder(x[1:2].contiguous(memory_format=torch.channels_last_3d))
    scale = float(together.abs().max())  # other kernels sum in another order
    torch.testing.assert_close(alone, together[1:2], rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("title", ["I3D", "TSM-ResNet18"])
def test_moving_an_encoder_rearranges_its_memory_and_no_number(title):
    encoder = copy.deepcopy(trunk(title))
    move(encoder, torch.device("cpu"))
    for (name, moved), kept in zip(encoder.named_parameters(), trunk(title).parameters(), strict=True):
        assert torch.equal(moved, kept), name
    spatial = [p for p in encoder.parameters() if p.dim() > 3 and max(p.shape[2:]) > 1]
    assert spatial
    assert all(p.stride(1) == 1 for p in spatial)


@pytest.mark.parametrize("title", ["I3D", "Slim"])
def test_what_extraction_makes_of_an_encoder_gives_the_same_and_leaves_it_alone(title):
    encoder, x = copy.deepcopy(trunk(title)), noise(2, 3, 8, 33, 40)
    for norm in (part for part in encoder.modules() if isinstance(part, torch.nn.BatchNorm3d)):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, std=0.2)
        norm.running_mean.normal_(std=0.2)
        norm.running_var.uniform_(0.5, 2)
    before, keys = {key: value.clone() for key, value in encoder.state_dict().items()}, list(encoder.state_dict())
    ready = make_ready(encoder, torch.device("cpu"))
    with torch.no_grad():
        expected, found = encoder(x), ready(x.contiguous(memory_format=torch.channels_last_3d))
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    folds = any(hasattr(part, "fold") for part in encoder.modules())
    assert folds == (title == "I3D") == (not any(isinstance(part, torch.nn.BatchNorm3d) for part in ready.modules()))
    assert list(encoder.state_dict()) == keys
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("title", TITLES)
def test_a_clip_played_backward_has_another_feature(title):
    encoder, x = trunk(title), noise(1, 3, 4, 24, 24)
    with torch.no_grad():
        forward, backward = encoder(x), encoder(x.flip(2))
    assert (forward - backward).norm() > 1e-2 * forward.norm()


@pytest.mark.parametrize("title", SMALLEST)
def test_an_encoder_runs_in_bf16(title):
    encoder, x = trunk(title), noise(1, 3, 4, 24, 24)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = encoder(x).float()
    with torch.no_grad():
        whole = encoder(x)
    assert float(torch.cosine_similarity(half, whole).min()) > 0.99  # eight bits of mantissa through up to 100 layers


@pytest.mark.parametrize("title", SMALLEST)
def test_every_weight_of_an_encoder_learns(title):
    name, config = variants()[title]
    encoder = build(name, **asdict(config)).train()
    encoder(noise(3, 3, 4, 24, 24)).square().sum().backward()
    without = [key for key, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@pytest.mark.parametrize("title", SMALLEST)
def test_an_encoder_with_a_classifier_comes_back_from_disk(title, tmp_path):
    name, config = variants()[title]
    options = asdict(config) | ({"num_classes": 3} if "num_classes" in asdict(config) else {})
    encoder, x = build(name, **options).eval(), noise(1, 3, 8, 32, 32)
    save_encoder(tmp_path, encoder, encoder.native)
    saved = load_encoder(tmp_path)
    assert (saved.clip, saved.encoder.config) == (encoder.native, encoder.config)
    with torch.no_grad():
        assert torch.equal(saved.encoder(x), encoder(x))
        if "num_classes" in options:
            assert saved.encoder.classify(encoder(x)).shape == (1, 3)


@pytest.mark.parametrize("title", TITLES)
def test_options_survive_json_and_a_native_clip_costs_something(title):
    name, config = variants()[title]
    with torch.device("meta"):
        again = build(name, **json.loads(json.dumps(asdict(config))))
    assert again.config == config
    assert again.state_dict().keys() == trunk(title).state_dict().keys()
    assert isinstance(again.native, ClipSpec)
    assert count_macs(again, replace(again.native, frames=2, size=32)) > 0


@pytest.mark.parametrize("name", [name for name in available() if name != "slim"])
def test_an_encoder_without_classes_does_not_classify(name):
    with torch.device("meta"):
        encoder = build(name)
    with pytest.raises(ValueError, match="num_classes"):
        encoder.classify(torch.zeros(1, encoder.width))


def test_every_file_of_the_package_names_its_variants():
    assert {name for name, _ in variants().values()} == set(available())
    assert all(find(name).variants for name in available())
