"""The session log off the frame path: a disk that is slow or stuck delays no result."""

import logging
import threading
from typing import Any, Protocol

from contract.telemetry import FrameResult
from edge.sinks.session_csv import SessionLog

MOST_WAITING = 600
"""Frames that wait for the disk at most; those after them are lost."""
PAUSE_S = 0.2
CLOSE_S = 1.5
"""How long the end of the program waits for the disk."""

log = logging.getLogger(__name__)


class ResultSink(Protocol):
    """Takes the result of every frame; a fault shows in `problem` and is never raised."""

    @property
    def problem(self) -> str | None:
        """Why results are not kept just now, in one line, or None."""

    @property
    def lost(self) -> int:
        """Results that were not kept, since the start."""

    def write(self, result: FrameResult) -> None:
        """Keep a result."""

    def change(self, header: dict[str, Any]) -> None:
        """The results from now on are made by other settings than the header says: these."""

    def close(self) -> None:
        """Everything kept is safe on return."""


class BackgroundLog:
    """Hands results to a session log in a thread of its own."""

    def __init__(
        self, session: SessionLog, *, most_waiting: int = MOST_WAITING, close_s: float = CLOSE_S
    ) -> None:
        self.session = session
        self._most_waiting, self._close_s = most_waiting, close_s
        self._lock = threading.Lock()
        self._waiting: list[FrameResult | dict[str, Any]] = []
        """Results, and changes of the header between them."""
        self._overflow: list[FrameResult] = []
        self._overflowed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="session log", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why results are not logged just now, or None."""
        if self._overflowed:
            return f"session log: the disk is too slow, {self._overflowed} frames not logged"
        return self.session.problem

    @property
    def lost(self) -> int:
        """Frames that were not logged, for whatever reason."""
        return self.session.lost + self._overflowed

    def write(self, result: FrameResult) -> None:
        """Queue the rows of a frame; never waits for the disk."""
        with self._lock:
            if len(self._waiting) < self._most_waiting and not self._overflow:
                self._waiting.append(result)
                return
            self._overflowed += 1
            if not self._overflow or _highest(result) > _highest(self._overflow[0]):
                self._overflow = [result]

    def change(self, header: dict[str, Any]) -> None:
        """Queue a change of the header, for the results after it."""
        with self._lock:
            self._waiting.append(header)

    def close(self) -> None:
        """Log what waits and close; a disk that is stuck is left behind after a moment."""
        self._stop.set()
        self._thread.join(self._close_s)
        if self._thread.is_alive():
            log.error("session log: the disk is stuck, %d frames not logged", len(self._waiting))

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_S):
            self._hand_over()
            self.session.upkeep()
        self._hand_over()
        self.session.close()

    def _hand_over(self) -> None:
        with self._lock:
            results, self._waiting = self._waiting, []
            overflow, self._overflow = self._overflow, []
            lost, self._overflowed = self._overflowed, 0
        for result in results:
            if isinstance(result, dict):
                self.session.change(result)
            else:
                self.session.write(result)
        for result in overflow:  # they came after those that waited
            self.session.lose(lost, result)


def _highest(result: FrameResult) -> int:
    return max((face.track for face in result.faces), default=0)
