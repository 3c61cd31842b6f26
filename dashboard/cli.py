"""`fer-dashboard`: the command line."""

import argparse
import logging
import os
from pathlib import Path

from contract.access import bind, configured_token, is_loopback, require_token, url_of
from contract.command import Parser, run_command
from contract.errors import UserError
from contract.telemetry import FeedAddress
from dashboard.app import create_app
from dashboard.feed import Feed
from dashboard.server import adopt, serve

SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux."""


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port (0 to 65535)")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-dashboard",
        description="Serve the live view of one box. Set FER_DASHBOARD_TOKEN (or name a file with "
        "FER_DASHBOARD_TOKEN_FILE) to be asked for a token; without one only this machine may "
        "look.",
    )
    parser.add_argument(
        "--feed", type=Path, required=True, metavar="FOLDER", help="where fer-edge has its sockets"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=_port, default=8080, help="port to listen on, 0: any free")
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
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="fer-dashboard: %(message)s")
    # A burst of requests waits a moment for threads: that is what the queue is for.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    address = _feed_address(arguments.feed)
    token = configured_token()
    adopted = arguments.listen_fd is not None
    bound = adopt(arguments.listen_fd) if adopted else bind(arguments.host, arguments.port)
    loopback = is_loopback(bound)
    require_token(bound, token)
    feed = Feed(address)
    feed.start()
    if not adopted:
        print(f"fer-dashboard: {url_of(bound)}", flush=True)
    serve(create_app(feed, token=token, loopback=loopback), feed, bound, arguments.parent_pid)
    return 0


def run() -> int:
    """Entry point of `fer-dashboard`."""
    return run_command("fer-dashboard", main)
