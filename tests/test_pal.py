"""The pretext task as a whole: what a region's feature may depend on, who learns, and what Table 3 #0 comes down to."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from batches import SINGLE, SIZE, Tiny, make_batch
from uptal.augment import AugmentConfig, AugmentParams
from uptal.clips import BackgroundConfig, RegionConfig, TimelineConfig
from uptal.errors import ConfigError
from uptal.pretext.batch import _View, synthesise
from uptal.pretext.contrast import ContrastConfig
from uptal.pretext.norm import SplitBatchNorm3d, interleaved, split_batch_norm
from uptal.pretext.pal import PAL, HeadConfig, RegionEncoder
from uptal.pretext.supervised import Supervised
from uptal.pretext.synthesis import PasteConfig, Placement

HEAD = HeadConfig(hidden=16, width=8, ft_width=8)
CONTRAST = ContrastConfig(queue=10, momentum=0.9)


def pal(head: HeadConfig = HEAD, contrast: ContrastConfig = CONTRAST, seed: int = 0) -> PAL:
    torch.manual_seed(seed)
    return PAL(Tiny(), Tiny.width, head, contrast)


def filled(task: PAL) -> PAL:
    """The task with a queue full of other videos' keys."""
    keys = torch.randn(task.queue.keys.shape, generator=torch.Generator().manual_seed(1))
    task.queue.push(F.normalize(keys, dim=1), torch.full((len(keys),), 10**6))
    return task


def encoder(seed: int = 0, **head) -> RegionEncoder:
    torch.manual_seed(seed)
    return RegionEncoder(Tiny(), Tiny.width, replace(HEAD, **head)).eval()


def hard() -> PasteConfig:
    return PasteConfig(beta=(1.0, 1.0))


# What T hands over


def test_the_synthetic_video_is_the_action_of_its_own_video_on_the_clips_of_its_lender():
    batch = make_batch(0, paste=hard(), aug=still())
    assert batch.lender is not None
    for view, (clips, place) in enumerate(synthesise(batch)):
        for sample in range(len(batch.ids)):
            start, length = int(place.start[sample]), int(place.length[sample])
            action = normalised(batch, batch.region[sample, view, :length])
            background = normalised(batch, batch.clips[int(batch.lender[view, sample]), view])
            expected = torch.cat([background[:start], action, background[start + length :]])
            # the picture passes through the (unit) matrices of the augmentation
            torch.testing.assert_close(clips[sample].transpose(1, 2), expected, atol=2e-5, rtol=0)


def test_each_role_keeps_one_crop_and_one_jitter_over_all_its_frames():
    batch = make_batch(0, paste=hard())
    one = replace(batch, frames=batch.frames[:1].expand_as(batch.frames))  # every frame of every video the same picture
    for clips, place in synthesise(one):
        for sample, pictures in enumerate(clips.transpose(2, 3)):
            start, length = int(place.start[sample]), int(place.length[sample])
            region = torch.zeros(8, dtype=torch.bool)
            region[start : start + length] = True
            for role in (pictures[region], pictures[~region]):
                assert torch.equal(role, role[:1, :1].expand_as(role))
            assert not torch.equal(pictures[region][0, 0], pictures[~region][0, 0])


def test_the_four_roles_of_a_sample_are_drawn_apart_and_a_background_brings_its_own():
    batch = make_batch(0)
    boxes = batch.augment.box.reshape(-1, 4)
    assert len(boxes.unique(dim=0)) == len(batch.ids) * 4
    assert batch.lender is not None
    whole = replace(batch, blend=torch.zeros_like(batch.blend))  # backgrounds only
    for view, (clips, _) in enumerate(synthesise(whole)):
        alone = synthesise(replace(whole, lender=torch.arange(5).expand(2, -1)))[view][0]
        assert torch.equal(clips, alone[batch.lender[view]])


