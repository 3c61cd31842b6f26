"""Asking the box: one request and its answer over the feed's control socket."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from contract.telemetry import FeedAddress

TIMEOUT_S = 1.0
FRESH_S = 0.2
"""An answer to a question is given again for so long: the box is asked a few times a second only,
however many viewers ask."""
STALE_S = 2.0
"""And for so long while the next one is on its way."""
AT_ONCE = 6
"""Requests at the box at a time. The server has more threads than these and the streams, so what
needs no answer of the box goes on while it is slow."""

Answer = dict[str, Any]


class ControlError(Exception):
    """The box did not answer in time, or not in the agreed form."""


class BusyError(Exception):
    """Too many requests wait for the box already."""


def ask(address: FeedAddress, message: dict[str, Any]) -> Answer:
    """Send `message` and give the answer. Raises `ControlError` after `TIMEOUT_S`.

    Each call has a socket of its own: a REQ socket whose answer never came cannot be used again,
    and one caller must not wait for another's.
    """
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.REQ)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(address.control)
        socket.send(json.dumps(message).encode())
        if not socket.poll(round(TIMEOUT_S * 1000)):
            raise ControlError(f"the box did not answer within {TIMEOUT_S:g} s")
        answer = json.loads(socket.recv())
    except (ValueError, RecursionError, zmq.ZMQError) as error:
        raise ControlError(f"the box answered nothing usable: {error}") from None
    finally:
        socket.close()
    if not isinstance(answer, dict):
        raise ControlError("the box answered nothing usable: not a JSON object")
    return answer


@dataclass(frozen=True, slots=True)
class _Known:
    """What came of a question, and when (monotonic seconds)."""

    outcome: Answer | ControlError
    at_s: float

    def answer(self) -> Answer:
        if isinstance(self.outcome, ControlError):
            raise ControlError(*self.outcome.args)
        return self.outcome


class Box:
    """Asks one box on behalf of every viewer, so that many viewers cost it no more than one.

    A question (`{"get": …}`) goes to the box only if its last answer is older than `FRESH_S`, and
    one at a time; anything else goes there at once, and what was known is forgotten after it.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], Answer],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send, self._clock = send, clock
        self._known: dict[str, _Known] = {}
        self._orders = 0
        self._asking = threading.Lock()
        self._slots = threading.BoundedSemaphore(AT_ONCE)

    def ask(self, message: dict[str, Any]) -> Answer:
        """The box's answer, which must not be changed.

        Raises `ControlError` as `ask` does, and `BusyError` while `AT_ONCE` orders wait already.
        """
        return self._question(message) if set(message) == {"get"} else self._order(message)

    def _question(self, message: dict[str, Any]) -> Answer:
        key = json.dumps(message)
        known = self._recent(key, STALE_S)
        # Who has a recent answer does not wait for the one who asks anew.
        if self._recent(key, FRESH_S) is None and self._asking.acquire(blocking=known is None):
            try:
                known = self._recent(key, FRESH_S) or self._learn(key, message)
            finally:
                self._asking.release()
        assert known is not None  # or the lock was waited for, and the box asked
        return known.answer()

    def _order(self, message: dict[str, Any]) -> Answer:
        if not self._slots.acquire(blocking=False):
            raise BusyError(f"{AT_ONCE} requests wait for the box already; try again soon")
        try:
            return self._send(message)
        finally:
            self._slots.release()
            self._orders += 1
            self._known.clear()

    def _recent(self, key: str, within_s: float) -> _Known | None:
        known = self._known.get(key)
        return known if known and self._clock() - known.at_s < within_s else None

    def _learn(self, key: str, message: dict[str, Any]) -> _Known:
        orders = self._orders
        try:
            outcome: Answer | ControlError = self._send(message)
        except ControlError as error:
            outcome = error
        known = _Known(outcome, self._clock())
        if orders == self._orders:  # else it may be from before an order
            self._known[key] = known
        return known
