"""From probabilities of single frames to a shown label: a function of time, not of frame count."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.expressions import EXPRESSIONS, UNCERTAIN

Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SmoothingSettings:
    """`tau_s` seconds of averaging, the lead a new label needs, and each label's least probability.

    `thresholds` are seven values in the order of the expressions.
    """

    tau_s: float
    hysteresis: float
    thresholds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown for a face: the smoothed probabilities and the label decided on them."""

    smoothed: tuple[float, ...]
    top: str
    label: str
    confidence: float
    held_s: float
    flipped: bool


class Smoother:
    """The label of one face over time; made with its track and thrown away with it.

    The average forgets with time constant `tau_s` whatever the frame rate, because each step's
    weight is 1 − exp(−dt/τ). A shown label gives way when another leads it by `hysteresis`; it
    becomes `uncertain` when it falls half that far under its threshold, and a label returns only
    above the threshold, so noise at either border does not flicker.
    """

    def __init__(self, settings: SmoothingSettings) -> None:
        self._settings = settings
        self._average: Probabilities | None = None
        self._time_ns = 0
        self._label = UNCERTAIN
        self._since_ns = 0

    def _decide(self, average: Probabilities) -> str:
        settings = self._settings
        top = int(average.argmax())
        confident = average[top] >= settings.thresholds[top]
        if self._label == UNCERTAIN:
            return EXPRESSIONS[top] if confident else UNCERTAIN
        shown = EXPRESSIONS.index(self._label)
        if confident and average[top] - average[shown] >= settings.hysteresis and top != shown:
            return EXPRESSIONS[top]
        if average[shown] < settings.thresholds[shown] - settings.hysteresis / 2:
            return EXPRESSIONS[top] if confident else UNCERTAIN
        return self._label

    def update(self, probabilities: Probabilities, mono_ns: int) -> Shown:
        """Take one frame's calibrated probabilities (7) at a monotonic time; returns the label.

        A time not after the last one counts as no time passed.
        """
        first = self._average is None
        if self._average is None:
            self._average = np.asarray(probabilities, np.float64).copy()
            self._since_ns = mono_ns
        else:
            passed = max(0, mono_ns - self._time_ns) / 1e9
            tau = self._settings.tau_s
            weight = 1.0 if tau == 0 else 1.0 - math.exp(-passed / tau)
            self._average += weight * (probabilities - self._average)
        self._time_ns = max(self._time_ns, mono_ns) if not first else mono_ns
        label = self._decide(self._average)
        flipped = label != self._label and not first
        if label != self._label:
            self._since_ns = mono_ns
        self._label = label
        top = int(self._average.argmax())
        return Shown(
            smoothed=tuple(float(v) for v in self._average),
            top=EXPRESSIONS[top],
            label=label,
            confidence=float(self._average[top]),
            held_s=max(0, mono_ns - self._since_ns) / 1e9,
            flipped=flipped,
        )
