"""What the gate measures and what it lets through; expected values by hand, SciPy, scikit-learn."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import f1_score

from contract.errors import UserError
from quantize.gate import NAMES, Answers, Bounds, Gate, judge, waivers
from quantize.intervals import Rounds, macro_f1_drop, rounds_of, speed_of

LABELS = [n % 7 for n in range(1000)]
DEFAULTS = Bounds()
FAST = Rounds([3.0] * 20, [1.5] * 20)


def answers(predicted: list[int], sure: float = 8.0, temperature: float = 1.0) -> Answers:
    return Answers((np.eye(7)[predicted] * sure).astype(np.float32), temperature)


def spoil(predicted: list[int], rows: int) -> list[int]:
    return [(p + 1) % 7 if n < rows else p for n, p in enumerate(predicted)]


def gate(
    original: list[int], int8: list[int], size: int = 4_000_000, rounds: Rounds | None = FAST,
    bounds: Bounds = DEFAULTS, waive: frozenset[str] = frozenset(),
) -> Gate:  # fmt: skip
    return judge(np.array(LABELS), answers(original), answers(int8), size, rounds, bounds, waive)


def statuses(found: Gate) -> dict[str, str]:
    return {verdict.name: verdict.status for verdict in found.verdicts}


def test_figures() -> None:
    found = gate(spoil(LABELS, 20), spoil(LABELS, 23))
    assert found.n == 1000
    assert found.original.accuracy == pytest.approx(0.980)
    assert found.int8.accuracy == pytest.approx(0.977)
    assert found.agreement == pytest.approx(99.7)
    assert found.size_mb == pytest.approx(4.0)
    assert found.original.latency_ms == pytest.approx(3.0)
    assert found.speed is not None and found.speed.median == pytest.approx(2.0)
    body = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert body["float"]["accuracy"] == pytest.approx(0.98)
    assert [verdict["name"] for verdict in body["verdicts"]] == list(NAMES)
    for name in ("accuracy drop", "agreement", "99.70 %", "4.00 MB", "2.00×"):
        assert name in found.table()


def test_a_model_that_is_the_same_passes_every_bound() -> None:
    found = gate(LABELS, LABELS)
    assert set(statuses(found).values()) == {"pass"}
    assert found.passed and not found.broken()
    assert found.verdict("macro-f1").value == 0.0


@pytest.mark.parametrize(
    ("lost", "broken"),
    [
        (3, set()),  # 0.3 points exactly is within the bound
        (4, {"accuracy"}),
        (15, {"accuracy", "macro-f1", "ece"}),  # 98.5 % exactly is within the bound
        (16, {"accuracy", "agreement", "macro-f1", "ece"}),
    ],
)
def test_the_default_bounds_of_answers(lost: int, broken: set[str]) -> None:
    found = gate(LABELS, spoil(LABELS, lost))
    failed = {name for name, status in statuses(found).items() if status == "fail"}
    # A flipped row moves two probabilities of seven: 16 are under 1 % of all, unseen by |Δp| p99.
    assert failed == broken
    assert found.passed == (not broken)


def test_int8_that_is_right_more_often_but_differs_too_much_is_refused() -> None:
    found = gate(spoil(LABELS, 20), LABELS)
    assert found.verdict("accuracy").value == pytest.approx(-2.0)
    assert [name for name, status in statuses(found).items() if status == "fail"] == ["agreement"]
    assert not found.passed


def test_probabilities_are_compared_at_each_models_temperature() -> None:
    labels = np.array(LABELS)
    same = judge(labels, answers(LABELS, 8.0, 2.0), answers(LABELS, 4.0, 1.0), 1, None)
    assert same.dp_p99 == pytest.approx(0.0, abs=1e-7)
    # By hand: logit 2 on one of seven gives e²/(e² + 6) = 0.5519, logit 1 gives 0.3118; one
    # probability in seven moves by the difference, so the 99th percentile is that.
    moved = judge(labels, answers(LABELS, 2.0), answers(LABELS, 2.0, 2.0), 1, None)
    expected = np.e**2 / (np.e**2 + 6) - np.e / (np.e + 6)
    assert moved.dp_p99 == pytest.approx(expected, abs=1e-6)
    assert moved.verdict("dp").status == "fail"
    # All are right, so ECE is 1 − confidence, and it rises by as much.
    assert moved.verdict("ece").value == pytest.approx(expected, abs=1e-6)
    assert moved.verdict("ece").status == "fail"


def test_size_is_in_millions_of_bytes() -> None:
    assert gate(LABELS, LABELS, size=5_800_000).verdict("size").status == "pass"
    over = gate(LABELS, LABELS, size=5_900_000)
    assert over.verdict("size").margin == pytest.approx(-0.1)
    (phrase,) = over.broken()
    assert phrase.startswith("size of the artifact 5.90 MB, 0.10 MB beyond the bound of ≤ 5.80 MB")
    assert "--max-size" in phrase


def test_a_broken_bound_says_by_how_much_and_what_to_do() -> None:
    accuracy, agreement, *_ = gate(LABELS, spoil(LABELS, 20)).broken()
    assert "2.00 points, 1.70 points beyond the bound of ≤ 0.30 points" in accuracy
    assert "--max-accuracy-drop" in accuracy and "--calib" in accuracy
    assert "98.00 %, 0.50 % beyond the bound of ≥ 98.50 %" in agreement


def test_bounds_are_options() -> None:
    loose = Bounds(accuracy_drop=2.0, agreement=98.0, macro_f1_drop=5.0, ece_rise=0.05)
    assert gate(LABELS, spoil(LABELS, 20), bounds=loose).passed
    strict = Bounds(speed_up=2.5)
    assert gate(LABELS, LABELS, bounds=strict).verdict("speed").status == "fail"


def test_the_macro_f1_bound_is_the_paired_bootstraps() -> None:
    """Against resampling rows one by one with scikit-learn's F1 on each."""
    rng = np.random.default_rng(3)
    labels = rng.choice(7, 400, p=[0.02, 0.08, 0.1, 0.2, 0.2, 0.2, 0.2])
    first = np.where(rng.random(400) < 0.85, labels, rng.integers(0, 7, 400))
    second = np.where(rng.random(400) < 0.97, first, rng.integers(0, 7, 400))

    def f1(rows: np.ndarray, predicted: np.ndarray) -> float:
        return f1_score(
            labels[rows], predicted[rows], average="macro", labels=range(7), zero_division=0
        )

    drops = []
    for _ in range(400):
        rows = rng.integers(0, 400, 400)
        drops.append(f1(rows, first) - f1(rows, second))
    everything = np.arange(400)
    point, most = macro_f1_drop(labels, first, second, seed=0)
    assert point == pytest.approx(f1(everything, first) - f1(everything, second))
    # 400 resamples give the 95th percentile to about a tenth of the spread.
    assert most == pytest.approx(np.quantile(drops, 0.95), abs=0.35 * np.std(drops))
    assert macro_f1_drop(labels, first, second, seed=0) == (point, most)


