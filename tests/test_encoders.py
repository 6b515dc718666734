"""Encoders turn clips into features, are found by name, and come back from disk as they were or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from uptal.clipspec import ClipSpec
from uptal.encoders import available, build, count_macs, count_parameters, load_encoder, name_of, save_encoder
from uptal.encoders.i3d import I3D, MaxPool3d, Unit3D, pad_same
from uptal.encoders.slim import Slim, SlimConfig
from uptal.errors import CheckpointError, ConfigError

CLIP = replace(Slim.native, size=32, resize=36)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, kw_only=True)
class OutsideConfig:
    width: int = 5


class Outside(nn.Module):
    """Somebody else's encoder: the mean colour, through a linear layer."""

    Config = OutsideConfig
    native = ClipSpec(frames=2, size=8, resize=8)

    def __init__(self, config: OutsideConfig):
        super().__init__()
        self.config, self.width = config, config.width
        self.linear = nn.Linear(3, config.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.mean(dim=(2, 3, 4)))


OUTSIDE = f"{__name__}.Outside"


# --- What encoders compute


@pytest.mark.parametrize(
    ("options", "steps", "macs"), [({}, 1, 3_491_275_264), ({"final_temporal_stride": 1}, 2, 3_567_346_176)]
)
def test_i3d_costs_what_table_1_says(options, steps, macs):
    encoder = build("i3d", **options)
    assert count_macs(encoder) == macs  # 3.5 G, or the paper's 3.6 G when the last pool keeps time
    assert count_parameters(encoder) == 12_287_264
    assert encoder.trunk(noise(1, 3, 8, 112, 112)).shape == (1, 1024, steps, 4, 4)


def test_the_last_temporal_stride_changes_no_weight():
    stock, dense = build("i3d"), build("i3d", final_temporal_stride=1)
    dense.load_state_dict(stock.state_dict(), strict=True)


def test_slim_is_small():
    assert count_parameters(Slim()) == 903_984
    assert count_macs(Slim()) == 40_189_952


@pytest.mark.parametrize(("multiplier", "width"), [(0.5, 64), (1.5, 192), (1 / 16, 8)])
def test_the_multiplier_scales_the_width_of_slim(multiplier, width):
    encoder = build("slim", width_multiplier=multiplier)
    assert encoder.width == width == encoder(noise(2, 3, 8, 32, 32)).shape[1]


@settings(deadline=None, max_examples=40)
@given(
    size=st.tuples(*[st.integers(1, 9)] * 3),
    kernel=st.tuples(*[st.integers(1, 3)] * 3),
    stride=st.tuples(*[st.integers(1, 2)] * 3),
)
def test_a_pool_without_written_zeros_equals_one_with_them(size, kernel, stride):
    kernel = tuple(map(max, kernel, stride))
    x = noise(1, 2, *size).relu()
    found = MaxPool3d(kernel, stride)(x)
    assert found.shape[2:] == tuple(-(-n // s) for n, s in zip(size, stride, strict=True))
    assert torch.equal(found, F.max_pool3d(pad_same(x, kernel, stride), kernel, stride))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (7, 2)])
@pytest.mark.parametrize("size", [(8, 16, 16), (5, 9, 7), (1, 2, 3)])
def test_a_unit_is_a_convolution_of_the_clip_with_zeros_around_it(kernel, stride, size):
    unit, x = Unit3D(3, 4, kernel, stride).eval(), noise(1, 3, *size)
    padded = pad_same(x, (kernel,) * 3, (stride,) * 3)
    expected = unit.bn(F.conv3d(padded, unit.conv3d.weight, stride=stride)).relu()
    torch.testing.assert_close(unit(x), expected, rtol=1e-5, atol=1e-6)  # other order of summation


def test_an_i3d_without_classes_does_not_classify():
    with pytest.raises(ValueError, match="num_classes"):
        I3D().classify(noise(1, 1024))


# --- Names and options


def test_the_package_holds_the_encoders_it_promises():
    assert set(available()) >= {"i3d", "slim"}
    assert [name_of(build(name)) for name in available()] == available()


def test_an_encoder_is_found_by_its_full_name():
    assert type(build("uptal.encoders.slim.Slim", width_multiplier=0.5)) is Slim


def test_a_foreign_encoder_needs_trust():
    with pytest.raises(ConfigError, match="--trust-imports"):
        build(OUTSIDE)
    encoder = build(OUTSIDE, trust=True, width=7)
    assert type(encoder).__name__ == "Outside"
    assert encoder.width == 7
    assert name_of(encoder) == OUTSIDE


