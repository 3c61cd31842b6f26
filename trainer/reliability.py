"""Corrections of finished logits, fitted on one split and judged on another.

A correction maps logits z of a row to z_c / T_c − τ·log π_c, and the softmax of that are its
probabilities:

- one temperature: all T_c = T, by NLL (Guo et al., 1706.04599);
- a temperature per class: each class's logit has its own T_c, by NLL. This is Guo's vector scaling
  with positive weights and no bias; it may change which class is on top;
- logit adjustment (Menon et al., 2007.07314, post hoc): π is the share of each class among the
  training rows. τ is chosen by macro-F1, as that is what the adjustment is for: on rows with the
  training distribution NLL would always choose about 0, and it gets worse for any other τ, because
  adjusted probabilities are those of a world in which rare classes are less rare.

Temperatures come first, then τ on the logits divided by them.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from contract import metrics
from contract.expressions import EXPRESSIONS
from contract.metrics import Floats, Ints

CLASSES = len(EXPRESSIONS)
TAUS = np.arange(41) / 20
"""What τ is chosen from; 0 is no adjustment, 1 the one for perfectly calibrated logits."""

_LARGEST_LOG_T = 6.0

Scaling = Literal["single", "per_class", "none"]


@dataclass(frozen=True)
class Correction:
    """`temperatures` and `prior` (shares that sum to 1) in the order of the expressions."""

    temperatures: tuple[float, ...] = (1.0,) * CLASSES
    tau: float = 0.0
    prior: tuple[float, ...] = (1.0 / CLASSES,) * CLASSES

    @property
    def temperature(self) -> float | None:
        """The one temperature, where the correction is nothing but that."""
        same = len(set(self.temperatures)) == 1 and self.tau == 0
        return self.temperatures[0] if same else None

    def apply(self, logits: ArrayLike) -> Floats:
        """Corrected logits, `N×7`, of the network's."""
        scaled = np.asarray(logits, np.float64) / np.array(self.temperatures)
        return np.asarray(scaled - self.tau * np.log(np.array(self.prior)), np.float64)

    def probabilities(self, logits: ArrayLike) -> Floats:
        """`N×7` probabilities of the network's logits."""
        return metrics.softmax(self.apply(logits))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; the parts that do nothing are null."""
        named = dict(zip(EXPRESSIONS, self.temperatures, strict=True))
        prior = dict(zip(EXPRESSIONS, self.prior, strict=True))
        return {
            "temperature": self.temperature,
            "temperatures": named,
            "tau": self.tau,
            "prior": prior if self.tau else None,
        }


def one_temperature(temperature: float) -> Correction:
    """Division by a temperature."""
    return Correction((temperature,) * CLASSES)


def temperature_or_one(logits: ArrayLike, labels: Ints) -> float:
    """The temperature of logits `N×7` by NLL; 1 where every row is right and no finite one suits.

    A small or easy split may be so, and that must not end a run.
    """
    try:
        return metrics.fit_temperature(logits, labels)
    except ValueError:
        return 1.0


def class_temperatures(logits: ArrayLike, labels: Ints) -> tuple[float, ...]:
    """T_c > 0 that minimise the NLL of softmax(z_c / T_c), found by L-BFGS over log T_c.

    Raises `ValueError` where there is no finite minimum, as when a class has no rows.
    """
    start = np.log(metrics.fit_temperature(logits, labels))
    scores = torch.from_numpy(np.asarray(logits, np.float64))
    truth = torch.from_numpy(np.asarray(labels, np.int64))
    log_t = torch.full((CLASSES,), float(start), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [log_t], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-13,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(scores * torch.exp(-log_t), truth)
        value.backward()
        return value

    optimiser.step(loss)
    found = log_t.detach().numpy()
    if not np.isfinite(found).all() or np.abs(found).max() > _LARGEST_LOG_T:
        raise ValueError("no finite temperatures per class minimise the loss of these rows")
    return tuple(float(value) for value in np.exp(found))


def adjustment(logits: ArrayLike, labels: Ints, prior: ArrayLike) -> float:
    """τ of `TAUS` with the best macro-F1 of argmax(z − τ·log π); the smallest of equals."""
    scores, shift = np.asarray(logits, np.float64), np.log(np.asarray(prior, np.float64))
    found = [
        metrics.per_class(labels, (scores - tau * shift).argmax(axis=1), CLASSES).f1.mean()
        for tau in TAUS
    ]
    return float(TAUS[int(np.argmax(found))])


def fit(
    logits: ArrayLike, labels: Ints, scaling: Scaling, train_labels: Ints | None = None
) -> Correction:
    """The correction of `scaling`, then logit adjustment if `train_labels` are given.

    `logits` `N×7` and `labels` `N` are the rows to fit on. Raises `ValueError` where no finite
    temperature suits them, or where a class has no training rows to take its share from.
    """
    temperatures = (1.0,) * CLASSES
    if scaling == "single":
        temperatures = (metrics.fit_temperature(logits, labels),) * CLASSES
    elif scaling == "per_class":
        temperatures = class_temperatures(logits, labels)
    scaled = Correction(temperatures)
    if train_labels is None:
        return scaled
    counts = np.bincount(train_labels, minlength=CLASSES)
    if not counts.all():
        raise ValueError(f"no training row is '{EXPRESSIONS[int(counts.argmin())]}'")
    prior = counts / counts.sum()
    tau = adjustment(scaled.apply(logits), labels, prior)
    return Correction(temperatures, tau, tuple(prior.tolist()))
