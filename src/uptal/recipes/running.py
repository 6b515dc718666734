"""From a configuration to a finished run: builds encoder, task and loader, trains, leaves the encoder in the run."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from uptal.device import move
from uptal.distributed import PATIENCE, World, any_process, company, differing, gather, synchronise_batch_norm, world
from uptal.encoders import build, load_encoder, save_encoder
from uptal.errors import ConfigError
from uptal.pretext.ahead import Ahead
from uptal.pretext.loader import Loader
from uptal.pretext.pal import PAL
from uptal.pretext.recompute import recompute_blocks
from uptal.pretext.supervised import Supervised
from uptal.recipes.listing import VideoList, listed_videos
from uptal.recipes.pretrain import PretrainConfig
from uptal.run import RunFolder, plain
from uptal.train import Outcome, choose_device, fit
from uptal.video import Quarantine, find_videos

Look = Callable[[torch.nn.Module, int], Mapping[str, float]]
"""Numbers of an encoder after so many epochs; it leaves encoder and random numbers as they are."""


def pretrain(
    cfg: PretrainConfig,
    videos: Path,
    run_path: Path,
    labels: Mapping[str, str] | None = None,
    trust: bool = False,
    labels_from: str | Path | None = None,
    look: Look | None = None,
    chosen: VideoList | None = None,
) -> Outcome:
    """Pre-trains an encoder on a folder of videos and stores it in the run folder.

    Args:
        cfg: The whole run.
        videos: Folder of videos, searched to any depth.
        run_path: Run folder; a run that is already there goes on where it was.
        labels: Class of each video by file stem, for supervised training; videos without one are left out. Other
            methods have no use for it.
        trust: Whether an encoder class outside uptal may be imported.
        labels_from: File of the labels, to be noted in the run's settings.
        look: What to measure of the encoder at the end of every epoch, given the number of complete ones.
        chosen: List of the videos to use; None uses all of the folder.

    Raises:
        ConfigError: Settings that cannot be used here. QuarantineError: Too many unreadable videos.
        DivergenceError, CheckpointError: As `uptal.train.fit`. WorkerError: A loader process died or hangs.
        ProcessError: Another process of the run died.
    """
    place = world(cfg.data.worker_timeout + PATIENCE)  # a process that waits for its own data is not gone
    device, run = choose_device(cfg.device, place.local_rank), RunFolder(run_path)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # for what names no GPU: `nvdec`, pinned memory
    paths = find_videos(videos)
    if chosen is not None:
        paths = listed_videos(paths, chosen, videos, say=place.rank == 0)
    classes = _classes(cfg, paths, labels)
    paths = paths if classes is None else [path for path in paths if path.stem in classes]
    _check_listing(videos, paths)
    main = place.rank == 0
    with run.locked() if main else nullcontext():
        if main:
            run.write_config(plain(cfg) | _origin(videos, paths, labels_from if classes else None, chosen))
            run.write_environment(device=str(device), videos=len(paths), processes=place.size)
        task = new_task(cfg, device, place, classes, trust)
        quarantine = Quarantine(
            total=len(paths), limit=cfg.data.max_bad, folder=run.path, shared=place.size > 1
        )  # fmt: skip
        outcome = _train(cfg, task, paths, classes, quarantine, run, device, place, look)
        if main:
            save_encoder(run.path, task.encoder(), cfg.clip)
            quarantine.look()
            print(quarantine.summary(), end="", file=sys.stderr)
    return outcome


def new_task(
    cfg: PretrainConfig,
    device: torch.device,
    place: World,
    classes: Mapping[str, int] | None = None,
    trust: bool = False,
) -> PAL | Supervised:
    """The untrained task on its device, the same on every process; what they draw from then on is not."""
    torch.manual_seed(cfg.seed)
    task = _task(cfg, _backbone(cfg, trust), classes)
    if place.rank:
        torch.manual_seed(cfg.seed + 1_000_003 * place.rank)
    move(task, device)
    if not cfg.contrast.local_statistics:
        synchronise_batch_norm(task)
    backbones = [task.online.backbone, task.momentum.backbone] if isinstance(task, PAL) else [task.backbone]
    if cfg.recompute and cfg.compile:
        raise ConfigError(
            "--compile true and --recompute true do not go together: PyTorch compiles no block whose batch norm must "
            "not count twice. Use one of them; with --recompute, --optim.accumulate saves memory further."
        )
    if cfg.recompute:
        recompute_blocks(backbones[0])
    if cfg.compile:
        for backbone in backbones:
            backbone.compile()
    return task


def _train(
    cfg: PretrainConfig,
    task: PAL | Supervised,
    paths: Sequence[Path],
    classes: Mapping[str, int] | None,
    quarantine: Quarantine,
    run: RunFolder,
    device: torch.device,
    place: World,
    look: Look | None,
) -> Outcome:
    if 0 in (
        cfg.optim.max_steps,
        cfg.optim.epochs,
    ):  # random initialisation: whatever the videos, there is nothing to do
        return Outcome(0, 0.0, True, 0)
    _check_validation(cfg, place)
    if cfg.contrast.shuffle_bn and place.size == 1:
        raise ConfigError(
            "contrast.shuffle_bn moves keys between processes, and there is one. Start several (docs/scale.md), or use "
            "--contrast.split_bn 2, which does the same within one."
        )
    pasting = cfg.paste if cfg.method == "pal" else replace(cfg.paste, source="none")
    batch = cfg.optim.part(place.size)
    loader = Loader(
        paths, cfg.data, pasting, cfg.aug,
        batch=batch, seed=cfg.seed, world=place, labels=classes, quarantine=quarantine, parts=cfg.optim.accumulate,
    )  # fmt: skip
    with loader.watched(), company(), Ahead(loader, device) as data:
        begun = any_process(any(run.checkpoints.glob("step_*")))
        if isinstance(task, PAL) and cfg.contrast.unfilled == "warm_up" and not begun:
            task.fill_queue(loader.warm_up_batches(), device)
        seen = None if look is None else partial(look, task.encoder())
        return fit(task, data, cfg.optim, run, device=device, world=place, look=seen)


def _check_validation(cfg: PretrainConfig, place: World) -> None:
    """The plateau rule needs a validation loss, and that needs a whole batch of videos."""
    count, needed = cfg.data.val_videos, cfg.optim.part(place.size) * place.size
    if 0 < count < needed:
        raise ConfigError(
            f"data.val_videos {count} is less than a batch of {needed}, so there would be no validation loss. Use 0 or "
            f"at least {needed}."
        )
    if not count and cfg.optim.schedule == "plateau":
        raise ConfigError(
            "optim.schedule plateau follows the validation loss, and data.val_videos is 0. Set --data.val_videos to a "
            f"multiple of {needed}, or use --optim.schedule cosine."
        )


def _check_listing(videos: Path, paths: Sequence[Path]) -> None:
    """Shares of the videos are disjoint only where all processes divide the same list.

    Raises:
        ConfigError: On every process, when one sees other videos.
    """
    others = differing("\n".join(path.relative_to(videos).as_posix() for path in paths))
    counts = gather(torch.tensor([len(paths)])).tolist()
    if others:
        raise ConfigError(
            f"{videos}: process 0 sees {counts[0]} videos, and these see others: "
            + ", ".join(f"number {rank} ({counts[rank]} videos)" for rank in others[:8])
            + ". All processes must see the same files; copy them again, or use one folder for all."
        )


def _origin(
    videos: Path, paths: Sequence[Path], labels_from: str | Path | None, chosen: VideoList | None
) -> dict[str, Any]:
    """Where the videos and labels came from, and which they were: another list of files would be another run."""
    names = "\n".join(path.relative_to(videos).as_posix() for path in paths)
    files = {"count": len(paths), "names_sha256": hashlib.sha256(names.encode()).hexdigest()}
    labels = None if labels_from is None else str(Path(labels_from).resolve())
    listed = {} if chosen is None else chosen.origin()
    return {"videos": str(videos.resolve()), "labels": labels, **listed, "files": files}


def _backbone(cfg: PretrainConfig, trust: bool) -> Any:
    backbone = build(cfg.encoder, trust=trust, **cfg.encoder_options)
    if cfg.init is not None:
        start = load_encoder(cfg.init, trust=trust).encoder
        if type(start) is not type(backbone) or start.config != backbone.config:
            raise ConfigError(
                f"init: {cfg.init} holds {type(start).__name__} with {start.config}, the run wants {cfg.encoder} with "
                f"{backbone.config}. Give weights of the same architecture, or the --encoder that they are of."
            )
        backbone.load_state_dict(start.state_dict())
    return backbone


def _task(cfg: PretrainConfig, backbone: Any, classes: Mapping[str, int] | None) -> PAL | Supervised:
    if classes is None:
        return PAL(backbone, backbone.width, cfg.head, cfg.contrast)
    return Supervised(backbone, backbone.width, max(classes.values()) + 1, cfg.dropout)


def _classes(cfg: PretrainConfig, paths: list[Path], labels: Mapping[str, str] | None) -> dict[str, int] | None:
    """Class number of every video, for methods that learn from labels."""
    if cfg.method != "supervised":
        return None
    if labels is None:
        raise ConfigError("This recipe learns from labels: give --labels FILE, a CSV with the columns video,label.")
    known = {path.stem for path in paths} & labels.keys()
    if not known:
        sample = ", ".join(sorted(path.stem for path in paths)[:3])
        raise ConfigError(
            f"--labels names none of the {len(paths)} videos (the first are {sample}); names are file stems."
        )
    if len(known) < len(paths):
        print(f"{len(paths) - len(known)} of {len(paths)} videos have no label and are left out", file=sys.stderr)
    names = sorted({labels[stem] for stem in known})
    return {stem: names.index(labels[stem]) for stem in known}
