"""Temperature, thresholds and the coverage–accuracy curve: by hand and by brute force."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from contract.expressions import EXPRESSIONS
from quantize import confidences
from quantize.confidences import Options, Point, abstention, aurc, curve, fit, temperature_of

FREE = Options(least_shown=1, least_coverage=0.0)


def logits_of(p: np.ndarray) -> np.ndarray:
    return np.log(p).astype(np.float32)


def rows(*given: tuple[int, float, int]) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels: each row's top class, its probability, the label."""
    p = np.empty((len(given), 7))
    for row, (top, sure, _) in zip(p, given, strict=True):
        row[:] = (1 - sure) / 6
        row[top] = sure
    return logits_of(p), np.array([label for *_, label in given])


def some(seed: int, n: int = 300, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(7, n, p=[0.1, 0.04, 0.06, 0.3, 0.15, 0.15, 0.2])
    logits = rng.normal(0, 1.2, (n, 7)) + skill * np.eye(7)[labels]
    return np.round(logits, 1).astype(np.float32), labels


def test_the_curve_by_hand() -> None:
    confidence = np.array([0.9, 0.5, 0.8, 0.8])
    right = np.array([True, False, True, False])
    # Surest first: .9 right; then both .8, of which one is right, together; then .5, wrong.
    assert curve(confidence, right, points=4) == (
        Point(0.25, 1.0, 0.9),
        Point(0.75, pytest.approx(2 / 3), 0.8),
        Point(1.0, 0.5, 0.5),
    )
    # Risks at k = 1…4: 0, ½/2, 1/3, 2/4.
    assert aurc(confidence, right) == pytest.approx((0 + 0.25 + 1 / 3 + 0.5) / 4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_the_curve_and_its_area_do_not_depend_on_the_order_of_rows(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, right = rng.integers(1, 8, n) / 8, rng.random(n) < 0.7
    order = rng.permutation(n)
    found = curve(confidence, right)
    assert found == curve(confidence[order], right[order])
    assert aurc(confidence, right) == pytest.approx(aurc(confidence[order], right[order]))
    assert found[-1].coverage == 1.0 and found[-1].accuracy == pytest.approx(right.mean())
    for point in found:
        shown = confidence >= point.threshold
        assert point.coverage == pytest.approx(shown.mean())
        assert point.accuracy == pytest.approx(right[shown].mean())
    # The tied rows' mean error is the mean over their orders.
    shuffled = []
    for _ in range(300):
        order = rng.permutation(n)
        by = order[np.argsort(-confidence[order], kind="stable")]
        shuffled.append(((~right[by]).cumsum() / np.arange(1, n + 1)).mean())
    assert aurc(confidence, right) == pytest.approx(np.mean(shuffled), abs=0.06)


def test_a_ranking_that_knows_its_errors_has_the_smaller_area() -> None:
    right = np.array([True] * 8 + [False] * 2)
    knows, inverse = np.linspace(1, 0.1, 10), np.linspace(0.1, 1, 10)
    assert aurc(knows, right) < aurc(np.full(10, 0.5), right) < aurc(inverse, right)
    assert aurc(np.full(10, 0.5), right) == pytest.approx(0.2), "no ranking: the error rate"


TEN = (
    np.array([0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5]),
    np.array([True, True, True, True, False, True, True, False, False, True]),
)


@pytest.mark.parametrize(
    ("target", "coverage", "least", "expected"),
    [
        # Accuracies of the 1, 2 … 10 surest: 1 1 1 1 .8 .83 .86 .75 .67 .7
        (0.85, 0.0, 0.0, (0.65, True)),  # the lowest that reaches it, over the dip at .75
        (0.9, 0.0, 0.0, (0.8, True)),
        (0.9, 0.5, 0.0, (0.65, False)),  # not with half answered: the best with half answered
        (0.7, 0.0, 0.4, (0.4, True)),  # all rows reach it: nothing above `least` is needed
        (0.9, 0.0, 0.97, (0.97, False)),  # nothing is as sure as `least`
        (0.5, 0.5, 0.82, (0.82, True)),  # `least` alone leaves fewer than half
        (0.85, 0.0, 0.7, (0.8, True)),  # .65 would reach it, but is under `least`
    ],
)
def test_the_abstention_threshold_by_hand(
    target: float, coverage: float, least: float, expected: tuple[float, bool]
) -> None:
    options = Options(accuracy_target=target, least_coverage=coverage)
    assert abstention(*TEN, least, options) == expected


def test_class_thresholds_by_hand() -> None:
    logits, labels = rows(
        # angry: at .9 precision 1, F1 2·1/(1 + 3); at .8 2/3 … see below
        (0, 0.9, 0), (0, 0.8, 0), (0, 0.7, 5), (0, 0.6, 0), (0, 0.5, 5), (0, 0.45, 5),
        # disgust: never right
        (1, 0.9, 2), (1, 0.8, 2),
        # fear: below the abstention threshold
        (2, 0.3, 2),
        # happy: right throughout
        (3, 0.9, 3), (3, 0.5, 3),
    )  # fmt: skip
    found = fit(
        logits, labels, 1.0, "given", 0.4,
        Options(precision_floor=0.7, accuracy_target=0.0, least_shown=1, least_coverage=0.0),
    )  # fmt: skip
    assert found.abstain_threshold == 0.4
    # Precision and F1 of angry from .9 down: 1 ½; 1 .8; ⅔ ⅔; ¾ 6/7; .6 ¾; ½ ⅔. Floor .7: .6.
    angry = found.classes["angry"]
    assert angry.threshold == pytest.approx(0.6)
    assert (angry.precision, angry.recall, angry.shown) == (0.75, 1.0, 4)
    assert angry.reached and angry.fitted
    assert not found.classes["disgust"].reached
    assert found.classes["disgust"].threshold == 0.4, "as bad everywhere: the lowest"
    assert (found.classes["fear"].shown, found.classes["fear"].fitted) == (0, False)
    assert found.classes["happy"].threshold == 0.4
    assert found.class_thresholds == {"angry": angry.threshold}, "others need none of their own"


def test_the_floor_outweighs_f1_and_what_cannot_reach_it_comes_close() -> None:
    logits, labels = rows(
        (0, 0.9, 0), (0, 0.8, 5), (0, 0.7, 0), (0, 0.6, 0),
        (1, 0.9, 5), (1, 0.8, 1), (1, 0.7, 1), (1, 0.6, 5),
    )  # fmt: skip
    strict = Options(precision_floor=0.9, accuracy_target=0.0, least_shown=1, least_coverage=0.0)
    found = fit(logits, labels, 1.0, "given", 0.4, strict)
    assert found.classes["angry"].threshold == pytest.approx(0.9)
    assert found.classes["angry"].reached
    # disgust's precisions from .9 down: 0, ½, ⅔, ½.
    assert found.classes["disgust"].threshold == pytest.approx(0.7)
    assert found.classes["disgust"].precision == pytest.approx(2 / 3)
    assert not found.classes["disgust"].reached


def test_no_threshold_rests_on_few_rows() -> None:
    """One lucky row at the top must not become the only one ever shown."""
    logits, labels = rows((0, 0.95, 0), *[(0, 0.9 - n / 100, 5 if n % 2 else 0) for n in range(30)])
    few = Options(precision_floor=0.9, accuracy_target=0.0, least_shown=20, least_coverage=0.0)
    angry = fit(logits, labels, 1.0, "given", 0.4, few).classes["angry"]
    assert angry.shown >= 20 and not angry.reached
    alone = fit(logits[:5], labels[:5], 1.0, "given", 0.4, few).classes["angry"]
    assert (alone.threshold, alone.fitted) == (0.4, False)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_no_other_thresholds_above_the_floor_have_a_better_macro_f1(seed: int) -> None:
    """Brute force: any threshold of one class changed alone, scored by scikit-learn."""
    logits, labels = some(seed, n=120)
    options = Options(precision_floor=0.6, least_shown=3)
    found = fit(logits, labels, 1.0, "given", 0.4, options)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    top, sure = p.argmax(axis=1), p.max(axis=1)
    own = np.array([found.classes[name].threshold for name in EXPRESSIONS])

    def macro_f1(thresholds: np.ndarray) -> float:
        kept = np.where(sure >= thresholds[top] - 1e-12, top, -1)
        return f1_score(labels, kept, average="macro", labels=range(7), zero_division=0)

    best = macro_f1(own)
    for c, name in enumerate(EXPRESSIONS):
        if not (found.classes[name].fitted and found.classes[name].reached):
            continue
        for threshold in np.unique(sure[(top == c) & (sure >= found.abstain_threshold)]):
            shown = (top == c) & (sure >= threshold - 1e-12)
            if shown.sum() >= 3 and (labels[shown] == c).mean() >= 0.6:
                other = own.copy()
                other[c] = threshold
                assert macro_f1(other) <= best + 1e-9


def test_what_is_reported_is_what_the_box_would_show() -> None:
    logits, labels = some(1, n=800)
    fitted = fit(logits, labels, 1.3, "given", 0.4)
    other, truth = some(2, n=500)
    found = confidences.measure(fitted, other, truth)
    thresholds = dict.fromkeys(EXPRESSIONS, fitted.abstain_threshold)
    thresholds.update(fitted.class_thresholds)
    shown, right, hits = 0, 0, dict.fromkeys(EXPRESSIONS, 0)
    for row, label in zip(other.astype(np.float64), truth, strict=True):
        p = np.exp(row / 1.3) / np.exp(row / 1.3).sum()
        name = EXPRESSIONS[int(p.argmax())]
        if p.max() >= thresholds[name]:
            shown += 1
            right += name == EXPRESSIONS[label]
            hits[name] += name == EXPRESSIONS[label]
    assert 0 < shown < 500
    assert found.coverage == pytest.approx(shown / 500)
    assert found.accuracy == pytest.approx(right / shown)
    assert sum(found.count.values()) == shown
    for c, name in enumerate(EXPRESSIONS):
        assert found.recall[name] == pytest.approx(hits[name] / (truth == c).sum())
        assert found.precision[name] == pytest.approx(hits[name] / max(1, found.count[name]))
    assert found.all_accuracy == pytest.approx((other.argmax(axis=1) == truth).mean())
    assert found.curve[-1].accuracy == pytest.approx(found.all_accuracy)
    json.dumps([asdict(fitted), asdict(found)], allow_nan=False)


def test_rows_of_which_none_is_shown_are_reported_as_such() -> None:
    fitted = fit(*rows(*[(0, 0.9, 0)] * 30), 1.0, "given", 0.8)
    found = confidences.measure(fitted, *rows((1, 0.3, 1), (2, 0.4, 2)))
    assert (found.coverage, found.accuracy, found.macro_f1) == (0.0, None, 0.0)
    assert found.all_accuracy == 1.0


def test_the_temperature_is_kept_where_none_can_be_fitted() -> None:
    logits, labels = some(1)
    fitted, told = temperature_of(2 * logits, labels, 9.0)
    assert fitted == pytest.approx(2 * temperature_of(logits, labels, 9.0)[0], rel=1e-4)
    assert told == "fitted on 300 answers"
    kept, why = temperature_of(*rows((0, 0.9, 0), (1, 0.8, 1)), kept=0.7)
    assert kept == 0.7 and why.startswith("the float bundle's: no finite temperature")
