"""Cross-entropy against labels and votes, and what a student learns from a teacher's logits.

Every function takes logits of any floating type, computes in float32 and gives one value per row,
not averaged: the task that calls it weights the rows and takes the mean. A term softened by a
temperature T carries its T² inside, so that its gradient keeps its size as T changes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from contract.errors import UserError, nearest
from contract.expressions import EXPRESSIONS, INDEX

# Far enough below any logit for its share of a softmax to be exactly 0 in float32, and finite, so
# that 0 · log 0 does not become NaN.
_MASK = 1000.0


def vote_targets(
    votes: Tensor, labels: Tensor, drop_single_votes: bool, smoothing: float
) -> Tensor:
    """`N×7` votes and `N` labels → `N×7` target distributions (Barsoum et al., 1608.01041).

    A row without votes gets its label. With `drop_single_votes` a lone vote counts as an outlier,
    unless nothing else was voted for. `smoothing` mixes in the uniform distribution.
    """
    classes = votes.shape[1]
    one_hot = F.one_hot(labels, classes).to(votes.dtype)
    kept = torch.where(votes > 1, votes, 0.0) if drop_single_votes else votes
    kept = torch.where(kept.sum(1, keepdim=True) > 0, kept, votes)
    kept = torch.where(kept.sum(1, keepdim=True) > 0, kept, one_hot)
    target = kept / kept.sum(1, keepdim=True)
    return target * (1 - smoothing) + smoothing / classes


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows of −Σ target · log softmax(logits), in float32; both are `N×C`."""
    return soft_cross_entropy_rows(logits, targets).mean()


def soft_cross_entropy_rows(logits: Tensor, targets: Tensor) -> Tensor:
    """−Σ target · log softmax(logits) of each row, in float32: `N×C` and `N×C` → `N`."""
    return -(targets.float() * torch.log_softmax(logits.float(), dim=1)).sum(1)


def kd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)): `N×C` logits, twice → `N`.

    Hinton et al., 1503.02531, section 2: a softened gradient shrinks as 1/T², which T² undoes.
    """
    log_student = torch.log_softmax(student.float() / temperature, dim=1)
    log_teacher = torch.log_softmax(teacher.float() / temperature, dim=1)
    return temperature**2 * _kl(log_teacher, log_student)


def dkd_parts(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """T²·TCKD and T²·NCKD: `N×C` logits, twice, and `N` labels → `N`, `N`.

    Zhao et al., 2203.08679. TCKD compares the two-way distributions (label, everything else); NCKD
    compares the softmaxes over the other classes alone, the label masked by −1000 after the
    division by T, as in the authors' code. kd = TCKD + (1 − p) · NCKD, with p the teacher's
    softened probability of the label; DKD gives the parts weights of their own, α and β.
    """
    is_label = F.one_hot(labels, student.shape[1]).bool()
    binary_student, others_student = _decouple(student, is_label, temperature)
    binary_teacher, others_teacher = _decouple(teacher, is_label, temperature)
    tckd = temperature**2 * _kl(binary_teacher, binary_student)
    nckd = temperature**2 * _kl(others_teacher, others_student)
    return tckd, nckd


def focal_weight(student: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """(1 − p)^γ, with p = Σ target · softmax(student): `N×C` and `N×C` → `N`, from 0 to 1.

    Lin et al., 1708.02002: small where the student is already right. `targets` are distributions;
    a one-hot row gives the paper's p. The weight is part of the gradient, as the paper's is: a
    caller that wants a mere weight detaches it.
    """
    # 1 − p as the share of what is not the target: exact where p is close to 1, and the floor keeps
    # the slope of a power below 1 finite.
    missed = ((1 - targets.float()) * torch.softmax(student.float(), dim=1)).sum(1)
    return missed.clamp_min(torch.finfo(torch.float32).tiny) ** gamma


def focal_cross_entropy(student: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """(1 − p)^γ · cross-entropy: `N×C` logits and `N×C` distributions → `N`.

    Lin et al., 1708.02002, equation 4, without a class weight; the gradient goes through both
    factors, as there. γ = 0 is cross-entropy.
    """
    return focal_weight(student, targets, gamma) * soft_cross_entropy_rows(student, targets)


def focal_nckd(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, gamma: float
) -> Tensor:
    """(1 − p)^γ · T²·NCKD: `N×C` logits, twice, and `N` labels → `N`.

    p is the student's probability of the label at T = 1, its own estimate, as in Lin et al.
    (1708.02002); NCKD as in `dkd_parts`. The weight is detached: it says how much a row counts.
    With a gradient it would let the student shrink the term by raising p instead of matching the
    teacher, and NCKD would no longer leave the label's logit alone, which is TCKD's part.
    """
    _, nckd = dkd_parts(student, teacher, labels, temperature)
    targets = F.one_hot(labels, student.shape[1])
    return focal_weight(student, targets, gamma).detach() * nckd


def standardise(logits: Tensor) -> Tensor:
    """(z − mean) / std of each row, in float32: `N×C` → `N×C`; a constant row gives zeros.

    Sun et al., 2403.01427: both sides of KD are standardised, so the student need match only the
    relations between the teacher's logits, not their range. Use it as
    `kd(standardise(student), standardise(teacher), temperature)` with the paper's base temperature
    (2 there); the authors' code multiplies by T² after standardising, as `kd` does. The standard
    deviation is over C, as in the paper; the authors' code divides by C − 1.
    """
    # The floor under the variance bounds the gradient where a new head's logits are all alike.
    return F.layer_norm(logits.float(), logits.shape[1:], eps=1e-8)


def class_alpha(labels: Tensor, default: float, per_class: dict[str, float]) -> Tensor:
    """The KD share α of each row by the expression it shows: `N` labels → `N`, float32.

    `per_class` maps names to their α; every other class gets `default`. Raises `UserError` for a
    name that is no expression.
    """
    alphas = [default] * len(EXPRESSIONS)
    for name, alpha in per_class.items():
        if name not in INDEX:
            raise UserError(
                f"alpha of '{name}': no such expression{nearest(name, EXPRESSIONS)} "
                f"(one of {' '.join(EXPRESSIONS)})"
            )
        alphas[INDEX[name]] = alpha
    return torch.tensor(alphas, dtype=torch.float32, device=labels.device)[labels]


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) of each row of log-probabilities."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def _decouple(logits: Tensor, is_label: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities `N×2` of (label, the rest) and `N×C` among the rest, softened by T."""
    softened = logits.float() / temperature
    log_p = torch.log_softmax(softened, dim=1)
    rest = torch.logsumexp(log_p.masked_fill(is_label, -torch.inf), dim=1)
    label = torch.where(is_label, log_p, 0.0).sum(1)
    others = torch.log_softmax(softened - _MASK * is_label, dim=1)
    return torch.stack([label, rest], dim=1), others
