"""What the pipeline tells the world: results of a frame, KPIs, and how both cross to a viewer.

Sinks and the dashboard see these and nothing else. The JSON form is versioned; the live feed is the
same JSON over local ZeroMQ sockets (addresses in `FeedAddress`).

Live feed. `live` is an XPUB socket; each message is one part, one topic byte and the payload:

- `TELEMETRY` + JSON of `LiveUpdate`, for every frame;
- `PREVIEW` + JPEG, encoded only while somebody subscribes to it; faces are pixelated in it unless
  the raw view is switched on.

A reader subscribes one conflating SUB socket to one topic, so it always has the newest message and
a slow reader loses old ones. `control` is a REP socket that answers JSON requests:
`{"get": "settings"}` → `{"schema": …, "values": …}`, and `{"set": {"key": value}}` → the same, or
`{"error": "one line"}` for a value the schema refuses.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
TELEMETRY = b"T"
PREVIEW = b"P"


@dataclass(frozen=True, slots=True)
class FaceResult:
    """One face of one frame.

    `box` is left, top, width, height in pixels; `probabilities` are calibrated and unsmoothed,
    `smoothed` are what `label` was decided on, both in the order of the expressions. `label` is an
    expression, `uncertain` or `low_quality`; `confidence` is the smoothed probability of `top`.
    `quality` says why the face was not judged in this frame (then `probabilities` is empty), or is
    empty.
    """

    track: int
    box: tuple[float, float, float, float]
    detector_score: float
    probabilities: tuple[float, ...]
    smoothed: tuple[float, ...]
    top: str
    label: str
    confidence: float
    held_s: float
    quality: str = ""


@dataclass(frozen=True, slots=True)
class FrameResult:
    """One frame: when it was read, what was seen, and what each stage took.

    `mono_ns` is the monotonic clock at the return of the camera's read, `utc_ns` the wall clock
    then; `stages_ms` are milliseconds by stage (detect, track, classify, smooth), and `e2e_ms` is
    from the return of read to the finished result.
    """

    sequence: int
    mono_ns: int
    utc_ns: int
    width: int
    height: int
    faces: tuple[FaceResult, ...]
    stages_ms: dict[str, float]
    e2e_ms: float
    detected: bool


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that should be so, whether it is, and why, in one line.

    The box is ready when all `critical` checks are ok; the others say what is worse than it should
    be while the work goes on.
    """

    name: str
    ok: bool
    reason: str
    critical: bool = True


@dataclass(frozen=True, slots=True)
class KpiSnapshot:
    """The state of the whole box, about once a second.

    Latencies are milliseconds over the last ten seconds; `flips_per_minute` counts changes of a
    shown label per minute of a face in view; `drops` counts frames by reason since start; CPU is
    percent of one core. `camera` is a state (`waiting`, `live`, `lost`, `stalled`, `frozen`,
    `dark`, `slow`, `ended`), `camera_events` counts what happened to it since start (reopened,
    restarted, abandoned, resized), and `notes` are one-line reasons for anything that is not as it
    should be.
    """

    uptime_s: float
    frames: int
    fps: float
    e2e_ms: dict[str, float]
    stages_ms: dict[str, dict[str, float]]
    faces: int
    face_rate: float
    flips_per_minute: float
    drops: dict[str, int]
    cpu_percent: float
    rss_mb: float
    camera: str
    source: str
    detector: str
    model: str
    backend: str
    notes: tuple[str, ...] = field(default=())
    checks: tuple[Check, ...] = field(default=())
    camera_events: dict[str, int] = field(default_factory=dict)

    @property
    def unready(self) -> str | None:
        """Why the box is not ready, in one line; None when it is."""
        return next((c.reason for c in self.checks if c.critical and not c.ok), None)


@dataclass(frozen=True, slots=True)
class LiveUpdate:
    """What a viewer of the live feed gets."""

    frame: FrameResult | None
    kpi: KpiSnapshot


def to_json(update: LiveUpdate) -> bytes:
    """The versioned JSON form of an update, UTF-8."""
    body = {"schema": SCHEMA_VERSION, **asdict(update)}
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def _face(value: dict[str, Any]) -> FaceResult:
    tuples: dict[str, Any] = {k: tuple(value[k]) for k in ("box", "probabilities", "smoothed")}
    return FaceResult(**{**value, **tuples})


def from_json(text: bytes) -> LiveUpdate:
    """The inverse of `to_json`. Raises `ValueError` for another schema or a wrong shape."""
    body = json.loads(text)
    if not isinstance(body, dict) or body.get("schema") != SCHEMA_VERSION:
        raise ValueError(f"telemetry is not of schema {SCHEMA_VERSION}")
    try:
        frame, kpi = body["frame"], body["kpi"]
        if frame is not None:
            frame = FrameResult(**{**frame, "faces": tuple(_face(f) for f in frame["faces"])})
        tuples = {
            "notes": tuple(kpi["notes"]),
            "checks": tuple(Check(**check) for check in kpi["checks"]),
        }
        return LiveUpdate(frame, KpiSnapshot(**{**kpi, **tuples}))
    except (KeyError, TypeError) as error:
        raise ValueError(f"telemetry has a wrong shape: {error}") from None


@dataclass(frozen=True, slots=True)
class FeedAddress:
    """Where the live feed of one box is, from the folder that holds its sockets."""

    folder: Path

    @property
    def live(self) -> str:
        """ZeroMQ address of the XPUB socket."""
        return f"ipc://{self.folder / 'live'}"

    @property
    def control(self) -> str:
        """ZeroMQ address of the REP socket."""
        return f"ipc://{self.folder / 'control'}"
