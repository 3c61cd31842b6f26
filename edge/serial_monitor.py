"""`fer-edge serial-monitor`: talk to the microcontroller in the box's place, and show it all."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from contract.command import Parser
from contract.errors import UserError
from edge.sinks.serial_port import PORT_FAULTS, Port, PortError, open_port, parting, usb_ports
from edge.sinks.serial_session import SerialSession
from firmware_config.serial_config import LEAST_BAUD, MOST_BAUD, port_name
from firmware_config.serial_protocol import (
    BAUD,
    LABELS,
    MAX_PAYLOAD,
    Faces,
    FaceSeen,
    Fault,
    Frame,
    Query,
    Receiver,
    Result,
    parse,
)


def describe(frame: Frame) -> str:
    """A frame in words."""
    try:
        message = parse(frame)
    except ValueError as error:
        return f"#{frame.sequence} {error}"
    if message is None:
        return f"#{frame.sequence} unknown type 0x{frame.type:02x}: {frame.payload.hex(' ')}"
    fields = " ".join(
        f"{key}={value.name if isinstance(value, Result) else value}"
        for key, value in asdict(message).items()
        if key != "faces"
    )
    faces = [
        f"[person {face.track} {face.label} {face.confidence} % for {face.held_s:g} s]"
        for face in (message.faces if isinstance(message, Faces) else ())
    ]
    return " ".join(filter(None, (f"#{frame.sequence}", message.kind.name, fields, *faces)))


class Monitor:
    """A session whose every frame is said aloud, by `say`, which takes a line."""

    def __init__(self, port: Port, session: SerialSession, say: Callable[[str], None]) -> None:
        self._port, self._session, self._say = port, session, say
        self._own = Receiver()
        self._began_s = time.monotonic()
        session.opened(self._began_s)

    def run(self, until_s: float, on_connected: Callable[[], None]) -> None:
        """Until that moment; raises what the port raises. `on_connected` is called every time."""
        session, connections, bad = self._session, self._session.connections, (0, 0)
        while time.monotonic() < until_s:
            session.receive(self._port.read(max(1, self._port.in_waiting)), time.monotonic())
            for frame in session.heard:
                self._line("<", describe(frame))
            if session.connections != connections:
                connections = session.connections
                on_connected()
            said = session.due(time.monotonic())
            if said:
                self._port.write(said)
            for frame in self._own.feed(said):
                self._line(">", describe(frame))
            counts = session.receiver.damaged, session.receiver.lost
            if counts != bad:
                bad = counts
                self._line("!", f"heard so far: {counts[0]} damaged, {counts[1]} lost")

    def _line(self, side: str, text: str) -> None:
        self._say(f"{time.monotonic() - self._began_s:8.3f} {side} {text}")


def _list_ports() -> int:
    ports = sorted(usb_ports(), key=lambda port: port.device)
    for port in ports:
        usb = ""
        if port.vid is not None and port.pid is not None:
            usb = f"usb:{port.vid:04x}:{port.pid:04x}"
            usb += f":{port.serial_number}" if port.serial_number else ""
        print(f"{port.device}  {usb}".rstrip())
    if not ports:
        print("no serial port here: plug a device in", file=sys.stderr)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="fer-edge serial-monitor",
        description="Speak to a microcontroller as the box would, and print every message: "
        "> what is said, < what the device says, ! what arrived damaged. Ends with 1 if the device "
        "never answered. Stop the box first: a port has one user.",
    )
    add = parser.add_argument
    add("port", nargs="?", help="a path or usb:VID:PID[:SERIAL]; without it, ports are listed")
    add("--baud", type=int, default=BAUD, help=f"bits per second (default {BAUD})")
    add("--seconds", type=float, metavar="S", help="end after so long (default: Ctrl-C)")
    add("--show", choices=LABELS, help="say that one person shows this")
    add("--brightness", type=int, metavar="PERCENT", help="set the lights")
    add("--query", action="store_true", help="ask the device how it is")
    add("--fault", action="append", default=[], metavar="TEXT", help="for the simulated device")
    return parser


def _check(given: argparse.Namespace) -> None:
    try:
        port_name(given.port)
    except ValueError as error:
        raise UserError(f"serial-monitor: {error}") from None
    if not LEAST_BAUD <= given.baud <= MOST_BAUD:
        raise UserError(f"--baud {given.baud}: give {LEAST_BAUD} to {MOST_BAUD} bits per second")
    if given.brightness is not None and not 0 <= given.brightness <= 100:
        raise UserError(f"--brightness {given.brightness}: give a percentage from 0 to 100")
    for text in given.fault:
        if len(text.encode()) > MAX_PAYLOAD:
            raise UserError(f"--fault '{text}': at most {MAX_PAYLOAD} bytes fit in a message")


def main(arguments: Sequence[str]) -> int:
    """The command. Raises `UserError` for what the user can mend."""
    given = _parser().parse_args(arguments)
    if given.port is None:
        return _list_ports()
    _check(given)
    session = SerialSession("serial-monitor", brightness=given.brightness, baud=given.baud)
    session.ready = True
    if given.show:
        session.faces = Faces(1, (FaceSeen(1, given.show, 100, 0.0),))

    def connected() -> None:
        if given.query:
            session.command(Query())
        for text in given.fault:
            session.command(Fault(text))

    port: Port | None = None
    try:
        port = open_port(given.port, given.baud)
        until_s = float("inf") if given.seconds is None else time.monotonic() + given.seconds
        Monitor(port, session, lambda line: print(line, flush=True)).run(until_s, connected)
        port.write(session.last_words())
    except PortError as error:
        raise UserError(str(error)) from None
    except PORT_FAULTS as error:
        raise UserError(parting(given.port, error)) from None
    finally:
        if port is not None:
            port.close()
    if session.connections:
        return 0
    print(f"{given.port}: {session.problem}", file=sys.stderr)
    return 1
