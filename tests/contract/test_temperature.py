"""The fitted temperature against SciPy's minimiser: never clamped, never invented."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from contract.metrics import Floats, Ints, fit_temperature

seeds = st.integers(0, 2**32 - 1)


def loss_at(logits: Floats, labels: Ints, temperature: float) -> float:
    return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())


def drawn(seed: int, temperature: float, rows: int = 400) -> tuple[Floats, Ints]:
    """Logits `temperature` times as large as the truth from which the labels are drawn."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 1.5, (rows, 7))
    labels = (honest + rng.gumbel(size=honest.shape)).argmax(axis=1)
    return honest * temperature, labels


@given(seeds, st.floats(0.01, 100))
def test_it_is_scipys_minimum_on_log_t(seed: int, scale: float) -> None:
    logits, labels = drawn(seed, scale)
    found = fit_temperature(logits, labels)
    near = np.log(scale)
    expected = minimize_scalar(
        lambda log_t: loss_at(logits, labels, float(np.exp(log_t))),
        bounds=(near - 4, near + 4),
        method="bounded",
        options={"xatol": 1e-8},
    )
    assert np.log(found) == pytest.approx(expected.x, abs=1e-4)
    assert loss_at(logits, labels, found) <= expected.fun + 1e-12


@pytest.mark.parametrize("true", [0.002, 0.05, 1.0, 5.0, 30.0, 2000.0])
def test_a_temperature_far_from_one_is_found_and_not_clamped(true: float) -> None:
    logits, labels = drawn(1, true, rows=20_000)
    assert fit_temperature(logits, labels) == pytest.approx(true, rel=0.03)


@given(seeds, st.floats(0.01, 100))
def test_scaling_the_logits_scales_the_temperature(seed: int, scale: float) -> None:
    logits, labels = drawn(seed, 1.0)
    once = fit_temperature(logits, labels)
    assert fit_temperature(logits * scale, labels) == pytest.approx(once * scale, rel=1e-5)


@given(seeds, st.floats(0.01, 100))
def test_rows_that_are_all_right_have_no_temperature(seed: int, scale: float) -> None:
    logits = np.random.default_rng(seed).normal(0, scale, (30, 7))
    with pytest.raises(ValueError, match="no finite temperature"):
        fit_temperature(logits, logits.argmax(axis=1))


def test_rows_worse_than_a_guess_have_no_temperature() -> None:
    logits = np.random.default_rng(0).normal(0, 1, (30, 7))
    with pytest.raises(ValueError, match="no finite temperature"):
        fit_temperature(logits, logits.argmin(axis=1))


def test_logits_that_say_nothing_have_no_temperature() -> None:
    with pytest.raises(ValueError, match="no finite temperature"):
        fit_temperature(np.zeros((5, 7)), np.array([0, 1, 2, 3, 4]))


def test_two_equal_losses_beside_the_minimum_do_not_hold_the_search_up() -> None:
    """These rows cost exactly the same, to the last bit, at log T = 0 and at log T = −0.5."""
    logits = np.zeros((3, 7))
    logits[0, 0], logits[1, 0] = 3.6695957909101113, 1.7971242062097494
    logits[2, 1] = 1.523564581977357
    labels = np.array([0, 0, 0])
    assert -0.5 < np.log(fit_temperature(logits, labels)) < 0
