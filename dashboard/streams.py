"""What a connected page receives without asking again: telemetry events and preview pictures.

Both are generators that run in a server thread for as long as the client stays. They hold one value
at most, so a client costs the same whether it reads fast, slowly or not at all; a client that does
not read is dropped by the server (`dashboard/server.py`).
"""

import json
import threading
from collections.abc import Callable, Iterator

from dashboard.feed import Feed

MAX_STREAMS = 16
"""Streams at a time, events and pictures together; fewer than the server's threads."""
RETRY_AFTER_S = 5
EVENT_INTERVAL_S = 0.1
SILENCE_INTERVAL_S = 1.0
RECONNECT_MS = 1000
MJPEG_TYPE = "multipart/x-mixed-replace; boundary=frame"

Gone = Callable[[], bool]
"""Has the client left?"""


class StreamSlots:
    """How many streams there are, and whether there may be one more."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._active = 0

    @property
    def active(self) -> int:
        """Streams now."""
        return self._active

    def take(self) -> bool:
        """Take a slot; False when all are taken."""
        with self._lock:
            if self._active >= self.limit:
                return False
            self._active += 1
            return True

    def release(self) -> None:
        """Give a slot back."""
        with self._lock:
            self._active -= 1


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _silence(feed: Feed) -> bytes:
    age_s = feed.age_s()
    return _event("silence", json.dumps({"age_s": age_s and round(age_s, 1)}).encode())


def events(feed: Feed, gone: Gone) -> Iterator[bytes]:
    """Server-sent events, until the client leaves or the feed stops.

    `update` carries a `LiveUpdate` as JSON, at most ten a second; `silence`, once a second while
    nothing new comes, carries `age_s` of the last update (null: there was none). The comment with
    it is the heartbeat that proxies and dead connections are found by.
    """
    yield b"retry: %d\n\n" % RECONNECT_MS
    number = 0
    while not feed.stopping.is_set() and not gone():
        number, reading = feed.telemetry.wait(number, SILENCE_INTERVAL_S)
        if feed.stopping.is_set():
            return
        if reading is None:
            yield b": heartbeat\n" + _silence(feed)
            continue
        yield _event("update", reading.text)
        if feed.clock() - reading.received_s > SILENCE_INTERVAL_S:
            yield _silence(feed)
        feed.stopping.wait(EVENT_INTERVAL_S)


def mjpeg(feed: Feed, gone: Gone) -> Iterator[bytes]:
    """The preview as `multipart/x-mixed-replace`, until the client leaves or the feed stops.

    The boundary follows each picture at once, because a browser shows a part when it has ended.
    """
    with feed.viewing():
        yield b"--frame\r\n"
        number = 0
        while not feed.stopping.is_set() and not gone():
            number, jpeg = feed.preview.wait(number, SILENCE_INTERVAL_S)
            if jpeg is not None:
                head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                yield head + jpeg + b"\r\n--frame\r\n"
