"""The dashboard's process: started, watched and ended by the program it shows."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from contract.access import bind, configured_login, require_login, url_of
from contract.errors import UserError
from contract.tls import server_context
from firmware_config.dashboard_config import DashboardConfig

RESTARTS, WINDOW_S = 5, 60.0
REFUSED = 2
"""Exit code of a program that says what its user must mend: another start would say the same."""

log = logging.getLogger(__name__)


def listen(host: str, port: int, trusted_proxy: str | None = None) -> socket.socket:
    """A listening socket for the dashboard.

    It is bound here and handed over, so a port in use is found before anything starts. Raises
    `UserError` for that, for an address that is not ours, and for one that others can reach (also
    through a `trusted_proxy`) while no login is configured.
    """
    bound = bind(host, port, ", or run with --no-dashboard")
    try:
        require_login(bound, configured_login(), trusted_proxy)
    except UserError:
        bound.close()
        raise
    return bound


def listen_for(page: DashboardConfig) -> socket.socket:
    """`listen` as a profile says. Raises `UserError` also for a certificate that is none."""
    if page.tls_certificate is not None:
        server_context(page.tls_certificate, page.tls_key)
    return listen(page.host, page.port, page.trusted_proxy)


def _flags(page: DashboardConfig) -> list[str]:
    """What the child is told of the profile."""
    flags = ["--login-s", str(page.login_s)]
    for name in page.allowed_hosts:
        flags += ["--allowed-host", name]
    if page.trusted_proxy is not None:
        flags += ["--trusted-proxy", page.trusted_proxy]
    if page.tls_certificate is not None:
        flags += ["--tls-certificate", str(page.tls_certificate)]
    if page.tls_key is not None:
        flags += ["--tls-key", str(page.tls_key)]
    return flags


class DashboardProcess:
    """The child process, started at most 5 times in 60 s, and not again once it refused."""

    def __init__(
        self,
        listener: socket.socket,
        feed: Path,
        clock: Callable[[], float] = time.monotonic,
        *,
        sessions: Path | None = None,
        config: DashboardConfig | None = None,
    ) -> None:
        """`feed` is the folder of the feed's sockets, `sessions` that of session logs, if any."""
        self._config = config or DashboardConfig()
        self._listener, self._feed, self._clock = listener, feed, clock
        self._sessions = sessions
        self._starts: deque[float] = deque()
        self._child: subprocess.Popen[bytes] | None = None
        self.problem: str | None = None

    @property
    def url(self) -> str:
        """Where the page is."""
        return url_of(self._listener, "https" if self._config.tls_certificate else "http")

    def start(self) -> None:
        """Start the child on the bound socket."""
        number = self._listener.fileno()
        command = [
            sys.executable, "-P", "-m", "dashboard", "--feed", str(self._feed),
            "--listen-fd", str(number), "--parent-pid", str(os.getpid()), *_flags(self._config),
        ]  # fmt: skip
        if self._sessions is not None:
            command += ["--session-dir", str(self._sessions)]
        # In a session of its own, so that Ctrl-C reaches this process alone, which then ends it.
        self._child = subprocess.Popen(command, pass_fds=[number], start_new_session=True)
        self._starts.append(self._clock())

    def watch(self) -> None:
        """Start the child again if it ended by itself, within the budget."""
        if self._child is None or self._child.poll() is None or self.problem:
            return
        if self._child.returncode == REFUSED:
            self.problem = "dashboard refused to start; its own line in the log says why"
            log.error(self.problem)
            return
        now = self._clock()
        while self._starts and now - self._starts[0] > WINDOW_S:
            self._starts.popleft()
        if len(self._starts) >= RESTARTS:
            self.problem = f"dashboard ended {RESTARTS} times within {WINDOW_S:g} s; left off"
            log.error(self.problem)
            return
        log.warning("dashboard ended with code %s; starting it again", self._child.returncode)
        self.start()

    def stop(self) -> None:
        """End the child, by force after 3 s, and free the port."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(3.0)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._listener.close()
