"""Checkpoints of every layout, with the wrappers of their projects around them, are recognised and put in place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import foreign_names as names
from uptal.encoders import build
from uptal.encoders.converting import load, place
from uptal.encoders.foreign import Foreign
from uptal.errors import CheckpointError


@dataclass(frozen=True)
class Case:
    """A family of checkpoints."""

    id: str
    architecture: str
    options: dict[str, Any]
    rename: Callable[[str], str]
    wrapper: str
    """What stands before every name of the encoder."""
    frames: int
    size: int
    mean: float
    """First number of the authors' normalisation."""
    beside: tuple[str, ...] = ()
    """What else is in such a file."""
    classes: int = 0
    """Classes that are found."""
    dropped: dict[str, int] = field(default_factory=dict)


MOCO = ("module.encoder_k.x", "module.queue", "module.queue_ptr")
R18, R34 = {"depth": 18, "rule": "torchvision"}, {"depth": 34, "rule": "vmz"}
IMAGENET, KINETICS = 0.485, 0.43216

CASES = (
    Case("pytorch-i3d", "i3d", {}, names.same, "", 64, 224, 0.5, classes=157),
    Case("moco-i3d", "i3d", {}, names.same, "state_dict.module.encoder_q.", 64, 224, 0.5,
         ("state_dict.module.encoder_k.Conv3d_1a_7x7.conv3d.weight",), dropped={"state_dict.module.encoder_k": 1}),
    Case("coclr-s3d", "s3d", {"form": "coclr"}, names.coclr, "state_dict.module.encoder_q.0.", 32, 128, IMAGENET,
         ("state_dict.module.encoder_q.2.weight", "state_dict.module.sampler.0.Conv_1a.conv1.weight",
          "state_dict.module.encoder_q.0.block1.0.conv1.weight"),
         dropped={"state_dict.module.encoder_q": 1, "state_dict.module.sampler": 1,
                  "state_dict.module.encoder_q.0.block1": 1}),
    Case("coclr-s3dg", "s3d", {"form": "coclr_gated"}, names.coclr, "state_dict.encoder_q.0.", 32, 128, IMAGENET),
    Case("kylemin", "s3d", {"form": "kinetics"}, names.kylemin, "module.", 64, 224, 0.5, classes=400),
    Case("torchvision-s3d", "s3d", {"form": "kinetics"}, names.torchvision_s3d, "", 128, 224, KINETICS, classes=400),
    Case("rspnet-s3dg", "s3d", {"form": "rspnet"}, names.rspnet_s3d, "model.encoder_q.encoder.", 16, 224, IMAGENET),
    Case("torchvision-r2plus1d", "r2plus1d", R18, names.same, "", 16, 112, KINETICS, classes=400),
    Case("videomoco", "r2plus1d", R18, names.same, "state_dict.module.encoder_q.", 32, 112, IMAGENET,
         ("state_dict.module.encoder_q.fc.0.weight", *(f"state_dict.{name}" for name in MOCO)),
         dropped={f"state_dict.module.{name}": 1 for name in ("encoder_k", "queue", "queue_ptr", "encoder_q.fc")}),
    Case("xdc", "r2plus1d", {"depth": 18, "rule": "vmz"}, names.same, "", 32, 224, KINETICS),
    Case("ig65m", "r2plus1d", R34, names.same, "", 32, 112, KINETICS, classes=400),
    Case("tsp", "r2plus1d", R34, names.tsp, "model.", 16, 112, KINETICS, ("model.fc2.weight",), classes=200,
         dropped={"model.fc2": 1}),
    Case("rspnet-r2plus1d", "r2plus1d", {"depth": 10, "rule": "rspnet"}, names.rspnet_r2plus1d,
         "model.encoder_q.encoder.", 16, 112, IMAGENET, ("model.encoder_q.fc1.0.weight",),
         dropped={"model.encoder_q": 1}),
    Case("kenshohara", "resnet3d", {"form": "hara"}, names.same, "state_dict.", 16, 112, 0.4345, classes=700),
    Case("slowonly", "resnet3d", {"form": "slowonly"}, names.slowonly, "model_state.", 8, 224, 0.45, classes=400),
    Case("i3d-r50", "resnet3d", {"form": "i3d"}, names.i3d_r50, "model_state.", 8, 224, 0.45, classes=400),
    Case("tsm-18", "tsm", {"depth": 18}, names.tsm, "state_dict.module.", 8, 224, IMAGENET, classes=174),
    Case("tsm-50", "tsm", {"depth": 50}, names.tsm, "state_dict.module.", 8, 224, IMAGENET, classes=400),
)  # fmt: skip


def foreign(case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A file's tensors, and the same under our names: constants, each tensor another; counters of batches missing."""
    with torch.device("meta"):
        model = build(case.architecture, **case.options, num_classes=case.classes)
    ours = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    values = {name: torch.tensor(math.sin(i)).expand(tensor.shape) for i, (name, tensor) in enumerate(ours.items())}
    theirs = {case.wrapper + case.rename(name): tensor for name, tensor in values.items()}
    return theirs | dict.fromkeys(case.beside, torch.zeros(2)), values


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_checkpoint_is_recognised_and_every_weight_finds_its_place(case):
    theirs, ours = foreign(case)
    assert len(theirs) == len(ours) + len(case.beside)  # the renaming of the test confuses no two
    found = place(Foreign(Path("file.pth"), theirs, {}))
    assert found.layout.architecture == case.architecture
    assert {"num_classes": 0} | found.options == {"num_classes": case.classes} | case.options
    assert (found.clip.frames, found.clip.size, found.clip.mean[0]) == (case.frames, case.size, case.mean)
    assert found.dropped == case.dropped
    state = load(found).state_dict()
    assert all(torch.equal(state[name], value) for name, value in ours.items())


@pytest.mark.parametrize("case", [case for case in CASES if case.id in ("videomoco", "tsm-18", "coclr-s3d")])
def test_a_missing_weight_is_named(case):
    theirs, _ = foreign(case)
    victim = next(name for name in theirs if "layer2.1.bn1.weight" in name or "Mixed_4c.branch0.0.bn.weight" in name
                  or "layer2.1.conv1.1.weight" in name)  # fmt: skip
    del theirs[victim]
    with pytest.raises(CheckpointError, match=r"file\.pth: .*the file lacks"):
        load(place(Foreign(Path("file.pth"), theirs, {})))
