"""The dashboard's process: its port, its restarts, its end."""

import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from contract.errors import UserError
from dashboard.cli import _parser
from edge.page import RESTARTS, WINDOW_S, DashboardProcess, listen, listen_for
from firmware_config.dashboard_config import DashboardConfig
from tests.dashboard.processes import get, until
from tests.edge.test_feed import Time

Page = Callable[[str], DashboardProcess]


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def page(tmp_path: Path, clock: Time, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A dashboard whose program is a shell script; it notes each start in `starts`."""
    made: list[DashboardProcess] = []

    def make(script: str) -> DashboardProcess:
        stub = tmp_path / "stub"
        stub.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/starts\n{script}\n')
        stub.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(stub))
        one = DashboardProcess(listen("127.0.0.1", 0), tmp_path, clock)
        made.append(one)
        return one

    yield make
    for one in made:
        one.stop()


class Children:
    """The running children of this process that are not older than the test."""

    def __init__(self) -> None:
        self._older = set(psutil.Process().children())

    def __call__(self) -> list[psutil.Process]:
        now = set(psutil.Process().children()) - self._older
        return [child for child in now if child.status() != psutil.STATUS_ZOMBIE]

    def gone(self) -> bool:
        return until(lambda: not self())


@pytest.fixture
def children() -> Children:
    return Children()


def starts(tmp_path: Path) -> int:
    file = tmp_path / "starts"
    return len(file.read_text().splitlines()) if file.exists() else 0


def port_of(page: DashboardProcess) -> int:
    return int(page.url.rstrip("/").rpartition(":")[2])


def test_a_port_in_use_is_named_with_the_mend() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as error:
            listen("127.0.0.1", port)
    told = str(error.value)
    assert f"127.0.0.1 port {port}: address already in use" in told
    assert "--port" in told and "--no-dashboard" in told


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])  # RFC 5737, RFC 6761
def test_an_address_that_is_not_ours_is_a_mistake_of_the_user(host: str) -> None:
    with pytest.raises(UserError, match=re.escape(host)):
        listen(host, 0)


def test_a_page_open_to_others_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FER_DASHBOARD_TOKEN", raising=False)
    monkeypatch.delenv("FER_DASHBOARD_TOKEN_FILE", raising=False)
    with pytest.raises(UserError, match="set FER_DASHBOARD_TOKEN"):
        listen("0.0.0.0", 0)
    monkeypatch.setenv("FER_DASHBOARD_TOKEN", "correct horse battery staple")
    listen("0.0.0.0", 0).close()


def test_a_proxy_before_the_page_needs_a_login_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN", "TOKEN_FILE", "PASSWORD_HASH", "PASSWORD_HASH_FILE"):
        monkeypatch.delenv(f"FER_DASHBOARD_{name}", raising=False)
    page = DashboardConfig(port=0, trusted_proxy="127.0.0.1")
    with pytest.raises(UserError, match="trusted_proxy"):
        listen_for(page)
    monkeypatch.setenv("FER_DASHBOARD_PASSWORD_HASH", "scrypt:32768:8:1$salt$00ff")
    listen_for(page).close()


def test_a_certificate_that_is_none_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pem: not readable"):
        listen_for(DashboardConfig(port=0, tls_certificate=tmp_path / "none.pem"))


def test_the_child_is_told_what_the_profile_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DashboardConfig(
        allowed_hosts=("box.example.lan", "wall.example.lan"), trusted_proxy="::1",
        tls_certificate=Path("/a/box.pem"), tls_key=Path("/a/box.key"), login_s=90,
    )  # fmt: skip
    told: list[list[str]] = []

    class Recorded:
        def __init__(self, command: list[str], **_: object) -> None:
            told.append(command)

        def poll(self) -> int:
            return 0

    monkeypatch.setattr("edge.page.subprocess.Popen", Recorded)
    with listen("127.0.0.1", 0) as listener:
        one = DashboardProcess(listener, tmp_path, config=config)
        one.start()
        assert one.url.startswith("https://127.0.0.1:")
    # The dashboard's own parser reads it as it was meant.
    read = _parser().parse_args(told[0][4:])
    assert read.allowed_host == ["box.example.lan", "wall.example.lan"]
    assert (read.trusted_proxy, read.login_s) == ("::1", 90)
    assert (str(read.tls_certificate), str(read.tls_key)) == ("/a/box.pem", "/a/box.key")


def test_the_child_is_told_the_feed_the_socket_and_the_parent(page: Page, tmp_path: Path) -> None:
    one = page("exec sleep 60")
    one.start()
    assert until(lambda: starts(tmp_path) == 1)
    words = (tmp_path / "starts").read_text().split()
    assert words[words.index("--feed") + 1] == str(tmp_path)
    assert words[words.index("--parent-pid") + 1] == str(psutil.Process().pid)
    assert int(words[words.index("--listen-fd") + 1]) > 2


def test_the_child_is_told_where_session_logs_are_if_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr("subprocess.Popen", lambda command, **_: commands.append(command))
    for sessions in (None, tmp_path / "logs"):
        with listen("127.0.0.1", 0) as bound:
            DashboardProcess(bound, tmp_path, sessions=sessions).start()
    assert "--session-dir" not in commands[0]
    assert commands[1][commands[1].index("--session-dir") + 1] == str(tmp_path / "logs")


def test_a_child_that_ends_is_started_again(page: Page, tmp_path: Path, children: Children) -> None:
    one = page("exec sleep 60")
    one.start()
    one.watch()
    assert until(lambda: starts(tmp_path) == 1), "one that runs is left alone"
    children()[0].kill()
    assert children.gone()
    one.watch()
    assert until(lambda: starts(tmp_path) == 2)
    assert one.problem is None


def test_a_child_that_keeps_ending_is_left_off_and_that_is_said(
    page: Page, tmp_path: Path, clock: Time, children: Children
) -> None:
    one = page("exit 1")
    one.start()
    for _ in range(3 * RESTARTS):
        assert children.gone()
        clock.now += 1
        one.watch()
    assert starts(tmp_path) == RESTARTS
    assert one.problem is not None and f"{RESTARTS} times" in one.problem
    clock.now += 2 * WINDOW_S
    one.watch()
    assert starts(tmp_path) == RESTARTS, "left off is left off"


def test_a_child_that_ends_now_and_then_is_started_for_ever(
    page: Page, tmp_path: Path, clock: Time, children: Children
) -> None:
    one = page("exit 1")
    one.start()
    for _ in range(3 * RESTARTS):
        assert children.gone()
        clock.now += WINDOW_S / (RESTARTS - 1)
        one.watch()
    assert until(lambda: starts(tmp_path) == 1 + 3 * RESTARTS)
    assert one.problem is None


def test_a_child_that_refuses_is_not_asked_again(
    page: Page, tmp_path: Path, children: Children
) -> None:
    one = page("exit 2")
    one.start()
    assert children.gone()
    one.watch()
    assert one.problem is not None and "refused" in one.problem
    one.watch()
    assert starts(tmp_path) == 1


def test_stop_ends_the_child_and_frees_the_port(
    page: Page, tmp_path: Path, children: Children
) -> None:
    one = page("exec sleep 60")
    one.start()
    assert until(lambda: starts(tmp_path) == 1)
    port = port_of(one)
    one.stop()
    assert not children()
    listen("127.0.0.1", port).close()
    one.stop()  # twice does no harm


def test_stop_ends_a_child_that_will_not_go(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: Children
) -> None:
    one = page("trap '' TERM; touch deaf; while :; do sleep 0.05; done")
    monkeypatch.chdir(tmp_path)
    one.start()
    assert until(lambda: (tmp_path / "deaf").exists())
    one.stop()
    assert not children()


def test_the_url_is_one_to_type_into_a_browser() -> None:
    four = DashboardProcess(listen("127.0.0.1", 0), Path())
    assert four.url == f"http://127.0.0.1:{port_of(four)}/"
    four.stop()
    if socket.has_ipv6:
        try:
            six = DashboardProcess(listen("::1", 0), Path())
        except UserError:
            pytest.skip("this machine has no IPv6 loopback")
        assert six.url == f"http://[::1]:{port_of(six)}/"
        six.stop()


def test_the_real_dashboard_answers_on_the_socket_it_is_handed(
    tmp_path: Path, children: Children
) -> None:
    one = DashboardProcess(listen("127.0.0.1", 0), tmp_path)
    try:
        one.start()
        # Asked before it is up, it answers as soon as it is: the socket listens from the start.
        assert b"<html" in get(one.url, timeout_s=30)
    finally:
        one.stop()
    assert not children()
