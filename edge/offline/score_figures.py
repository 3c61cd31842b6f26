"""How well labels follow a known course of expressions: pure figures, no model, no files.

Two series are told apart: the raw tops, the likeliest expression of each frame alone, and the
smoothed labels, what was shown. A frame of a face that is shown as `uncertain` counts with the
expression that leads behind it, so that abstaining neither gains nor loses accuracy; how often an
expression was shown is the coverage, and how often it was right then is said beside it.

Accuracy and F1 are over held frames: from `SETTLE_S` after a segment's begin to its end. What a
switch costs before that is the switch lag, a figure of its own. A frame without a face is wrong.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from contract import metrics
from contract.expressions import EXPRESSIONS, INDEX, UNCERTAIN
from edge.offline.score_labels import Segment

SETTLE_S = 0.4
"""The median switch lag that is allowed: frames before it are transition, not held expression."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The scored face of one frame, the largest. `t_s` counts from the first frame.

    `raw` is the likeliest expression of this frame alone, or empty (no face, or one too poor to
    judge); `label` is what was shown, empty without a face; `top` leads the average.
    """

    t_s: float
    raw: str = ""
    label: str = ""
    top: str = ""

    @property
    def guess(self) -> str:
        """The smoothed answer: the label, or what leads behind `uncertain`."""
        return self.top if self.label == UNCERTAIN else self.label


@dataclass
class Tally:
    """Counts of one series over one or more sessions."""

    truth: list[int] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)
    flips: int = 0
    held_flips: int = 0
    lags_s: list[float] = field(default_factory=list)
    unreached: int = 0

    def add(self, other: "Tally") -> None:
        """Pool another session's counts with these."""
        self.truth += other.truth
        self.predicted += other.predicted
        self.flips += other.flips
        self.held_flips += other.held_flips
        self.lags_s += other.lags_s
        self.unreached += other.unreached


@dataclass(frozen=True)
class Figures:
    """One series. None where there is nothing to measure: no labels, or no switches.

    Macro-F1 is the mean over the expressions that occur. `flips_per_minute` counts every change per
    minute of a face in view; `held_flips_per_minute` leaves out the one change a new segment needs.
    `flip_frames` is the share of frames with a face in which it changed. A lag is the time from a
    segment's begin until its label is first seen; the segments in which it never was are
    `unreached`.
    """

    accuracy: float | None
    macro_f1: float | None
    per_class_f1: dict[str, float] | None
    flips: int
    flips_per_minute: float
    held_flips_per_minute: float | None
    flip_frames: float
    lag_median_s: float | None
    lag_p95_s: float | None
    switches: int
    unreached: int


@dataclass
class Counts:
    """What was counted in one or more sessions; `Counts.figures` makes ratios of it."""

    sessions: int = 0
    frames: int = 0
    faces: int = 0
    face_s: float = 0.0
    labelled: int = 0
    covered: int = 0
    covered_right: int = 0
    raw: Tally = field(default_factory=Tally)
    smoothed: Tally = field(default_factory=Tally)

    def add(self, other: "Counts") -> None:
        """Pool another session's counts with these."""
        for name in ("sessions", "frames", "faces", "face_s", "labelled", "covered",
                     "covered_right"):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.raw.add(other.raw)
        self.smoothed.add(other.smoothed)


@dataclass(frozen=True)
class Score:
    """Raw against smoothed. `coverage` and `right_when_shown` are None without labels.

    `coverage` is the share of labelled frames in which an expression was shown.
    """

    sessions: int
    frames: int
    faces: int
    face_s: float
    coverage: float | None
    right_when_shown: float | None
    raw: Figures
    smoothed: Figures


def _changes(values: Sequence[str]) -> int:
    return sum(a != b for a, b in pairwise(values))


