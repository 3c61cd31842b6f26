"""Logins: who has one, how long it lasts, and how guessing at one is slowed down."""

import hmac
import ipaddress
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable

from werkzeug.security import check_password_hash

from contract.access import HASH_VARIABLE, Login
from contract.errors import UserError

Clock = Callable[[], float]


class Logins:
    """The logins there are: each lasts `lasts_s` seconds, or until it is ended.

    The cookie holds an unguessable id only, so that a login that has ended is worth nothing,
    whoever kept a copy of the cookie.
    """

    MOST = 1000
    """Remembered at most; beyond it the oldest ends."""

    def __init__(self, lasts_s: float, clock: Clock = time.monotonic) -> None:
        self._lasts_s, self._clock = lasts_s, clock
        self._lock = threading.Lock()
        self._until_s: dict[str, float] = {}

    def begin(self) -> str:
        """A new login; returns its id."""
        name = secrets.token_urlsafe(32)
        with self._lock:
            self._until_s[name] = self._clock() + self._lasts_s
            if len(self._until_s) > self.MOST:
                del self._until_s[next(iter(self._until_s))]
        return name

    def valid(self, name: str) -> bool:
        """Is there such a login still?"""
        until_s = self._until_s.get(name)
        return until_s is not None and self._clock() < until_s

    def end(self, name: str) -> None:
        """End it; one that is not there does no harm."""
        with self._lock:
            self._until_s.pop(name, None)


def _group(address: str) -> str:
    """Who is counted as one: an IPv4 address, or the /64 that one IPv6 host has to itself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class FailureLimit:
    """At most `limit` wrong guesses from one address in `window_s` seconds."""

    ADDRESSES = 1000
    """Remembered at most, so that a flood of addresses costs no memory."""

    def __init__(
        self, limit: int = 5, window_s: float = 60.0, clock: Clock = time.monotonic
    ) -> None:
        self.limit = limit
        self.window_s = window_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, deque[float]] = {}

    def wait_s(self, address: str) -> float:
        """Seconds until `address` may try again; 0 when it may now."""
        with self._lock:
            failures = self._failures.get(_group(address))
            if failures is None or len(failures) < self.limit:
                return 0.0
            return max(0.0, failures[0] + self.window_s - self._clock())

    def failed(self, address: str) -> None:
        """Count a wrong guess from `address`."""
        group = _group(address)
        with self._lock:
            times = self._failures.pop(group, deque(maxlen=self.limit))
            times.append(self._clock())
            self._failures[group] = times
            if len(self._failures) > self.ADDRESSES:
                del self._failures[next(iter(self._failures))]


class Attempts:
    """Checks what viewers say they know; what is wrong is counted against their address."""

    WAIT_S = 1.0
    """Longest that an attempt waits for others to be checked."""

    def __init__(self, login: Login, limit: FailureLimit) -> None:
        """Raises `UserError` for a hash that no password can be checked against."""
        self._login, self._limit = login, limit
        try:
            self._is_password("")
        except ValueError as error:
            raise UserError(f"{HASH_VARIABLE}: not a usable hash ({error})") from None
        # One at a time: a password costs some 0.1 s of a core, and as many guesses as there are
        # threads would else pass the limit before the first of them is counted.
        self._checking = threading.Lock()

    def try_token(self, given: str, address: str) -> float | None:
        """None when `given` is the token; else seconds to wait, 0 for a plain wrong one."""
        return self._try(self._is_token, given, address)

    def try_login(self, given: str, address: str) -> float | None:
        """The same for a token or the password."""
        return self._try(
            lambda text: self._is_token(text) or self._is_password(text), given, address
        )

    def _try(self, right: Callable[[str], bool], given: str, address: str) -> float | None:
        if not self._checking.acquire(timeout=self.WAIT_S):
            return self.WAIT_S
        try:
            wait_s = self._limit.wait_s(address)
            if wait_s > 0:
                return wait_s  # even for a right one, so that nothing is learnt
            if right(given):
                return None
            self._limit.failed(address)
            return 0.0
        finally:
            self._checking.release()

    def _is_token(self, given: str) -> bool:
        token = self._login.token
        # Compared in constant time.
        return token is not None and hmac.compare_digest(_bytes(given), _bytes(token))

    def _is_password(self, given: str) -> bool:
        hashed = self._login.password_hash
        return hashed is not None and check_password_hash(hashed, given)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
