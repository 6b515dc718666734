"""Class scores from the same features: a linear classifier on the mean feature of a stretch of video.

BMN finds where something happens; this says what. It stands in for the external video classifiers that published
numbers rely on. Letters: M segments, D feature width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class SegmentClassifier(nn.Module):
    """Standardised mean features, then one linear layer."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, labels: Sequence[str]):
        super().__init__()
        self.labels = tuple(labels)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.linear = nn.Linear(width, max(1, len(labels)))

    def forward(self, features: Float[Tensor, "M D"]) -> Float[Tensor, "M K"]:
        """Class probabilities."""
        return self.linear((features - self.mean) / self.scale).softmax(-1)

    def learn(
        self, features: Float[Tensor, "M D"], target: Int[Tensor, " M"], *, weight_decay: float = 1e-2, steps: int = 200
    ) -> float:
        """Fits to mean features of annotated segments by L-BFGS from zero weights; returns the training accuracy.

        Deterministic: the loss is convex and nothing is drawn.
        """
        with torch.no_grad():
            self.mean.copy_(features.mean(0))
            self.scale.copy_(features.std(0, correction=0).clamp(min=1e-6))
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
        inputs = (features - self.mean) / self.scale
        optimiser = torch.optim.LBFGS(self.linear.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            penalty = weight_decay * self.linear.weight.square().sum()
            loss = F.cross_entropy(self.linear(inputs), target) + penalty
            loss.backward()
            return loss

        optimiser.step(closure)
        with torch.no_grad():
            return float((self.linear(inputs).argmax(1) == target).float().mean())


def mean_feature(values: Float[Tensor, "N D"], first: float, last: float) -> Float[Tensor, " D"]:
    """Mean of the features whose (fractional) indices lie in [first, last]; at least the nearest one."""
    low = min(max(0, round(first)), len(values) - 1)
    high = min(max(low, round(last)), len(values) - 1)
    return values[low : high + 1].mean(0)