def _tally(
    frames: Sequence[Seen], segments: Sequence[Segment],
    answer: Callable[[Seen], str], shown: Callable[[Seen], str],
) -> Tally:  # fmt: skip
    """`answer` is what counts as the prediction, `shown` is what a viewer sees change."""
    tally = Tally(flips=_changes([shown(f) for f in frames if shown(f)]))
    times = [frame.t_s for frame in frames]
    before: Segment | None = None
    for segment in segments:
        # Times come from a nanosecond clock, and labels in decimals: a hair's breadth is none.
        first = bisect_right(times, segment.start_s - 1e-6)
        end = bisect_right(times, segment.end_s - 1e-6)
        inside = frames[first:end]
        for frame in inside:
            if frame.t_s - segment.start_s >= SETTLE_S - 1e-6 or before is None:
                tally.truth.append(INDEX[segment.label])
                tally.predicted.append(INDEX.get(answer(frame), -1))
        earlier = next((shown(f) for f in reversed(frames[:first]) if shown(f)), "")
        seen = [value for value in map(shown, inside) if value]
        changes = _changes([earlier, *seen] if earlier else seen)
        needed = before is not None and before.label != segment.label
        tally.held_flips += max(0, changes - needed)
        if before is not None:
            reached = (f.t_s for f in inside if shown(f) == segment.label)
            at = next(reached, None)
            if at is None:
                tally.unreached += 1
            else:
                tally.lags_s.append(max(0.0, at - segment.start_s))
        before = segment
    return tally


def count(frames: Sequence[Seen], segments: Sequence[Segment]) -> Counts:
    """Count one session. `frames` are in order of time; `segments` may be empty: flips only."""
    faces = sum(frame.label != "" for frame in frames)
    span = frames[-1].t_s - frames[0].t_s if frames else 0.0
    counts = Counts(
        sessions=1,
        frames=len(frames),
        faces=faces,
        face_s=faces * span / max(1, len(frames) - 1),
        raw=_tally(frames, segments, lambda f: f.raw, lambda f: f.raw),
        smoothed=_tally(frames, segments, lambda f: f.guess, lambda f: f.label),
    )
    for segment in segments:
        for frame in frames:
            if segment.start_s - 1e-6 <= frame.t_s < segment.end_s - 1e-6:
                counts.labelled += 1
                counts.covered += frame.label in INDEX
                counts.covered_right += frame.label == segment.label
    return counts


def _figures(tally: Tally, counts: Counts) -> Figures:
    minutes = counts.face_s / 60
    truth, predicted = np.array(tally.truth, np.int64), np.array(tally.predicted, np.int64)
    accuracy = macro = None
    by_class: dict[str, float] | None = None
    if len(truth):
        f1 = metrics.per_class(truth, predicted, len(EXPRESSIONS)).f1
        by_class = {EXPRESSIONS[i]: float(f1[i]) for i in sorted(set(tally.truth))}
        accuracy = metrics.accuracy(truth, predicted)
        macro = float(np.mean(list(by_class.values())))
    lags = tally.lags_s
    return Figures(
        accuracy=accuracy,
        macro_f1=macro,
        per_class_f1=by_class,
        flips=tally.flips,
        flips_per_minute=tally.flips / minutes if minutes else 0.0,
        held_flips_per_minute=(
            (tally.held_flips / minutes if minutes else 0.0) if counts.labelled else None
        ),
        flip_frames=tally.flips / counts.faces if counts.faces else 0.0,
        lag_median_s=float(np.median(lags)) if lags else None,
        lag_p95_s=float(np.percentile(lags, 95)) if lags else None,
        switches=len(lags) + tally.unreached,
        unreached=tally.unreached,
    )


def score(counts: Counts) -> Score:
    """The figures of counted sessions."""
    return Score(
        sessions=counts.sessions,
        frames=counts.frames,
        faces=counts.faces,
        face_s=counts.face_s,
        coverage=counts.covered / counts.labelled if counts.labelled else None,
        right_when_shown=counts.covered_right / counts.covered if counts.covered else None,
        raw=_figures(counts.raw, counts),
        smoothed=_figures(counts.smoothed, counts),
    )


def pool(each: Sequence[Counts]) -> Counts:
    """The counts of several sessions as those of one."""
    total = Counts()
    for counts in each:
        total.add(counts)
    return total
