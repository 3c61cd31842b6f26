"""Who may reach a box's page: one rule for what binds its socket and what serves on it.

Only this machine may, unless a token is configured in the environment.
"""

import ipaddress
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from contract.errors import UserError

TOKEN_VARIABLE = "FER_DASHBOARD_TOKEN"
TOKEN_FILE_VARIABLE = "FER_DASHBOARD_TOKEN_FILE"


def configured_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """The token from the environment or from the file it names; None when neither is set.

    Raises `UserError` for an empty token, an unreadable file, or both set.
    """
    value, file = environment.get(TOKEN_VARIABLE), environment.get(TOKEN_FILE_VARIABLE)
    if value is not None and file is not None:
        raise UserError(f"{TOKEN_VARIABLE} and {TOKEN_FILE_VARIABLE} are both set; unset one")
    place = TOKEN_VARIABLE
    if file is not None:
        place = f"{TOKEN_FILE_VARIABLE}={file}"
        try:
            value = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{place}: not readable ({error})") from None
    if value is None:
        return None
    if not value.strip():
        raise UserError(f"{place}: the token is empty; put a long random one there, or unset it")
    return value.strip()


def bind(host: str, port: int, instead: str = "") -> socket.socket:
    """A socket bound to `host` and `port` (0: any free one).

    Raises `UserError` when it cannot, saying what to do `instead`.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise UserError(f"--host {host}: no such address on this machine") from None
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


def url_of(bound: socket.socket) -> str:
    """What to type into a browser."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def require_token(bound: socket.socket, token: str | None) -> None:
    """Raises `UserError` for a socket others can reach while no token is configured."""
    if token is None and not is_loopback(bound):
        raise UserError(
            f"refusing to show the camera on {url_of(bound)} to everyone: set {TOKEN_VARIABLE} or "
            f"{TOKEN_FILE_VARIABLE}, or listen on 127.0.0.1"
        )
