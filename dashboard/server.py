"""Serving the app: the socket, the limits that keep viewers harmless, and the end of it.

Waitress gives each request a thread. Streams are capped well below the threads, so a page and its
controls answer while every stream is taken. A stream's client that stops reading fills its bounded
buffer, then the kernel's, and is dropped by the kernel's own timer (`TCP_USER_TIMEOUT`).
"""

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

import waitress.server
from flask import Flask

from contract.errors import UserError
from dashboard.feed import Feed
from dashboard.tls import TlsListener

THREADS = 24
STALL_S = 5
"""A client that accepts nothing for this long is dropped."""
BUFFER_BYTES = 256 * 1024
"""Per client here, and again in the kernel: a few pictures."""
DRAIN_S = 0.25
PARENT_CHECK_S = 0.5

# Set on the listening socket: on Linux an accepted one inherits them.
SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALL_S * 1000),
    (socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES),
    # Finds a client that vanished while there is nothing to send.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, STALL_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, STALL_S),
]

# The Host header is not among them: the proxy must pass it on as it came, and it is checked.
PROXY_HEADERS = {
    "trusted_proxy_count": 1,
    "trusted_proxy_headers": {"x-forwarded-for", "x-forwarded-proto"},
}


def adopt(descriptor: int) -> socket.socket:
    """The TCP socket a parent bound and handed over. Raises `UserError` if it is none."""
    try:
        bound = socket.socket(fileno=descriptor)
    except OSError as error:
        raise UserError(f"--listen-fd {descriptor}: not an open socket ({error})") from None
    if bound.family not in (socket.AF_INET, socket.AF_INET6) or bound.type != socket.SOCK_STREAM:
        bound.detach()
        raise UserError(f"--listen-fd {descriptor}: not a TCP socket")
    return bound


def serve(
    app: Flask,
    feed: Feed,
    bound: socket.socket,
    parent: int | None,
    *,
    certificate: tuple[Path, Path | None] | None = None,
    trusted_proxy: str | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT, or until `parent` (a process id) is no longer the parent.

    With a `certificate` (its file, and its key's unless that is in the same) it serves HTTPS. Of
    `trusted_proxy`, an address, it believes who the client is and whether it came over TLS.
    Ends within two seconds, whatever the clients do. Call it from the main thread. Raises
    `UserError` for files that are no certificate.
    """
    for level, option, value in SOCKET_OPTIONS:
        bound.setsockopt(level, option, value)
    tls = TlsListener(bound, *certificate) if certificate else None
    proxy = {} if trusted_proxy is None else {"trusted_proxy": trusted_proxy, **PROXY_HEADERS}
    server = waitress.server.create_server(
        app,
        sockets=[tls or bound],
        url_scheme="https" if tls else "http",
        threads=THREADS,
        ident=None,
        outbuf_high_watermark=BUFFER_BYTES,
        max_request_body_size=1024 * 1024,
        # Lets the loop notice a client that leaves while its stream has nothing to send.
        channel_request_lookahead=1,
        channel_timeout=30,
        cleanup_interval=10,
        log_socket_errors=False,
        asyncore_use_poll=True,
        **proxy,
    )
    # They are set above, and a connection that comes decrypted is no TCP socket.
    server.adj.socket_options = []
    stop = _Stop(server, feed)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.on_signal)
    if parent is not None:
        threading.Thread(target=_watch, args=(parent, stop), name="parent", daemon=True).start()
    server.run()
    if tls is not None:
        tls.end()
    feed.close()


def _watch(parent: int, stop: "_Stop") -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    stop.begin()


class _Stop:
    """The way down: streams end by themselves, stuck ones are cut, then the loop is left.

    The loop must run on meanwhile, for only it frees a thread that waits for a stuck client.
    """

    def __init__(self, server: waitress.server.BaseWSGIServer, feed: Feed) -> None:
        self._server = server
        self._feed = feed
        self._begun = threading.Event()
        self._drained = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._drained:
            raise SystemExit(0)
        self.begin()

    def begin(self) -> None:
        if not self._begun.is_set():
            self._begun.set()
            threading.Thread(target=self._drain, name="stop", daemon=True).start()

    def _drain(self) -> None:
        self._feed.stop()
        time.sleep(DRAIN_S)
        for channel in list(self._server.active_channels.values()):
            with suppress(OSError):
                channel.socket.shutdown(socket.SHUT_RDWR)
        time.sleep(DRAIN_S / 2)
        self._drained = True
        main = threading.main_thread().ident
        assert main is not None  # the main thread has begun
        signal.pthread_kill(main, signal.SIGTERM)
