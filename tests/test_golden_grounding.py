"""LGI against stored outputs of its public code: network, losses, training steps, words, sampling, metrics."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import golden_params
from uptal.localizers.lgi import LGI, LGIConfig
from uptal.localizers.lgi_targets import attention_target, grounding_losses, num_offsets, sample_steps
from uptal.localizers.queries import Vocabulary
from uptal.metrics.grounding import grounding_recall, hull_tiou

pytestmark = pytest.mark.golden


def config(stored) -> LGIConfig:
    """Our settings for a configuration of the public code."""
    cfg = json.loads(str(stored["config_json"]))
    local = cfg["lgi_local_type"]
    more = {}
    if local == "masked_nl":
        more = {
            "local_dilation": cfg["lgi_local_nl_mask_dilation"],
            "local_blocks": cfg["lgi_local_num_nl_block"],
            "local_heads": cfg["lgi_local_nl_nheads"],
        }
    return LGIConfig(
        in_channels=cfg["video_enc_vemb_idim"],
        vocabulary=cfg["vocab"],
        num_segments=cfg["video_enc_pemb_idim"],
        word_width=cfg["query_enc_emb_odim"],
        lstm_width=cfg["query_enc_rnn_hdim"],
        attention_width=cfg["sqan_att_hdim"],
        regression_width=cfg["grounding_hdim"],
        dropout=cfg["query_enc_rnn_dropout"],
        num_phrases=cfg["num_semantic_entity"],
        fusion=cfg["lgi_fusion_method"],
        local=local,
        local_kernel=cfg["lgi_local_nl_mask_ksize"] if local == "masked_nl" else cfg["lgi_local_res_block_1d_ksize"],
        global_blocks=cfg["lgi_global_num_nl_block"],
        global_heads=cfg["lgi_global_nl_nheads"],
        output="relu" if cfg["dataset"] == "charades" else "sigmoid",
        tag_weight=cfg["tag_weight"] if cfg["use_temporal_attention_guidance_loss"] else 0.0,
        dqa_weight=cfg.get("dqa_weight", 1.0) if cfg["use_distinct_query_attention_loss"] else 0.0,
        dqa_lambda=cfg.get("dqa_lambda") or 0.2,
        **more,
    )


def draw(key: str, seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())]))


def filled(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The golden files' rule for weights that are not stored."""
    g = draw(key, seed)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("running_mean"):
        return (0.1 * g.standard_normal(shape)).astype(np.float32)
    if key.endswith("running_var"):
        return (0.5 + g.random(shape)).astype(np.float32)
    if len(shape) == 1 and key.endswith("weight"):
        return (0.75 + 0.5 * g.random(shape)).astype(np.float32)
    if len(shape) < 2:
        return (0.05 * g.standard_normal(shape)).astype(np.float32)
    return (g.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def network(stored) -> LGI:
    cfg = config(stored)
    model = LGI(cfg)
    if any(key.startswith("sd/") for key in stored.files):
        state = {key[3:]: torch.from_numpy(stored[key]) for key in stored.files if key.startswith("sd/")}
    else:
        seed = json.loads(str(stored["config_json"]))["seed"]
        state = {k: torch.from_numpy(filled(k, tuple(v.shape), seed)) for k, v in model.state_dict().items()}
        state["ta_reg_fn.MLP_reg.2.bias"] = torch.tensor([0.3, 0.7])
        state["ta_reg_fn.MLP_reg.2.weight"] *= 0.2
    model.load_state_dict(state)
    return model


def inputs(stored) -> tuple[torch.Tensor, ...]:
    words, known = torch.from_numpy(stored["in/query_labels"]), torch.from_numpy(stored["in/query_masks"])
    valid = torch.from_numpy(stored["in/video_masks"])[..., 0].bool()
    if "in/video_feats" in stored.files:
        features = torch.from_numpy(stored["in/video_feats"])
    else:
        cfg = json.loads(str(stored["config_json"]))
        shape = (*valid.shape, cfg["video_enc_vemb_idim"])
        drawn = (0.5 * draw("lgi_video_feats", cfg["seed"]).standard_normal(shape)).astype(np.float32)
        array = np.maximum(2 * drawn, 0) * stored["in/video_masks"]
        array = array.astype(np.float32)
        assert hashlib.sha256(array.tobytes()).hexdigest().startswith(str(stored["in/video_feats_sha"])[:16])
        features = torch.from_numpy(array)
    return words, known, features, valid


def truth(stored) -> tuple[torch.Tensor, torch.Tensor]:
    location = np.stack((stored["in/start_pos"], stored["in/end_pos"]), axis=1)
    return torch.from_numpy(location), torch.from_numpy(stored["in/att_masks"])


def close(found: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(found.detach().numpy() - expected).max() <= tolerance * scale


@pytest.mark.parametrize("path", golden_params("lgi_tiny") + golden_params("lgi_full"))
class TestNetwork:
    def test_every_output_and_loss(self, path: Path, compared):
        stored = np.load(path)
        model = network(stored).eval()
        found = model(*inputs(stored))
        close(found.location, stored["eval/loc"])
        close(found.over_time, stored["eval/t_attw"])
        if found.over_words is not None:
            close(found.over_words, stored["eval/se_attw"])
        losses = grounding_losses(found, *truth(stored), model.cfg)
        names = {"total_loss": "loss", "grounding": "grounding", "tag": "tag", "dqa": "dqa"}
        for key in (key for key in stored.files if key.startswith("eval/loss/")):
            assert losses[names[key[10:]]].item() == pytest.approx(float(stored[key]), rel=1e-5)
        compared(path)

    def test_gradients(self, path: Path):
        stored = np.load(path)
        model = network(stored).eval()
        grounding_losses(model(*inputs(stored)), *truth(stored), model.cfg)["loss"].backward()
        for name, parameter in model.named_parameters():
            if f"eval/gradnorm/{name}" in stored.files:
                expected = float(stored[f"eval/gradnorm/{name}"])
                if expected < 0:
                    assert parameter.grad is None, name
                else:
                    found = float(parameter.grad.norm())  # pyright: ignore[reportOptionalMemberAccess]
                    assert found == pytest.approx(expected, rel=1e-4, abs=1e-7), name
            if f"eval/grad/{name}" in stored.files:
                close(parameter.grad, stored[f"eval/grad/{name}"])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("path", golden_params("lgi_tiny"))
def test_five_training_steps(path: Path):
    stored = np.load(path)
    model = network(stored).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.query_enc.rnn.dropout = 0.0
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-4)
    names = [str(name) for name in stored["train/loss_names"]]
    for step in range(len(stored["train/loss_traj"])):
        found = model(*inputs(stored))
        losses = grounding_losses(found, *truth(stored), model.cfg)
        row = [losses["loss" if name == "total_loss" else name].item() for name in names]
        assert row == pytest.approx(stored["train/loss_traj"][step].tolist(), rel=1e-4)
        close(found.location, stored["train/loc_traj"][step], 1e-4)
        optimiser.zero_grad()
        losses["loss"].backward()
        if step == 0:
            for key in (key for key in stored.files if key.startswith("train/after1/")):
                close(model.state_dict()[key[13:]], stored[key])
        optimiser.step()


@pytest.mark.parametrize("path", golden_params("vg_segment_sampling"))
def test_sampled_steps(path: Path, compared):
    stored = np.load(path)
    for key in stored.files:
        split, length, *what = key.split("/")
        count = int(length[1:])
        if split == "test":
            assert sample_steps(count, 128).tolist() == stored[key].tolist()
        elif what[0] == "max_spos":
            assert num_offsets(count, 128) - 1 == int(stored[key])
        else:
            assert sample_steps(count, 128, int(what[0][4:])).tolist() == stored[key].tolist()
    compared(path)


@pytest.mark.parametrize("path", golden_params("vg_metrics"))
def test_metrics(path: Path, compared):
    stored = np.load(path)
    location, duration = stored["loc"], stored["duration"]
    seconds = location.astype(np.float64) * duration[:, None]
    assert np.abs(seconds - stored["pred"][: len(seconds)]).max() <= 1e-9
    assert hull_tiou(stored["pred"], stored["gt"]) == pytest.approx(stored["iou"], abs=1e-12)
    scores = grounding_recall(stored["gt"], list(stored["pred"][:, None]), tious=stored["thresholds"].tolist())
    assert scores.recall[1].tolist() == stored["R1"].tolist()
    assert scores.mean_tiou == pytest.approx(float(stored["mIoU"]), abs=1e-12)
    compared(path)


@pytest.mark.parametrize("path", golden_params("vg_text_pipeline"))
@pytest.mark.parametrize("split", ["train", "test"])
def test_words_targets_and_samples(path: Path, split: str, compared):
    stored = np.load(path)

    def get(name: str):
        return stored[f"{split}/{name}"]

    def sentences(part: str) -> list[str]:
        return [line.strip().split("##")[1] for line in str(stored[f"{part}/annotation_txt"]).strip().split("\n")]

    vocabulary = Vocabulary.of(sentences("train"))
    assert dict(vocabulary.ids) == json.loads(str(get("wtoi_json")))
    labels = vocabulary.encode(sentences(split), 10)
    assert torch.equal(labels, torch.from_numpy(get("query_labels")))
    assert torch.equal(labels > 0, torch.from_numpy(get("query_masks")))
    legacy = np.random.RandomState(int(stored["train/np_random_seed"]))
    for row, (start, end) in enumerate(get("timestamps").tolist()):
        duration, length = float(get("duration")[row]), int(get("raw_T")[row])
        assert np.float32(start / duration) == get("start_pos")[row]
        assert np.float32(end / duration) == get("end_pos")[row]
        assert attention_target(start, end, duration, length, 128).tolist() == get("att_masks")[row].tolist()
        offset = int(legacy.randint(0, num_offsets(length, 128))) if split == "train" else 0
        steps = sample_steps(length, 128, offset)
        assert steps.tolist() == get("sampled_rows")[row][: len(steps)].tolist()
        assert (get("sampled_rows")[row][len(steps) :] == -1).all()
        assert int(get("video_masks")[row].sum()) == len(steps) == int(get("nfeats")[row])
    compared(path)
