"""Figures against scikit-learn, intervals against theory."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from contract.intervals import bootstrap
from contract.metrics import compute, ece, softmax
from tests.trainer.answers import answers
from trainer.figures import Answers, by_source, figures, intervals, run_metrics
from trainer.predictions import Predictions


def both(p: Predictions) -> Answers:
    return Answers(p.labels, softmax(p.logits), p.probabilities())


def test_figures_are_scikit_learns() -> None:
    p = answers(400)
    guess = p.logits.argmax(1)
    found = figures(both(p))
    by_class = f1_score(p.labels, guess, average=None, labels=range(7), zero_division=0)
    assert found["accuracy"] == pytest.approx(accuracy_score(p.labels, guess))
    assert found["macro_f1"] == pytest.approx(by_class.mean())
    assert found["minority_f1"] == pytest.approx(by_class[[0, 1, 2]].mean())
    assert [found[f"f1_{name}"] for name in ("angry", "neutral")] == pytest.approx(
        [by_class[0], by_class[6]]
    )
    assert found["nll"] == pytest.approx(log_loss(p.labels, p.probabilities(), labels=range(7)))
    assert found["ece_raw"] == ece(p.labels, softmax(p.logits))
    assert found["ece_scaled"] == ece(p.labels, p.probabilities()) != found["ece_raw"]


def share_of(hits: np.ndarray) -> Callable[[np.ndarray], dict[str, float]]:
    return lambda rows: {"share": float(hits[rows].mean())}


def test_an_interval_of_a_share_is_as_wide_as_theory_says() -> None:
    """1.96 √(p (1 − p) / n) each way."""
    right = np.zeros(400)
    right[:320] = 1
    low, high = bootstrap(lambda rows: {"share": float(right[rows].mean())}, 400, 0, times=4000)[
        "share"
    ]
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert low == pytest.approx(0.8 - half, abs=0.004)
    assert high == pytest.approx(0.8 + half, abs=0.004)


def test_most_intervals_hold_the_truth() -> None:
    """95 % of 200 studies of a coin do, give or take three standard errors."""
    rng = np.random.default_rng(0)
    held = 0
    for study in range(200):
        tosses = rng.random(100) < 0.6
        found = bootstrap(share_of(tosses), 100, study, times=200)
        held += found["share"][0] <= 0.6 <= found["share"][1]
    assert 0.90 * 200 <= held <= 0.99 * 200


def test_a_small_calibration_error_is_within_its_interval() -> None:
    """Every resample looks worse calibrated than the sample does, so this is not a matter of
    course."""
    rng = np.random.default_rng(0)
    p = softmax(rng.normal(0, 2, (1000, 7)))
    labels = (p.cumsum(1) < rng.random((1000, 1))).sum(1)
    low, high = intervals(Answers(labels, p, p), 1)["ece_scaled"]
    assert 0 <= low < ece(labels, p) < high < 0.08


def test_intervals_come_from_the_seed_alone() -> None:
    rows = both(answers(60))
    assert intervals(rows, 3) == intervals(rows, 3)
    assert intervals(rows, 3) != intervals(rows, 4)


def test_rows_are_drawn_with_repetition() -> None:
    seen: list[np.ndarray] = []

    def noted(rows: np.ndarray) -> dict[str, float]:
        seen.append(rows)
        return {"x": 0.0}

    bootstrap(noted, 50, 0, times=20)
    for rows in seen[:-1]:
        assert (len(rows), rows.min() >= 0, rows.max() < 50) == (50, True, True)
        assert len(set(rows.tolist())) < 45
    assert len({rows.tobytes() for rows in seen}) == 21  # the last is every row once


def test_each_source_has_its_own_figures() -> None:
    p = answers(200)
    made = by_source(p, p.probabilities(), seed=1)
    assert (made["n"], made["protocol"]) == (200, "made up")
    assert list(made["by_source"]) == ["a", "b"]
    for name, block in made["by_source"].items():
        part = p.rows(np.array(p.sources) == name)
        guess = part.logits.argmax(1)
        assert block["n"] == len(part)
        assert block["raw"] == compute(part.labels, softmax(part.logits), guess).to_json()
        assert block["scaled"] == compute(part.labels, part.probabilities(), guess).to_json()
        assert block["intervals"] == intervals(both(part), 1)
    assert made["intervals"] == intervals(both(p), 1)


def test_one_source_is_the_total() -> None:
    p = answers(200)
    part = p.rows(np.array(p.sources) == "a")
    made = by_source(part, part.probabilities(), seed=1)
    assert made["by_source"]["a"] == {k: v for k, v in made.items() if k != "by_source"}


def test_the_metrics_of_a_run_are_by_split_and_source() -> None:
    calib, val = answers(120, split="calib"), answers(80, seed=1)
    p = Predictions(
        calib.paths + val.paths, calib.sources + val.sources, calib.splits + val.splits,
        np.concatenate([calib.labels, val.labels]), np.concatenate([calib.logits, val.logits]),
        1.4, "ab" * 32, "made up", "x",
    )  # fmt: skip
    found = run_metrics(p)
    assert list(found) == ["calib", "val"]
    assert (found["val"]["n"], found["calib"]["n"]) == (80, 120)
    assert found["val"]["temperature"] == 1.4
    assert found["val"]["manifest_sha256"] == "ab" * 32
    assert found["val"]["protocol"] == found["val"]["by_source"]["b"]["protocol"] == "made up"
    assert found["val"]["scaled"]["nll"] == pytest.approx(
        log_loss(val.labels, val.probabilities(), labels=range(7))
    )
    assert found["val"]["raw"]["nll"] != found["val"]["scaled"]["nll"]
    assert "intervals" not in found["val"]
