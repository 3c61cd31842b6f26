"""The recent course of the KPIs, so that a page opened now shows the last five minutes."""

from collections import deque
from typing import Any

from contract.telemetry import KpiSnapshot

SPAN_S = 300.0
SPACING_S = 1.0


def _point(kpi: KpiSnapshot) -> dict[str, Any]:
    """The numbers a chart draws; a percentile the box does not have yet is None."""
    return {
        "fps": kpi.fps,
        "e2e_p50_ms": kpi.e2e_ms.get("p50"),
        "e2e_p95_ms": kpi.e2e_ms.get("p95"),
        "e2e_p99_ms": kpi.e2e_ms.get("p99"),
        "cpu_percent": kpi.cpu_percent,
        "rss_mb": kpi.rss_mb,
        "flips_per_minute": kpi.flips_per_minute,
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
