"""How sure the gate's two noisy figures are: macro-F1 on few rows, latency on a shared machine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contract.expressions import EXPRESSIONS
from contract.metrics import Floats, Ints

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Rounds:
    """Batch-1 latencies in milliseconds, one of each model for each interleaved round."""

    original_ms: Sequence[float]
    int8_ms: Sequence[float]


@dataclass(frozen=True)
class Speed:
    """Median of the rounds' ratios float ÷ INT8, its 95 % interval, and the ratios' spread.

    `spread` is their interquartile range over their median.
    """

    median: float
    low: float
    high: float
    spread: float
    rounds: int


def rounds_of(original_ms: Sequence[float], int8_ms: Sequence[float], burst: int) -> Rounds:
    """Single runs, `burst` of them to a round, → the median of each round.

    Raises `ValueError` unless both lists hold equally many whole rounds.
    """
    if len(original_ms) != len(int8_ms) or not original_ms or len(original_ms) % burst:
        raise ValueError(f"{len(original_ms)} and {len(int8_ms)} runs are no rounds of {burst}")
    one, two = (np.median(np.reshape(runs, (-1, burst)), axis=1) for runs in (original_ms, int8_ms))
    return Rounds(one.tolist(), two.tolist())


def speed_of(rounds: Rounds) -> Speed:
    """The median ratio with its 95 % interval.

    The interval's ends are the k-th smallest and k-th largest ratio, with the largest k for which
    at most k − 1 heads in as many fair coin throws as rounds have a chance of 2.5 % or less; with
    fewer than six rounds there is no such k, and the interval is all of them. Raises `ValueError`
    unless both have equally many rounds.
    """
    if len(rounds.original_ms) != len(rounds.int8_ms) or not rounds.original_ms:
        raise ValueError("both models need a latency for each round")
    ratios = np.sort(np.asarray(rounds.original_ms, np.float64) / np.asarray(rounds.int8_ms))
    count = len(ratios)
    k, tail = 0, 0.0
    while (tail := tail + math.comb(count, k) / 2**count) <= (1 - CONFIDENCE) / 2:
        k += 1
    k = max(k, 1)
    median = float(np.median(ratios))
    quarter, three_quarters = np.percentile(ratios, [25, 75])
    return Speed(
        median=median,
        low=float(ratios[k - 1]),
        high=float(ratios[count - k]),
        spread=float((three_quarters - quarter) / median),
        rounds=count,
    )


def macro_f1_drop(labels: Ints, first: Ints, second: Ints, seed: int) -> tuple[float, float]:
    """F1(first) − F1(second), macro, and its one-sided 95 % upper bound, from a paired bootstrap.

    What a row counts for depends only on its label and two predictions, so the resamples are
    multinomial draws over the combinations that occur: the same distribution as drawing rows with
    replacement. Fractions, not points.
    """
    classes = len(EXPRESSIONS)
    kinds, count = np.unique(np.stack([labels, first, second]), axis=1, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(
        len(labels), count / len(labels), size=RESAMPLES
    )
    weights = np.vstack([count, draws]).astype(np.float64)
    truth = np.eye(classes)[kinds[0]]

    def macro_f1(predicted: Ints) -> Floats:
        given = np.eye(classes)[predicted]
        hits, total = weights @ (truth * given), weights @ (truth + given)
        f1 = np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
        return np.asarray(f1.mean(axis=1))

    drop = macro_f1(kinds[1]) - macro_f1(kinds[2])
    return float(drop[0]), float(np.quantile(drop[1:], CONFIDENCE))
