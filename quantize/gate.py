"""The gate: is the INT8 model still the same model, on rows it was not made from?

Two bounds decide, accuracy and agreement; everything else is measured and reported.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.metrics import accuracy, compute, softmax

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Bounds:
    """What an INT8 model must keep to."""

    accuracy_drop: float = 1.0
    """Largest loss of accuracy against the float model, in percentage points."""
    agreement: float = 97.0
    """Least share of rows on which both name the same expression, in percent."""


@dataclass(frozen=True)
class Figures:
    """One model on the gate's rows, at the temperature it will be served with."""

    accuracy: float
    macro_f1: float
    ece: float
    nll: float
    size_mb: float
    latency_ms: float


@dataclass(frozen=True)
class Comparison:
    """Float against INT8. `accuracy_drop` is in points, `agreement` in percent.

    `dp_p99` is the 99th percentile of |Δp| over all seven probabilities of all rows; `speed_up` is
    the float model's batch-1 median latency ÷ the INT8 model's, on the same runtime.
    """

    n: int
    original: Figures
    int8: Figures
    accuracy_drop: float
    agreement: float
    dp_p99: float
    speed_up: float

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        body = asdict(self)
        body["float"] = body.pop("original")
        return body


@dataclass(frozen=True)
class Measured:
    """What one model gave: logits `N×7` of the gate's rows, bytes on disk, batch-1 latencies."""

    logits: Logits
    temperature: float
    size_bytes: int
    milliseconds: Sequence[float]


def _figures(labels: Labels, model: Measured) -> Figures:
    metrics = compute(labels, softmax(model.logits, model.temperature), model.logits.argmax(axis=1))
    return Figures(
        accuracy=metrics.accuracy,
        macro_f1=metrics.macro_f1,
        ece=metrics.ece,
        nll=metrics.nll,
        size_mb=model.size_bytes / 1e6,
        latency_ms=float(np.median(model.milliseconds)),
    )


def compare(labels: Labels, original: Measured, int8: Measured) -> Comparison:
    """Both models' figures on the same `N` rows, side by side."""
    first, second = original.logits.argmax(axis=1), int8.logits.argmax(axis=1)
    moved = np.abs(
        softmax(original.logits, original.temperature) - softmax(int8.logits, int8.temperature)
    )
    before, after = _figures(labels, original), _figures(labels, int8)
    return Comparison(
        n=len(labels),
        original=before,
        int8=after,
        accuracy_drop=100 * (accuracy(labels, first) - accuracy(labels, second)),
        agreement=100 * float(np.mean(first == second)),
        dp_p99=float(np.percentile(moved, 99)),
        speed_up=before.latency_ms / after.latency_ms,
    )


def broken_bounds(found: Comparison, bounds: Bounds) -> list[str]:
    """One phrase for each bound that does not hold: which, by how much, and the mend."""
    broken: list[str] = []
    # Shares of rows are compared as printed in the report; 1e-9 is far below one row.
    if found.accuracy_drop > bounds.accuracy_drop + 1e-9:
        broken.append(
            f"accuracy falls by {found.accuracy_drop:.2f} points, "
            f"{found.accuracy_drop - bounds.accuracy_drop:.2f} more than the bound of "
            f"{bounds.accuracy_drop:.2f} (--max-accuracy-drop)"
        )
    if found.agreement < bounds.agreement - 1e-9:
        broken.append(
            f"INT8 agrees with float on {found.agreement:.2f} % of rows, "
            f"{bounds.agreement - found.agreement:.2f} less than the bound of "
            f"{bounds.agreement:.2f} % (--min-agreement)"
        )
    return broken


def table(found: Comparison) -> str:
    """The comparison for a terminal."""
    a, b = found.original, found.int8
    lines = [f"{'':14}{'float':>9}{'INT8':>9}"]
    for name, one, two in (
        ("accuracy", a.accuracy, b.accuracy),
        ("macro-F1", a.macro_f1, b.macro_f1),
        ("ECE", a.ece, b.ece),
        ("size, MB", a.size_mb, b.size_mb),
        ("latency, ms", a.latency_ms, b.latency_ms),
    ):
        lines.append(f"{name:14}{one:9.4f}{two:9.4f}")
    lines.append(
        f"n {found.n}, agreement {found.agreement:.2f} %, |Δp| p99 {found.dp_p99:.4f}, "
        f"speed-up {found.speed_up:.2f}×"
    )
    return "\n".join(lines)
