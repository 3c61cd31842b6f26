"""The box's side of the serial link as bytes in and bytes out; time is handed in.

Whoever holds the port says when it was opened, hands over what was read, and writes what is due.
"""

import logging
from collections.abc import Sequence
from typing import Literal

from contract.telemetry import FaceResult
from firmware_config.serial_protocol import (
    HEARTBEAT_S,
    MAX_FACES,
    SILENCE_S,
    VERSION,
    Acknowledge,
    Brightness,
    Faces,
    FaceSeen,
    Fault,
    Frame,
    Heartbeat,
    Hello,
    Message,
    Query,
    Receiver,
    Result,
    Sender,
    Status,
    parse,
)

HELLO_S = 0.5
"""Pause between hellos that nobody answers."""
AGAIN_S = 0.5
"""Pause before a command that was not acknowledged is said again."""
REOPEN_S = 10.0
"""A device that is silent for so long may come to itself when its port is opened anew, as that
resets many; sooner, a slow start would never get to its end."""
SHARE = 0.5
"""Of the line's time that messages about faces may take, so that it never falls behind."""
_BITS = 10  # of a byte on the line, with start and stop

Command = Brightness | Query | Fault

log = logging.getLogger(__name__)


def faces_message(faces: Sequence[FaceResult]) -> Faces:
    """Who is in view: how many, and the largest `MAX_FACES` of them."""
    largest = sorted(faces, key=lambda face: face.box[2] * face.box[3], reverse=True)
    return Faces(
        len(faces),
        tuple(
            FaceSeen(face.track, face.label, round(100 * face.confidence), face.held_s)
            for face in largest[:MAX_FACES]
        ),
    )


