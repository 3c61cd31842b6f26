"""What happens to the people in view: somebody appears, shows another label, leaves."""

from dataclasses import dataclass
from typing import Literal

from contract.telemetry import FaceResult, FrameResult

LEFT_AFTER_S = 1.5
"""Not seen for so long, a person has left: the tracker forgets a face after a second."""


@dataclass(frozen=True, slots=True)
class TrackEvent:
    """One of them. `utc_ns` is the frame's time; of `left`, when the person was last seen."""

    kind: Literal["appeared", "changed", "left"]
    track: int
    label: str
    previous: str | None
    confidence: float
    in_view_s: float
    utc_ns: int


@dataclass(slots=True)
class _Person:
    first_ns: int
    last_ns: int
    last_utc_ns: int
    face: FaceResult


class TrackEvents:
    """Turns results into events. Times are those of the frames, monotonic nanoseconds."""

    def __init__(self) -> None:
        self._people: dict[int, _Person] = {}

    def update(self, result: FrameResult) -> list[TrackEvent]:
        """The events of a frame."""
        found = []
        for face in result.faces:
            person = self._people.get(face.track)
            if person is None:
                person = _Person(result.mono_ns, result.mono_ns, result.utc_ns, face)
                self._people[face.track] = person
                found.append(_event("appeared", person, None))
                continue
            before, person.face = person.face.label, face
            person.last_ns, person.last_utc_ns = result.mono_ns, result.utc_ns
            if face.label != before:
                found.append(_event("changed", person, before))
        return found + self.expire(result.mono_ns)

    def expire(self, mono_ns: int) -> list[TrackEvent]:
        """Who has left by now, also where no frames come any more."""
        gone = [
            track
            for track, person in self._people.items()
            if mono_ns - person.last_ns > LEFT_AFTER_S * 1e9
        ]
        return [_event("left", self._people.pop(track), None) for track in gone]


def _event(
    kind: Literal["appeared", "changed", "left"], person: _Person, previous: str | None
) -> TrackEvent:
    return TrackEvent(
        kind=kind,
        track=person.face.track,
        label=person.face.label,
        previous=previous,
        confidence=person.face.confidence,
        in_view_s=(person.last_ns - person.first_ns) / 1e9,
        utc_ns=person.last_utc_ns,
    )
