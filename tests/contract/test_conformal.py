"""Conformal sets: golden quantiles by hand, and the promise they make kept on made-up data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import conformal
from contract.expressions import EXPRESSIONS
from contract.metrics import softmax


def rows(of_label: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Two-class rows whose label, always 0, has these probabilities."""
    p = np.array(of_label)
    return np.zeros(len(p), np.int64), np.stack([p, 1 - p], axis=1)


NINE = [0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4, 0.5]


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (0.1, 0.9),  # ⌈10 · 0.9⌉ = 9th of nine scores
        (0.2, 0.8),  # 8th
        (0.25, 0.8),  # ⌈7.5⌉ = 8th
        (0.5, 0.5),
        (0.7, 0.3),  # 3rd; 10 · (1 − 0.7) in binary is above 3 and would give the 4th
        (0.99, 0.1),
    ],
)
def test_the_quantile_by_hand(alpha: float, expected: float) -> None:
    assert conformal.fit_quantile(*rows(NINE), alpha) == pytest.approx(expected)


@pytest.mark.parametrize(("alpha", "need"), [(0.1, 9), (0.05, 19), (0.01, 99), (0.3, 3)])
def test_too_few_rows_for_alpha(alpha: float, need: int) -> None:
    assert conformal.least_rows(alpha) == need
    conformal.fit_quantile(*rows([0.5] * need), alpha)
    with pytest.raises(ValueError, match=f"{need - 1} rows are too few .* takes {need}"):
        conformal.fit_quantile(*rows([0.5] * (need - 1)), alpha)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan"), float("inf")])
def test_an_alpha_that_is_none(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal.fit_quantile(*rows(NINE), alpha)


def test_sets_and_figures_by_hand() -> None:
    p = np.zeros((4, 7))
    p[0, :2] = 0.6, 0.4  # {0}: right
    p[1, :2] = 0.5, 0.5  # {0, 1}: right
    p[2] = 1 / 7  # {}: wrong
    p[3, 3] = 1.0  # {3}: wrong, the label is 4
    labels = np.array([0, 1, 2, 4])
    assert conformal.sets(p, 0.5).sum(axis=1).tolist() == [1, 2, 0, 1]
    found = conformal.measure(labels, p, 0.5)
    assert (found.n, found.coverage, found.mean_set_size) == (4, 0.5, 1.0)
    assert (found.singletons, found.empty) == (0.5, 0.25)
    expected = [1.0, 1.0, 0.0, None, 0.0, None, None]
    assert found.class_coverage == dict(zip(EXPRESSIONS, expected, strict=True))
    assert found.to_json()["coverage"] == 0.5
    with pytest.raises(ValueError, match="no rows"):
        conformal.measure(labels[:0], p[:0], 0.5)


def exchangeable(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a poor and over-confident model."""
    labels = rng.integers(0, 7, n)
    return labels, softmax(3 * (rng.normal(0, 1, (n, 7)) + 1.0 * np.eye(7)[labels]))


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_coverage_is_as_promised_whatever_the_model(alpha: float) -> None:
    """Over many divisions of exchangeable rows the mean coverage is 1 − α, and no more than
    1 − α + 1 / (n + 1)."""
    rng = np.random.default_rng(5)
    n, m, times = 60, 200, 1500
    labels, p = exchangeable(rng, times * (n + m))
    scores = (1 - p[np.arange(len(labels)), labels]).reshape(times, n + m)
    covered = []
    for number in range(times):
        own = slice(number * (n + m), number * (n + m) + n)
        quantile = conformal.fit_quantile(labels[own], p[own], alpha)
        covered.append((scores[number, n:] <= quantile).mean())
    error = np.std(covered) / np.sqrt(times)
    assert 1 - alpha - 4 * error <= np.mean(covered) <= 1 - alpha + 1 / (n + 1) + 4 * error


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(20, 200), st.floats(0.05, 0.95))
def test_the_rows_fitted_on_are_covered_and_a_smaller_alpha_makes_larger_sets(
    seed: int, n: int, alpha: float
) -> None:
    labels, p = exchangeable(np.random.default_rng(seed), n)
    quantile = conformal.fit_quantile(labels, p, alpha)
    found = conformal.measure(labels, p, quantile)
    assert found.coverage >= 1 - alpha - 1e-9
    larger = conformal.fit_quantile(labels, p, max(0.05, alpha / 2))
    assert larger >= quantile
    assert (conformal.sets(p, larger) >= conformal.sets(p, quantile)).all()
