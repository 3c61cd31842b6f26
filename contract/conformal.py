"""Split-conformal sets: instead of one label a set that holds the right one as often as promised.

Fitted on rows the model has not seen, reported on others. If both are exchangeable, a set misses
the label with a probability of at most alpha, whatever the model (Vovk et al., 2005). The score is
1 − p(label), which makes the smallest sets on average (Sadinle, Lei & Wasserman, JASA 2019); it
promises coverage over all rows, not for each class, which is therefore reported.

Shapes: `labels` is `N` integers, `probabilities` is `N×C`.
"""

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.expressions import EXPRESSIONS
from contract.metrics import Floats, Ints


def least_rows(alpha: float) -> int:
    """The fewest rows a quantile for `alpha` can be taken from. Raises `ValueError` outside 0…1."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha:g} is not between 0 and 1")
    return math.ceil(1 / Fraction(str(alpha))) - 1


def fit_quantile(labels: Ints, probabilities: Floats, alpha: float) -> float:
    """The ⌈(n + 1)(1 − alpha)⌉-th smallest score 1 − p(label) of `n` rows.

    Raises `ValueError` for an alpha outside 0…1, or too small for so few rows: the rank would be
    beyond the last score, and only the set of all labels could keep the promise.
    """
    need = least_rows(alpha)
    if len(labels) < need:
        raise ValueError(f"{len(labels)} rows are too few for alpha {alpha:g}: it takes {need}")
    # In decimals as written: in binary, 10 × (1 − 0.7) is a little more than 3.
    rank = math.ceil((len(labels) + 1) * (1 - Fraction(str(alpha))))
    scores = 1 - probabilities[np.arange(len(labels)), labels]
    return float(np.partition(scores, rank - 1)[rank - 1])


def sets(probabilities: Floats, quantile: float) -> NDArray[np.bool_]:
    """`N×C`: the labels whose score is at most the quantile. A set may be empty."""
    return np.asarray(1 - probabilities <= quantile)


@dataclass(frozen=True)
class Conformal:
    """Sets on `n` rows, all shares of these rows.

    `coverage` is how often the label is in its set, by class in `class_coverage` (None: no rows of
    it). `singletons` are sets of one label, `empty` those of none.
    """

    n: int
    coverage: float
    class_coverage: dict[str, float | None]
    mean_set_size: float
    singletons: float
    empty: float

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)


def measure(labels: Ints, probabilities: Floats, quantile: float) -> Conformal:
    """What sets by `quantile` are like on these rows, of the seven expressions.

    Raises `ValueError` for no rows.
    """
    if not len(labels):
        raise ValueError("no rows to report on")
    given = sets(probabilities, quantile)
    covered, size = given[np.arange(len(labels)), labels], given.sum(axis=1)
    of_class = {name: covered[labels == number] for number, name in enumerate(EXPRESSIONS)}
    return Conformal(
        n=len(labels),
        coverage=float(covered.mean()),
        class_coverage={
            name: float(rows.mean()) if len(rows) else None for name, rows in of_class.items()
        },
        mean_set_size=float(size.mean()),
        singletons=float((size == 1).mean()),
        empty=float((size == 0).mean()),
    )
