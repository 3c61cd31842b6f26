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
    `dwell_s` how long a shown label stays at least, `vote_s` the window of the vote (0: none),
    `quality_grace_s` how long a face may be too poor to judge before that is shown, and
    `evidence_s` how much must speak against a shown label: probability times seconds (0: nothing).
    """

    tau_s: float
    hysteresis: float
    thresholds: tuple[float, ...]
    dwell_s: float = 0.0
    vote_s: float = 0.0
    quality_grace_s: float = 0.5
    evidence_s: float = 0.0


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
    - Nor before so much has spoken against it: by how much a rule above is more than met adds up
      over time, by how much it is not met is taken off again, never below nothing, and at
      `evidence_s` the label gives way. A clear switch so takes a fraction of a second, a faint one
      long, and one that comes and goes never happens. It is the cumulative sum of Page
      (Continuous inspection schemes, Biometrika 41, 1954), with probabilities for scores.
    """

    def __init__(self, settings: SmoothingSettings) -> None:
        self._settings = settings
        self._dwell_ns = round(settings.dwell_s * 1e9)
        self._average: Probabilities | None = None
        self._vote: _Vote | None = None
        self._time_ns = 0
        self._label = UNCERTAIN
        self._against_s = 0.0
        self._changed_ns = 0
        """When the rules gave the label."""
        self._since_ns = 0
        """The frame that showed it first."""

    def change(self, settings: SmoothingSettings) -> None:
        """Go on by other settings from the next frame on; the average and the label stay."""
        if settings.vote_s != self._settings.vote_s and self._average is not None:
            top = self._vote.winner if self._vote else int(self._average.argmax())
            self._vote = _Vote(settings.vote_s, top) if settings.vote_s > 0 else None
        self._settings = settings
        self._dwell_ns = round(settings.dwell_s * 1e9)

    def _decide(self, average: list[float], candidate: int) -> tuple[str, float]:
        """What the rules would show now, and by how much they speak against what is shown."""
        settings = self._settings
        surplus = average[candidate] - settings.thresholds[candidate]
        if self._label == UNCERTAIN:
            return EXPRESSIONS[candidate] if surplus >= 0 else UNCERTAIN, surplus
        shown = EXPRESSIONS.index(self._label)
        against = settings.thresholds[shown] - settings.hysteresis / 2 - average[shown]
        if candidate != shown and surplus >= 0:
            lead = average[candidate] - average[shown] - settings.hysteresis
            gives_way = lead >= 0 or against > 0
            return EXPRESSIONS[candidate] if gives_way else self._label, max(lead, against)
        if against > 0:
            top = max(range(len(average)), key=average.__getitem__)
            # One that is sure enough may still be waiting for its vote: no `uncertain` in between.
            if average[top] < settings.thresholds[top]:
                return UNCERTAIN, against
        return self._label, against

    def _weight(self, passed_ns: int) -> float:
        tau = self._settings.tau_s
        return 1.0 if tau == 0 else 1.0 - math.exp(-passed_ns / 1e9 / tau)

    def _apply(self, average: Probabilities, candidate: int, at_ns: int, *, tick: bool) -> None:
        """Apply the rules. What adds up does so at ticks only, as they are alike at any rate."""
        label, against = self._decide(average.tolist(), candidate)
        needed_s = self._settings.evidence_s
        if tick:
            added_s = self._against_s + against * TICK_NS / 1e9
            self._against_s = min(max(0.0, added_s), needed_s)
        dwelt = at_ns - self._changed_ns >= self._dwell_ns
        if label != self._label and dwelt and self._against_s >= needed_s:
            self._label, self._changed_ns, self._against_s = label, at_ns, 0.0

    def _run(self, new: Probabilities, since_ns: int, now_ns: int) -> Probabilities:
        """Apply the rules at the ticks after `since_ns` and now; returns the average of now."""
        assert self._average is not None
        old, frame_top = self._average, int(new.argmax())
        for at_ns in range((since_ns // TICK_NS + 1) * TICK_NS, now_ns, TICK_NS):
            average = old + self._weight(at_ns - since_ns) * (new - old)
            self._apply(average, self._candidate(average, frame_top, tick=True), at_ns, tick=True)
        average, tick = old + self._weight(now_ns - since_ns) * (new - old), now_ns % TICK_NS == 0
        self._apply(average, self._candidate(average, frame_top, tick=tick), now_ns, tick=tick)
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
            self._label, _ = self._decide(new.tolist(), int(new.argmax()))
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
