"""Made-up results of frames, for whatever takes them."""

from typing import Any

from contract.expressions import EXPRESSIONS, INDEX
from contract.telemetry import FaceResult, FrameResult, KpiSnapshot

SECOND = 1_000_000_000


def peaked(name: str, share: float = 0.9) -> tuple[float, ...]:
    """Probabilities with `share` on one expression and the rest spread evenly."""
    rest = (1 - share) / (len(EXPRESSIONS) - 1)
    return tuple(share if i == INDEX[name] else rest for i in range(len(EXPRESSIONS)))


def a_face(
    track: int = 1,
    box: tuple[float, float, float, float] = (100.0, 100.0, 80.0, 100.0),
    label: str = "happy",
    **changes: Any,
) -> FaceResult:
    """A face; `changes` replace fields."""
    values: dict[str, Any] = {
        "track": track,
        "box": box,
        "detector_score": 0.93,
        "probabilities": peaked("happy"),
        "smoothed": peaked("happy"),
        "top": "happy",
        "label": label,
        "confidence": 0.9,
        "held_s": 1.5,
    }
    return FaceResult(**{**values, **changes})


def a_result(
    sequence: int = 0, mono_ns: int = 0, *faces: FaceResult, **changes: Any
) -> FrameResult:
    """The result of a 640×480 frame; `changes` replace fields."""
    values: dict[str, Any] = {
        "sequence": sequence,
        "mono_ns": mono_ns,
        "utc_ns": 1_700_000_000 * SECOND + mono_ns,
        "width": 640,
        "height": 480,
        "faces": faces,
        "stages_ms": {"detect": 4.0, "track": 0.1, "classify": 5.0, "smooth": 0.1},
        "e2e_ms": 10.0,
        "detected": True,
    }
    return FrameResult(**{**values, **changes})


def a_kpi(**changes: Any) -> KpiSnapshot:
    """The state of a box; `changes` replace fields."""
    values: dict[str, Any] = {
        "uptime_s": 10.0,
        "frames": 300,
        "fps": 30.0,
        "e2e_ms": {"p50": 9.0, "p95": 11.0, "p99": 12.0},
        "stages_ms": {"detect": {"p50": 4.0, "p95": 5.0, "p99": 6.0}},
        "faces": 1,
        "face_rate": 1.0,
        "flips_per_minute": 2.0,
        "drops": {},
        "cpu_percent": 50.0,
        "rss_mb": 200.0,
        "camera": "live",
        "source": "demo",
        "detector": "haar",
        "model": "tiny",
        "backend": "onnxruntime fp32",
    }
    return KpiSnapshot(**{**values, **changes})
