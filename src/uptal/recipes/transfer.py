"""A look at transfer while a run goes on: labelled videos told apart by the encoder as it is, every few epochs.

It changes nothing of the run: the encoder is a copy, and the random numbers are put back. Letters: N clips, D width.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from uptal.encoders import SavedEncoder, build
from uptal.errors import ConfigError, VideoError
from uptal.features import encode, make_ready
from uptal.recipes.figure3 import draw_figure_three
from uptal.recipes.pretrain import PretrainConfig
from uptal.recipes.probing import LabelledVideos, ProbeConfig, frozen_scores, labelled_videos
from uptal.recipes.spread_clips import VideoClips, through
from uptal.types import Segment
from uptal.video import Quarantine, probe

EDITED = 4
"""Test videos whose middle half is moved and played at another speed, for the equivariance score."""


@dataclass(frozen=True)
class Transfer:
    """What to look at, and how often; `measure` is what `fit` calls at the end of every epoch."""

    every: int
    """Epochs from one look to the next."""
    found: LabelledVideos
    """Labelled videos to learn from and to be told apart."""
    cfg: PretrainConfig
    """The run's settings: which encoder, which clips."""
    device: torch.device
    """Where the encoder runs."""
    clips: int = 4
    """Clips of a video."""

    @classmethod
    def of(
        cls, videos: Path, lists: tuple[Path, Path], every: int, cfg: PretrainConfig, device: torch.device
    ) -> Transfer:
        """Reads the lists.

        Raises:
            ConfigError: `every` is not positive. AnnotationError: The lists name no video that is there.
        """
        if every < 1:
            raise ConfigError(f"--probe-every counts epochs and must be at least 1, found {every}.")
        return cls(every, labelled_videos(videos, *lists), cfg, device)

    def measure(self, encoder: nn.Module, epoch: int) -> Mapping[str, float]:
        """`probe_knn` and `probe_linear` (share of test videos told right) and `probe_warp` after every few epochs.

        `probe_warp` is the warp error of `uptal.similarity`: 0 when features follow an action that is moved and played
        at another speed, 1 when they know nothing of it.
        """
        if epoch % self.every:
            return {}
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            copy = build(self.cfg.encoder, trust=True, **self.cfg.encoder_options)
            copy.load_state_dict(encoder.state_dict())
            saved = SavedEncoder(encoder=copy, clip=self.cfg.clip, digest="")
            return {**self._told_apart(saved), **self._followed(saved)}

    def _told_apart(self, saved: SavedEncoder) -> dict[str, float]:
        ready, spec = make_ready(saved.encoder, self.device), saved.clip
        settings = ProbeConfig(clips=self.clips)

        def features(clips: Tensor) -> Tensor:
            return encode(ready, clips, spec, self.device, self.clips, settings.precision)

        def seen(labelled: list[tuple[Path, str]]) -> VideoClips:
            quarantine = Quarantine(total=len(labelled), limit=1.0)
            return through(features, labelled, self.found.classes, spec, self.clips, quarantine)

        train, test = seen(self.found.train), seen(self.found.test)
        return {
            f"probe_{method}": frozen_scores(method, train, test, saved.encoder.width, self.found.classes, settings)[0]
            for method in ("knn", "linear")
        }

    def _followed(self, saved: SavedEncoder) -> dict[str, float]:
        interval = saved.clip.frames * saved.clip.stride // 2
        errors = []
        for path, label in self.found.test[:EDITED]:
            try:
                duration = probe(path).duration
                action = Segment(duration / 4, duration * 3 / 4, label)
                figure = draw_figure_three(
                    path, action, {"": saved}, interval=max(1, interval), seed=0, device=str(self.device)
                )
            except VideoError as error:
                print(f"probe: left out {error}", file=sys.stderr)
                continue
            errors += [scores["warp_error"] for scores in figure.scores[""].values()]
        known = [error for error in errors if np.isfinite(error)]
        return {"probe_warp": sum(known) / len(known)} if known else {}