class SerialSession:
    """What is said and heard on one port, across its reconnects. Times are monotonic seconds."""

    def __init__(
        self, name: str, *, brightness: int | None = None, most_per_s: float = 10.0,
        baud: int = 115_200,
    ) -> None:  # fmt: skip
        self.faces = Faces(0, ())
        """What the device should know of."""
        self.ready = False
        self.device = ""
        """What the device calls itself."""
        self.status: Status | None = None
        self.connected = False
        self.connections = 0
        self.restarts = 0
        """Hellos of a device that had been greeted before: it began anew by itself."""
        self.heard: list[Frame] = []
        """What the device said in the last `receive`."""
        self.receiver = Receiver()
        self._name, self._brightness = name, brightness
        self._least_gap_s, self._byte_s = 1 / most_per_s, _BITS / baud
        self._sender = Sender(from_device=False)
        self._why: Literal["silent", "version", "echo"] = "silent"
        self._other_version = 0
        self._out = bytearray()
        self._commands: dict[int, Command] = {}
        self._opened_s = self._heard_s = 0.0
        self._hello_s = self._heartbeat_s = self._faces_s = self._brightness_s = 0.0
        self._faces_from_s = 0.0
        self._told: Faces | None = None
        self._dimmed = brightness is None

    def opened(self, now_s: float) -> None:
        """The port is open, anew: nothing is known of who is at its other end."""
        self._disconnect(now_s)
        self._opened_s = now_s
        self._out = bytearray(b"\0")  # ends whatever the device heard half

    def closed(self) -> None:
        """The port is gone."""
        self.connected = False

    def receive(self, data: bytes, now_s: float) -> None:
        """Bytes came from the device. Never raises for what they are."""
        self.heard = []
        for frame in self.receiver.feed(data):
            if not frame.from_device:
                self._why = "echo"
                continue
            self._heard_s = now_s
            self.heard.append(frame)
            try:
                message = parse(frame)
            except ValueError as error:
                log.debug("serial link: %s", error)
                continue
            self._take(message, now_s)

    def due(self, now_s: float) -> bytes:
        """What is to be written now; often nothing."""
        if self.connected and now_s - self._heard_s > SILENCE_S:
            self._disconnect(now_s)
            log.warning("serial link: %s is silent", self.device)
        if self.connected:
            self._say_state(now_s)
        elif now_s >= self._hello_s:
            self._say(Hello(VERSION, False, self._name))
            self._hello_s = now_s + HELLO_S
        said, self._out = bytes(self._out), bytearray()
        return said

    def command(self, command: Command) -> None:
        """Have a command said next, once; of its kind, only this one's acknowledgement counts."""
        others = {k: v for k, v in self._commands.items() if type(v) is not type(command)}
        self._commands = {**others, self._sender.sequence: command}
        self._say(command)

    def last_words(self) -> bytes:
        """What a device is told at the end, so that it does not go on showing who was in view."""
        if not self.connected:
            return b""
        self._say(Faces(0, ()))
        self._say(Heartbeat(False))
        return bytes(self._out)

    def hopeless(self, now_s: float) -> bool:
        """Has it been silent for so long that the port should be opened anew?"""
        return not self.connected and now_s - max(self._opened_s, self._heard_s) > REOPEN_S

    @property
    def problem(self) -> str | None:
        """Why nothing gets through though the port is open, or None."""
        if self.connected:
            return None
        if self._why == "version":
            return (
                f"the device speaks version {self._other_version} of the protocol and the box "
                f"{VERSION}: put the firmware on it that came with this program"
            )
        if self._why == "echo":
            return "the line echoes what the box says: is a device at its end?"
        return "no device answers: is its firmware on it, and is its baud rate the same?"

    def _disconnect(self, now_s: float) -> None:
        self.connected, self._why = False, "silent"
        self._hello_s = now_s
        self._commands.clear()

    def _say(self, message: Message) -> None:
        self._out += self._sender.encode(message)

    def _say_state(self, now_s: float) -> None:
        if now_s >= self._heartbeat_s:
            self._say(Heartbeat(self.ready))
            self._heartbeat_s = now_s + HEARTBEAT_S
        if self._brightness is not None and not self._dimmed and now_s >= self._brightness_s:
            self.command(Brightness(self._brightness))
            self._brightness_s = now_s + AGAIN_S
        if now_s < self._faces_from_s:
            return
        if self.faces != self._told or now_s >= self._faces_s:
            before = len(self._out)
            self._say(self.faces)
            line_s = (len(self._out) - before) * self._byte_s / SHARE
            self._faces_from_s = now_s + max(self._least_gap_s, line_s)
            self._faces_s = now_s + HEARTBEAT_S
            self._told = self.faces

    def _take(self, message: Message | None, now_s: float) -> None:
        match message:
            case Hello():
                self._greet(message, now_s)
            case Status():
                self.status = message
            case Query():
                self._told = None
            case Acknowledge():
                self._acknowledged(message)

    def _greet(self, hello: Hello, now_s: float) -> None:
        if not hello.answer:
            self._say(Hello(VERSION, True, self._name))
            self.restarts += self.connected
        if hello.version != VERSION:
            self._disconnect(now_s)
            self._why, self._other_version = "version", hello.version
            self._hello_s = now_s + HELLO_S
            return
        fresh = not (hello.answer and self.connected)  # else the answer to a hello said twice
        if not self.connected:
            self.connected = True
            self.connections += 1
            self.device = hello.name
        if fresh:
            self._tell_anew(now_s)

    def _tell_anew(self, now_s: float) -> None:
        """A device that has just begun knows nothing."""
        self._told, self._dimmed = None, self._brightness is None
        self._heartbeat_s = self._brightness_s = now_s

    def _acknowledged(self, answer: Acknowledge) -> None:
        command = self._commands.pop(answer.sequence, None)
        if isinstance(command, Brightness):
            self._dimmed = True  # refused or not: saying it again would change nothing
        if command is not None and answer.result != Result.DONE:
            name = type(command).__name__.lower()
            log.warning("serial link: %s refuses %s: %s", self.device, name, answer.result.name)
