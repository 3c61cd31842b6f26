"""Corrections: what SciPy finds for the same loss, and what the formula says by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import f1_score

from contract.expressions import EXPRESSIONS
from tests.trainer.answers import answers
from trainer.predictions import Predictions
from trainer.reliability import (
    TAUS,
    Correction,
    adjustment,
    class_temperatures,
    fit,
    one_temperature,
)

CLASSES = len(EXPRESSIONS)


def biased(count: int, seed: int) -> Predictions:
    """A model that has learnt to say the frequent classes rather too often."""
    p = answers(count, seed, split="calib")
    share = np.bincount(p.labels, minlength=CLASSES) / count
    return replace(p, logits=(p.logits + 1.5 * np.log(share)).astype(np.float32))


def nll(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def test_one_temperature_is_scipys() -> None:
    p = answers(500)
    z = p.logits.astype(float)
    best = minimize_scalar(lambda t: nll(z / np.exp(t), p.labels), bounds=(-3, 3), method="bounded")
    made = fit(p.logits, p.labels, "single")
    assert made.temperature == pytest.approx(np.exp(best.x), rel=1e-4)
    assert made.tau == 0
    np.testing.assert_allclose(
        made.probabilities(z), softmax(z / np.exp(best.x), axis=1), atol=1e-4
    )


def test_temperatures_per_class_are_scipys() -> None:
    p = answers(300, seed=3)
    z = p.logits.astype(float)
    best = minimize(lambda t: nll(z / np.exp(t), p.labels), np.zeros(CLASSES), method="BFGS")
    np.testing.assert_allclose(class_temperatures(z, p.labels), np.exp(best.x), rtol=2e-3)


def test_temperatures_per_class_that_made_the_labels_are_found() -> None:
    """Labels drawn from softmax(z_c / T_c) give back T_c."""
    truth = np.array([0.5, 0.8, 1.0, 1.3, 2.0, 1.0, 0.7])
    rng = np.random.default_rng(0)
    z = rng.normal(0, 3, (20_000, CLASSES))
    draws = rng.random((len(z), 1))
    labels = (softmax(z / truth, axis=1).cumsum(1) < draws).sum(1)
    np.testing.assert_allclose(class_temperatures(z, labels), truth, rtol=0.07)


@given(st.integers(0, 10_000))
@settings(max_examples=8)
def test_more_temperatures_never_fit_worse(seed: int) -> None:
    p = answers(400, seed)
    single = fit(p.logits, p.labels, "single").apply(p.logits)
    several = fit(p.logits, p.labels, "per_class").apply(p.logits)
    assert nll(several, p.labels) <= nll(single, p.labels) + 1e-9
    assert nll(single, p.labels) <= nll(p.logits.astype(float), p.labels) + 1e-9


def test_adjusting_by_1_takes_the_prior_out() -> None:
    """From a posterior under π to the one under equal priors, by Bayes' rule."""
    prior = np.array([0.3, 0.02, 0.08, 0.2, 0.1, 0.1, 0.2])
    likelihood = np.random.default_rng(0).random((50, CLASSES))
    posterior = likelihood * prior
    posterior /= posterior.sum(1, keepdims=True)
    expected = likelihood / likelihood.sum(1, keepdims=True)
    made = Correction(tau=1.0, prior=tuple(prior))
    np.testing.assert_allclose(made.probabilities(np.log(posterior)), expected)


def test_tau_is_the_one_with_the_best_macro_f1() -> None:
    p = biased(600, seed=5)
    prior = np.bincount(p.labels, minlength=CLASSES) / len(p)
    z = p.logits.astype(float)
    scores = [
        f1_score(p.labels, (z - tau * np.log(prior)).argmax(1), average="macro") for tau in TAUS
    ]
    found = adjustment(z, p.labels, prior)
    assert found == TAUS[int(np.argmax(scores))]
    assert max(scores) > scores[0], "rows on which adjusting helps"
    assert found > 0


def test_where_no_adjustment_helps_there_is_none() -> None:
    labels = np.arange(70) % CLASSES
    z = 20.0 * np.eye(CLASSES)[labels]
    assert adjustment(z, labels, [0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.1]) == 0


@pytest.mark.parametrize("scaling", ["none", "single", "per_class"])
def test_temperatures_come_first_then_the_adjustment(scaling: str) -> None:
    calib, train = biased(600, seed=5), answers(3000, seed=6).labels
    made = fit(calib.logits, calib.labels, scaling, train)  # type: ignore[arg-type]
    alone = fit(calib.logits, calib.labels, scaling)  # type: ignore[arg-type]
    prior = np.bincount(train, minlength=CLASSES) / len(train)
    assert made.temperatures == alone.temperatures
    assert made.prior == pytest.approx(tuple(prior))
    assert made.tau == adjustment(alone.apply(calib.logits), calib.labels, prior) > 0
    expected = calib.logits / np.array(alone.temperatures) - made.tau * np.log(prior)
    np.testing.assert_allclose(made.apply(calib.logits), expected, rtol=1e-5, atol=1e-5)
    assert made.temperature is None, "one temperature does not say it all"


def test_only_a_plain_temperature_is_called_one() -> None:
    assert one_temperature(1.7).temperature == 1.7
    assert Correction().temperature == 1.0
    assert Correction((1.0,) * 6 + (2.0,)).temperature is None
    assert Correction(tau=0.5).temperature is None
    assert one_temperature(1.7).to_json() == {
        "temperature": 1.7,
        "temperatures": dict.fromkeys(EXPRESSIONS, 1.7),
        "tau": 0.0,
        "prior": None,
    }


def test_what_cannot_be_fitted_is_refused() -> None:
    labels = np.arange(70) % CLASSES
    right = 5.0 * np.eye(CLASSES)[labels]
    for scaling in ("single", "per_class"):
        with pytest.raises(ValueError, match="no finite"):
            fit(right, labels, scaling)
    p = answers(300)
    without = p.labels != 2
    with pytest.raises(ValueError, match="no training row is 'fear'"):
        fit(p.logits, p.labels, "single", p.labels[without])
