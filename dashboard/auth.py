"""Who may do what: one hook before every request, which denies unless something here allows.

With a login configured, everything but `OPEN_ENDPOINTS` needs it: the token as a bearer token, or
the cookie of a login on the page. Without one the dashboard is only ever bound to loopback. The
Host header must be a name the dashboard is known by, so that a web page elsewhere cannot reach it
under a name of its own (DNS rebinding). What other sites have a browser fetch is refused, and
writes need the page's own Origin and a header that another site's form cannot send.
"""

import ipaddress
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from flask import Flask, abort, g, jsonify, redirect, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue

from contract.access import LOGIN_S, Login
from dashboard.logins import Attempts, FailureLimit, Logins

OPEN_ENDPOINTS = frozenset({"login.login", "login.log_in", "dashboard.healthz", "static"})
WRITE_HEADER = ("X-Requested-With", "fer-dashboard")
READ_METHODS = ("GET", "HEAD", "OPTIONS")
_LOGIN = "login"
"""Key of the login's id in the session cookie, and of the one a request was let in by."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may reach one dashboard, and how.

    `loopback` says that it is served on a loopback address only; `allowed_hosts` are names (lower
    case) that it answers to besides localhost and, off loopback, its addresses and this machine's
    own name. `port` is the one it is served on.
    """

    login: Login = field(default_factory=Login)
    loopback: bool = True
    allowed_hosts: tuple[str, ...] = ()
    login_s: float = LOGIN_S
    port: int = 0

    @property
    def cookie(self) -> str:
        """Name of the login's cookie. A browser keeps cookies by host, not by port: of two
        dashboards on one machine, a shared name would have each log-in end the other's."""
        return f"fer-dashboard-{self.port}"


class KnownHosts:
    """The names in a Host header that a dashboard answers to."""

    def __init__(self, access: Access, own_name: str) -> None:
        self._loopback = access.loopback
        self._names = {"localhost", *access.allowed_hosts}
        if not access.loopback:
            self._names |= {own_name.lower(), f"{own_name.lower()}.local"}

    def __contains__(self, host: str) -> bool:
        name = _hostname(f"//{host}")
        if name is None or name in self._names:
            return name is not None
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # An address is no name that somebody else could let point here.
        return address.is_loopback if self._loopback else True


class Guard:
    """The access rules of one app."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._logins = Logins(access.login_s)
        self._attempts = Attempts(access.login, FailureLimit())
        self._hosts = KnownHosts(access, socket.gethostname())

    @property
    def needs_login(self) -> bool:
        """Must a viewer log in?"""
        return self.access.login.needed

    def install(self, app: Flask) -> None:
        """Check every request of `app`, those to no route included."""
        app.session_interface = _Cookie()
        app.before_request(self._check)

    def log_in(self, given: str) -> None:
        """Begin a login of who sent this request, if `given` is the token or the password.

        Aborts with 401 when it is wrong, 429 after too many wrong ones.
        """
        _judge(self._attempts.try_login(given, request.remote_addr or ""))
        session.clear()
        session[_LOGIN] = self._logins.begin()
        session.permanent = True  # the cookie lasts as long as the login, not as the browser

    def log_out(self) -> None:
        """End the login of this request's cookie, if it has one."""
        self._logins.end(str(session.get(_LOGIN)))
        session.clear()

    def still_allowed(self) -> Callable[[], bool]:
        """Whether this request would be allowed again, to be asked later and from any thread."""
        name = g.get(_LOGIN)
        return lambda: name is None or self._logins.valid(name)

    def _check(self) -> ResponseReturnValue | None:
        if request.host not in self._hosts:
            abort(
                403,
                "this dashboard is not known by that name; ask for it by its address, or name it "
                "in dashboard.allowed_hosts",
            )
        if request.method not in READ_METHODS:
            _check_write()
        _check_fetch()
        if not self.needs_login or request.endpoint in OPEN_ENDPOINTS:
            return None
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            _judge(self._attempts.try_token(given.strip(), request.remote_addr or ""))
            return None
        name = str(session.get(_LOGIN))
        if self._logins.valid(name):
            g.setdefault(_LOGIN, name)
            return None
        if request.endpoint == "dashboard.index":
            return redirect(url_for("login.login"))
        return abort(401, "log in, or send Authorization: Bearer with the token")


class _Cookie(SecureCookieSessionInterface):
    """A cookie that is kept to TLS where it came over TLS, also over a trusted proxy's."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def _judge(wait_s: float | None) -> None:
    """Abort unless an attempt was right (None); its other values are seconds to wait."""
    if wait_s is None:
        return
    if wait_s == 0:
        log.warning("a wrong token or password from %s", request.remote_addr)
        abort(401, "that is not it")
    after_s = int(wait_s) + 1
    response = jsonify(error=f"too many attempts; try again in {after_s} s")
    response.status_code = 429
    response.headers["Retry-After"] = str(after_s)
    abort(response)


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _check_write() -> None:
    name, value = WRITE_HEADER
    if request.headers.get(name) != value:
        abort(403, f"a write needs the header {name}: {value}")
    if request.headers.get("Origin", "").lower() != f"{request.scheme}://{request.host}".lower():
        abort(403, "a write needs the Origin header of this dashboard's own page")


def _check_fetch() -> None:
    """Refuse what a browser says another site's page has it fetch, other than following a link."""
    site = request.headers.get("Sec-Fetch-Site")
    if site in ("cross-site", "same-site") and request.headers.get("Sec-Fetch-Mode") != "navigate":
        abort(403, "other sites may link to this dashboard, not fetch from it")
