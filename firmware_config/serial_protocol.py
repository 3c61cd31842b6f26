"""The serial link between the box and a microcontroller: the one definition of its bytes.

A frame is `type` (1 byte), `sequence` (2), `length` of the payload (1), the payload, and a CRC-32
of all that (4; the one of Ethernet and zlib). Numbers are little-endian. It crosses as COBS
(Cheshire & Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on Networking 7(2),
1999), which leaves no zero byte in it, and a zero byte ends it. So a receiver that hears noise, or
begins to listen in the middle, is right again after the next zero.

`type` is the kind of message, plus `FROM_DEVICE` in what the device says: a line that echoes is not
mistaken for a device. Each side numbers its frames one after another; with a hello the numbers may
begin anew.

Whoever starts says `Hello`, again and again until it is answered; both versions must be the same.
From then on both say something at least every `HEARTBEAT_S` (`Heartbeat` from the box, `Status`
from the device), and "connected" means: greeted, and heard within `SILENCE_S`. `Brightness` and
`Query` of the box are acknowledged; the box answers a `Query` with `Faces`.

`mcu/` holds the device's side in C; its `fer_protocol.h` is made from this file.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from contract.expressions import EXPRESSIONS, LOW_QUALITY, UNCERTAIN

VERSION = 1
BAUD = 115_200
HEARTBEAT_S = 1.0
SILENCE_S = 3.0
"""Nothing heard for so long: not connected."""

MAX_PAYLOAD = 64
MAX_NAME = 32
MAX_FACES = 7
"""Faces in one message; of more, the largest are told."""

FROM_DEVICE = 0x80
DELIMITER = b"\0"
LABELS = (*EXPRESSIONS, UNCERTAIN, LOW_QUALITY)
"""What a face may show; on the line, its place in this list."""

_HEAD = struct.Struct("<BHB")
_CRC = struct.Struct("<I")
MAX_FRAME = _HEAD.size + MAX_PAYLOAD + _CRC.size
MAX_ENCODED = MAX_FRAME + 1
"""Bytes between two delimiters: shorter than COBS's blocks of 254, it adds exactly one."""


class Kind(IntEnum):
    """What a message is about."""

    HELLO = 0x01
    HEARTBEAT = 0x02
    FACES = 0x03
    BRIGHTNESS = 0x04
    QUERY = 0x05
    STATUS = 0x06
    ACKNOWLEDGE = 0x07
    FAULT = 0x70


class Result(IntEnum):
    """How a command went."""

    DONE = 0
    UNKNOWN = 1
    BAD_VALUE = 2


@dataclass(frozen=True, slots=True)
class Frame:
    """What one frame carries; `type` is the byte on the line."""

    type: int
    sequence: int
    payload: bytes

    @property
    def from_device(self) -> bool:
        """Was it the device that said it?"""
        return bool(self.type & FROM_DEVICE)


