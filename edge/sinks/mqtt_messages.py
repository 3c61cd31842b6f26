"""What a box says over MQTT: topics, and payloads as versioned JSON.

`firmware_config/fleet/mqtt_schema.json` is the JSON schema of the payloads, as this prints it:

    python -m edge.sinks.mqtt_messages > firmware_config/fleet/mqtt_schema.json
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from contract.telemetry import FaceResult, KpiSnapshot
from edge.sinks.track_events import TrackEvent

ONLINE, OFFLINE = "online", "offline"
"""Payloads of the topic of availability."""
_FORM = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one box: `prefix/box/…`."""

    prefix: str
    box: str

    @property
    def availability(self) -> str:
        """`online` or `offline`, retained; the broker says `offline` for a box that vanished."""
        return f"{self.prefix}/{self.box}/availability"

    @property
    def state(self) -> str:
        """The newest `StateMessage`, retained."""
        return f"{self.prefix}/{self.box}/state"

    def track(self, track: int) -> str:
        """Each `EventMessage` of one person in view."""
        return f"{self.prefix}/{self.box}/track/{track}"


class _Message(BaseModel):
    model_config = _FORM

    version: Literal[1] = Field(1, description="Version of this form.")
    box: str = Field(description="Name of the box.")
    time: str = Field(description="When, UTC, ISO 8601.")


class EventMessage(_Message):
    """Somebody appeared, shows another label, or left."""

    run: str = Field(description="The run of the program: when it began, UTC, ISO 8601.")
    sequence: int = Field(
        ge=1, description="Counts the events of a run; a gap is events lost, a repeat a duplicate."
    )
    event: Literal["appeared", "changed", "left"] = Field(description="What happened.")
    track: int = Field(ge=0, description="Number of the person within the run.")
    label: str = Field(description="An expression, uncertain or low_quality.")
    previous: str | None = Field(description="The label before, of changed.")
    confidence: float = Field(ge=0, le=1, description="Smoothed probability of the top expression.")
    in_view_s: float = Field(ge=0, description="How long the person has been in view, seconds.")


class Person(BaseModel):
    """One person in view."""

    model_config = _FORM

    track: int = Field(ge=0, description="Number of the person within the run.")
    label: str = Field(description="An expression, uncertain or low_quality.")
    confidence: float = Field(ge=0, le=1, description="Smoothed probability of the top expression.")
    held_s: float = Field(ge=0, description="How long the label has been shown, seconds.")


class StateMessage(_Message):
    """The state of the box, and who is in view."""

    ready: bool = Field(description="Whether the box does its work, as /readyz says.")
    reason: str | None = Field(description="Why it is not ready.")
    notes: tuple[str, ...] = Field(description="What is not as it should be, a line each.")
    camera: str = Field(description="State of the camera.")
    people: tuple[Person, ...] = Field(description="Who is in view.")
    fps: float = Field(description="Frames per second, over ten seconds.")
    e2e_p99_ms: float = Field(description="99th percentile of end-to-end latency, milliseconds.")
    flips_per_minute: float = Field(description="Label changes per minute of a face in view.")
    frames: int = Field(description="Frames since the start.")
    drops: dict[str, int] = Field(description="Frames lost since the start, by reason.")
    cpu_percent: float = Field(description="Processor time, percent of one core.")
    rss_mb: float = Field(description="Memory, MB.")
    temperature_c: float | None = Field(description="Of the processor, degrees Celsius.")
    uptime_s: float = Field(description="Since the start, seconds.")
    model: str = Field(description="Name of the model.")
    backend: str = Field(description="Runtime and precision.")
    events_lost: int = Field(ge=0, description="Events lost since the start.")


def utc_text(utc_ns: int) -> str:
    """ISO 8601 with milliseconds, of nanoseconds since 1970."""
    text = datetime.fromtimestamp(utc_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def event_message(event: TrackEvent, *, box: str, run: str, sequence: int) -> EventMessage:
    """An event as it is sent."""
    return EventMessage(
        box=box, time=utc_text(event.utc_ns), run=run, sequence=sequence, event=event.kind,
        track=event.track, label=event.label, previous=event.previous,
        confidence=_share(event.confidence), in_view_s=round(event.in_view_s, 3),
    )  # fmt: skip


def state_message(
    kpi: KpiSnapshot, faces: tuple[FaceResult, ...], *, box: str, utc_ns: int, events_lost: int
) -> StateMessage:
    """The state as it is sent."""
    people = tuple(
        Person(
            track=f.track, label=f.label, confidence=_share(f.confidence), held_s=round(f.held_s, 1)
        )
        for f in faces
    )
    return StateMessage(
        box=box, time=utc_text(utc_ns), ready=kpi.unready is None, reason=kpi.unready,
        notes=kpi.notes, camera=kpi.camera, people=people, fps=round(kpi.fps, 2),
        e2e_p99_ms=round(kpi.e2e_ms.get("p99", 0.0), 2),
        flips_per_minute=round(kpi.flips_per_minute, 2), frames=kpi.frames, drops=kpi.drops,
        cpu_percent=round(kpi.cpu_percent, 1), rss_mb=round(kpi.rss_mb, 1),
        temperature_c=kpi.temperature_c, uptime_s=round(kpi.uptime_s, 1), model=kpi.model,
        backend=kpi.backend, events_lost=events_lost,
    )  # fmt: skip


def _share(value: float) -> float:
    """A probability, of which rounding may have made a little more than 1."""
    return round(min(1.0, max(0.0, value)), 4)


def schema() -> dict[str, Any]:
    """The JSON schema of the payloads, under `$defs`."""
    _, body = models_json_schema(
        [(EventMessage, "serialization"), (StateMessage, "serialization")],
        title="What a box says over MQTT",
        description="EventMessage on prefix/box/track/N, StateMessage on prefix/box/state.",
    )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
