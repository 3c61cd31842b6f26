"""How sure a figure of a set of rows is: percentile intervals of the bootstrap over the rows.

After Efron & Tibshirani (An Introduction to the Bootstrap, 1993), with seeded resamples. What is
compared is resampled together, so that a difference is taken over the same rows. Those of
calibration errors are moved by the bootstrap's estimate of its own bias: a resample repeats rows
and always looks worse calibrated than the rows it came from, and unmoved the interval would not
hold the figure itself. Two things intervals do not cover: another training seed, and another
temperature (it stays as fitted).
"""

from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from contract import metrics
from contract.expressions import EXPRESSIONS
from contract.metrics import Floats, Ints

RESAMPLES = 1000
SPAN = (0.025, 0.975)
Interval = tuple[float, float]


def bootstrap(
    statistic: Callable[[Ints], Mapping[str, float]], count: int, seed: int, times: int,
    biased: Collection[str] = (),
) -> dict[str, Interval]:  # fmt: skip
    """95 % interval of every value of `statistic` over `times` resamples of `count` rows.

    `statistic` gets the numbers of the rows drawn; intervals of the values named in `biased` are
    moved by the difference between the value and its mean over the resamples.
    """
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(0, count, count)) for _ in range(times)]
    found = {}
    for name, value in statistic(np.arange(count)).items():
        values = np.array([each[name] for each in drawn])
        bias = values.mean() - value if name in biased else 0.0
        low, high = np.quantile(values, SPAN) - bias
        found[name] = (float(low), float(high))
    return found


def mean_interval(values: NDArray[np.float64], seed: int) -> Interval:
    """95 % interval of the mean of one value per row, such as a paired difference."""
    mean = bootstrap(
        lambda rows: {"mean": float(values[rows].mean())}, len(values), seed, RESAMPLES
    )
    return mean["mean"]


def within(interval: Interval) -> Interval:
    """An interval of a figure that is never negative."""
    return max(0.0, interval[0]), max(0.0, interval[1])


def metric_intervals(
    labels: Ints, probabilities: Floats, predicted: Ints, seed: int
) -> dict[str, Interval]:
    """95 % intervals of the main figures of `N` rows, as `contract.metrics.compute` defines them.

    A row without a prediction (−1) is wrong, and has no part in NLL, Brier and ECE. At least one
    row has a prediction.
    """

    seen = np.flatnonzero(predicted >= 0)
    truth, p = labels[seen], probabilities[seen]

    def decisions(rows: Ints) -> dict[str, float]:
        f1 = metrics.per_class(labels[rows], predicted[rows], len(EXPRESSIONS)).f1
        return {
            "accuracy": metrics.accuracy(labels[rows], predicted[rows]),
            "macro_f1": float(f1.mean()),
            **{f"f1_{name}": float(value) for name, value in zip(EXPRESSIONS, f1, strict=True)},
        }

    def confidences(rows: Ints) -> dict[str, float]:
        return {
            "nll": metrics.nll(truth[rows], p[rows]),
            "brier": metrics.brier(truth[rows], p[rows]),
            "ece": metrics.ece(truth[rows], p[rows]),
        }

    found = bootstrap(decisions, len(labels), seed, RESAMPLES)
    found |= bootstrap(confidences, len(seen), seed, RESAMPLES, biased=("ece",))
    return {name: within(interval) for name, interval in found.items()}
