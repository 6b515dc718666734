"""A step asks a GPU for nothing on the way: while the host waits for an answer it prepares no further work."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from memory import loader
from uptal.clips import RegionConfig
from uptal.learner import Learner
from uptal.pretext.batch import Batch
from uptal.recipes import pretrain as recipes
from uptal.recipes.pretrain import PretrainConfig
from uptal.recipes.running import new_task
from workshop import ALONE, CPU, tiny

NOWHERE = torch.device("meta")
"""A device whose tensors have shapes and no numbers, so that to read one is an error."""


class NoWaiting(TorchDispatchMode):
    """Refuses what needs no number of the device and still waits for it: plain copies, and checks of a result."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            ends = {t.device.type for t in (*args[:2], found) if isinstance(t, torch.Tensor)}
            at_once = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            if len(ends) > 1 and not at_once:
                raise AssertionError(f"a copy that waits: {func} of {[getattr(a, 'shape', a) for a in args]}")
        if func is torch.ops.aten._linalg_check_errors.default and args[0].is_meta:
            raise AssertionError("a check of a result on the host")
        return found


class NoTables(TorchFunctionMode):
    """Refuses numbers of Python's that are put together on the device, which waits for it, too."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and found.is_meta:
            assert isinstance(args[0], torch.Tensor) and func is torch.as_tensor, f"a table that waits: {args}"
        return found


def a_task(cfg: PretrainConfig, device: torch.device) -> Any:
    return new_task(cfg, CPU, ALONE, classes={"a": 0, "b": 1} if cfg.method == "supervised" else None).to(device)


def small(base: PretrainConfig | None = None, timeline: dict[str, Any] | None = None, **parts) -> PretrainConfig:
    """A small run with some settings changed, by the part that they are in."""
    cfg = tiny(base)
    data = replace(cfg.data, timeline=replace(cfg.data.timeline, **(timeline or {})))
    return replace(cfg, data=data, **{name: replace(getattr(cfg, name), **values) for name, values in parts.items()})


def batches(cfg: PretrainConfig) -> list[Batch]:
    supervised = cfg.method == "supervised"
    labels = {f"v{number:02d}": number % 2 for number in range(12)} if supervised else None
    paste = replace(cfg.paste, source="none") if supervised else cfg.paste
    return list(loader(cfg.data.timeline, paste, aug=replace(cfg.aug, size=12), labels=labels).batches(0))


LONE = {"context": "none", "region": RegionConfig(min_clips=1, max_clips=4)}
STAYS = {"source": "none"}
STEPS = {
    "exact": small(aug={"resize": "exact"}),
    "fast": small(aug={"resize": "fast"}),
    "composite": small(aug={"scope": "composite"}),
    "regions_alone": small(timeline=LONE, paste=STAYS),
    "regions_alone_replicated": small(timeline=LONE, paste=STAYS, head={"ft_padding": "replicate"}),
    "temporal_first": small(head={"order": "temporal_first"}),
    "boundary": small(head={"boundary": 0.5}),
    "dense": small(contrast={"dense": 0.5}),
    "background": small(contrast={"background": True}),
    "own_outside": small(contrast={"own_outside": True}),
    "motion": small(contrast={"motion": ("still", "reversed", "shuffled")}),
    "both_ways": small(contrast={"symmetric": True, "negatives": "both"}),
    "all_regions": small(timeline={"regions": 2}, contrast={"positives": "all"}),
    "split_bn": small(contrast={"split_bn": 2}),
    "key_batch": small(contrast={"key_batch": 2}),
    "skip_looped": small(contrast={"skip_looped": True}),
    "supervised": small(recipes.tac()),
}


@pytest.mark.parametrize("name", STEPS)
def test_nothing_is_read_in_a_step_but_at_its_one_look(name, monkeypatch):
    cfg = STEPS[name]
    monkeypatch.setattr(torch, "autocast", lambda *kind, **options: nullcontext())  # does not know that device
    looked: list[torch.Tensor] = []
    monkeypatch.setattr(Learner, "_look", lambda learner, parts, names, *rest: looked.extend(rest[:3]) or {})
    optim = replace(cfg.optim, clip_norm=1.0, precision="fp32")
    learner = Learner(a_task(cfg, NOWHERE), optim, NOWHERE)
    batch = batches(cfg)[0]
    with NoWaiting(), NoTables():
        learner.step([batch], 1e-3, 1)
    assert all(p.grad is not None for p in learner.task.parameters() if p.requires_grad)
    assert all(value.device == NOWHERE for value in looked) and len(looked) == 3


def test_what_waits_would_have_shown():
    there = torch.zeros(3, device=NOWHERE)
    with NoWaiting(), NoTables():
        there.copy_(torch.zeros(3), non_blocking=True)
        for waits in (
            lambda: torch.tensor([1.0], device=NOWHERE),
            lambda: there.new_tensor([1.0]),
            lambda: torch.zeros(1).to(NOWHERE),
            lambda: there.copy_(torch.zeros(3)),
            lambda: torch.linalg.inv(torch.zeros(2, 2, device=NOWHERE)),
        ):
            with pytest.raises(AssertionError, match=r"waits|check"):
                waits()
        for reads in (lambda: there.sum().item(), lambda: there[there > 0], lambda: bool(there.sum() > 0)):
            with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
                reads()


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # PyTorch says that it is a prototype
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
@pytest.mark.parametrize("name", STEPS)
def test_a_gpu_is_waited_for_once_a_step(name, monkeypatch):
    """PyTorch itself raises at whatever waits but for the one place where loss and norm are looked at."""
    cfg, device = STEPS[name], torch.device("cuda")
    learner, look = Learner(a_task(cfg, device), cfg.optim, device), Learner._look

    def looked(*values):
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            return look(*values)
        finally:
            torch.cuda.set_sync_debug_mode(before)

    monkeypatch.setattr(Learner, "_look", looked)
    try:
        for number, batch in enumerate((batch.pinned() for batch in batches(cfg)), 1):
            learner.step([batch], 1e-3, number)
            torch.cuda.set_sync_debug_mode("error")  # from the second step on: the first sets things up
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert number > 1
