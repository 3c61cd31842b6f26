"""Several teachers' logits into one, and the weights of the teachers in it."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Fusion = Literal["logit", "probability"]
_DECIMALS = 4


def fuse(logits: Tensor, weights: list[float], fusion: Fusion) -> Tensor:
    """Logits `M×N×7` of M teachers → `N×7` float32 logits of the ensemble.

    `logit` is their weighted mean; `probability` is the logarithm of the weighted mean of their
    softmaxes. Weights sum to 1.
    """
    shares = torch.tensor(weights, dtype=torch.float64, device=logits.device).view(-1, 1, 1)
    values = logits.double()
    if fusion == "logit":
        return (shares * values).sum(0).float()
    return torch.logsumexp(shares.log() + torch.log_softmax(values, dim=2), dim=0).float()


def _rounded(weights: list[float]) -> list[float]:
    """To few enough decimals to read, and to be the same on every machine; the sum stays 1."""
    shares = [round(weight, _DECIMALS) for weight in weights]
    largest = shares.index(max(shares))
    shares[largest] = round(1 - sum(shares[:largest] + shares[largest + 1 :]), _DECIMALS)
    return shares


def search_weights(logits: Tensor, labels: Tensor, fusion: Fusion) -> list[float]:
    """Weights on the simplex that minimise the mean NLL of `labels` (`N`) under the fused `M×N×7`.

    Fused logits count at the temperature that suits them best, since that is how they are used:
    with Σ wᵢ zᵢ / T = Σ aᵢ zᵢ the search is over every aᵢ > 0, and wᵢ = aᵢ / Σ a. Mixed
    probabilities count as they are. Both losses are convex in what is weighed, so the search, from
    equal weights by L-BFGS in float64, needs no restarts and no seed.
    """
    count = len(logits)
    if count == 1:
        return [1.0]
    values, truth = logits.detach().double().cpu(), labels.cpu()
    of_label = torch.log_softmax(values, dim=2)[:, torch.arange(len(truth)), truth]
    free = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [free], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-13,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        optimiser.zero_grad()
        if fusion == "logit":
            mixed = (free.exp().view(-1, 1, 1) * values).sum(0) / count
            value = F.cross_entropy(mixed, truth)
        else:
            shares = torch.log_softmax(free, dim=0)[:, None]
            value = -torch.logsumexp(shares + of_label, dim=0).mean()
        value.backward()
        return value

    optimiser.step(loss)
    return _rounded([float(share) for share in torch.softmax(free.detach(), dim=0)])
