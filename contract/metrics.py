"""Classification and calibration metrics, in numpy, the same for every stage.

Shapes throughout: `labels` is `N` integers in 0…C−1, `probabilities` is `N×C` with rows that sum to
1, `predicted` is `N` integers, with −1 for "no prediction" (a face the detector missed), which is
never right. Confidence is the largest probability of a row.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contract.expressions import EXPRESSIONS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def softmax(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """`N×C` logits → probabilities at `temperature`, in float64."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    exponent = np.exp(scaled)
    return np.asarray(exponent / exponent.sum(axis=-1, keepdims=True))


def accuracy(labels: Ints, predicted: Ints) -> float:
    """Share of rows whose prediction is the label."""
    return float(np.mean(labels == predicted))


def confusion_matrix(labels: Ints, predicted: Ints, classes: int) -> Ints:
    """`C×C` counts, rows are labels, columns are predictions; rows predicted −1 are left out."""
    made = predicted >= 0
    flat = labels[made] * classes + predicted[made]
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class PerClass:
    """Precision, recall and F1, `C` values each; 0 where undefined, as in scikit-learn."""

    precision: Floats
    recall: Floats
    f1: Floats


def per_class(labels: Ints, predicted: Ints, classes: int) -> PerClass:
    """Precision, recall and F1 of each class; a missing prediction counts against recall."""
    matrix = confusion_matrix(labels, predicted, classes)
    hits = np.diag(matrix).astype(np.float64)
    given = matrix.sum(axis=0)
    truth = np.bincount(labels, minlength=classes)
    precision = np.divide(hits, given, out=np.zeros(classes), where=given > 0)
    recall = np.divide(hits, truth, out=np.zeros(classes), where=truth > 0)
    f1 = np.divide(2 * hits, given + truth, out=np.zeros(classes), where=(given + truth) > 0)
    return PerClass(precision, recall, f1)


def nll(labels: Ints, probabilities: Floats) -> float:
    """Mean negative log-likelihood of the label, in nats; probabilities are floored at 1e-12."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())


def brier(labels: Ints, probabilities: Floats) -> float:
    """Multi-class Brier score: mean over rows of the squared distance to the one-hot label."""
    of_label = probabilities[np.arange(len(labels)), labels]
    squares = np.einsum("ij,ij->i", probabilities, probabilities)
    return float((squares - 2 * of_label + 1).mean())


def _binned_gap(confidence: Floats, correct: Floats, bin_of: Ints, bins: int) -> float:
    count = np.bincount(bin_of, minlength=bins)
    gap = np.bincount(bin_of, confidence - correct, minlength=bins)
    return float(np.abs(gap[count > 0]).sum()) / len(confidence)


def _top(labels: Ints, probabilities: Floats) -> tuple[Floats, Floats]:
    """Confidence and correctness (0 or 1) of each row's top label."""
    guess = probabilities.argmax(axis=1)
    return probabilities[np.arange(len(guess)), guess], (guess == labels).astype(np.float64)


def _equal_width(values: Floats, bins: int) -> Ints:
    """Bins (0, 1/b], (1/b, 2/b], …; the edge belongs to the lower bin, as in Guo et al."""
    return np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)


def ece(labels: Ints, probabilities: Floats, bins: int = 15) -> float:
    """Expected calibration error of the top label over equal-width bins (Guo et al., 2017)."""
    confidence, correct = _top(labels, probabilities)
    return _binned_gap(confidence, correct, _equal_width(confidence, bins), bins)