def test_macro_f1_passes_only_where_rows_suffice_to_rule_a_drop_out() -> None:
    """The same share of the same flips: 700 rows cannot tell, 14,000 can."""
    # Half of the flips are the float model's, so that neither is better.
    rows = [(c, c, c) for c in range(7) for _ in range(99)]
    rows += [(c, c, (c + 1) % 7) if c % 2 else (c, (c + 1) % 7, c) for c in range(6)]
    found = []
    for times in (1, 20):
        labels, first, second = np.array(rows * times).T
        float_answers, int8_answers = answers(list(first)), answers(list(second))
        judged = judge(labels, float_answers, int8_answers, 1, None, Bounds(macro_f1_drop=0.3))
        found.append(judged.verdict("macro-f1"))
    assert [verdict.status for verdict in found] == ["fail", "pass"]
    assert [verdict.note for verdict in found] == 2 * ["measured drop 0.00 points"]
    assert "rows of the rare expressions" in found[0].remedy


def ratios(values: list[float]) -> Rounds:
    return Rounds([2.0 * value for value in values], [2.0] * len(values))


@pytest.mark.parametrize(
    ("values", "status", "why"),
    [
        ([1.5] * 20, "pass", "median of 20 rounds"),
        ([1.4] * 20, "pass", ""),  # the bound itself is within it
        ([1.3] * 20, "fail", ""),
        ([1.5] * 19, "undecided", "fewer than 20 rounds"),
        # The median is above, but a quarter of the rounds either way does not settle it.
        ([1.2] * 9 + [1.5] * 11, "undecided", "which holds the bound"),
        ([1.2] * 11 + [1.5] * 9, "undecided", "which holds the bound"),
        # All slow, and as unlike as on a busy machine: it may have hidden the speed-up.
        ([0.8, 1.0, 1.2, 1.35] * 5, "undecided", "busy"),
        # Noise cannot make a speed-up, so a pass stands however the rounds differ.
        ([1.5, 2.0, 2.5, 3.0] * 5, "pass", ""),
        # A few disturbed rounds are what a median is for.
        ([1.5] * 22 + [0.3, 9.0], "pass", ""),
    ],
)
def test_speed(values: list[float], status: str, why: str) -> None:
    found = gate(LABELS, LABELS, rounds=ratios(values))
    verdict = found.verdict("speed")
    assert (verdict.status, found.passed) == (status, status != "fail")
    assert why in verdict.note
    assert verdict.note in found.table()
    assert len(found.broken()) == (status == "fail")


