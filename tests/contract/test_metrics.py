"""Metrics against scikit-learn, and against slow loops that follow the papers word by word."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax as scipy_softmax
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)

from contract import metrics
from contract.expressions import EXPRESSIONS

CLASSES = len(EXPRESSIONS)
seeds = st.integers(0, 2**32 - 1)


def problem(seed: int, rows: int = 200) -> tuple[metrics.Ints, metrics.Floats]:
    """Labels and probabilities that are right about half of the time; not every class occurs."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, rng.integers(2, CLASSES + 1), rows)
    logits = rng.normal(0, 2, (rows, CLASSES))
    logits[np.arange(rows), labels] += 2.0
    return labels, metrics.softmax(logits)


@given(seeds, st.floats(0.05, 50))
def test_softmax_is_scipys(seed: int, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(0, 30, (20, CLASSES))
    ours = metrics.softmax(logits, temperature)
    np.testing.assert_allclose(ours, scipy_softmax(logits / temperature, axis=1), atol=1e-12)


def test_softmax_survives_logits_that_overflow_an_exponential() -> None:
    p = metrics.softmax([[1e4, 0.0, -1e4]])
    np.testing.assert_array_equal(p, [[1.0, 0.0, 0.0]])


@given(seeds, st.integers(1, 200))
def test_accuracy_f1_precision_recall_confusion_are_scikit_learns(seed: int, rows: int) -> None:
    labels, p = problem(seed, rows)
    found = metrics.compute(labels, p, p.argmax(axis=1))
    guess = p.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, guess, labels=range(CLASSES), zero_division=0
    )
    assert found.n == found.n_predicted == rows
    assert found.accuracy == pytest.approx(accuracy_score(labels, guess))
    assert list(found.per_class_precision.values()) == pytest.approx(list(precision))
    assert list(found.per_class_recall.values()) == pytest.approx(list(recall))
    assert list(found.per_class_f1.values()) == pytest.approx(list(f1))
    assert found.macro_f1 == pytest.approx(f1.mean())
    expected = confusion_matrix(labels, guess, labels=range(CLASSES))
    np.testing.assert_array_equal(found.confusion_matrix, expected)
    assert tuple(found.per_class_f1) == EXPRESSIONS


@given(seeds)
def test_a_missed_face_counts_as_wrong(seed: int) -> None:
    """−1 is to scikit-learn an eighth answer that is never right."""
    labels, p = problem(seed)
    guess = p.argmax(axis=1)
    guess[::3] = -1
    found = metrics.compute(labels, p, guess)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, guess, labels=range(CLASSES), zero_division=0
    )
    made = guess >= 0
    assert (found.n, found.n_predicted) == (len(labels), int(made.sum()))
    assert found.accuracy == pytest.approx(accuracy_score(labels, guess))
    assert list(found.per_class_precision.values()) == pytest.approx(list(precision))
    assert list(found.per_class_recall.values()) == pytest.approx(list(recall))
    assert list(found.per_class_f1.values()) == pytest.approx(list(f1))
    assert np.sum(found.confusion_matrix) == found.n_predicted
    # What is about probabilities is about the faces that were seen.
    assert found.nll == pytest.approx(metrics.nll(labels[made], p[made]))
    assert found.ece == pytest.approx(metrics.ece(labels[made], p[made]))


def test_no_prediction_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="no row has a prediction"):
        metrics.compute([0, 1], np.full((2, CLASSES), 1 / CLASSES), [-1, -1])
    with pytest.raises(ValueError, match="no row has a prediction"):
        metrics.compute([], np.zeros((0, CLASSES)), [])


@given(seeds)
def test_nll_is_scikit_learns_log_loss(seed: int) -> None:
    labels, p = problem(seed)
    expected = log_loss(labels, p, labels=range(CLASSES))
    assert metrics.nll(labels, p) == pytest.approx(expected)


