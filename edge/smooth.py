"""From probabilities of single frames to a shown label: a function of time, not of frame count."""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.expressions import EXPRESSIONS, UNCERTAIN

Probabilities = NDArray[np.float64]

TICK_NS = 10_000_000
"""The rules are applied at every multiple of this on the monotonic clock, and at every frame."""
MOST_NS = 1_000_000_000
"""A frame stands for the time since the one before it, but for no longer than this."""


@dataclass(frozen=True, slots=True)
class SmoothingSettings:
    """Everything that decides how labels follow probabilities; durations in seconds.

    `tau_s` is the average's time constant (0: none), `hysteresis` the lead a new label needs,
    `thresholds` the least probability of each label, seven in the order of the expressions;
    `dwell_s` how long a shown label stays at least, `vote_s` the window of the vote (0: none), and
    `quality_grace_s` how long a face may be too poor to judge before that is shown.
    """

    tau_s: float
    hysteresis: float
    thresholds: tuple[float, ...]
    dwell_s: float = 0.0
    vote_s: float = 0.0
    quality_grace_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown for a face: the smoothed probabilities and the label decided on them."""

    smoothed: tuple[float, ...]
    top: str
    label: str
    confidence: float
    held_s: float
    flipped: bool


class _Vote:
    """Which expression was on top for most of the last ticks; a tie changes nothing."""

    def __init__(self, window_s: float, top: int) -> None:
        ticks = max(1, round(window_s * 1e9 / TICK_NS))
        self._tops = deque([top] * ticks, maxlen=ticks)
        self._counts = [0] * len(EXPRESSIONS)
        self._counts[top] = ticks
        self.winner = top

    def add(self, top: int) -> None:
        self._counts[self._tops[0]] -= 1
        self._tops.append(top)
        self._counts[top] += 1
        best = max(self._counts)
        if self._counts[self.winner] < best:
            self.winner = self._counts.index(best)


class Smoother:
    """The label of one face over time; made with its track and thrown away with it.

    A frame's probabilities stand for the time since the frame before. Over that time the average
    follows them with time constant `tau_s`, and the rules are applied at every tick of a fixed
    clock and at the frame, so the frame rate only decides how soon one sees what they gave:

    - A shown label gives way to another that leads it by `hysteresis` and is above its own
      threshold. With a vote, only to the one that was on top for most of the last `vote_s`.
    - It becomes `uncertain` when it falls half of `hysteresis` under its threshold and no other is
      above; a label returns only above the threshold, so noise at either border does not flicker.
    - No label, `uncertain` included, gives way before it was shown for `dwell_s`.
    """

    def __init__(self, settings: SmoothingSettings) -> None:
        self._settings = settings
        self._dwell_ns = round(settings.dwell_s * 1e9)
        self._average: Probabilities | None = None
        self._vote: _Vote | None = None
        self._time_ns = 0
        self._label = UNCERTAIN
        self._changed_ns = 0
        """When the rules gave the label."""
        self._since_ns = 0
        """The frame that showed it first."""

    def _decide(self, average: list[float], candidate: int) -> str:
        settings = self._settings
        confident = average[candidate] >= settings.thresholds[candidate]
        if self._label == UNCERTAIN:
            return EXPRESSIONS[candidate] if confident else UNCERTAIN
        shown = EXPRESSIONS.index(self._label)
        lead = average[candidate] - average[shown]
        if candidate != shown and confident and lead >= settings.hysteresis:
            return EXPRESSIONS[candidate]
        if average[shown] < settings.thresholds[shown] - settings.hysteresis / 2:
            if confident:
                return EXPRESSIONS[candidate]
            top = max(range(len(average)), key=average.__getitem__)
            # One that is sure enough may still be waiting for its vote: no `uncertain` in between.
            return self._label if average[top] >= settings.thresholds[top] else UNCERTAIN
        return self._label

    def _weight(self, passed_ns: int) -> float:
        tau = self._settings.tau_s
        return 1.0 if tau == 0 else 1.0 - math.exp(-passed_ns / 1e9 / tau)

    def _apply(self, average: Probabilities, candidate: int, at_ns: int) -> None:
        if at_ns - self._changed_ns >= self._dwell_ns:
            label = self._decide(average.tolist(), candidate)
            if label != self._label:
                self._label, self._changed_ns = label, at_ns

    def _run(self, new: Probabilities, since_ns: int, now_ns: int) -> Probabilities:
        """Apply the rules at the ticks after `since_ns` and now; returns the average of now."""
        assert self._average is not None
        old, frame_top = self._average, int(new.argmax())
        for at_ns in range((since_ns // TICK_NS + 1) * TICK_NS, now_ns, TICK_NS):
            average = old + self._weight(at_ns - since_ns) * (new - old)
            self._apply(average, self._candidate(average, frame_top, tick=True), at_ns)
        average = old + self._weight(now_ns - since_ns) * (new - old)
        self._apply(
            average, self._candidate(average, frame_top, tick=now_ns % TICK_NS == 0), now_ns
        )
        return average

    def _candidate(self, average: Probabilities, frame_top: int, *, tick: bool) -> int:
        """What may be shown next. A vote counts the top of the frame at ticks only."""
        if self._vote is None:
            return int(average.argmax())
        if tick:
            self._vote.add(frame_top)
        return self._vote.winner

    def update(self, probabilities: Probabilities, mono_ns: int) -> Shown:
        """Take one frame's calibrated probabilities (7) at a monotonic time; returns the label.

        A time not after the last one counts as no time passed.
        """
        new = np.asarray(probabilities, np.float64)
        before = self._label
        if self._average is None:
            self._average = new.copy()
            if self._settings.vote_s > 0:
                self._vote = _Vote(self._settings.vote_s, int(new.argmax()))
            self._label = self._decide(new.tolist(), int(new.argmax()))
            self._time_ns = self._changed_ns = self._since_ns = mono_ns
            return self._shown(mono_ns, flipped=False)
        if mono_ns > self._time_ns:
            since_ns = max(self._time_ns, mono_ns - MOST_NS)
            self._average = self._run(new, since_ns, mono_ns)
            self._time_ns = mono_ns
        if self._label != before:
            self._since_ns = mono_ns
        return self._shown(mono_ns, flipped=self._label != before)

    def hold(self, mono_ns: int) -> Shown | None:
        """Let time pass without evidence: nothing changes, and no later frame stands for it.

        Returns what was shown last, None before the first update.
        """
        if self._average is None:
            return None
        self._time_ns = max(self._time_ns, mono_ns)
        return self._shown(mono_ns, flipped=False)

    def _shown(self, mono_ns: int, *, flipped: bool) -> Shown:
        assert self._average is not None
        top = int(self._average.argmax())
        return Shown(
            smoothed=tuple(self._average.tolist()),
            top=EXPRESSIONS[top],
            label=self._label,
            confidence=float(self._average[top]),
            held_s=max(0, mono_ns - self._since_ns) / 1e9,
            flipped=flipped,
        )