def adaptive_ece(labels: Ints, probabilities: Floats, bins: int = 15) -> float:
    """ECE over bins that hold equally many rows (Nguyen & O'Connor, 2015)."""
    confidence, correct = _top(labels, probabilities)
    rank = np.empty(len(labels), np.int64)
    rank[np.argsort(confidence, kind="stable")] = np.arange(len(labels))
    return _binned_gap(confidence, correct, rank * bins // len(labels), bins)


def classwise_ece(labels: Ints, probabilities: Floats, bins: int = 15) -> float:
    """Mean over classes of the ECE of "is it this class" (Kull et al., 2019)."""
    classes = probabilities.shape[1]
    gaps = [
        _binned_gap(column, (labels == c).astype(np.float64), _equal_width(column, bins), bins)
        for c, column in enumerate(probabilities.T)
    ]
    return float(sum(gaps) / classes)


def fit_temperature(logits: ArrayLike, labels: Ints) -> float:
    """The temperature T > 0 that minimises NLL of softmax(logits / T) (Guo et al., 2017).

    Searches log T without bounds: a bracket grows until it holds the minimum (NLL has one in T),
    then golden-section search narrows it to 1e-7. Raises `ValueError` where there is no finite
    minimum, as when every row is right.
    """
    scores = np.asarray(logits, np.float64)

    def loss(log_t: float) -> float:
        scaled = scores / np.exp(log_t)
        top = scaled.max(axis=1)
        log_sum = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((log_sum - scaled[np.arange(len(labels)), labels]).mean())

    step, middle = 0.5, 0.0
    value = loss(middle)
    while True:
        left, right = loss(middle - step), loss(middle + step)
        if value < left and value <= right:  # a tie has the minimum between the two
            break
        if abs(middle) > 15 or value == left == right:
            raise ValueError("no finite temperature minimises the loss of these rows")
        if left <= value:
            middle, value = middle - step, left
        else:
            middle, value = middle + step, right
    low, high = middle - step, middle + step
    ratio = (np.sqrt(5.0) - 1) / 2
    while high - low > 1e-7:
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return float(np.exp((low + high) / 2))


@dataclass(frozen=True)
class Metrics:
    """Every metric of one set of rows. `n_predicted` < `n` where a face was missed.

    Accuracy, macro-F1 and the per-class values are over all `n` rows, with a missed face counted as
    wrong; NLL, Brier and the calibration errors are over the `n_predicted` rows that have
    probabilities.
    """

    n: int
    n_predicted: int
    accuracy: float
    macro_f1: float
    per_class_f1: dict[str, float]
    per_class_precision: dict[str, float]
    per_class_recall: dict[str, float]
    nll: float
    brier: float
    ece: float
    adaptive_ece: float
    classwise_ece: float
    share_over_095: float
    confusion_matrix: list[list[int]]

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)


def compute(labels: ArrayLike, probabilities: ArrayLike, predicted: ArrayLike) -> Metrics:
    """All metrics of `N` rows over the seven expressions.

    Raises `ValueError` for no rows, or none with a prediction.
    """
    truth = np.asarray(labels, np.int64)
    p = np.asarray(probabilities, np.float64)
    guess = np.asarray(predicted, np.int64)
    made = guess >= 0
    if not made.any():
        raise ValueError("no row has a prediction")
    classes = len(EXPRESSIONS)
    by_class = per_class(truth, guess, classes)
    seen, seen_p = truth[made], p[made]

    def named(values: Floats) -> dict[str, float]:
        return {name: float(value) for name, value in zip(EXPRESSIONS, values, strict=True)}

    return Metrics(
        n=len(truth),
        n_predicted=int(made.sum()),
        accuracy=accuracy(truth, guess),
        macro_f1=float(by_class.f1.mean()),
        per_class_f1=named(by_class.f1),
        per_class_precision=named(by_class.precision),
        per_class_recall=named(by_class.recall),
        nll=nll(seen, seen_p),
        brier=brier(seen, seen_p),
        ece=ece(seen, seen_p),
        adaptive_ece=adaptive_ece(seen, seen_p),
        classwise_ece=classwise_ece(seen, seen_p),
        share_over_095=float((seen_p.max(axis=1) > 0.95).mean()),
        confusion_matrix=confusion_matrix(truth, guess, classes).tolist(),
    )