def test_a_refused_name_is_not_imported(monkeypatch):
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"{name} was imported"))
    with pytest.raises(ConfigError, match="lies outside uptal"):
        build("antigravity.Encoder")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("i4d", r"no encoder 'i4d'.*i3d, .*slim"),
        ("saving", r"no encoder 'saving'"),
        ("../slim", r"no encoder '\.\./slim'"),
        ("uptal.encoders.i4d.I4D", r"no module 'uptal\.encoders\.i4d'"),
        ("uptal.encoders.slim.Slimmer", r"found None"),
        ("uptal.encoders.slim.SlimConfig", r"torch\.nn\.Module"),
        ("uptal.encoders.slim.Residual", r"lacks Config and native"),
        ("uptal.encoders.slim.", r"no encoder 'uptal\.encoders\.slim\.'"),
    ],
)
def test_a_name_that_is_no_encoder_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        build(name)


def test_a_misspelt_option_is_named_together_with_the_right_ones():
    with pytest.raises(ConfigError, match=r"no option width_multiplyer.*width_multiplier \(default 1\.0\)"):
        build("slim", width_multiplyer=2.0)


@pytest.mark.parametrize(
    ("name", "options"),
    [("i3d", {"final_temporal_stride": 3}), ("i3d", {"num_classes": -1}), ("slim", {"width_multiplier": 0.01})],
)
def test_an_impossible_option_is_refused(name, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        build(name, **options)


@pytest.mark.parametrize(
    "values",
    [{"frames": 0}, {"size": 129}, {"stride": -1}, {"std": (0.2, 0.0, 0.2)}, {"mean": (float("nan"), 0.0, 0.0)}],
)
def test_an_impossible_clip_is_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values)).replace("size", "resize")):
        ClipSpec(**values)


# --- To disk and back


@pytest.mark.parametrize("target", ["run", "elsewhere/weights.safetensors"])
def test_a_saved_encoder_comes_back_the_same(tmp_path, target):
    encoder, x = build("slim", width_multiplier=0.5), noise(2, 3, 8, 32, 32)
    encoder(x)  # moves the running statistics
    written = save_encoder(tmp_path / target, encoder, CLIP)
    saved = load_encoder(tmp_path / target)
    assert (saved.clip, saved.digest, saved.encoder.config) == (CLIP, written, SlimConfig(width_multiplier=0.5))
    with torch.no_grad():
        assert torch.equal(saved.encoder(x), encoder.eval()(x))


def test_the_digest_depends_on_the_weights_alone(tmp_path):
    encoder = build("slim")
    digests = [
        save_encoder(tmp_path / "a", encoder, CLIP),
        save_encoder(tmp_path / "b", encoder.to(memory_format=torch.channels_last_3d), Slim.native),
        save_encoder(tmp_path / "c", build("slim"), CLIP),
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_foreign_encoder_comes_back_with_trust_only(tmp_path):
    save_encoder(tmp_path, build(OUTSIDE, trust=True, width=7), Outside.native)
    with pytest.raises(ConfigError, match=r"encoder\.json.*lies outside uptal"):
        load_encoder(tmp_path)
    assert load_encoder(tmp_path, trust=True).encoder.width == 7


def edit(folder, **changes) -> None:
    file = folder / "encoder.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, r"SHA-256 [0-9a-f]{64}, encoder\.json was written for 0{64}"),
        ({"architecture": "i3d", "options": {}}, r"do not fit I3D.*the file lacks Conv3d_1a.*the model has no"),
        ({"options": {"width_multiplier": 0.5}}, r"is \(16, 3, 3, 7, 7\) in the file, \(8, 3, 3, 7, 7\) in the model"),
        ({"width": 64}, r"width 64 stands there, but slim with these options gives 128"),
        ({"preprocessing": {"frames": 0}}, r"frames must be"),
        ({"preprocessing": {"fps": 5}}, r"'preprocessing' cannot be used"),
        ({"architecture": 3}, r"'architecture' to be of type str, found 3"),
    ],
)
def test_a_description_that_does_not_fit_the_weights_is_refused(tmp_path, changes, message):
    save_encoder(tmp_path, Slim(), CLIP)
    edit(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_encoder(tmp_path)


def test_an_unknown_option_in_the_description_is_refused(tmp_path):
    save_encoder(tmp_path, Slim(), CLIP)
    edit(tmp_path, options={"depth": 18})
    with pytest.raises(ConfigError, match=r"encoder\.json.*no option depth"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("encoder.json", None, "no encoder.json beside it"),
        ("encoder.json", b"{", "cannot be read as JSON"),
        ("encoder.json", b"[]", "expected 'architecture'"),
        ("encoder.json", b"\xff\xfe", "cannot be read as JSON"),
        ("encoder.safetensors", None, "no encoder there"),
        ("encoder.safetensors", b"", "cannot be read as weights"),
        ("encoder.safetensors", b"not weights at all", "cannot be read as weights"),
    ],
)
def test_a_damaged_encoder_is_refused(tmp_path, file, content, message):
    save_encoder(tmp_path, Slim(), CLIP)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_encoder(tmp_path)


def test_one_changed_bit_is_noticed(tmp_path):
    save_encoder(tmp_path, Slim(), CLIP)
    file = tmp_path / "encoder.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_encoder(tmp_path)
