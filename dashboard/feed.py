"""The live feed as this process has it: the newest telemetry, the newest preview, their history."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import zmq

from contract.telemetry import PREVIEW, TELEMETRY, FeedAddress, LiveUpdate, from_json, to_json
from dashboard.history import History, LastHour

READ_INTERVAL_S = 0.04
"""A conflating socket is read at most this often, so a box at 200 FPS costs no more than one at 25.
"""
POLL_S = 0.2
STALE_AFTER_S = 3.0
"""Telemetry older than this means the box is silent (it speaks for every frame)."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class Latest(Generic[T]):
    """The newest value of something, for any number of readers, each at its own pace.

    Nothing is queued: a reader that comes late gets the newest value only, so a slow client costs
    no memory.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0
        self._value: T | None = None
        self._closed = False

    def put(self, value: T | None) -> None:
        """Replace the value and wake every reader; None empties it, so that no reader gets it."""
        with self._changed:
            self._value = value
            self._number += 1
            self._changed.notify_all()

    def get(self) -> T | None:
        """The value now."""
        return self._value

    def wait(self, after: int, timeout_s: float) -> tuple[int, T | None]:
        """The number and value of the newest put after number `after` (0: any).

        Gives `(after, None)` when none came within `timeout_s`, and at once when closed.
        """

        def news() -> bool:
            return self._closed or (self._number > after and self._value is not None)

        with self._changed:
            self._changed.wait_for(news, timeout_s)
            if self._closed or self._number <= after or self._value is None:
                return after, None
            return self._number, self._value

    def close(self) -> None:
        """Wake every reader for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Reading:
    """Telemetry as it came in: decoded, as one line of JSON, and when (monotonic seconds)."""

    update: LiveUpdate
    text: bytes
    received_s: float


class Feed:
    """Reads one box's live feed in threads of its own, until `close`.

    Telemetry is always read. The preview is subscribed to only while somebody is `viewing`, which
    is how the box knows whether to encode one at all.
    """

    def __init__(self, address: FeedAddress, clock: Callable[[], float] = time.monotonic) -> None:
        self.address = address
        self.clock = clock
        self.telemetry: Latest[Reading] = Latest()
        self.preview: Latest[bytes] = Latest()
        self.history = History()
        self.last_hour = LastHour()
        self.stopping = threading.Event()
        self.unreadable = 0
        """Telemetry messages that were of another schema or malformed."""
        self._viewers = 0
        self._viewers_changed = threading.Condition()
        self._context = zmq.Context()
        self._threads = [
            threading.Thread(target=self._read_telemetry, name="telemetry", daemon=True),
            threading.Thread(target=self._read_previews, name="preview", daemon=True),
        ]

    def start(self) -> None:
        """Begin to read. The box need not be there yet, and may go and come back."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Tell readers and every stream to end; returns at once."""
        self.stopping.set()
        self.telemetry.close()
        self.preview.close()
        with self._viewers_changed:
            self._viewers_changed.notify_all()

    def close(self) -> None:
        """`stop`, and give the sockets back. Call it after the last use of the feed."""
        self.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._context.term()

    def age_s(self) -> float | None:
        """Seconds since the last telemetry came in; None before the first."""
        reading = self.telemetry.get()
        return None if reading is None else max(0.0, self.clock() - reading.received_s)

    @contextmanager
    def viewing(self) -> Iterator[None]:
        """While inside, previews are asked for and `preview` is kept up to date."""
        self._count_viewer(+1)
        try:
            yield
        finally:
            self._count_viewer(-1)

    def _count_viewer(self, change: int) -> None:
        with self._viewers_changed:
            self._viewers += change
            self._viewers_changed.notify_all()

    def _messages(self, topic: bytes, wanted: Callable[[], bool]) -> Iterator[bytes]:
        """The newest payload under `topic`, again and again, while `wanted()`."""
        socket = self._context.socket(zmq.SUB)
        try:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.CONFLATE, 1)
            socket.setsockopt(zmq.SUBSCRIBE, topic)
            socket.connect(self.address.live)
            while wanted():
                if socket.poll(round(POLL_S * 1000)):
                    yield socket.recv()[len(topic) :]
                    self.stopping.wait(READ_INTERVAL_S)
        finally:
            socket.close()

    def _read_telemetry(self) -> None:
        for payload in self._messages(TELEMETRY, lambda: not self.stopping.is_set()):
            try:
                update = from_json(payload)
                # Written anew: one line, and nothing in it that the contract does not name.
                text = to_json(update)
            except ValueError as error:
                if self.unreadable == 0:
                    log.warning("telemetry not understood, further ones only counted: %s", error)
                self.unreadable += 1
                continue
            now_s = self.clock()
            self.history.add(update.kpi, now_s)
            self.last_hour.add(update.frame, now_s)
            self.telemetry.put(Reading(update, text, now_s))

    def _read_previews(self) -> None:
        def wanted() -> bool:
            return self._viewers > 0 and not self.stopping.is_set()

        while True:
            with self._viewers_changed:
                self._viewers_changed.wait_for(lambda: wanted() or self.stopping.is_set())
            if self.stopping.is_set():
                return  # Subscribing even for a moment would have the box encode.
            for jpeg in self._messages(PREVIEW, wanted):
                self.preview.put(jpeg)
            # The next viewer must not begin with a picture from before, perhaps a raw one.
            self.preview.put(None)
