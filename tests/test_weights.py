"""Checkpoints of other projects become encoders by what is in them, or are refused; nothing in them is run."""

from __future__ import annotations

import argparse
import json
import os
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from uptal import video
from uptal.cli import main
from uptal.encoders import Classes, load_encoder, save_encoder
from uptal.encoders.converting import convert, recognise
from uptal.encoders.foreign import read_foreign
from uptal.encoders.i3d import I3D, I3DConfig
from uptal.encoders.slim import Slim
from uptal.encoders.weights import read_tensors
from uptal.errors import CheckpointError, ConfigError
from uptal.features import decode_clips, encode, lay_grid

MUTATIONS = int(os.environ.get("UPTAL_MUTATIONS", "500"))
"""How many damaged headers U2 tries; the full number is 10,000."""
KINETICS = "i3d-kinetics400-weights"


def halves(model: nn.Module) -> dict[str, Tensor]:
    """Weights as files in circulation have them: half precision, no counters of batches."""
    return {k: v.half() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def i3d() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return halves(I3D(I3DConfig(num_classes=6)))


def write(path: Path, content: object, **options: bool) -> Path:
    torch.save(content, path, **options)
    return path


def equal(found: nn.Module, expected: dict[str, Tensor]) -> bool:
    state = found.state_dict()
    return all(torch.equal(state[name], tensor.float()) for name, tensor in expected.items())


# --- Kinds of files


@pytest.mark.parametrize(
    ("name", "options"),
    [("rgb.pt", {}), ("rgb.pth.tar", {"_use_new_zipfile_serialization": False})],
    ids=["zip", "older_pickle"],
)
def test_a_pytorch_file_is_converted_with_its_classifier(tmp_path, i3d, name, options):
    done = convert(write(tmp_path / name, i3d, **options), tmp_path / "out")
    saved = load_encoder(tmp_path / "out")
    assert equal(saved.encoder, i3d)
    assert saved.digest == done.digest
    assert saved.encoder.config.num_classes == 6
    assert saved.classes is None  # nobody said what they are called
    assert (saved.clip.frames, saved.clip.size, saved.clip.mean) == (64, 224, (0.5, 0.5, 0.5))


def test_a_safetensors_file_is_converted(tmp_path, i3d):
    save_file(i3d, tmp_path / "rgb.safetensors")
    convert(tmp_path, tmp_path / "out")  # a folder with one weight file in it will do
    assert equal(load_encoder(tmp_path / "out").encoder, i3d)


def tensorflow_name(name: str) -> str:
    """The original's name of a tensor of the PyTorch layout."""
    units = {"b0": "0/Conv3d_0a_1x1", "b1a": "1/Conv3d_0a_1x1", "b1b": "1/Conv3d_0b_3x3"}
    units |= {"b2a": "2/Conv3d_0a_1x1", "b2b": "2/Conv3d_0b_3x3", "b3b": "3/Conv3d_0b_1x1"}
    parts = {"conv3d.weight": "conv_3d/w", "conv3d.bias": "conv_3d/b", "bn.bias": "batch_norm/beta"}
    parts |= {"bn.running_mean": "batch_norm/moving_mean", "bn.running_var": "batch_norm/moving_variance"}
    stage, *unit, layer, kind = name.split(".")
    part = parts[f"{layer}.{kind}"]
    if stage == "logits":
        return f"RGB/inception_i3d/Logits/Conv3d_0c_1x1/{part}"
    if not unit:
        return f"RGB/inception_i3d/{stage}/{part}"
    branch = units[unit[0]]
    if (stage, unit[0]) == ("Mixed_5b", "b2b"):
        branch = "2/Conv3d_0a_3x3"  # the original's own slip
    return f"RGB/inception_i3d/{stage}/Branch_{branch}/{part}"


def test_the_original_names_and_axes_of_tensorflow_are_understood(tmp_path, i3d):
    plain = {k: torch.ones_like(v) if k.endswith("bn.weight") else v for k, v in i3d.items()}
    arrays = {}
    for name, tensor in plain.items():
        if name.endswith("bn.weight"):
            continue  # the original has no scale
        array = tensor.permute(2, 3, 4, 1, 0) if tensor.dim() == 5 else tensor
        array = array[None, None, None, None] if ".bn." in name else array
        arrays[tensorflow_name(name)] = array.numpy()
    np.savez(tmp_path / "rgb.npz", **arrays)
    convert(tmp_path / "rgb.npz", tmp_path / "out")
    assert equal(load_encoder(tmp_path / "out").encoder, plain)


# --- The real thing


@pytest.fixture(scope="module")
def kinetics(real_videos, tmp_path_factory) -> Path:
    """The supervised I3D, converted."""
    if not (real_videos / KINETICS).is_dir():
        pytest.skip(f"no I3D weights at {real_videos / KINETICS}")
    out = tmp_path_factory.mktemp("kinetics")
    convert(real_videos / KINETICS, out, clip={"frames": 32})
    return out


@pytest.mark.parametrize(("id", "action"), [("v_GGSY1Qvo990", "clean and jerk"), ("v_ZNVhz7ctTq0", "walking the dog")])
def test_the_supervised_i3d_names_what_happens_in_real_videos(kinetics, real_videos, id, action):
    path = real_videos / "anet13-real-videos" / f"{id}.mp4"
    if not path.is_file():
        pytest.skip(f"no video at {path}")
    saved = load_encoder(kinetics)
    grid = lay_grid(video.probe(path), saved.clip, 32)
    middle = replace(grid, frames=grid.frames[len(grid.frames) // 2 :][:1])
    clips = torch.stack(list(decode_clips(path, saved.clip, middle)))
    with torch.inference_mode():
        scores = saved.encoder.classify(encode(saved.encoder, clips, saved.clip, torch.device("cpu")))
    assert saved.classes is not None
    assert saved.classes.vocabulary == "kinetics400"
    assert saved.classes.names[int(scores.argmax())] == action


# --- Names of classes


def test_the_list_beside_the_weights_names_the_classes(tmp_path, i3d):
    (tmp_path / "my_label_map.txt").write_text("run\njump\nlong jump\nwave\nclap\nsit\n")
    convert(write(tmp_path / "rgb.pt", i3d), tmp_path / "out", vocabulary="gym")
    names = ("run", "jump", "long jump", "wave", "clap", "sit")
    assert load_encoder(tmp_path / "out").classes == Classes(vocabulary="gym", names=names)


def test_a_list_of_another_length_is_refused_and_nothing_is_written(tmp_path, i3d):
    (tmp_path / "names.txt").write_text("run\njump\n")
    with pytest.raises(CheckpointError, match=r"rgb\.pt: its classifier has 6 classes, .*names\.txt names 2"):
        convert(write(tmp_path / "rgb.pt", i3d), tmp_path / "out", labels=tmp_path / "names.txt")
    assert not (tmp_path / "out").exists()


def test_an_edited_list_of_classes_is_noticed(tmp_path):
    model = I3D(I3DConfig(num_classes=3))
    save_encoder(tmp_path, model, I3D.native, classes=Classes(vocabulary="own", names=("a", "b", "c")))
    record = json.loads((tmp_path / "encoder.json").read_text())
    record["classes"]["names"].append("d")
    (tmp_path / "encoder.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"encoder\.json: names 4 classes, the classifier of i3d has 3"):
        load_encoder(tmp_path)


# --- What is refused


class Marked:
    """Makes a folder when it is unpickled by something that runs what it reads."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (os.mkdir, (str(self.mark),))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path, zipped):
    file = write(tmp_path / "evil.pt", {"state_dict": Marked(tmp_path / "mark")}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"evil\.pt: holds more than tensors \(\w+\.mkdir\).*not read"):
        convert(file, tmp_path / "out")
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "out").exists()


def test_the_options_of_a_training_do_no_harm(tmp_path, i3d):
    content = {"state_dict": i3d, "args": argparse.Namespace(lr=0.1), "epoch": 7}
    found = recognise(write(tmp_path / "rgb.pt", content))
    assert (found.prefix, found.foreign.facts) == ("state_dict.", {"epoch": 7})


@pytest.mark.parametrize("suffix", [".pt", ".pth.tar", ".safetensors", ".npz"])
def test_a_file_that_was_copied_half_is_refused(tmp_path, suffix):
    tensors, path = {"conv1.weight": torch.ones(300)}, tmp_path / f"half{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, path)
    elif suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=suffix == ".pt")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"half.*cannot be read as weights .*bytes.*get it again"):
        convert(path, tmp_path / "out")


@pytest.mark.reliability
@pytest.mark.parametrize("read", [read_tensors, read_foreign])
def test_no_mutation_of_a_header_does_more_than_be_refused(tmp_path, read):
    """U2: bytes of the header and of its length, anything for anything; whole words of JSON, too."""
    file, rng = tmp_path / "weights.safetensors", np.random.default_rng(1)
    save_file({f"layer{n}.weight": torch.full((n, 3), float(n)) for n in range(1, 5)}, file)
    whole = file.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    words = (b"9" * 12, b"-1", b"[]", b"{}", b"null", b'"F64"', b'"', b",", b"[" * 60)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for number in range(MUTATIONS):
        spoilt = bytearray(whole)
        if number % 2:
            place = int(rng.integers(8, end))
            spoilt[place : place + int(rng.integers(0, 4))] = words[int(rng.integers(len(words)))]
            if number % 4 == 1:  # with a length that fits, so that the JSON itself is read
                spoilt[:8] = (end - 8 + len(spoilt) - len(whole)).to_bytes(8, "little")
        else:
            for place in rng.integers(0, end, rng.integers(1, 6)):
                spoilt[place] = rng.integers(0, 256)
        file.write_bytes(spoilt)
        try:
            read(file)
        except CheckpointError:
            refused += 1
    assert MUTATIONS // 2 < refused < MUTATIONS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # kB


def test_weights_of_a_network_that_we_do_not_have_are_refused(tmp_path):
    save_file({"patch_embed.proj.weight": torch.zeros(3, 2)}, tmp_path / "vit.safetensors")
    message = r"vit\.safetensors: 1 tensors of no layout.*patch_embed\.proj\.weight \(3, 2\).*Known are: Inception-I3D"
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / "vit.safetensors", tmp_path / "out")


def test_a_weight_of_another_shape_is_named_with_both_shapes(tmp_path, i3d):
    wrong = i3d | {"Mixed_3b.b0.conv3d.weight": torch.zeros(32, 192, 1, 1, 1)}
    message = r"Mixed_3b\.b0\.conv3d\.weight is \(32, 192, 1, 1, 1\) in the file, \(64, 192, 1, 1, 1\) in the model"
    with pytest.raises(CheckpointError, match=message):
        convert(write(tmp_path / "rgb.pt", wrong), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_encoders_in_a_file_need_a_choice(tmp_path, i3d):
    both = {"rgb": i3d, "flow": {k: v + 1 for k, v in i3d.items()}}
    file = write(tmp_path / "both.pt", both)
    with pytest.raises(ConfigError, match=r"holds 2 encoders: 'rgb\.' .*'flow\.'.*--prefix"):
        recognise(file)
    found = recognise(file, prefix="flow.")
    assert torch.equal(found.tensors["logits.conv3d.bias"], i3d["logits.conv3d.bias"] + 1)
    assert found.dropped == {"rgb": len(i3d)}


@pytest.mark.parametrize(("name", "message"), [("absent.pt", "no such file"), (".", "expected one weight file")])
def test_missing_weights_are_missed(tmp_path, name, message):
    with pytest.raises(CheckpointError, match=message):
        recognise(tmp_path / name)


def test_something_else_is_not_taken_for_weights(tmp_path):
    (tmp_path / "notes.pt").write_text("not weights at all")
    with pytest.raises(CheckpointError, match=r"notes\.pt: cannot be read as weights"):
        recognise(tmp_path / "notes.pt")


def test_foreign_weights_given_as_an_encoder_are_told_about_convert(tmp_path, i3d):
    with pytest.raises(CheckpointError, match=r"uptal weights convert .*rgb\.pt OUT"):
        load_encoder(write(tmp_path / "rgb.pt", i3d))
    save_file(i3d, tmp_path / "rgb.safetensors")
    with pytest.raises(CheckpointError, match=r"uptal weights convert .*rgb\.safetensors OUT"):
        load_encoder(tmp_path / "rgb.safetensors")


# --- The command


def test_the_command_converts_and_shows(tmp_path, i3d, capsys):
    file = write(tmp_path / "rgb.pt", {"encoder": i3d, "queue": torch.zeros(2, 3)})
    assert main(["weights", "show", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "Inception-I3D, PyTorch names" in shown
    assert "queue (1 tensors)" in shown
    assert main(["weights", "convert", str(file), str(tmp_path / "out"), "--frames", "16"]) == 0
    converted = capsys.readouterr().out
    assert "left out, tensors in brackets: queue (1)" in converted
    assert "classifier: 6 classes without names" in converted
    assert main(["weights", "show", str(tmp_path / "out")]) == 0
    assert "clips: 16 frames, stride 1, 224 pixels of 256, RGB" in capsys.readouterr().out


def test_the_command_needs_a_place_to_write_to(tmp_path, capsys):
    assert main(["weights", "convert", str(tmp_path)]) == 1
    assert "uptal weights convert SRC OUT" in capsys.readouterr().err


def test_the_kind_of_an_own_encoder_is_shown(tmp_path, capsys):
    save_encoder(tmp_path, Slim(), Slim.native)
    assert main(["weights", "show", str(tmp_path)]) == 0
    assert "encoder Slim" in capsys.readouterr().out
