"""What the gate measures, and what it lets through; expected values worked out by hand."""

import numpy as np
import pytest

from quantize.gate import Bounds, Comparison, Measured, broken_bounds, compare, table


def logits_for(predicted: list[int], sure: float = 5.0) -> np.ndarray:
    return (np.eye(7)[predicted] * sure).astype(np.float32)


def comparison(labels: list[int], original: list[int], int8: list[int]) -> Comparison:
    return compare(
        np.array(labels),
        Measured(logits_for(original), 1.0, 8_000_000, [4.0, 4.0, 100.0]),
        Measured(logits_for(int8), 1.0, 2_000_000, [2.0, 2.0, 2.0]),
    )


LABELS = [n % 7 for n in range(200)]


def spoil(predicted: list[int], rows: int) -> list[int]:
    return [(p + 1) % 7 if n < rows else p for n, p in enumerate(predicted)]


def test_figures() -> None:
    found = comparison(LABELS, spoil(LABELS, 20), spoil(LABELS, 23))
    assert found.n == 200
    assert found.original.accuracy == pytest.approx(0.9)
    assert found.int8.accuracy == pytest.approx(0.885)
    assert found.accuracy_drop == pytest.approx(1.5)
    assert found.agreement == pytest.approx(98.5)
    assert found.original.size_mb == pytest.approx(8.0)
    assert found.original.latency_ms == pytest.approx(4.0)
    assert found.speed_up == pytest.approx(2.0)
    assert found.to_json()["float"]["accuracy"] == pytest.approx(0.9)
    assert "98.50 %" in table(found)


def test_moved_probabilities_are_counted_at_each_models_temperature() -> None:
    labels = np.array(LABELS)
    same = compare(
        labels,
        Measured(logits_for(LABELS, 4.0), 2.0, 1, [1.0]),
        Measured(logits_for(LABELS, 2.0), 1.0, 1, [1.0]),
    )
    assert same.dp_p99 == pytest.approx(0.0, abs=1e-9)
    # One row in 200 is 7 of 1400 probabilities: two of them move by nearly 1, under 1 % of all.
    one = comparison(LABELS, LABELS, spoil(LABELS, 1))
    assert one.dp_p99 == pytest.approx(0.0, abs=1e-9)
    many = comparison(LABELS, LABELS, spoil(LABELS, 50))
    assert many.dp_p99 > 0.9


@pytest.mark.parametrize(
    ("lost", "broken"),
    [
        (0, []),
        (2, []),  # one point exactly is within the bound
        (3, ["--max-accuracy-drop"]),
        (6, ["--max-accuracy-drop"]),  # 97 % exactly is within the bound
        (7, ["--max-accuracy-drop", "--min-agreement"]),
    ],
)
def test_the_default_bounds(lost: int, broken: list[str]) -> None:
    found = comparison(LABELS, LABELS, spoil(LABELS, lost))
    reasons = broken_bounds(found, Bounds())
    assert len(reasons) == len(broken)
    for reason, option in zip(reasons, broken, strict=True):
        assert option in reason


def test_a_broken_bound_says_by_how_much() -> None:
    found = comparison(LABELS, LABELS, spoil(LABELS, 7))
    accuracy, agreement = broken_bounds(found, Bounds())
    assert "3.50 points, 2.50 more than the bound of 1.00" in accuracy
    assert "96.50 % of rows, 0.50 less than the bound of 97.00 %" in agreement


def test_int8_that_is_right_more_often_but_differs_too_much_is_refused() -> None:
    found = comparison(LABELS, spoil(LABELS, 20), LABELS)
    assert found.accuracy_drop < 0
    assert len(broken_bounds(found, Bounds())) == 1
