"""What the INT8 model's confidences are worth, and what is shown of them.

Everything is fitted on the rows ranges came from and reported on the gate's. What the box does with
it: logits ÷ temperature become probabilities, which are averaged over time; an expression is shown
if it is the top one and reaches both the abstention threshold and its class's own; otherwise the
label is "uncertain". Here each row is one image, without the averaging.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract import metrics
from contract.expressions import EXPRESSIONS
from contract.metrics import Floats, Ints, fit_temperature, softmax

CURVE_POINTS = 20

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Options:
    """What the thresholds are to reach, and how many rows they must rest on."""

    precision_floor: float = 0.7
    """Least precision of the rows shown as a class."""
    accuracy_target: float = 0.85
    """Accuracy of the rows answered that abstention is to reach."""
    least_shown: int = 20
    """Fewest rows shown as a class that a threshold may be fitted on."""
    least_coverage: float = 0.5
    """Smallest share of rows answered that the abstention threshold may leave."""


@dataclass(frozen=True)
class ClassFit:
    """One class's threshold and, on the rows it was fitted on, what it does.

    `reached` is whether the precision floor holds there; `shown` counts the rows shown as the class
    and `fitted` is False where they were too few to choose by.
    """

    threshold: float
    precision: float
    recall: float
    shown: int
    reached: bool
    fitted: bool


@dataclass(frozen=True)
class Confidences:
    """What goes into the bundle, with how it came to be. `n` rows were fitted on."""

    n: int
    temperature: float
    temperature_from: str
    abstain_threshold: float
    abstain_reached: bool
    classes: dict[str, ClassFit]
    options: Options

    @property
    def class_thresholds(self) -> dict[str, float]:
        """The thresholds above the abstention threshold, by class: a bundle needs no others."""
        return {
            name: fit.threshold
            for name, fit in self.classes.items()
            if fit.threshold > self.abstain_threshold
        }


@dataclass(frozen=True)
class Point:
    """Answering only rows of at least `threshold` confidence: share answered, accuracy of those."""

    coverage: float
    accuracy: float
    threshold: float


@dataclass(frozen=True)
class Shown:
    """Rows of other images, shown or not by the thresholds.

    `accuracy` is of the rows shown (None: there are none); `macro_f1` counts a row not shown as
    missed. The `all_` figures are with every row answered. `precision`, `recall` and `count` are of
    the rows shown as each class.
    """

    n: int
    coverage: float
    accuracy: float | None
    macro_f1: float
    all_accuracy: float
    all_macro_f1: float
    ece: float
    nll: float
    aurc: float
    precision: dict[str, float]
    recall: dict[str, float]
    count: dict[str, int]
    curve: tuple[Point, ...]


def temperature_of(logits: NDArray[np.float32], labels: Ints, kept: float) -> tuple[float, str]:
    """The temperature fitted on these rows, or `kept` where they have none, and which it was."""
    try:
        return fit_temperature(logits, labels), f"fitted on {len(labels)} answers"
    except ValueError as error:
        return kept, f"the float bundle's: {error}"


def _steps(confidence: Floats, right: Bools) -> tuple[Floats, Ints, Ints]:
    """Distinct confidences, highest first, with the rows at or above each, and how many are right.

    Rows of equal confidence are answered together or not at all.
    """
    distinct, step = np.unique(-confidence, return_inverse=True)
    rows = np.bincount(step, minlength=len(distinct)).cumsum()
    hits = np.bincount(step, weights=right, minlength=len(distinct)).cumsum()
    return -distinct, rows, hits.astype(np.int64)


def curve(confidence: Floats, right: Bools, points: int = CURVE_POINTS) -> tuple[Point, ...]:
    """The coverage–accuracy curve, from the surest rows to all of them.

    Of all distinct thresholds those that first reach a coverage of 1/points, 2/points … 1.
    """
    threshold, rows, hits = _steps(confidence, right)
    wanted = np.arange(1, points + 1) * len(confidence) / points
    # Rounding must not ask for one row more than there are.
    at = np.unique(np.searchsorted(rows, wanted - 1e-9))
    return tuple(
        Point(float(rows[i] / len(confidence)), float(hits[i] / rows[i]), float(threshold[i]))
        for i in at
    )


def aurc(confidence: Floats, right: Bools) -> float:
    """Area under the risk–coverage curve: the mean, over k = 1…N, of the k surest rows' error rate.

    Geifman & El-Yaniv (NeurIPS 2017). Rows of equal confidence count with their mean error, so the
    order of rows changes nothing.
    """
    distinct, step = np.unique(-confidence, return_inverse=True)
    size = np.bincount(step, minlength=len(distinct))
    wrong = np.bincount(step, weights=~right, minlength=len(distinct)) / size
    errors = np.repeat(wrong, size).cumsum()
    return float((errors / np.arange(1, len(confidence) + 1)).mean())


def abstention(
    confidence: Floats, right: Bools, least: float, options: Options
) -> tuple[float, bool]:
    """The threshold under which nothing is said, and whether the accuracy target is reached.

    The lowest one of at least `least` whose answered rows reach `accuracy_target`, among those that
    leave `least_coverage` of the rows answered. Where none does: the one with the best accuracy
    among these. `least` itself where even it leaves fewer.
    """
    threshold, rows, hits = _steps(confidence, right)
    accuracy, lowest = hits / rows, int((threshold >= least).sum()) - 1
    allowed = (threshold >= least) & (rows >= options.least_coverage * len(confidence))
    if not allowed.any():
        return least, lowest >= 0 and bool(accuracy[lowest] >= options.accuracy_target)
    good = allowed & (accuracy >= options.accuracy_target)
    among = good if good.any() else allowed & (accuracy == accuracy[allowed].max())
    chosen = int(np.flatnonzero(among)[-1])
    # Where every row above `least` may stay, `least` says so, not the confidence of some row.
    return (least if chosen == lowest else float(threshold[chosen])), bool(good.any())


def _class_fit(
    confidence: Floats, right: Bools, truth: int, abstain: float, options: Options
) -> ClassFit:
    """The threshold of one class from the rows predicted as it; `truth` rows are of the class."""
    candidate = confidence >= abstain
    confidence, right = confidence[candidate], right[candidate]

    def fit(threshold: float, shown: int, hits: int, fitted: bool) -> ClassFit:
        precision = hits / shown if shown else 0.0
        return ClassFit(
            threshold=threshold,
            precision=precision,
            recall=hits / truth if truth else 0.0,
            shown=shown,
            reached=shown > 0 and precision >= options.precision_floor,
            fitted=fitted,
        )

    if len(confidence) < max(1, options.least_shown):
        return fit(abstain, len(confidence), int(right.sum()), fitted=False)
    threshold, shown, hits = _steps(confidence, right)
    # The lowest step shows every row above the abstention threshold: no threshold of its own.
    threshold = np.append(threshold[:-1], abstain)
    enough = shown >= options.least_shown
    precision, f1 = hits / shown, 2 * hits / (shown + truth)
    good = enough & (precision >= options.precision_floor)
    score, among = (f1, good) if good.any() else (precision, enough)
    best = np.flatnonzero(among & (score == score[among].max()))[-1]
    return fit(float(threshold[best]), int(shown[best]), int(hits[best]), fitted=True)


def fit(
    logits: NDArray[np.float32], labels: Ints, temperature: float, temperature_from: str,
    least_abstain: float, options: Options = Options(),
) -> Confidences:  # fmt: skip
    """Fit the thresholds on `N×7` logits at `temperature`.

    **Abstention** comes first, see `abstention`; `least_abstain` is the float bundle's, below which
    nothing was ever shown. **Each class** then takes, among thresholds at or above it that show at
    least `least_shown` rows, the one with the best F1 whose precision reaches `precision_floor`,
    the lowest on a tie. A row not shown is a miss, and one class's threshold moves no other class's
    F1, so this maximises macro-F1. A class that nowhere reaches the floor takes the threshold with
    the best precision; one with fewer rows takes none of its own.
    """
    p = softmax(logits, temperature)
    predicted, confidence = p.argmax(axis=1), p.max(axis=1)
    right = predicted == labels
    threshold, reached = abstention(confidence, right, least_abstain, options)
    classes = {
        name: _class_fit(
            confidence[predicted == c], right[predicted == c], int((labels == c).sum()),
            threshold, options,
        )
        for c, name in enumerate(EXPRESSIONS)
    }  # fmt: skip
    return Confidences(
        n=len(labels),
        temperature=temperature,
        temperature_from=temperature_from,
        abstain_threshold=threshold,
        abstain_reached=reached,
        classes=classes,
        options=options,
    )


def measure(fitted: Confidences, logits: NDArray[np.float32], labels: Ints) -> Shown:
    """What the fitted temperature and thresholds do on other rows, `N×7` logits."""
    p = softmax(logits, fitted.temperature)
    predicted, confidence = p.argmax(axis=1), p.max(axis=1)
    right = predicted == labels
    own = np.array([fitted.classes[name].threshold for name in EXPRESSIONS])
    shown = confidence >= np.maximum(own, fitted.abstain_threshold)[predicted]
    kept = np.where(shown, predicted, -1)
    before = metrics.per_class(labels, predicted, len(EXPRESSIONS))
    after = metrics.per_class(labels, kept, len(EXPRESSIONS))
    count = np.bincount(predicted[shown], minlength=len(EXPRESSIONS))
    return Shown(
        n=len(labels),
        coverage=float(shown.mean()),
        accuracy=float(right[shown].mean()) if shown.any() else None,
        macro_f1=float(after.f1.mean()),
        all_accuracy=float(right.mean()),
        all_macro_f1=float(before.f1.mean()),
        ece=metrics.ece(labels, p),
        nll=metrics.nll(labels, p),
        aurc=aurc(confidence, right),
        precision=dict(zip(EXPRESSIONS, after.precision.tolist(), strict=True)),
        recall=dict(zip(EXPRESSIONS, after.recall.tolist(), strict=True)),
        count=dict(zip(EXPRESSIONS, count.tolist(), strict=True)),
        curve=curve(confidence, right),
    )
