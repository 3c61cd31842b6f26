"""A microcontroller is told who is in view, over a serial port that may come and go."""

import logging
import threading
import time
from collections.abc import Callable

from contract.telemetry import FrameResult, KpiSnapshot
from edge.sinks.serial_port import PORT_FAULTS, Port, PortError, open_port, parting
from edge.sinks.serial_session import SerialSession, faces_message
from firmware_config.serial_config import SerialConfig
from firmware_config.serial_protocol import Faces

RETRY_S = 0.25
"""Pause before a port is looked for again: a replug is noticed well within a second."""
STALE_S = 3.0
"""The loop said nothing for so long: what it said last is not who is in view now."""
CLOSE_S = 1.5

log = logging.getLogger(__name__)


class SerialLink:
    """The link as the box sees it: a thread owns the port, nobody else waits for it."""

    name = "serial link"

    def __init__(
        self, config: SerialConfig, box: str, *,
        open_port: Callable[[str, int], Port] = open_port,
    ) -> None:  # fmt: skip
        """Begin to look for `config.port`; `box` is the name it is told."""
        assert config.port is not None
        self._port, self._baud, self._open_port = config.port, config.baud, open_port
        self.session = SerialSession(
            box, brightness=config.brightness, most_per_s=config.most_per_s, baud=config.baud
        )
        self._fault: str | None = f"serial link: {self._port} is being opened"
        self._result: FrameResult | None = None
        self._ready = False
        self._told_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serial link", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why the device is not connected, or None."""
        if self._fault is not None:
            return self._fault
        problem = self.session.problem
        return None if problem is None else f"serial link: {self._port}: {problem}"

    def write(self, result: FrameResult) -> None:
        """The newest result; one that it replaces before it is told is never told."""
        self._result, self._told_s = result, time.monotonic()

    def measured(self, kpi: KpiSnapshot) -> None:
        """Readiness, and whether anybody is in view at all: without frames there is no result."""
        self._ready, self._told_s = kpi.unready is None, time.monotonic()
        if not kpi.faces:
            self._result = None

    def close(self) -> None:
        """Tell the device that nobody is in view any more, and let go of the port."""
        self._stop.set()
        self._thread.join(CLOSE_S)
        session, receiver = self.session, self.session.receiver
        log.info(
            "serial link: connected %d times, the device began anew %d times; "
            "heard %d frames damaged, lost %d",
            session.connections, session.restarts, receiver.damaged, receiver.lost,
        )  # fmt: skip

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                port = self._open_port(self._port, self._baud)
            except PortError as error:
                self._note(f"serial link: {error}")
                self._stop.wait(RETRY_S)
                continue
            self.session.opened(time.monotonic())
            self._fault = None
            try:
                self._talk(port)
            except PORT_FAULTS as error:
                self._note(f"serial link: {parting(self._port, error)}")
                self._stop.wait(RETRY_S)
            finally:
                self.session.closed()
                _release(port)

    def _talk(self, port: Port) -> None:
        session, greeted = self.session, self.session.connections
        while not self._stop.is_set():
            session.receive(port.read(max(1, port.in_waiting)), time.monotonic())
            self._look(session)
            if said := session.due(time.monotonic()):
                port.write(said)
            if session.connections != greeted:
                greeted = session.connections
                log.info("serial link: %s at %s is connected", session.device, self._port)
            if session.hopeless(time.monotonic()):
                log.warning("serial link: %s is opened anew: %s", self._port, session.problem)
                return
        if said := session.last_words():
            port.write(said)

    def _look(self, session: SerialSession) -> None:
        fresh, result = time.monotonic() - self._told_s < STALE_S, self._result
        session.ready = self._ready and fresh
        session.faces = faces_message(result.faces) if fresh and result else Faces(0, ())

    def _note(self, fault: str) -> None:
        if fault != self._fault:
            log.warning(fault)
        self._fault = fault


def _release(port: Port) -> None:
    try:
        port.close()
    except PORT_FAULTS as error:  # it is gone already
        log.debug("serial link: closing: %s", error)