def encode(frame: Frame) -> bytes:
    """The bytes of a frame, with the delimiter that ends it.

    Raises `ValueError` for a payload of more than `MAX_PAYLOAD` bytes.
    """
    if len(frame.payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload holds at most {MAX_PAYLOAD} bytes, not {len(frame.payload)}")
    head = _HEAD.pack(frame.type, frame.sequence, len(frame.payload))
    body = head + frame.payload
    body += _CRC.pack(zlib.crc32(body))
    # COBS of what is shorter than a block: before every run of other bytes, how far its zero is.
    return b"".join(bytes([len(run) + 1]) + run for run in body.split(DELIMITER)) + DELIMITER


def decode(chunk: bytes) -> Frame | None:
    """The frame between two delimiters, or None if it is not whole and right."""
    if len(chunk) > MAX_ENCODED:
        return None
    runs, at = [], 0
    while at < len(chunk):
        zero = at + chunk[at]
        if not at < zero <= len(chunk):
            return None
        runs.append(chunk[at + 1 : zero])
        at = zero
    body = DELIMITER.join(runs)
    if len(body) < _HEAD.size + _CRC.size:
        return None
    kind, sequence, length = _HEAD.unpack_from(body)
    if len(body) != _HEAD.size + length + _CRC.size:
        return None
    payload = body[_HEAD.size : -_CRC.size]
    (checksum,) = _CRC.unpack_from(body, len(body) - _CRC.size)
    return Frame(kind, sequence, payload) if checksum == zlib.crc32(body[: -_CRC.size]) else None


class Receiver:
    """Frames out of a stream of bytes, however it is cut; takes no more memory than a frame.

    `damaged` counts what was no whole frame, `lost` the numbers that are missing between frames.
    """

    def __init__(self) -> None:
        self.damaged = 0
        self.lost = 0
        self._rest = b""
        self._expected: int | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that end in `data`. Never raises."""
        *chunks, rest = (self._rest + data).split(DELIMITER)
        self._rest = rest[: MAX_ENCODED + 1]  # one too many: it stays too long to be a frame
        frames = []
        for chunk in filter(None, chunks):
            frame = decode(chunk)
            if frame is None:
                self.damaged += 1
                continue
            self._count(frame)
            frames.append(frame)
        return frames

    def _count(self, frame: Frame) -> None:
        missing = 0 if self._expected is None else (frame.sequence - self._expected) & 0xFFFF
        # More than half the circle is a sender that began anew, as one that says hello did.
        if frame.type & ~FROM_DEVICE != Kind.HELLO and missing < 0x8000:
            self.lost += missing
        self._expected = (frame.sequence + 1) & 0xFFFF


@dataclass(frozen=True, slots=True)
class Hello:
    """Version and name of who speaks; not an `answer`, it asks for one."""

    kind: ClassVar[Kind] = Kind.HELLO
    version: int
    answer: bool
    name: str

    def payload(self) -> bytes:
        """Version, flag, and at most `MAX_NAME` bytes of UTF-8."""
        name = self.name.encode()[:MAX_NAME].decode(errors="ignore").encode()
        return bytes([self.version, self.answer]) + name


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The box is there; `ready` says whether it does its work (`/readyz`)."""

    kind: ClassVar[Kind] = Kind.HEARTBEAT
    ready: bool

    def payload(self) -> bytes:
        """A flag."""
        return bytes([self.ready])


@dataclass(frozen=True, slots=True)
class FaceSeen:
    """A face in view: its track, one of `LABELS`, percent of confidence, seconds it was held."""

    track: int
    label: str
    confidence: int
    held_s: float


_FACE = struct.Struct("<IBBH")


@dataclass(frozen=True, slots=True)
class Faces:
    """Who is in view: how many in all, and the largest of them."""

    kind: ClassVar[Kind] = Kind.FACES
    total: int
    faces: tuple[FaceSeen, ...]

    def payload(self) -> bytes:
        """Total, then for each face track (4), label, confidence, tenths of seconds held (2).

        Counts and times that do not fit are told as the largest that do.
        """
        return bytes([min(self.total, 255)]) + b"".join(
            _FACE.pack(
                face.track & 0xFFFFFFFF,
                LABELS.index(face.label),
                face.confidence,
                min(round(face.held_s * 10), 0xFFFF),
            )
            for face in self.faces[:MAX_FACES]
        )


@dataclass(frozen=True, slots=True)
class Brightness:
    """Make the lights so bright, percent."""

    kind: ClassVar[Kind] = Kind.BRIGHTNESS
    percent: int

    def payload(self) -> bytes:
        """One byte."""
        return bytes([self.percent])


@dataclass(frozen=True, slots=True)
class Query:
    """Say how things are, now: the device answers with `Status`, the box with `Faces`."""

    kind: ClassVar[Kind] = Kind.QUERY

    def payload(self) -> bytes:
        """Nothing."""
        return b""


_STATUS = struct.Struct("<BIHH")


@dataclass(frozen=True, slots=True)
class Status:
    """How the device is: percent of brightness, seconds since its start, and what it heard badly.

    `damaged` and `lost` are counted as in `Receiver`, up to 65535.
    """

    kind: ClassVar[Kind] = Kind.STATUS
    brightness: int
    uptime_s: int
    damaged: int
    lost: int

    def payload(self) -> bytes:
        """Nine bytes."""
        damaged, lost = min(self.damaged, 0xFFFF), min(self.lost, 0xFFFF)
        return _STATUS.pack(self.brightness, self.uptime_s, damaged, lost)


_ACKNOWLEDGE = struct.Struct("<HB")


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """How the command with that sequence number went."""

    kind: ClassVar[Kind] = Kind.ACKNOWLEDGE
    sequence: int
    result: Result

    def payload(self) -> bytes:
        """Three bytes."""
        return _ACKNOWLEDGE.pack(self.sequence, self.result)


@dataclass(frozen=True, slots=True)
class Fault:
    """For the simulated device alone: misbehave as the text says. Real ones do not know it."""

    kind: ClassVar[Kind] = Kind.FAULT
    text: str

    def payload(self) -> bytes:
        """UTF-8."""
        return self.text.encode()


Message = Hello | Heartbeat | Faces | Brightness | Query | Status | Acknowledge | Fault


def parse(frame: Frame) -> Message | None:
    """The message of a frame; None for a kind that is not known.

    Raises `ValueError` for a payload that is not of its kind's form.
    """
    kind, payload = frame.type & ~FROM_DEVICE, frame.payload
    try:
        match kind:
            case Kind.HELLO:
                return Hello(payload[0], bool(payload[1]), _name(payload[2:]))
            case Kind.HEARTBEAT:
                (ready,) = payload
                return Heartbeat(bool(ready))
            case Kind.FACES:
                return Faces(payload[0], tuple(map(_face, _FACE.iter_unpack(payload[1:]))))
            case Kind.BRIGHTNESS:
                (percent,) = payload
                return Brightness(_percent(percent))
            case Kind.QUERY:
                () = payload
                return Query()
            case Kind.STATUS:
                return Status(*_STATUS.unpack(payload))
            case Kind.ACKNOWLEDGE:
                sequence, result = _ACKNOWLEDGE.unpack(payload)
                return Acknowledge(sequence, Result(result))
            case Kind.FAULT:
                return Fault(payload.decode(errors="replace"))
    except (IndexError, struct.error) as error:
        raise ValueError(f"not a {Kind(kind).name} message: {error}") from None
    return None


def _name(text: bytes) -> str:
    """A name as it may stand in a log, whatever a device says."""
    return "".join(c for c in text.decode(errors="replace") if c.isprintable())


def _percent(value: int) -> int:
    if value > 100:
        raise ValueError(f"{value} is more than 100 percent")
    return value


def _face(fields: tuple[int, int, int, int]) -> FaceSeen:
    track, label, confidence, tenths = fields
    if label >= len(LABELS):
        raise ValueError(f"there is no label {label}")
    return FaceSeen(track, LABELS[label], _percent(confidence), tenths / 10)


class Sender:
    """Numbers what one side says."""

    def __init__(self, *, from_device: bool) -> None:
        self._side = FROM_DEVICE if from_device else 0
        self.sequence = 0
        """Of the next frame."""

    def encode(self, message: Message) -> bytes:
        """The bytes of a message, under the next number."""
        frame = Frame(message.kind | self._side, self.sequence, message.payload())
        self.sequence = (self.sequence + 1) & 0xFFFF
        return encode(frame)
