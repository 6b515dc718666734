"""Stores whose features tell what happens, for sentences of the built-in corpus, without a single frame drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from uptal.features import Features, FeatureStore
from uptal.synthetic import CorpusConfig, annotate
from uptal.types import Timebase

CORPUS = CorpusConfig(num_untrimmed=60, num_classes=4, classes_per_video=3, max_instances=3, untrimmed_frames=160,
                      instance_frames=(24, 50), seed=5)  # fmt: skip
WIDTH = 8


def told_store(path: Path, config: CorpusConfig = CORPUS, noise: float = 0.3) -> FeatureStore:
    """One-hot classes of the clip's middle under noise, eight frames a clip."""
    description = {
        "encoder_digest": "told", "width": WIDTH, "interval": 8, "decoder": "none", "preprocessing": {"frames": 8},
    }  # fmt: skip
    store, rng = FeatureStore.create(path, description), np.random.default_rng(0)
    base = Timebase(fps=float(config.fps), stride=8.0, window=8.0)
    for index in range(config.num_untrimmed):
        video = annotate(config, "untrimmed", index)
        values = noise * rng.standard_normal((config.untrimmed_frames // 8, WIDTH))
        for segment in video.segments:
            for step in range(len(values)):
                if segment.start <= base.centre(step) < segment.end:
                    values[step, config.labels.index(str(segment.label))] += 1
        store.write(Features(video.id, torch.from_numpy(values).float(), base, video.duration))
    return store
