"""What a service manager hears on its socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A manager's socket and its address as NOTIFY_SOCKET names it."""
    name = f"@fer-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(name.replace("@", "\0"))
        bound.setblocking(False)
        yield bound, name


def heard(manager: socket.socket) -> list[str]:
    """Everything that was said."""
    said = []
    while True:
        try:
            said.append(manager.recv(4096).decode())
        except BlockingIOError:
            return said


def test_the_manager_hears_of_start_status_and_end(manager: tuple[socket.socket, str]) -> None:
    bound, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    for _ in range(3):
        notifier.ready()
        notifier.status("not ready: camera lost:\nunplugged")
    notifier.status("ready")
    notifier.progress()
    notifier.stopping()
    notifier.status("too late")
    assert heard(bound) == [
        "READY=1",
        "STATUS=not ready: camera lost: unplugged",
        "STATUS=ready",
        "STOPPING=1",
    ]


def test_the_watchdog_hears_of_progress_three_times_within_its_patience(tmp_path: Path) -> None:
    now = [0.0]
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(environment["NOTIFY_SOCKET"])
        bound.setblocking(False)
        notifier = Notifier({**environment, "WATCHDOG_PID": str(os.getpid())}, lambda: now[0])
        for tick in range(61):
            now[0] = tick / 10
            notifier.progress()
        assert heard(bound) == ["WATCHDOG=1"] * 7
        other = Notifier({**environment, "WATCHDOG_PID": "1"}, lambda: now[0])
        other.progress()
        assert heard(bound) == [], "the watchdog is another process's"
        notifier.stopping()
        other.stopping()


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/notify"}])
def test_without_a_manager_nothing_happens(environment: dict[str, str]) -> None:
    notifier = Notifier({**environment, "WATCHDOG_USEC": "1000"})
    notifier.ready()
    notifier.progress()
    notifier.stopping()
