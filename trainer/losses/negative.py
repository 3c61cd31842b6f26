"""Learning from what a face does not show: a complementary label says "not this class".

As in `distill.py`: logits of any floating type, computed in float32, one value per row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def negative_loss(logits: Tensor, complementary: Tensor) -> Tensor:
    """−log(1 − p) of each row's complementary class: `N×C` logits and `N` classes → `N`.

    Kim et al., 1908.07387, equation 2: a step down lowers p. With 1 − p as the share of the other
    classes it is log(1 + exp(z − logsumexp of the others)): nowhere below 0 or infinite, and its
    slope in z is p, so it needs no clamp, which would stop a row from learning where p is near 1.
    """
    return _minus_log_rest(logits.float(), complementary)


def negative_nckd_loss(
    logits: Tensor, labels: Tensor, complementary: Tensor, temperature: float = 1.0
) -> Tensor:
    """−log(1 − p̂), p̂ among the classes other than the label: `N×C`, `N`, `N` → `N`.

    p̂ = softmax over those classes of logits / T, the distribution that NCKD compares (Zhao et al.,
    2203.08679), so the label's own logit has no gradient. `complementary` is never the label, and
    C is 3 or more. There is no T² inside: unlike that of a KL, this gradient shrinks as 1/T only.
    """
    is_label = F.one_hot(labels, logits.shape[1]).bool()
    others = (logits.float() / temperature).masked_fill(is_label, -torch.inf)
    return _minus_log_rest(others, complementary)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits): `N×C` → `N`, from 0 to ln C."""
    return torch.special.entr(torch.softmax(logits.float(), dim=1)).sum(1)


def _minus_log_rest(logits: Tensor, of: Tensor) -> Tensor:
    chosen = logits.gather(1, of[:, None]).squeeze(1)
    is_chosen = F.one_hot(of, logits.shape[1]).bool()
    rest = torch.logsumexp(logits.masked_fill(is_chosen, -torch.inf), dim=1)
    return F.softplus(chosen - rest)
