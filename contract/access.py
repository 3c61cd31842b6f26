"""Who may reach a box's page: one rule for what binds its socket and what serves on it.

Only this machine may, unless a token or a password is configured.
"""

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from contract.errors import UserError
from contract.secret_settings import configured_secret

TOKEN_VARIABLE = "FER_DASHBOARD_TOKEN"
HASH_VARIABLE = "FER_DASHBOARD_PASSWORD_HASH"
LOGIN_S = 12 * 3600.0
"""How long a login lasts by default, seconds."""
_SCRYPT_HASH = re.compile(r"scrypt:\d+:\d+:\d+\$[A-Za-z0-9]+\$[0-9a-f]+")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Login:
    """What a viewer must know: a token (for programs and people), a password (for people).

    The password is known by its hash only, as `fer-dashboard hash-password` prints it.
    """

    token: str | None = None
    password_hash: str | None = None

    @property
    def needed(self) -> bool:
        """Must a viewer know anything?"""
        return self.token is not None or self.password_hash is not None


def configured_login(environment: Mapping[str, str] = os.environ) -> Login:
    """The login as it is configured in the environment, files or systemd credentials.

    Raises `UserError` for a secret that is empty, unreadable, set twice, or no hash.
    """
    password_hash = configured_secret(HASH_VARIABLE, environment)
    if password_hash is not None and not _SCRYPT_HASH.fullmatch(password_hash):
        raise UserError(
            f"{HASH_VARIABLE}: not a password's hash; put there what `fer-dashboard hash-password` "
            "prints, in single quotes where a shell reads it"
        )
    return Login(configured_secret(TOKEN_VARIABLE, environment), password_hash)


def host_name(text: str) -> str:
    """A name that a page may be asked for under, in lower case.

    Raises `ValueError` for what is no host name, as one with a port or a scheme.
    """
    name = text.lower()
    if not _HOST_NAME.fullmatch(name):
        raise ValueError(f"'{text}' is not a host name such as box.example.lan (no port, no https)")
    return name


def bind(host: str, port: int, instead: str = "") -> socket.socket:
    """A socket bound to `host` and `port` (0: any free one).

    Raises `UserError` when it cannot, saying what to do `instead`.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise UserError(
            f"--host {host}: no such address on this machine; name one it has"
        ) from None
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        # Listening already here: two binds may succeed where only one may listen.
        bound.listen()
    except OSError as error:
        bound.close()
        raise UserError(
            f"cannot listen on {host} port {port}: {(error.strerror or str(error)).lower()}; "
            f"name another with --port or --host{instead}"
        ) from None
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Can only this machine reach the socket?"""
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def url_of(bound: socket.socket, scheme: str = "http") -> str:
    """What to type into a browser."""
    host, port = bound.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


def require_login(bound: socket.socket, login: Login, trusted_proxy: str | None = None) -> None:
    """Raises `UserError` for a page that others can reach while no login is configured.

    They can where the socket is not on a loopback address, and through a `trusted_proxy`.
    """
    if login.needed or (is_loopback(bound) and trusted_proxy is None):
        return
    through = f" through the proxy {trusted_proxy}" if trusted_proxy else ""
    raise UserError(
        f"refusing to show the camera on {url_of(bound)}{through} to everyone; set "
        f"{TOKEN_VARIABLE}, {TOKEN_VARIABLE}_FILE or {HASH_VARIABLE}, or listen on 127.0.0.1"
        f"{' without trusted_proxy' if trusted_proxy else ''}"
    )
