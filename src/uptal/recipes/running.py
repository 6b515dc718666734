"""From a configuration to a finished run: builds encoder, task and loader, trains, and leaves the encoder in the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from uptal.clipspec import ClipSpec
from uptal.distributed import synchronise_batch_norm, world
from uptal.encoders import build, load_encoder, save_encoder
from uptal.errors import ConfigError
from uptal.pretext.data import Loader
from uptal.pretext.pal import PAL
from uptal.pretext.supervised import Supervised
from uptal.recipes.pretrain import PretrainConfig
from uptal.run import RunFolder, plain
from uptal.train import Outcome, choose_device, fit
from uptal.video import Quarantine, find_videos


def pretrain(
    cfg: PretrainConfig, videos: Path, run_path: Path, labels: Mapping[str, str] | None = None, trust: bool = False
) -> Outcome:
    """Pre-trains an encoder on a folder of videos and stores it in the run folder.

    Args:
        cfg: The whole run.
        videos: Folder of videos, searched to any depth.
        run_path: Run folder; a run that is already there goes on where it was.
        labels: Class of each video by file stem, for supervised training.
        trust: Whether an encoder class outside uptal may be imported.

    Raises:
        ConfigError: Settings that cannot be used here. VideoError: Too many unreadable videos.
    """
    place, device, run = world(), choose_device(cfg.device), RunFolder(run_path)
    paths = find_videos(videos)
    classes = _classes(cfg, paths, labels)
    if classes is not None and labels is not None:
        paths = [path for path in paths if path.stem in labels]
    with run.locked():
        settings = plain(cfg) | {"videos": str(videos.resolve()), "classes": sorted(set(classes.values())) if labels else None}
        run.write_config(settings)
        run.write_environment(device=str(device), videos=len(paths), processes=place.size)
        quarantine = Quarantine(total=len(paths), limit=cfg.data.max_bad, folder=run.path)
        torch.manual_seed(cfg.seed)
        backbone = _backbone(cfg, trust)
        width, clip = backbone.width, _clip(cfg)
        task = _task(cfg, backbone, width, classes).to(device, memory_format=torch.channels_last_3d)
        task = synchronise_batch_norm(task) if place.size > 1 else task
        loader = Loader(
            paths,
            cfg.data,
            cfg.paste if cfg.method == "pal" else replace(cfg.paste, source="none"),
            cfg.aug,
            batch=cfg.optim.part(place.size),
            seed=cfg.seed,
            world=place,
            labels=classes,
            quarantine=quarantine,
        )
        outcome = fit(task, loader, cfg.optim, run, device=device, world=place)
        if place.rank == 0:
            save_encoder(run.path, task.encoder(), clip)
            print(quarantine.summary(), end="")
    return outcome


def _backbone(cfg: PretrainConfig, trust: bool):
    backbone = build(cfg.encoder, trust=trust, **cfg.encoder_options)
    if cfg.init is not None:
        start = load_encoder(cfg.init, trust=trust).encoder
        if type(start) is not type(backbone) or start.config != backbone.config:
            raise ConfigError(f"init: {cfg.init} holds {start.config} of {type(start).__name__}, the run wants {cfg.encoder}.")
        backbone.load_state_dict(start.state_dict())
    return backbone


def _clip(cfg: PretrainConfig) -> ClipSpec:
    return cfg.clip


def _task(cfg: PretrainConfig, backbone, width: int, classes: Mapping[str, int] | None) -> PAL | Supervised:
    if cfg.method == "pal":
        return PAL(backbone, width, cfg.head, cfg.contrast)
    assert classes is not None
    return Supervised(backbone, width, max(classes.values()) + 1)


def _classes(cfg: PretrainConfig, paths: list[Path], labels: Mapping[str, str] | None) -> dict[str, int] | None:
    """Class number of every video, for methods that learn from labels."""
    if cfg.method != "supervised":
        return None
    if labels is None:
        raise ConfigError("This recipe learns from labels: give --labels FILE, a CSV with the columns video,label.")
    known = {path.stem for path in paths} & labels.keys()
    if not known:
        sample = ", ".join(sorted(path.stem for path in paths)[:3])
        raise ConfigError(f"--labels names none of the {len(paths)} videos (the first are {sample}); names are file stems.")
    names = sorted({labels[stem] for stem in known})
    return {stem: names.index(labels[stem]) for stem in known}
