"""Intervals against theory; the trainer's own are tested in `tests/trainer/test_figures.py`."""

import numpy as np
import pytest

from contract.intervals import mean_interval, metric_intervals
from contract.metrics import softmax


def test_a_mean_has_the_interval_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = mean_interval(values, 1)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.04)


def test_a_missed_face_counts_against_accuracy_and_not_in_calibration() -> None:
    rng = np.random.default_rng(0)
    p = softmax(rng.normal(0, 2, (500, 7)))
    labels = (p.cumsum(1) < rng.random((500, 1))).sum(1)
    guess = p.argmax(1)
    whole = metric_intervals(labels, p, guess, 1)
    half = metric_intervals(labels, p, np.where(np.arange(500) < 250, guess, -1), 1)
    assert half["accuracy"][1] < whole["accuracy"][0]
    seen = metric_intervals(labels[:250], p[:250], guess[:250], 1)
    assert half["nll"] == seen["nll"] and half["ece"] == seen["ece"]
    assert set(whole) == {"accuracy", "macro_f1", "nll", "brier", "ece"} | {
        f"f1_{name}" for name in ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    }
