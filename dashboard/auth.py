"""Who may do what: one hook before every request, which denies unless something here allows.

With a token, everything but `OPEN_ENDPOINTS` needs it, as a bearer token or a login's cookie.
Without one the dashboard is only ever bound to loopback, and the Host header is checked so that a
web page elsewhere cannot reach it under a name of its own (DNS rebinding). Writes need the page's
own Origin and a header that another site's form cannot send.
"""

import hmac
import threading
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from flask import Flask, abort, jsonify, redirect, request, session, url_for
from flask.typing import ResponseReturnValue

OPEN_ENDPOINTS = frozenset({"dashboard.login", "dashboard.healthz", "static"})
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
WRITE_HEADER = ("X-Requested-With", "fer-dashboard")


class FailureLimit:
    """At most `limit` wrong tokens from one address in `window_s` seconds."""

    ADDRESSES = 1000
    """Remembered at most, so that a flood of addresses costs no memory."""

    def __init__(
        self, limit: int = 5, window_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit = limit
        self.window_s = window_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, deque[float]] = {}

    def wait_s(self, address: str) -> float:
        """Seconds until `address` may try again; 0 when it may now."""
        with self._lock:
            failures = self._failures.get(address)
            if failures is None or len(failures) < self.limit:
                return 0.0
            return max(0.0, failures[0] + self.window_s - self._clock())

    def failed(self, address: str) -> None:
        """Count a wrong token from `address`."""
        with self._lock:
            times = self._failures.pop(address, deque(maxlen=self.limit))
            times.append(self._clock())
            self._failures[address] = times
            if len(self._failures) > self.ADDRESSES:
                del self._failures[next(iter(self._failures))]


class Guard:
    """The access rules of one app."""

    def __init__(self, token: str | None, loopback: bool) -> None:
        self.loopback = loopback
        self.limit = FailureLimit()
        self._token = token

    @property
    def needs_token(self) -> bool:
        """Is a token configured?"""
        return self._token is not None

    def install(self, app: Flask) -> None:
        """Check every request of `app`, those to no route included."""
        app.before_request(self._check)

    def try_token(self, given: str) -> None:
        """Compare in constant time. Aborts with 401 when wrong, 429 after too many wrong ones."""
        address = request.remote_addr or ""
        wait_s = self.limit.wait_s(address)
        if wait_s > 0:
            response = jsonify(error="too many wrong tokens; wait a minute")
            response.status_code = 429
            response.headers["Retry-After"] = str(int(wait_s) + 1)
            abort(response)
        if self._token is None or not hmac.compare_digest(_bytes(given), _bytes(self._token)):
            self.limit.failed(address)
            abort(401, "wrong token")

    def _check(self) -> ResponseReturnValue | None:
        if self.loopback and _hostname(f"//{request.host}") not in LOOPBACK_HOSTS:
            abort(403, "this dashboard answers to localhost only")
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            _check_write()
        if not self.needs_token or request.endpoint in OPEN_ENDPOINTS:
            return None
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            self.try_token(given.strip())
            return None
        if session.get("logged_in") is True:
            return None
        if request.endpoint == "dashboard.index":
            return redirect(url_for("dashboard.login"))
        return abort(401, "a token is needed: log in, or send Authorization: Bearer")


def _bytes(token: str) -> bytes:
    return token.encode("utf-8", "surrogateescape")


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _check_write() -> None:
    name, value = WRITE_HEADER
    if request.headers.get(name) != value:
        abort(403, f"a write needs the header {name}: {value}")
    origin = urlsplit(request.headers.get("Origin", ""))
    if origin.scheme not in ("http", "https") or origin.netloc.lower() != request.host.lower():
        abort(403, "a write needs the Origin header of this dashboard's own page")
