"""What the pipeline tells the world: results of a frame, KPIs, and how both cross to a viewer.

Sinks and the dashboard see these and nothing else. The JSON form is versioned; the live feed is the
same JSON over local ZeroMQ sockets (addresses in `FeedAddress`).

Live feed. `live` is an XPUB socket; each message is one part, one topic byte and the payload:

- `TELEMETRY` + JSON of `LiveUpdate`, for every frame;
- `PREVIEW` + JPEG, encoded only while somebody subscribes to it; faces are pixelated in it unless
  the raw view is switched on.

A reader subscribes one conflating SUB socket to one topic, so it always has the newest message and
a slow reader loses old ones. `control` is a REP socket that answers JSON requests:
`{"get": "settings"}` → `{"schema": …, "values": …, "restart": […]}`, the last of which names keys
that the profile's file has changed and that need a restart; `{"set": {"key": value}}` and, to read
that file again, `{"reload": true}` → the same, or `{"error": "one line"}`. `{"get": "model"}` →
the bundle in use, its figures and its card; `{"correct": {"track": n, "expression": e,
"age_s": s}}` → `{"corrected": …}`, or an error: what track n showed s seconds ago should have
been e.
"""

import json
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

SCHEMA_VERSION = 1
TELEMETRY = b"T"
PREVIEW = b"P"
LATENCY_BOUNDS_MS = (2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 250.0, 1000.0)
"""Upper bounds of the buckets of a latency `Histogram`; one bucket more has no bound."""
SURE = 0.95
"""A face whose confidence is above this counts as `Totals.sure`."""
_PART = with_config(ConfigDict(extra="forbid"))
"""A part of an update that is read: what it does not name is refused."""


@_PART
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


@_PART
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


@_PART
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


@_PART
@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values fell into each bucket of `LATENCY_BOUNDS_MS`, and their sum in milliseconds.

    A value belongs to the first bucket whose bound it does not exceed; buckets are counted apart,
    not cumulatively.
    """

    counts: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS_MS) + 1)
    sum_ms: float = 0.0


@_PART
@dataclass(frozen=True, slots=True)
class Totals:
    """What was counted since the start of the program; none of it ever falls.

    `e2e` and `stages` are latencies of frames. `face_frames` are frames with a face, `flip_frames`
    those in which a shown label changed, `flips` the changes, `face_s` the seconds that faces were
    in view, summed over the faces. Of faces in single frames: `labels` counts what was shown,
    `judged` those good enough to judge, `sure` the judged ones with a confidence above `SURE`, and
    `poor` the others by reason.
    """

    e2e: Histogram = field(default_factory=Histogram)
    stages: dict[str, Histogram] = field(default_factory=dict)
    face_frames: int = 0
    flip_frames: int = 0
    flips: int = 0
    face_s: float = 0.0
    labels: dict[str, int] = field(default_factory=dict)
    judged: int = 0
    sure: int = 0
    poor: dict[str, int] = field(default_factory=dict)


@_PART
@dataclass(frozen=True, slots=True)
class KpiSnapshot:
    """The state of the whole box, about once a second.

    Latencies are milliseconds over the last ten seconds; `flips_per_minute` counts changes of a
    shown label per minute of a face in view; `drops` counts frames by reason since start; CPU is
    percent of one core. `camera` is a state (`waiting`, `live`, `lost`, `stalled`, `frozen`,
    `dark`, `slow`, `ended`), `camera_events` counts what happened to it since start (reopened,
    restarted, abandoned, resized), and `notes` are one-line reasons for anything that is not as it
    should be. `notice` is what people before the camera must be told. `temperature_c` is that of
    the processor, None where the machine does not tell.
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
    notice: str = ""
    temperature_c: float | None = None
    totals: Totals = field(default_factory=Totals)

    @property
    def unready(self) -> str | None:
        """Why the box is not ready, in one line; None when it is."""
        return next((c.reason for c in self.checks if c.critical and not c.ok), None)


@_PART
@dataclass(frozen=True, slots=True)
class LiveUpdate:
    """What a viewer of the live feed gets."""

    frame: FrameResult | None
    kpi: KpiSnapshot


def _members(value: Any) -> dict[str, Any]:
    """A dataclass's own fields; the encoder asks again for those inside, so nothing is copied."""
    return {member.name: getattr(value, member.name) for member in fields(value)}


def to_json(update: LiveUpdate) -> bytes:
    """The versioned JSON form of an update, UTF-8."""
    body = {"schema": SCHEMA_VERSION, **_members(update)}
    return json.dumps(body, separators=(",", ":"), allow_nan=False, default=_members).encode()


@cache
def _checked() -> TypeAdapter[LiveUpdate]:
    # Made at the first use: only those who read updates pay for it.
    return TypeAdapter(LiveUpdate)


def update_schema(ref_template: str) -> dict[str, Any]:
    """The JSON Schema of what `to_json` gives; its parts, in `$defs`, go by `ref_template`."""
    schema = _checked().json_schema(ref_template=ref_template)
    schema["properties"]["schema"] = {"const": SCHEMA_VERSION}
    schema["required"].append("schema")
    return schema


def from_json(text: bytes) -> LiveUpdate:
    """The inverse of `to_json`. Raises `ValueError` for another schema or a wrong shape."""
    body = json.loads(text)
    if not isinstance(body, dict) or body.pop("schema", None) != SCHEMA_VERSION:
        raise ValueError(f"telemetry is not of schema {SCHEMA_VERSION}")
    try:
        return _checked().validate_python(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"telemetry has a wrong shape: {place}: {first['msg']}") from None


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