def test_with_composite_scope_one_draw_serves_region_and_background():
    batch = make_batch(0, paste=hard(), aug=AugmentConfig(size=SIZE, scope="composite"))
    one = replace(batch, frames=batch.frames[:1].expand_as(batch.frames))
    for clips, _ in synthesise(one):
        assert torch.equal(clips, clips[:, :1, :, :1].expand_as(clips))


def test_without_paste_the_synthetic_video_is_the_video_itself():
    batch = make_batch(0, paste=PasteConfig(source="none"), aug=still())
    for view, (clips, _) in enumerate(synthesise(batch)):
        expected = torch.stack([normalised(batch, batch.clips[sample, view]) for sample in range(5)])
        torch.testing.assert_close(clips.transpose(2, 3), expected, atol=2e-5, rtol=0)  # as above


def test_pictures_are_made_in_float32_under_autocast():
    batch = make_batch(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = synthesise(batch)
    assert torch.equal(mixed[0][0], synthesise(batch)[0][0])


# What the region's feature may depend on


def test_without_temporal_layers_a_hard_pasted_region_knows_nothing_of_its_background():
    batch = make_batch(0, paste=hard())
    model = encoder(ft_layers=0)
    other = replace(batch, lender=batch.lender.flip(0))
    with torch.no_grad():
        for (clips, place), (changed, same) in zip(synthesise(batch), synthesise(other), strict=True):
            assert not torch.equal(clips, changed)
            assert torch.equal(model(clips, place), model(changed, same))


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_the_region_depends_on_its_clips_and_as_many_neighbours_as_there_are_temporal_layers(layers):
    model = encoder(ft_layers=layers, ft_last_relu=False)
    clips = torch.randn(1, 8, 3, 8, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    place = Placement(torch.tensor([3]), torch.tensor([2]), torch.ones(1, 6, 8))
    with torch.no_grad():
        before = model(clips, place)
        depends = set()
        for slot in range(8):
            changed = clips.clone()
            changed[:, slot] += 3
            if not torch.equal(model(changed, place), before):
                depends.add(slot)
    assert depends == set(range(max(0, 3 - layers), min(8, 5 + layers)))


@pytest.mark.parametrize("l2", ["both", "after"])
@pytest.mark.parametrize("order", ["projection_first", "temporal_first"])
def test_queries_have_length_one(l2, order):
    (clips, place), _ = synthesise(make_batch(0))
    region = encoder(l2=l2, order=order)(clips, place)
    torch.testing.assert_close(region.norm(dim=1), torch.ones(5), atol=1e-6, rtol=0)  # rounding


def test_with_unit_length_only_before_pooling_the_region_is_the_mean_of_unit_vectors():
    (clips, place), _ = synthesise(make_batch(0))
    torch.manual_seed(0)
    before, both = encoder(l2="before")(clips, place), encoder(l2="both")(clips, place)
    assert (before.norm(dim=1) < 1).all()
    torch.testing.assert_close(F.normalize(before, dim=1), both)


def test_the_last_layer_of_the_temporal_head_may_be_linear():
    (clips, place), _ = synthesise(make_batch(0))
    assert (encoder()(clips, place) >= 0).all()
    assert (encoder(ft_last_relu=False)(clips, place) < 0).any()


def test_padding_matters_at_the_ends_only():
    zeros, copies = encoder(), encoder(ft_padding="replicate")
    copies.load_state_dict(zeros.state_dict())
    features = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    same = (zeros.along_time(features) == copies.along_time(features)).all(2).all(0)
    assert same[2:6].all() and not same[0] and not same[7]


# Who learns


def test_the_momentum_encoder_gets_no_gradient_and_moves_only_after_the_step():
    task = filled(pal())
    before = copy.deepcopy(task.momentum.state_dict())
    task.loss(make_batch(0))["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in task.momentum.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.online.parameters())
    names = dict(task.momentum.named_parameters())
    assert all(torch.equal(before[name], value) for name, value in names.items())
    with torch.no_grad():
        for parameter in task.online.parameters():
            parameter += 1
    task.after_step()
    for name, value in names.items():  # the two began as copies, so the way to go was 1
        torch.testing.assert_close(value - before[name], torch.full_like(value, 0.1), atol=1e-6, rtol=0)  # rounding


def test_keys_are_enqueued_after_the_loss_with_their_videos():
    task = pal()
    values = task.loss(make_batch(3))
    assert int(task.queue.filled) == 0 and float(values["negatives"]) == 0
    task.after_step()
    assert task.queue.ids[:5].tolist() == [3000, 3001, 3002, 3003, 3004] and int(task.queue.filled) == 5
    torch.testing.assert_close(task.queue.keys[:5].norm(dim=1), torch.ones(5), atol=1e-6, rtol=0)  # rounding


def test_parts_of_an_accumulated_step_are_enqueued_together():
    task = pal()
    for seed in (1, 2):
        task.loss(make_batch(seed))
    task.after_step()
    assert task.queue.ids.tolist() == [*range(1000, 1005), *range(2000, 2005)]


def test_evaluation_changes_nothing():
    task = filled(pal()).eval()
    before = copy.deepcopy(task.state_dict())
    with torch.no_grad():
        first, second = task.loss(make_batch(0)), task.loss(make_batch(0))
    task.after_step()
    assert torch.equal(first["loss"], second["loss"])
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())


@pytest.mark.parametrize("scope", ["per_source", "composite"])
@pytest.mark.parametrize("resize", ["exact", "fast"])
def test_a_batch_made_at_once_is_the_one_made_sample_by_sample(scope, resize, monkeypatch):
    """The first is how devices other than a CPU do it."""
    monkeypatch.setattr("uptal.pretext.batch._AT_ONCE", 1)
    batch = make_batch(3, aug=AugmentConfig(size=SIZE, scope=scope, resize=resize))
    frames = batch.frames.permute(0, 2, 3, 1)
    for view, (clips, _) in enumerate(synthesise(batch)):
        at_once = _View.of(batch, view, frames)._put_together(slice(0, 5), batch.region_clips[view], None)
        torch.testing.assert_close(at_once.transpose(2, 3), clips, atol=1e-5, rtol=0)  # sums in another order


def test_the_symmetric_loss_is_the_mean_of_both_directions():
    batch, cfg = make_batch(0), replace(CONTRAST, symmetric=True)
    swapped = replace(
        batch,
        **{name: getattr(batch, name).flip(1) for name in ("clips", "region", "start", "length", "blend")},
        lender=batch.lender.flip(0),
        augment=AugmentParams(**{name: value.flip(1) for name, value in vars(batch.augment).items()}),
    )
    with torch.no_grad():
        one, other = (float(filled(pal()).eval().loss(x)["loss"]) for x in (batch, swapped))
        both = float(filled(pal(contrast=cfg)).eval().loss(batch)["loss"])
    assert both == pytest.approx((one + other) / 2, rel=1e-6)


def test_the_kept_encoder_is_the_trained_one_or_its_momentum():
    task = pal()
    assert task.encoder() is task.online.backbone
    task = pal(replace(HEAD, transfer="key"))
    assert task.encoder() is task.momentum.backbone


def test_a_few_steps_teach_the_task_to_find_the_key():
    """Overfitting on one batch: a sign that gradients reach every part."""
    task = filled(pal(replace(HEAD, ft_last_relu=False)))
    optimiser = torch.optim.Adam((p for p in task.parameters() if p.requires_grad), 0.01)
    batch = make_batch(0)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        values = task.loss(batch)
        values["loss"].backward()
        optimiser.step()
        losses.append(float(values["loss"].detach()))
        task._fresh.clear()
    assert losses[-1] < 0.5 * losses[0]


# Table 3 #0


def test_single_clips_without_paste_are_a_plain_moco_step():
    """The same steps written after MoCo: momentum update, keys, loss, optimiser, enqueue."""
    contrast = replace(CONTRAST, queue=7)  # not divisible by the batch
    task = filled(pal(replace(HEAD, ft_layers=0), contrast))
    query_net = nn.Sequential(copy.deepcopy(task.online.backbone), copy.deepcopy(task.online.projection))
    key_net = copy.deepcopy(query_net)
    queue = task.queue.keys.clone()
    ours, theirs = (torch.optim.SGD([p for p in m.parameters() if p.requires_grad], 0.1) for m in (task, query_net))
    for step in range(4):
        batch = make_batch(step + 1, 5, SINGLE, PasteConfig(source="none"))
        (query_clips, _), (key_clips, _) = synthesise(batch)
        with torch.no_grad():
            for mine, other in zip(key_net.parameters(), query_net.parameters(), strict=True):
                mine.mul_(0.9).add_(other, alpha=0.1)
            key = F.normalize(key_net(key_clips[:, 0]), dim=1)
        query = F.normalize(query_net(query_clips[:, 0]), dim=1)
        scores = torch.cat([torch.einsum("nc,nc->n", query, key)[:, None], query @ queue.T], 1) / 0.07
        expected = F.cross_entropy(scores, torch.zeros(5, dtype=torch.long))
        theirs.zero_grad()
        expected.backward()
        theirs.step()
        queue = torch.cat([queue, key])[-7:]
        found = task.loss(batch)["loss"]
        ours.zero_grad()
        found.backward()
        ours.step()
        task.after_step()
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)  # order of additions
    for mine, other in zip(task.online.parameters(), query_net.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)  # four steps of the same rounding


# Every alternative


HEADS = [
    {"ft_layers": 0}, {"ft_layers": 1}, {"ft_layers": 3}, {"ft_width": 5}, {"ft_kernel": 5}, {"ft_last_relu": False},
    {"ft_padding": "replicate"}, {"order": "temporal_first"}, {"order": "temporal_first", "ft_layers": 0},
    {"l2": "before"}, {"l2": "after"}, {"transfer": "key"},
]  # fmt: skip
CONTRASTS = [
    {"negatives": "batch"}, {"negatives": "both"}, {"symmetric": True}, {"mask_same_video": False}, {"split_bn": 3},
    {"split_bn": 2, "symmetric": True}, {"tau": 0.2}, {"momentum": 0.0}, {"unfilled": "random"}, {"shuffle_bn": True},
    {"skip_looped": True},
]  # fmt: skip
PASTES = [
    {"source": "none"}, {"source": "same"}, {"beta": (0.0, 1.0)}, {"beta_scope": "clip"}, {"beta_scope": "frame"},
    {"edge": 4},
]  # fmt: skip
TIMELINES = [
    TimelineConfig(background=BackgroundConfig(layout="contiguous", share=True)),
    TimelineConfig(background=BackgroundConfig(layout="segments_shared_jitter", stride="random_per_video")),
    TimelineConfig(background=BackgroundConfig(stride="same_as_region")),
    TimelineConfig(region=RegionConfig(layout="segments", stride_law="log_uniform", stride_scope="clip")),
    TimelineConfig(region=RegionConfig(scale_mode="resample_clips", min_clips=1, equal=True)),
    TimelineConfig(region=RegionConfig(min_overlap=0.5)),
    TimelineConfig(clips=4, frames=6, region=RegionConfig(max_clips=3)),
    SINGLE,
]


@pytest.mark.parametrize("changes", HEADS, ids=str)
def test_every_head_learns(changes):
    learns(filled(pal(replace(HEAD, **changes))), make_batch(0, 6))


@pytest.mark.parametrize("changes", CONTRASTS, ids=str)
def test_every_contrast_learns(changes):
    learns(filled(pal(contrast=replace(CONTRAST, **changes))), make_batch(0, 6))


@pytest.mark.parametrize("changes", PASTES, ids=str)
def test_every_paste_learns(changes):
    learns(filled(pal()), make_batch(0, 6, paste=PasteConfig(**changes)))


@pytest.mark.parametrize("timeline", TIMELINES, ids=range(len(TIMELINES)))
def test_every_timeline_learns(timeline):
    learns(filled(pal()), make_batch(0, 6, timeline))


@pytest.mark.parametrize(
    "changes", [{"scope": "composite"}, {"grey": 1.0}, {"blur": 1.0}, {"area": (1.0, 1.0)}], ids=str
)
def test_every_augmentation_learns(changes):
    learns(filled(pal()), make_batch(0, 6, aug=AugmentConfig(size=SIZE, **changes)))


def test_impossible_heads_are_refused():
    for changes in ({"ft_layers": -1}, {"ft_kernel": 2}, {"width": 0}):
        with pytest.raises(ConfigError):
            replace(HEAD, **changes)


# Split batch norm


def test_split_batch_norm_uses_the_statistics_of_each_part():
    torch.manual_seed(0)
    plain, clips = nn.BatchNorm3d(4), torch.randn(6, 4, 2, 3, 3)
    split = split_batch_norm(nn.Sequential(copy.deepcopy(plain)), 3)
    assert isinstance(split[0], SplitBatchNorm3d) and split[0].state_dict().keys() == plain.state_dict().keys()
    expected = torch.cat([plain(part) for part in clips.chunk(3)])
    assert torch.equal(split(clips), expected)
    assert torch.equal(split.eval()(clips), plain.eval()(clips))


def test_samples_that_shared_a_part_as_queries_are_spread_as_keys():
    order = interleaved(12, 3)
    assert sorted(order.tolist()) == list(range(12))
    for part in order.chunk(3):
        assert sorted(set((part // 4).tolist())) == [0, 1, 2]  # keys of a part come from all parts of the queries


def test_split_keys_belong_to_their_samples():
    clips, place = synthesise(make_batch(0, 6))[1]
    task = pal(contrast=replace(CONTRAST, split_bn=3))
    order = interleaved(6, 3)
    assert torch.equal(task.key(clips, place)[order], task.momentum(clips[order], place.reordered(order)))
    with pytest.raises(ConfigError, match="split_bn"):
        task.loss(make_batch(0, 5))


# Regions alone (Table 3 #1 and #2 without context)


ALONE = TimelineConfig(context="none")


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("order", ["projection_first", "temporal_first"])
def test_a_region_alone_is_a_video_of_so_many_clips(padding, order):
    """J = L: the same as encoding each region by itself, whatever else fills the tensor."""
    model = encoder(ft_padding=padding, order=order)
    batch = make_batch(0, 6, ALONE, PasteConfig(source="none"))
    assert len(batch.length.unique()) > 1
    for clips, place in synthesise(batch):
        clips = clips.clone()
        assert clips.shape[1] == 6 and not place.start.any() and place.alone
        found = model(clips, place)
        for sample, length in enumerate(place.length.tolist()):
            whole = Placement(place.start[:1], place.length[sample : sample + 1], place.blend[:1])
            expected = model(clips[sample : sample + 1, :length], whole)
            # one clip a time goes through other kernels than many
            torch.testing.assert_close(found[sample : sample + 1], expected, atol=1e-5, rtol=0)
            clips[sample, length:] = 99.0
        torch.testing.assert_close(model(clips, place), found, atol=0, rtol=0)


def test_clips_outside_a_region_alone_do_not_feed_batch_norm():
    batch = make_batch(0, 6, ALONE, PasteConfig(source="none"))
    clips, place = synthesise(batch)[0]
    task = pal()
    task.online(clips, place)
    torch.manual_seed(0)
    norm = Tiny().bn
    norm(task.online.backbone.conv(torch.cat([clips[i, : int(n)] for i, n in enumerate(place.length)])))
    torch.testing.assert_close(task.online.backbone.bn.running_mean, norm.running_mean)


# Looped videos and the first keys


def test_looped_videos_may_be_left_out_of_the_loss_but_lend_and_give_keys():
    task = filled(pal(contrast=replace(CONTRAST, skip_looped=True))).eval()
    batch = make_batch(0, 4)
    looped = torch.tensor([True, False, False, True])
    assert torch.equal(task.loss(batch)["loss"], filled(pal()).eval().loss(batch)["loss"])
    values = task.loss(replace(batch, looped=looped))
    each = [task.loss(replace(batch, looped=torch.arange(4) != one))["loss"] for one in (1, 2)]
    torch.testing.assert_close(values["loss"], each[0] + each[1])
    none = task.loss(replace(batch, looped=torch.ones(4, dtype=torch.bool)))
    assert float(none["loss"].detach()) == 0 and float(none["accuracy"]) == 0
    task.train().loss(replace(batch, looped=looped))
    task.after_step()
    assert int(task.queue.filled) == 10 and set(task.queue.ids[:4].tolist()) == set(batch.ids.tolist())


def test_a_queue_may_begin_full_of_random_unit_vectors_of_no_video():
    queue = pal(contrast=replace(CONTRAST, unfilled="random")).queue
    assert int(queue.filled) == 10 and (queue.ids == -1).all()
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(10), atol=1e-6, rtol=0)  # rounding


def test_a_queue_may_be_filled_by_forward_steps_before_the_first():
    task = pal(contrast=replace(CONTRAST, unfilled="warm_up"))
    before = copy.deepcopy(list(task.parameters()))
    batches = [make_batch(seed, 4) for seed in range(9)]
    task.fill_queue(iter(batches), torch.device("cpu"))
    assert task.queue.ids.tolist() == [*range(2002, 2004), 2, 3, *range(1000, 1004), 2000, 2001]
    assert all(torch.equal(a, b) for a, b in zip(before, task.parameters(), strict=True))
    assert float(task.loss(batches[5])["negatives"]) == 10


# The supervised rival


def test_supervised_training_learns_its_labels():
    torch.manual_seed(0)
    task = Supervised(Tiny(), Tiny.width, 3, dropout=0.0)
    batch = make_batch(0, 6, replace(SINGLE, views=1), PasteConfig(source="none"), still())
    optimiser = torch.optim.Adam(task.parameters(), 0.03)
    for _ in range(60):
        optimiser.zero_grad()
        values = task.loss(batch)
        values["loss"].backward()
        optimiser.step()
        task.after_step()
    assert float(values["accuracy"]) == 1.0
    with pytest.raises(ValueError, match="labels"):
        task.loss(replace(batch, labels=None))


def learns(task: PAL, batch) -> None:
    """One step: a finite loss, finite gradients, and weights that move."""
    before = [p.detach().clone() for p in task.online.parameters()]
    optimiser = torch.optim.SGD(task.online.parameters(), 0.1)
    loss = task.loss(batch)["loss"]
    loss.backward()
    optimiser.step()
    task.after_step()
    assert loss.isfinite() and all(p.isfinite().all() for p in task.online.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, task.online.parameters(), strict=True))


def still() -> AugmentConfig:
    """An augmentation that only shrinks nothing: the size is that of the frames."""
    return AugmentConfig(size=14, area=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, blur=0.0)


def normalised(batch, indices):
    return (batch.frames[indices].float() / 255 - 0.45) / 0.225


def test_keys_in_parts_are_those_of_each_part_alone():
    contrast = replace(CONTRAST, key_batch=2)
    task, batch = pal(contrast=contrast), make_batch(0)
    clips, place = synthesise(batch)[1]
    found, alone = task.key(clips, place), pal(contrast=contrast)
    for begin in (0, 2, 4):
        part = torch.arange(begin, min(begin + 2, 5))
        torch.testing.assert_close(found[part], alone.momentum(clips[part], place.reordered(part)))
    assert not torch.allclose(found, pal().key(clips, place), atol=1e-4)  # batch norm sees other company
    evaluated, plain = pal(contrast=contrast).eval(), pal().eval()
    torch.testing.assert_close(evaluated.key(clips, place), plain.key(clips, place))


def test_a_key_batch_that_cannot_be_is_refused():
    for changes in ({"key_batch": 1}, {"key_batch": 4, "split_bn": 2}, {"key_batch": 4, "dense": 1.0}):
        with pytest.raises(ConfigError, match=r"contrast\.key_batch"):
            replace(ContrastConfig(), **changes)