def test_without_rounds_speed_is_not_measured_and_does_not_block() -> None:
    found = gate(LABELS, LABELS, rounds=None)
    assert found.verdict("speed").status == "not measured"
    assert found.verdict("speed").value is None
    assert found.passed and found.speed is None and found.int8.latency_ms is None
    assert "not measured" in found.table()
    json.dumps(found.to_json(), allow_nan=False)


@settings(max_examples=60)
@given(st.lists(st.floats(0.1, 10.0), min_size=6, max_size=80))
def test_the_interval_of_the_median_is_the_sign_tests(values: list[float]) -> None:
    found = speed_of(Rounds(values, [1.0] * len(values)))
    ordered = sorted(values)
    k = int(binom.ppf(0.025, len(values), 0.5))
    k += binom.cdf(k, len(values), 0.5) <= 0.025  # the largest with a tail of 2.5 % at most
    assert (found.low, found.high) == (ordered[k - 1], ordered[len(values) - k])
    assert found.low <= found.median <= found.high
    assert found.median == pytest.approx(np.median(values))


def test_the_ratio_is_taken_round_by_round() -> None:
    """A machine that slows down half-way slows both: the medians' ratio would say 5.5 ÷ 2.75."""
    found = speed_of(Rounds([1.0] * 10 + [10.0] * 10, [0.5] * 10 + [5.0] * 10))
    assert (found.median, found.spread) == (2.0, 0.0)


def test_bursts_become_rounds_by_their_median() -> None:
    found = rounds_of([1.0, 9.0, 2.0, 4.0, 4.0, 5.0], [1.0, 1.0, 1.0, 7.0, 2.0, 2.0], 3)
    assert found == Rounds([2.0, 4.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="no rounds of 4"):
        rounds_of([1.0] * 6, [1.0] * 6, 4)
    with pytest.raises(ValueError, match="no rounds"):
        rounds_of([1.0] * 6, [1.0] * 3, 3)
    with pytest.raises(ValueError, match="for each round"):
        speed_of(Rounds([1.0], []))


def test_a_waiver_lets_a_broken_bound_through_and_is_recorded() -> None:
    found = gate(
        LABELS, LABELS, size=9_000_000, rounds=ratios([1.2, 1.5] * 10),
        waive=waivers(["size", "speed", "agreement"]),
    )  # fmt: skip
    assert found.passed and not found.broken()
    assert found.waived == ("size", "speed"), "a bound that holds needs no waiver"
    assert statuses(found)["agreement"] == "pass"
    assert found.to_json()["waived"] == ["size", "speed"]
    assert found.verdict("size").margin == pytest.approx(-3.2)


def test_a_waiver_lets_nothing_else_through() -> None:
    found = gate(LABELS, spoil(LABELS, 20), waive=frozenset({"accuracy"}))
    assert not found.passed
    assert found.waived == ("accuracy",)
    assert found.broken()[0].startswith("agreement")


def test_an_unknown_waiver_is_named_with_the_nearest_bound() -> None:
    with pytest.raises(UserError, match="--allow acuracy: no such bound, did you mean 'accuracy'"):
        waivers(["size", "acuracy"])
    assert waivers([]) == frozenset()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_refused(value: float) -> None:
    good = answers(LABELS)
    bad = good.logits.copy()
    bad[3, 2] = value
    with pytest.raises(UserError, match=r"INT8 model answers .* not finite"):
        judge(np.array(LABELS), good, replace(good, logits=bad), 1, None)