def test_nll_of_an_impossible_label_is_large_but_finite() -> None:
    assert metrics.nll(np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx(12 * np.log(10))


def test_brier_by_hand() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]])
    # (0.3² + 0.2² + 0.1²) and (0.5² + 0.5² + 1²)
    assert metrics.brier(np.array([0, 2]), p) == pytest.approx((0.14 + 1.5) / 2)


def slow_ece(confidence: metrics.Floats, correct: metrics.Floats, bins: int) -> float:
    """Guo et al. (2017), equations 2 and 3: bins ((m−1)/M, m/M]."""
    total = 0.0
    for m in range(1, bins + 1):
        low, high = (m - 1) / bins, m / bins
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (m == 1 and c == 0.0)]
        if inside:
            share_right = sum(correct[i] for i in inside) / len(inside)
            mean = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(share_right - mean)
    return total


@given(seeds, st.integers(1, 40), st.integers(1, 300))
def test_ece_is_the_papers(seed: int, bins: int, rows: int) -> None:
    labels, p = problem(seed, rows)
    right = (p.argmax(axis=1) == labels).astype(float)
    assert metrics.ece(labels, p, bins) == pytest.approx(slow_ece(p.max(axis=1), right, bins))


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin() -> None:
    # Four bins. In one bin 0.75 (wrong) and 0.7 (right) leave |0.5 − 0.725|; in two they would
    # leave (0.75 + 0.3) / 2.
    p = np.array([[0.75, 0.25], [0.7, 0.3]])
    assert metrics.ece(np.array([1, 0]), p, bins=4) == pytest.approx(0.225)


def test_ece_of_perfect_and_of_blind_confidence() -> None:
    sure = np.eye(CLASSES)[[0, 1, 2, 3]]
    assert metrics.ece(np.array([0, 1, 2, 3]), sure) == 0.0
    assert metrics.ece(np.array([1, 2, 3, 4]), sure) == 1.0


@given(seeds, st.integers(1, 40), st.integers(1, 300))
def test_adaptive_ece_has_bins_of_equal_counts(seed: int, bins: int, rows: int) -> None:
    labels, p = problem(seed, rows)
    confidence, right = p.max(axis=1), (p.argmax(axis=1) == labels).astype(float)
    order = sorted(range(rows), key=lambda i: confidence[i])
    members: list[list[int]] = [[] for _ in range(bins)]
    for rank, i in enumerate(order):
        members[rank * bins // rows].append(i)
    sizes = [len(inside) for inside in members]
    assert max(sizes) - min(sizes) <= 1
    expected = 0.0
    for inside in filter(None, members):
        gap = sum(right[i] for i in inside) - sum(confidence[i] for i in inside)
        expected += abs(gap) / rows
    assert metrics.adaptive_ece(labels, p, bins) == pytest.approx(expected)


@given(seeds, st.integers(1, 40), st.integers(1, 300))
def test_classwise_ece_is_the_mean_over_classes(seed: int, bins: int, rows: int) -> None:
    labels, p = problem(seed, rows)
    each = [slow_ece(p[:, c], (labels == c).astype(float), bins) for c in range(CLASSES)]
    assert metrics.classwise_ece(labels, p, bins) == pytest.approx(sum(each) / CLASSES)


def test_share_over_095_counts_only_what_is_above() -> None:
    rest = 0.05 / (CLASSES - 1)
    sure = np.full(CLASSES, 0.04 / (CLASSES - 1))
    sure[0] = 0.96
    edge = np.full(CLASSES, rest)
    edge[0] = 0.95
    found = metrics.compute([0, 0, 0, 1], [sure, edge, edge, sure], [0, 0, 0, 0])
    assert found.share_over_095 == 0.5


def test_the_json_form_is_plain_and_complete() -> None:
    labels, p = problem(0)
    content = metrics.compute(labels, p, p.argmax(axis=1)).to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert set(content) >= {
        "n", "accuracy", "macro_f1", "per_class_f1", "nll", "brier", "ece", "adaptive_ece",
        "classwise_ece", "share_over_095", "confusion_matrix",
    }  # fmt: skip
