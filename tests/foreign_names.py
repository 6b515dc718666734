"""What other projects call the weights of our encoders: our names into theirs, to build files of every layout."""

from __future__ import annotations

import re

from uptal.encoders.s3d import STAGES

UNITS = {"b0": "0.0", "b1a": "1.0", "b1b": "1.1", "b2a": "2.0", "b2b": "2.1", "b3b": "3.1"}
VCOP = {"0": "spatial_conv", "1": "bn", "3": "temporal_conv"}


def coclr(name: str) -> str:
    name = re.sub(r"\.(b\d\w?)\.", lambda m: f".branch{UNITS[m[1]]}.", name)
    name = re.sub(r"\.spatial\.(conv|bn)", r".\g<1>1", name)
    name = re.sub(r"\.temporal\.(conv|bn)", r".\g<1>2", name)
    return re.sub(r"\.gate(\d)\.", r".gating_b\1.", name)


def kylemin(name: str) -> str:
    if name.startswith("fc."):
        return name.replace("fc.", "fc.0.")
    stage, _, rest = name.partition(".")
    rest = re.sub(r"^(b\d\w?)\.", lambda m: f"branch{UNITS[m[1]]}.", rest)
    rest = re.sub(r"spatial\.(conv|bn)", r"\1_s", rest)
    return f"base.{STAGES.index(stage)}." + re.sub(r"temporal\.(conv|bn)", r"\1_t", rest)


def torchvision_s3d(name: str) -> str:
    if name.startswith("fc."):
        return name.replace("fc.", "classifier.1.")
    stage, _, rest = name.partition(".")
    branch = re.match(r"(b\d\w?)\.", rest)
    if branch:
        number = UNITS[branch[1]]
        rest = f"branch{'0' if branch[1] == 'b0' else number}." + rest[branch.end() :]
    rest = rest.replace("spatial.", "0.").replace("temporal.", "1.").replace("conv.", "0.").replace("bn.", "1.")
    return f"features.{STAGES.index(stage)}.{rest}"


def rspnet_s3d(name: str) -> str:
    if name.startswith("fc."):
        return name
    stages = {"Conv_1a": "sepConv1", "Conv_2b": "basicConv3d", "Conv_2c": "sep_conv2"}
    stage, _, rest = name.partition(".")
    start = stages.get(stage, stage.replace("Mixed_", "sepInc_"))
    rest = re.sub(r"^(b\d\w?)\.", lambda m: f"branch{'0' if m[1] == 'b0' else UNITS[m[1]]}.", rest)
    rest = rest.replace("spatial.", "sep_conv.0.").replace("temporal.", "sep_conv.1.").replace("gate.fc", "excitation")
    return f"feature.{start}.{rest.replace('conv.weight', 'conv3d.weight')}"


def rspnet_r2plus1d(name: str) -> str:
    if name.startswith("fc."):
        return name.replace("fc.", "linear.")
    if match := re.fullmatch(r"stem\.(\d)\.(\w+)", name):
        return f"bn1.{match[2]}" if match[1] == "4" else f"conv1.{VCOP[match[1]]}.{match[2]}"
    layer, unit, rest = re.fullmatch(r"layer(\d)\.0\.(conv1|conv2|downsample)\.(.+)", name).groups()  # type: ignore[union-attr]
    start = f"conv{int(layer) + 1}.block1."
    down = unit == "downsample"
    if match := re.fullmatch(r"0\.(\d)\.(\w+)", rest):
        return f"{start}{'downsampleconv' if down else unit}.{VCOP[match[1]]}.{match[2]}"
    return f"{start}{'downsamplebn' if down else 'bn' + unit[-1]}.{rest.removeprefix('1.')}"


def pytorchvideo(name: str, pool_after_first: bool) -> str:
    if name.startswith("fc."):
        return f"blocks.{5 + pool_after_first}.proj.{name.removeprefix('fc.')}"
    if match := re.fullmatch(r"(conv|bn)1\.(\w+)", name):
        return f"blocks.0.{'conv' if match[1] == 'conv' else 'norm'}.{match[2]}"
    layer, block, rest = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", name).groups()  # type: ignore[union-attr]
    number = int(layer) + (pool_after_first and int(layer) > 1)
    if match := re.fullmatch(r"downsample\.(\d)\.(\w+)", rest):
        return f"blocks.{number}.res_blocks.{block}.branch1_{('conv', 'norm')[int(match[1])]}.{match[2]}"
    kind, which, last = re.fullmatch(r"(conv|bn)(\d)\.(\w+)", rest).groups()  # type: ignore[union-attr]
    part = f"{'conv' if kind == 'conv' else 'norm'}_{'abc'[int(which) - 1]}"
    return f"blocks.{number}.res_blocks.{block}.branch2.{part}.{last}"


def slowonly(name: str) -> str:
    return pytorchvideo(name, False)


def i3d_r50(name: str) -> str:
    return pytorchvideo(name, True)


def tsm(name: str) -> str:
    return f"new_{name}" if name.startswith("fc.") else "base_model." + re.sub(r"(\.\d+\.conv1)\.", r"\1.net.", name)


def tsp(name: str) -> str:
    return name.replace("fc.", "fc1.") if name.startswith("fc.") else f"features.{name}"


def same(name: str) -> str:
    return name
