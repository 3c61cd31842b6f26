"""Cross-entropy against labels and distributions of votes."""

import torch
from torch import Tensor


def vote_targets(
    votes: Tensor, labels: Tensor, drop_single_votes: bool, smoothing: float
) -> Tensor:
    """`N×7` votes and `N` labels → `N×7` target distributions (Barsoum et al., 1608.01041).

    A row without votes gets its label. With `drop_single_votes` a lone vote counts as an outlier,
    unless nothing else was voted for. `smoothing` mixes in the uniform distribution.
    """
    classes = votes.shape[1]
    one_hot = torch.nn.functional.one_hot(labels, classes).to(votes.dtype)
    kept = torch.where(votes > 1, votes, 0.0) if drop_single_votes else votes
    kept = torch.where(kept.sum(1, keepdim=True) > 0, kept, votes)
    kept = torch.where(kept.sum(1, keepdim=True) > 0, kept, one_hot)
    target = kept / kept.sum(1, keepdim=True)
    return target * (1 - smoothing) + smoothing / classes


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows of −Σ target · log softmax(logits), in float32; both are `N×C`."""
    return -(targets * torch.log_softmax(logits.float(), dim=1)).sum(1).mean()
