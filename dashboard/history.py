"""What was before the page was opened: KPIs of five minutes, expressions of an hour."""

from collections import defaultdict, deque
from typing import Any

from contract.telemetry import FrameResult, KpiSnapshot

SPAN_S = 300.0
SPACING_S = 1.0
HOUR_MINUTES = 60
MOST_GAP_S = 1.0
"""Longest time that a result stands for; nothing is known of what is beyond it."""


def _point(kpi: KpiSnapshot) -> dict[str, Any]:
    """The numbers a chart draws; a percentile the box does not have yet is None."""
    return {
        "fps": kpi.fps,
        "e2e_p50_ms": kpi.e2e_ms.get("p50"),
        "e2e_p95_ms": kpi.e2e_ms.get("p95"),
        "e2e_p99_ms": kpi.e2e_ms.get("p99"),
        "cpu_percent": kpi.cpu_percent,
        "rss_mb": kpi.rss_mb,
        "temperature_c": kpi.temperature_c,
        "flips_per_minute": kpi.flips_per_minute,
        "drops": sum(kpi.drops.values()),
        "faces": kpi.faces,
    }


class History:
    """KPI points at most one a second over the last `SPAN_S` seconds, in bounded memory.

    Times are seconds of one monotonic clock, given by the caller. Not locked: `add` is called from
    one thread, and `points` reads a copy.
    """

    def __init__(self) -> None:
        self._points: deque[tuple[float, dict[str, Any]]] = deque(maxlen=int(SPAN_S / SPACING_S))

    def add(self, kpi: KpiSnapshot, now_s: float) -> None:
        """Keep `kpi` unless a point of the same second is kept already."""
        if not self._points or now_s - self._points[-1][0] >= SPACING_S:
            self._points.append((now_s, _point(kpi)))

    def points(self, now_s: float) -> list[dict[str, Any]]:
        """Oldest first, each with its `age_s`; nothing older than `SPAN_S`."""
        return [
            {"age_s": round(now_s - at_s, 3), **point}
            for at_s, point in list(self._points)
            if now_s - at_s <= SPAN_S
        ]


class LastHour:
    """For how long each label was shown in each of the last 60 minutes, summed over the faces.

    Times and locking as in `History`. The first minute is a part of one.
    """

    def __init__(self) -> None:
        self._minutes: deque[tuple[int, defaultdict[str, float]]] = deque(maxlen=HOUR_MINUTES)
        self._last_s: float | None = None

    def add(self, frame: FrameResult | None, now_s: float) -> None:
        """Count the faces of the newest frame (None: there is none) since the one before."""
        gap_s = 0.0 if self._last_s is None else min(MOST_GAP_S, max(0.0, now_s - self._last_s))
        self._last_s = now_s
        if frame is None:
            return
        minute = int(now_s // 60)
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append((minute, defaultdict(float)))
        for face in frame.faces:
            self._minutes[-1][1][face.label] += gap_s

    def minutes(self, now_s: float) -> list[dict[str, Any]]:
        """Oldest first: `age_min` (0 is the minute that runs) and `seconds` by label."""
        now = int(now_s // 60)
        return [
            {"age_min": now - minute, "seconds": {k: round(v, 3) for k, v in dict(shown).items()}}
            for minute, shown in list(self._minutes)
            if now - minute < HOUR_MINUTES
        ]
