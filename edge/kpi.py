"""KPIs over rolling windows; time is handed in."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from contract.telemetry import FrameResult

LATENCY_WINDOW_S = 10.0
FLIP_WINDOW_S = 60.0


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """`{p50, p95, p99}` of some values, zeros for none."""
    found = np.fromiter(values, np.float64)
    if not len(found):
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    p50, p95, p99 = np.percentile(found, [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}


@dataclass(frozen=True, slots=True)
class _Sample:
    time_ns: int
    e2e_ms: float
    stages_ms: dict[str, float]
    faces: int
    flips: int
    face_s: float


class KpiWindow:
    """Frame rate, latencies, face rate and flips, from the results of recent frames."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()
        self.frames = 0
        self.flips = 0

    def add(self, result: FrameResult, flips: int) -> None:
        """Count a frame and the labels that changed in it."""
        self.frames += 1
        self.flips += flips
        gap_s = 0.0
        if self._samples:
            gap_s = min(1.0, (result.mono_ns - self._samples[-1].time_ns) / 1e9)
        face_s = max(0.0, gap_s) * len(result.faces)
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
        in_view_s = sum(s.face_s for s in self._samples)
        return sum(s.flips for s in self._samples) * 60 / in_view_s if in_view_s >= 1 else 0.0
