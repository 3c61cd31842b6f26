"""KPIs over rolling windows; time is handed in."""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from contract.telemetry import (
    LATENCY_BOUNDS_MS,
    SURE,
    FaceResult,
    FrameResult,
    Histogram,
    Totals,
)

LATENCY_WINDOW_S = 10.0
FLIP_WINDOW_S = 60.0
MOST_GAP_S = 1.0


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """`{p50, p95, p99}` of some values, zeros for none."""
    found = np.fromiter(values, np.float64)
    if not len(found):
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    p50, p95, p99 = np.percentile(found, [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}


def _per_minute(flips: int, face_s: float) -> float:
    return flips * 60 / face_s if face_s >= 1 else 0.0


@dataclass(frozen=True, slots=True)
class _Sample:
    time_ns: int
    e2e_ms: float
    stages_ms: dict[str, float]
    faces: int
    flips: int
    face_s: float


class _Latencies:
    """A histogram that is being filled."""

    def __init__(self) -> None:
        self._counts = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        self._sum_ms = 0.0

    def add(self, value_ms: float) -> None:
        self._counts[bisect_left(LATENCY_BOUNDS_MS, value_ms)] += 1
        self._sum_ms += value_ms

    def histogram(self) -> Histogram:
        return Histogram(tuple(self._counts), self._sum_ms)


class KpiTotals:
    """What is counted over a whole run, live and in a replay alike.

    `flips` are changes of shown labels, `flip_frames` the frames with any, `face_s` the seconds
    that faces were in view, summed over the faces.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.frames_with_faces = 0
        self.flips = 0
        self.flip_frames = 0
        self.face_s = 0.0
        self._e2e = _Latencies()
        self._stages: dict[str, _Latencies] = {}
        self._labels: Counter[str] = Counter()
        self._poor: Counter[str] = Counter()
        self._judged = self._sure = 0
        self._last_ns: int | None = None

    def add(self, result: FrameResult, flips: int) -> float:
        """Count a frame and the labels that changed in it; returns its seconds of faces in view.

        A face of this frame was in view since the frame before, but for a second at most.
        """
        self.frames += 1
        self.frames_with_faces += bool(result.faces)
        self.flips += flips
        self.flip_frames += flips > 0
        gap_s = 0.0
        if self._last_ns is not None:
            gap_s = min(MOST_GAP_S, max(0.0, (result.mono_ns - self._last_ns) / 1e9))
        self._last_ns = result.mono_ns
        face_s = gap_s * len(result.faces)
        self.face_s += face_s
        self._e2e.add(result.e2e_ms)
        for stage, took_ms in result.stages_ms.items():
            self._stages.setdefault(stage, _Latencies()).add(took_ms)
        for face in result.faces:
            self._count(face)
        return face_s

    def _count(self, face: FaceResult) -> None:
        self._labels[face.label] += 1
        if face.quality:
            self._poor[face.quality] += 1
        else:
            self._judged += 1
            self._sure += face.confidence > SURE

    def snapshot(self) -> Totals:
        """All of it so far, as it goes to viewers."""
        return Totals(
            e2e=self._e2e.histogram(),
            stages={name: stage.histogram() for name, stage in self._stages.items()},
            face_frames=self.frames_with_faces,
            flip_frames=self.flip_frames,
            flips=self.flips,
            face_s=self.face_s,
            labels=dict(self._labels),
            judged=self._judged,
            sure=self._sure,
            poor=dict(self._poor),
        )

    @property
    def face_rate(self) -> float:
        """Share of the frames with a face."""
        return self.frames_with_faces / self.frames if self.frames else 0.0

    @property
    def flip_frame_share(self) -> float:
        """Share of the frames with a face in which a label changed."""
        return self.flip_frames / self.frames_with_faces if self.frames_with_faces else 0.0

    @property
    def flips_per_minute(self) -> float:
        """Label changes per minute of a face in view; 0 for less than a second of it."""
        return _per_minute(self.flips, self.face_s)


class KpiWindow:
    """Frame rate, latencies, face rate and flips, from the results of recent frames."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()
        self.totals = KpiTotals()

    @property
    def frames(self) -> int:
        """Frames since the start."""
        return self.totals.frames

    @property
    def flips(self) -> int:
        """Label changes since the start."""
        return self.totals.flips

    def add(self, result: FrameResult, flips: int) -> None:
        """Count a frame and the labels that changed in it."""
        face_s = self.totals.add(result, flips)
        sample = _Sample(
            result.mono_ns, result.e2e_ms, result.stages_ms, len(result.faces), flips, face_s
        )
        self._samples.append(sample)
        self._forget(result.mono_ns)

    def _forget(self, now_ns: int) -> None:
        while self._samples and now_ns - self._samples[0].time_ns > FLIP_WINDOW_S * 1e9:
            self._samples.popleft()

    def _recent(self, now_ns: int) -> list[_Sample]:
        self._forget(now_ns)
        return [s for s in self._samples if now_ns - s.time_ns <= LATENCY_WINDOW_S * 1e9]

    def fps(self, now_ns: int) -> float:
        """Frames per second over the latency window (or since the first frame, if later)."""
        recent = self._recent(now_ns)
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / max(1e-9, (now_ns - recent[0].time_ns) / 1e9)

    def e2e_ms(self, now_ns: int) -> dict[str, float]:
        """Percentiles of the end-to-end latency, milliseconds."""
        return percentiles(s.e2e_ms for s in self._recent(now_ns))

    def stages_ms(self, now_ns: int) -> dict[str, dict[str, float]]:
        """Percentiles of each stage, milliseconds."""
        recent = self._recent(now_ns)
        names = dict.fromkeys(name for s in recent for name in s.stages_ms)
        return {
            name: percentiles(s.stages_ms[name] for s in recent if name in s.stages_ms)
            for name in names
        }

    def face_rate(self, now_ns: int) -> float:
        """Share of recent frames with at least one face."""
        recent = self._recent(now_ns)
        return sum(s.faces > 0 for s in recent) / len(recent) if recent else 0.0

    def flips_per_minute(self, now_ns: int) -> float:
        """Label changes per minute of a face in view, over the last minute."""
        self._forget(now_ns)
        return _per_minute(
            sum(s.flips for s in self._samples), sum(s.face_s for s in self._samples)
        )
