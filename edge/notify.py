"""What a service manager is told: ready, status, still making progress, stopping.

systemd's protocol: one datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names.
https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

SOCKET_VARIABLE = "NOTIFY_SOCKET"
"""Set by a service manager that wants to be told."""

_BEATS_PER_TIMEOUT = 3


class Notifier:
    """Tells the service manager of `environment`; without one, every call does nothing."""

    def __init__(
        self, environment: Mapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        address = environment.get(SOCKET_VARIABLE, "")
        # A leading @ stands for the zero byte of an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._clock = clock
        self._beat_s = _beat_s(environment)
        self._next_beat_s = float("-inf")
        self._ready = False
        self._status = ""
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def ready(self) -> None:
        """The box has started; said once."""
        if not self._ready:
            self._ready = True
            self._send("READY=1")

    def status(self, text: str) -> None:
        """One line on how the box is; said when it changes."""
        if text != self._status:
            self._status = text
            self._send("STATUS=" + " ".join(text.split()))

    def progress(self) -> None:
        """Work was done. Call it as often as that is so: the watchdog hears of it in time."""
        now = self._clock()
        if self._beat_s is not None and now >= self._next_beat_s:
            self._next_beat_s = now + self._beat_s
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The box is about to end; nothing can be said afterwards."""
        self._send("STOPPING=1")
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode(), self._address)
        except BlockingIOError:
            return  # a manager that is busy for a moment; the next beat reaches it
        except OSError as error:
            log.warning("the service manager cannot be notified (%s)", error.strerror)
            self._socket.close()
            self._socket = None


def _beat_s(environment: Mapping[str, str]) -> float | None:
    """Seconds between beats that keep the watchdog quiet; None where there is none for us."""
    wanted = environment.get("WATCHDOG_USEC", "")
    if not wanted.isdecimal() or int(wanted) == 0:
        return None
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(wanted) / 1e6 / _BEATS_PER_TIMEOUT
