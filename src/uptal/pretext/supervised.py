"""Supervised classification of trimmed clips: the paper's TAC baseline, on the same loader and the same loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from uptal.pretext.batch import Batch, synthesise


class Supervised(nn.Module):
    """A clip encoder with a linear classifier, trained with cross-entropy on one clip a video."""

    def __init__(self, backbone: nn.Module, width: int, num_classes: int, dropout: float = 0.5):
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy and accuracy of the videos' labels.

        Raises:
            ValueError: The batch has no labels.
        """
        if batch.labels is None:
            raise ValueError("supervised training needs labels in every batch")
        views = [clips for clips, _ in synthesise(batch)]
        clips = views[0] if len(views) == 1 else torch.cat(views, 1)
        scores = self.scores(clips)
        target = batch.labels.repeat_interleave(clips.shape[1])
        accuracy = (scores.argmax(1) == target).float().mean()
        return {"loss": F.cross_entropy(scores.float(), target), "accuracy": accuracy}

    def scores(self, clips: Float[Tensor, "B J C T H W"]) -> Float[Tensor, "N K"]:
        """Class scores of every clip, clips of a video adjacent."""
        frames = clips.flatten(0, 1).contiguous(memory_format=torch.channels_last_3d)
        return self.classifier(self.dropout(self.backbone(frames)))

    def after_step(self) -> None:
        """Nothing outlives a step."""

    def encoder(self) -> nn.Module:
        """The part that is kept."""
        return self.backbone
