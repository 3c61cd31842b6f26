"""`fer-dashboard`: the command line."""

import argparse
import ipaddress
import logging
import os
import sys
from pathlib import Path

from contract.access import (
    LOGIN_S,
    bind,
    configured_login,
    host_name,
    is_loopback,
    require_login,
    url_of,
)
from contract.command import Parser, run_command
from contract.errors import UserError
from contract.telemetry import FeedAddress
from contract.tls import server_context
from dashboard.app import create_app
from dashboard.auth import Access
from dashboard.feed import Feed
from dashboard.password import hash_password
from dashboard.server import adopt, serve

HASH_PASSWORD = "hash-password"
SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux."""


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port (0 to 65535)")
    return int(text)


def _host_name(text: str) -> str:
    try:
        return host_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not an address such as 127.0.0.1") from None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-dashboard",
        description="Serve the live view of one box. Set FER_DASHBOARD_TOKEN or "
        "FER_DASHBOARD_PASSWORD_HASH (or name a file with …_FILE, or hand over a systemd "
        "credential) to be asked to log in; without either only this machine may look. "
        f"'fer-dashboard {HASH_PASSWORD}' makes the hash of a password.",
    )
    parser.add_argument(
        "--feed", type=Path, required=True, metavar="FOLDER", help="where fer-edge has its sockets"
    )
    parser.add_argument(
        "--session-dir", type=Path, metavar="FOLDER", help="where fer-edge writes session logs"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=_port, default=8080, help="port to listen on, 0: any free")
    parser.add_argument(
        "--allowed-host", type=_host_name, action="append", default=[], metavar="NAME",
        help="a name the page may be asked for under, besides addresses and this machine's own",
    )  # fmt: skip
    parser.add_argument(
        "--trusted-proxy", type=_address, metavar="ADDRESS",
        help="a reverse proxy whose X-Forwarded-For and X-Forwarded-Proto are believed",
    )  # fmt: skip
    parser.add_argument(
        "--tls-certificate", type=Path, metavar="FILE", help="serve HTTPS with this PEM certificate"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM file of its private key")
    parser.add_argument(
        "--login-s",
        type=float,
        default=LOGIN_S,
        metavar="S",
        help="how long a login lasts, seconds",
    )
    parser.add_argument(
        "--listen-fd", type=int, metavar="N", help="serve on this socket, bound by the parent"
    )
    parser.add_argument(
        "--parent-pid", type=int, metavar="N", help="end when this process is no longer the parent"
    )
    return parser


def _feed_address(folder: Path) -> FeedAddress:
    folder = folder.absolute()
    if not folder.is_dir():
        raise UserError(f"--feed {folder}: no such folder; name the one fer-edge was given")
    address = FeedAddress(folder)
    if len(os.fsencode(address.control.removeprefix("ipc://"))) > SOCKET_PATH_BYTES:
        raise UserError(f"--feed {folder}: too long a path for a socket; use a shorter one")
    return address


def main() -> int:
    """Serve until told to stop. Raises `UserError` for what the user can mend."""
    if sys.argv[1:] == [HASH_PASSWORD]:
        return hash_password()
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="fer-dashboard: %(message)s")
    # A burst of requests waits a moment for threads: that is what the queue is for.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    address = _feed_address(arguments.feed)
    login = configured_login()
    certificate = (arguments.tls_certificate, arguments.tls_key)
    if arguments.tls_certificate is not None:
        server_context(*certificate)  # said before anything listens
    elif arguments.tls_key is not None:
        raise UserError(f"--tls-key {arguments.tls_key}: name its --tls-certificate too")
    adopted = arguments.listen_fd is not None
    bound = adopt(arguments.listen_fd) if adopted else bind(arguments.host, arguments.port)
    require_login(bound, login, arguments.trusted_proxy)
    access = Access(
        login, is_loopback(bound), tuple(arguments.allowed_host), arguments.login_s,
        bound.getsockname()[1],
    )  # fmt: skip
    feed = Feed(address)
    feed.start()
    if not adopted:
        scheme = "https" if arguments.tls_certificate else "http"
        print(f"fer-dashboard: {url_of(bound, scheme)}", flush=True)
    serve(
        create_app(feed, access, session_dir=arguments.session_dir), feed, bound,
        arguments.parent_pid, trusted_proxy=arguments.trusted_proxy,
        certificate=certificate if arguments.tls_certificate else None,
    )  # fmt: skip
    return 0


def run() -> int:
    """Entry point of `fer-dashboard`."""
    return run_command("fer-dashboard", main)
