"""A microcontroller that is not there: it speaks the device's side, and misbehaves on command.

    python -m firmware_config.simulated_mcu /tmp/mcu

It prints the path of a port, which a link at the given path leads to, and what it is told. It does
what `mcu/src/fer_link.c` does, byte for byte. Faults are asked for on its standard input, or over
the link itself (`fer-edge serial-monitor --fault`):

    silent S     says nothing for so many seconds
    corrupt N    flips a bit in each of its next N frames
    drop N       leaves out its next N frames
    babble N     says N random bytes
    refuse       answers every command with 'bad value'
    restart      begins anew, as after a reset
    version N    begins anew with another version of the protocol
    unplug S     the port is gone for so many seconds
"""

import os
import pty
import random
import select
import sys
import threading
import time
import tty
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from contract.command import Parser, run_command
from contract.errors import UserError
from firmware_config.serial_protocol import (
    HEARTBEAT_S,
    SILENCE_S,
    VERSION,
    Acknowledge,
    Brightness,
    Faces,
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
from firmware_config.serial_protocol import Kind as MessageKind

NAME = "simulated"
HEARTBEAT_MS, SILENCE_MS = round(1000 * HEARTBEAT_S), round(1000 * SILENCE_S)
_NOT_FOR_IT = (MessageKind.STATUS, MessageKind.ACKNOWLEDGE)
_COMMANDS = (MessageKind.BRIGHTNESS, MessageKind.QUERY)
_NO_FACES = Faces(0, ())


class SimulatedMcu:
    """The device's side as bytes in and bytes out. Times are milliseconds, handed in."""

    def __init__(self, now_ms: int = 0, *, version: int = VERSION, seed: int = 0) -> None:
        self._chance = random.Random(seed)
        self.unplug_s = 0.0
        """Seconds that the port should be gone, asked for by a fault; its holder takes it back."""
        self._begin(now_ms, version)

    def _begin(self, now_ms: int, version: int) -> None:
        self.connected = False
        self.ready = False
        self.faces = _NO_FACES
        self.brightness = 100
        self.heard: list[Message] = []
        """Every message of the box, in order."""
        self._version, self._started_ms = version, now_ms
        self._receiver, self._sender = Receiver(), Sender(from_device=True)
        self._heard_ms = self._hello_ms = self._status_ms = now_ms
        self._silent_until_ms = now_ms
        self._corrupt = self._drop = 0
        self._refuse = False
        self._out = bytearray()

    def receive(self, data: bytes, now_ms: int) -> None:
        """Bytes came from the box."""
        for frame in self._receiver.feed(data):
            if not frame.from_device:
                self._heard_ms = now_ms
                self._take(frame, now_ms)

    def due(self, now_ms: int) -> bytes:
        """What it says by now."""
        if self.connected and now_ms - self._heard_ms > SILENCE_MS:
            self._forget()
            self._hello_ms = now_ms
        if not self.connected and now_ms >= self._hello_ms:
            self._say(Hello(self._version, False, NAME))
            self._hello_ms = now_ms + HEARTBEAT_MS
        if self.connected and now_ms >= self._status_ms:
            up_s = (now_ms - self._started_ms) // 1000
            lost, damaged = self._receiver.lost, self._receiver.damaged
            self._say(Status(self.brightness, up_s, damaged, lost))
            self._status_ms = now_ms + HEARTBEAT_MS
        said, self._out = bytes(self._out), bytearray()
        return b"" if now_ms < self._silent_until_ms else said

    def query(self) -> None:
        """Ask the box who is in view."""
        if self.connected:
            self._say(Query())

    def fault(self, text: str, now_ms: int) -> None:
        """Misbehave as the text says. Raises `ValueError` for what is no fault of this device."""
        name, _, amount = text.partition(" ")
        match name:
            case "silent":
                self._silent_until_ms = now_ms + round(1000 * float(amount))
            case "corrupt":
                self._corrupt = int(amount)
            case "drop":
                self._drop = int(amount)
            case "babble":
                self._out += self._chance.randbytes(int(amount))
            case "refuse":
                self._refuse = True
            case "restart":
                self._begin(now_ms, self._version)
            case "version":
                self._begin(now_ms, int(amount))
            case "unplug":
                self.unplug_s = float(amount)
            case _:
                raise ValueError(f"no such fault: {name}")

    def _say(self, message: Message) -> None:
        said = self._sender.encode(message)
        if self._drop:
            self._drop -= 1
            return
        if self._corrupt:
            self._corrupt -= 1
            bit = self._chance.randrange(8 * (len(said) - 1))
            flipped = bytearray(said)
            flipped[bit // 8] ^= 1 << bit % 8
            said = bytes(flipped)
        self._out += said

    def _forget(self) -> None:
        self.connected = self.ready = False
        self.faces = _NO_FACES

    def _take(self, frame: Frame, now_ms: int) -> None:
        try:
            message = None if frame.type in _NOT_FOR_IT else parse(frame)
        except ValueError:
            if self.connected and frame.type in _COMMANDS:
                self._say(Acknowledge(frame.sequence, Result.BAD_VALUE))
            return
        if message is not None:
            self.heard.append(message)
        if isinstance(message, Hello):
            self._greet(message, now_ms)
        elif isinstance(message, Fault):
            self.fault(message.text, now_ms)
        elif self.connected:
            self._obey(message, frame, now_ms)

    def _greet(self, hello: Hello, now_ms: int) -> None:
        if not hello.answer:
            self._say(Hello(self._version, True, NAME))
        if hello.version != self._version:
            self._forget()
        elif not self.connected:
            self.connected = True
            self._status_ms = now_ms

    def _obey(self, message: Message | None, frame: Frame, now_ms: int) -> None:
        match message:
            case Heartbeat():
                self.ready = message.ready
            case Faces():
                self.faces = message
            case Brightness() | Query() if self._refuse:
                self._say(Acknowledge(frame.sequence, Result.BAD_VALUE))
            case Brightness():
                self.brightness = message.percent
                self._say(Acknowledge(frame.sequence, Result.DONE))
            case Query():
                self._say(Acknowledge(frame.sequence, Result.DONE))
                self._status_ms = now_ms
            case _:
                self._say(Acknowledge(frame.sequence, Result.UNKNOWN))


def _clock_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class PtyMcu:
    """A simulated device behind a port of this machine, in a thread of its own.

    `link` is where its port is found, whatever terminal it is this time, as with
    `/dev/serial/by-id/`.
    """

    def __init__(self, link: Path, mcu: SimulatedMcu | None = None) -> None:
        self.link = link
        self.mcu = mcu or SimulatedMcu(_clock_ms())
        self._lock = threading.Lock()
        self._ends: tuple[int, int] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="simulated mcu", daemon=True)
        self.plug_in()
        self._thread.start()

    def fault(self, text: str) -> None:
        """Misbehave as the text says. Raises `ValueError` for what is no fault of the device."""
        with self._lock:
            self.mcu.fault(text, _clock_ms())

    def plug_in(self) -> None:
        """Make the port appear, with a device that has just been switched on."""
        with self._lock:
            ours, theirs = pty.openpty()  # `theirs` is held: without it reads fail until it is used
            tty.setraw(theirs)
            os.set_blocking(ours, False)
            self.mcu.fault("restart", _clock_ms())
            fresh = self.link.with_name(f"{self.link.name}.new")
            fresh.symlink_to(os.ttyname(theirs))
            fresh.replace(self.link)
            self._ends = ours, theirs

    def unplug(self) -> None:
        """Make the port vanish."""
        with self._lock:
            ends, self._ends = self._ends, None
            if ends is not None:
                self.link.unlink(missing_ok=True)
                for end in ends:
                    os.close(end)

    def close(self) -> None:
        """End the thread and take the port away."""
        self._stop.set()
        self._thread.join(2.0)
        self.unplug()

    def _run(self) -> None:
        while not self._stop.is_set():
            ends = self._ends
            if ends is None:
                self._stop.wait(0.01)
                continue
            try:
                select.select([ends[0]], [], [], 0.01)
                self._exchange()
            except OSError:
                pass  # unplugged meanwhile
            if self.mcu.unplug_s:
                gone_s, self.mcu.unplug_s = self.mcu.unplug_s, 0.0
                self.unplug()
                self._stop.wait(gone_s)
                self.plug_in()

    def _exchange(self) -> None:
        with self._lock:
            if self._ends is None:
                return
            ours, now_ms = self._ends[0], _clock_ms()
            try:
                self.mcu.receive(os.read(ours, 4096), now_ms)
            except BlockingIOError:
                pass
            except ValueError as error:
                print(f"fault not understood: {error}", file=sys.stderr)
            with suppress(BlockingIOError):  # nobody reads: as on a real line, it is gone
                os.write(ours, self.mcu.due(now_ms))


def main(arguments: Sequence[str]) -> int:
    """The command. Raises `UserError` for what the user can mend."""
    parser = Parser(
        prog="python -m firmware_config.simulated_mcu",
        description="A microcontroller that is not there, behind a serial port of this machine.",
    )
    parser.add_argument("link", type=Path, help="where a link to its port is made")
    given = parser.parse_args(arguments)
    if given.link.exists() and not given.link.is_symlink():
        raise UserError(f"{given.link} is there already and is no link; name another place")
    try:
        device = PtyMcu(given.link)
    except OSError as error:
        raise UserError(f"{given.link}: no link can be made there ({error.strerror})") from None
    print(f"port {given.link}; faults: silent corrupt drop babble refuse restart version unplug")
    try:
        for line in sys.stdin:
            try:
                device.fault(line.strip())
            except ValueError as error:
                print(f"not understood: {error}", file=sys.stderr)
        threading.Event().wait()  # without an input it runs until it is ended
    finally:
        device.close()
    return 0


if __name__ == "__main__":
    sys.exit(run_command("simulated_mcu", lambda: main(sys.argv[1:])))
