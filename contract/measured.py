"""What answers to labelled images come to: every metric, how sure it is, by source, and how right
the surest of them are. The same for a card, a bundle and a result file.

`contract/intervals.py` says what the intervals cover.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract import metrics
from contract.intervals import metric_intervals
from contract.metrics import Floats, Ints

SEED = 1337
"""Of the bootstrap, so that the same answers have the same intervals."""
KEPT = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the rows, the surest, for which the accuracy is told."""


def _figures(labels: Ints, p: Floats, predicted: Ints) -> dict[str, Any]:
    if (predicted < 0).all():
        return {"n": len(labels), "n_predicted": 0, "accuracy": 0.0}
    return {
        **metrics.compute(labels, p, predicted).to_json(),
        "intervals": metric_intervals(labels, p, predicted, SEED),
    }


def coverage_curve(labels: Ints, p: Floats, predicted: Ints) -> list[dict[str, float]]:
    """Accuracy of the surest shares of the rows, and the confidence such a share begins at.

    A missed face is the least sure of all.
    """
    sure = np.where(predicted >= 0, p.max(axis=1), 0.0)
    order = np.argsort(-sure, kind="stable")
    right = (predicted == labels)[order]
    counts = [max(1, round(share * len(order))) for share in KEPT]
    return [
        {
            "coverage": count / len(order),
            "accuracy": float(right[:count].mean()),
            "confidence": float(sure[order[count - 1]]),
        }
        for count in counts
    ]


def measured(labels: Ints, p: Floats, predicted: Ints, sources: Sequence[str]) -> dict[str, Any]:
    """The fields of `contract.metrics.Metrics` of `N` rows with 95 % `intervals`, `coverage`, and
    `by_source` both for each source, as JSON values.

    Probabilities are `N×7`, `predicted` is −1 for a face that was missed.
    """
    of = np.array(sources)

    def only(rows: NDArray[np.bool_]) -> dict[str, Any]:
        return _figures(labels[rows], p[rows], predicted[rows])

    return {
        **_figures(labels, p, predicted),
        "coverage": coverage_curve(labels, p, predicted),
        "by_source": {name: only(of == name) for name in sorted(set(sources))},
    }
