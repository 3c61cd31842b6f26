"""The real process: how it starts, what it refuses, what viewers can do to it, how it ends."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from contract.errors import UserError
from contract.telemetry import Check
from dashboard.cli import main
from dashboard.server import STALL_S, THREADS
from dashboard.streams import MAX_STREAMS
from tests.dashboard.fake_edge import FakeEdge
from tests.dashboard.processes import (
    ROOT,
    dashboard,
    end,
    environment,
    get,
    start,
    until,
    url_printed,
)

TOKEN = "correct horse battery staple"


def state(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(get(f"{url}/api/state"))
    return answer


def post_settings(url: str, values: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"{url}/api/settings",
        data=json.dumps({"set": values}).encode(),
        headers={
            "Content-Type": "application/json",
            "X-Requested-With": "fer-dashboard",
            "Origin": url,
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def status_and_json(url: str) -> tuple[int, dict[str, Any]]:
    try:
        return 200, json.loads(get(url))
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture
def streams() -> Iterator[ExitStack]:
    """Holds the streams of a test, and lets go of them after it."""
    with ExitStack() as stack:
        yield stack


def open_stream(stack: ExitStack, url: str, path: str = "/events") -> IO[bytes]:
    response: IO[bytes] = stack.enter_context(urllib.request.urlopen(f"{url}{path}", timeout=5))
    return response


def refused(*arguments: str, **variables: str) -> str:
    """The one line with which a dashboard refuses to start."""
    process = start(*arguments, env=environment(**variables))
    out, err = process.communicate(timeout=20)
    assert process.returncode == 2, (out, err)
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("fer-dashboard: ")
    return err


def test_events_stream_what_the_box_sees(url: str, streams: ExitStack) -> None:
    stream = open_stream(streams, url)
    lines = [stream.readline().decode().rstrip("\n") for _ in range(4)]
    assert lines[:3] == ["retry: 1000", "", "event: update"]
    update = json.loads(lines[3].removeprefix("data: "))
    assert [face["track"] for face in update["frame"]["faces"]] == [1, 4]
    assert update["kpi"]["camera"] == "live"


def test_pictures_are_made_only_for_a_viewer(edge: FakeEdge, url: str) -> None:
    assert not edge.previewing
    with urllib.request.urlopen(f"{url}/stream.mjpg", timeout=5) as stream:
        assert stream.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
        for _ in range(3):
            assert stream.readline() == b"--frame\r\n"
            assert stream.readline() == b"Content-Type: image/jpeg\r\n"
            length = int(stream.readline().split()[1])
            stream.readline()
            jpeg = stream.read(length)
            assert (jpeg[:2], jpeg[-2:]) == (b"\xff\xd8", b"\xff\xd9")
            assert stream.readline() == b"\r\n"
    assert until(lambda: not edge.previewing)


def test_history_is_there_for_a_page_opened_later(url: str) -> None:
    def points() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(get(f"{url}/api/history"))["points"]
        return found

    assert until(lambda: len(points()) >= 2)
    assert points()[0]["age_s"] > points()[-1]["age_s"]
    assert points()[-1]["fps"] > 20


def test_settings_go_to_the_box_and_its_answer_comes_back(edge: FakeEdge, url: str) -> None:
    assert json.loads(get(f"{url}/api/settings"))["values"]["raw_view"] is False
    status, answer = post_settings(url, {"raw_view": True})
    assert (status, answer["values"]["raw_view"], edge.values["raw_view"]) == (200, True, True)
    post_settings(url, {"raw_view": False})
    status, answer = post_settings(url, {"raw_vieww": True})
    assert status == 400
    assert "raw_vieww" in answer["error"]


def test_a_box_that_does_not_answer_is_a_504(edge: FakeEdge, url: str) -> None:
    edge.answering = False
    try:
        status, answer = status_and_json(f"{url}/api/settings")
    finally:
        edge.answering = True
    assert status == 504
    assert "did not answer" in answer["error"]


def test_readiness_says_what_is_wrong(edge: FakeEdge, url: str) -> None:
    assert until(lambda: status_and_json(f"{url}/readyz")[0] == 200)
    try:
        lost = Check("camera", False, "camera lost: /dev/video0 unplugged")
        edge.kpi_changes = {"camera": "lost", "checks": (lost,)}
        assert until(lambda: status_and_json(f"{url}/readyz")[0] == 503)
        answer = status_and_json(f"{url}/readyz")[1]
        assert answer["reason"] == "camera lost: /dev/video0 unplugged"
        assert answer["checks"] == [
            {"name": "camera", "ok": False, "reason": lost.reason, "critical": True}
        ]
        assert status_and_json(f"{url}/healthz")[0] == 200, "its loop beats all the same"
        edge.speaking = False
        assert until(
            lambda: "no data from the box" in str(status_and_json(f"{url}/readyz")[1]["reason"])
        )
        status, answer = status_and_json(f"{url}/healthz")
        assert (status, answer["alive"]) == (503, False)
        assert answer["reason"].startswith("no data from the box for ")
    finally:
        edge.kpi_changes, edge.speaking = {}, True
    assert until(lambda: status_and_json(f"{url}/readyz")[0] == 200)


def test_streams_are_capped_and_the_rest_does_not_wait(url: str, streams: ExitStack) -> None:
    assert MAX_STREAMS < THREADS
    assert until(lambda: state(url)["streams"]["active"] == 0)
    for number in range(MAX_STREAMS):
        open_stream(streams, url, "/stream.mjpg" if number % 2 else "/events").read(1)
    with pytest.raises(urllib.error.HTTPError) as error:
        get(f"{url}/events")
    assert error.value.code == 503
    assert int(error.value.headers["Retry-After"]) > 0
    for _ in range(40):
        assert get(f"{url}/api/settings")
    assert state(url)["streams"]["active"] == MAX_STREAMS
    streams.close()
    # They are gone at once, not when something is next sent to them.
    assert until(lambda: state(url)["streams"]["active"] == 0, within_s=2)
    open_stream(streams, url).read(1)


def test_asking_only_for_the_head_of_a_stream_holds_no_slot(url: str) -> None:
    for path in ("/events", "/stream.mjpg"):
        request = urllib.request.Request(f"{url}{path}", method="HEAD")
        with urllib.request.urlopen(request, timeout=5) as response:
            assert response.status == 200
    assert until(lambda: state(url)["streams"]["active"] == 0)


def test_a_client_that_reads_nothing_is_dropped_and_costs_no_memory(folder: Path) -> None:
    process = start("--feed", str(folder), "--port", "0", env=environment())
    with ExitStack() as stack:
        stack.callback(end, process)
        url = url_printed(process)
        host = url.removeprefix("http://")
        assert until(lambda: state(url)["age_s"] is not None)
        before = psutil.Process(process.pid).memory_info().rss
        greedy = []
        for _ in range(8):
            client = stack.enter_context(closing(socket.socket()))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((host.split(":")[0], int(host.split(":")[1])))
            client.sendall(f"GET /stream.mjpg HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            greedy.append(client)
        assert until(lambda: state(url)["streams"]["active"] == len(greedy))
        assert until(lambda: state(url)["streams"]["active"] == 0, within_s=STALL_S + 10)
        after = psutil.Process(process.pid).memory_info().rss
        assert after - before < 24e6  # 8 × (buffer + what Python keeps of it).


def test_sigterm_ends_it_soon_whatever_the_clients_do(folder: Path) -> None:
    process = start("--feed", str(folder), "--port", "0", env=environment())
    url = url_printed(process)
    host, port = url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        for path in ("/events", "/stream.mjpg"):
            open_stream(stack, url, path).read(1)
        stuck = stack.enter_context(closing(socket.socket()))
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect((host, int(port)))
        stuck.sendall(f"GET /stream.mjpg HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        time.sleep(1.5)
        process.terminate()
        began = time.monotonic()
        _, err = process.communicate(timeout=10)
        assert time.monotonic() - began < 2
    assert process.returncode == 0
    assert err == ""


def test_it_serves_on_a_socket_handed_over_and_ends_with_its_parent(folder: Path) -> None:
    parent = (
        "import os, socket, subprocess, sys\n"
        "listening = socket.create_server(('127.0.0.1', 0))\n"
        "fd = listening.fileno()\n"
        "child = subprocess.Popen([sys.executable, '-m', 'dashboard', '--feed', sys.argv[1],\n"
        "    '--listen-fd', str(fd), '--parent-pid', str(os.getpid())], pass_fds=[fd])\n"
        "print(child.pid, listening.getsockname()[1], flush=True)\n"
        "child.wait()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent, str(folder)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        child_pid, port = map(int, process.stdout.readline().split())
        child = psutil.Process(child_pid)
        assert "alive" in status_and_json(f"http://127.0.0.1:{port}/healthz")[1]
        process.kill()
        process.wait()
        assert until(lambda: not child.is_running(), within_s=4)


def test_a_token_guards_the_page_and_never_shows(folder: Path) -> None:
    process = start(
        "--feed", str(folder), "--port", "0", "--host", "0.0.0.0",
        env=environment(FER_DASHBOARD_TOKEN=TOKEN),
    )  # fmt: skip
    port = url_printed(process).rsplit(":", 1)[1]
    url = f"http://127.0.0.1:{port}"
    assert status_and_json(f"{url}/api/state")[0] == 401
    request = urllib.request.Request(
        f"{url}/api/state", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        assert TOKEN.encode() not in response.read()
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
    with closing(connection):
        connection.request("GET", f"/login?{TOKEN.split()[0]}", headers={"Cookie": "x" * 5000})
        assert connection.getresponse().status == 200
    process.terminate()
    out, err = process.communicate(timeout=10)
    assert TOKEN.split()[0] not in out + err


def test_a_port_in_use_is_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1 port {port}" in refused("--feed", str(folder), "--port", port)


def test_what_it_refuses_to_start_with(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = ("--feed", str(folder))
    deep = tmp_path / ("x" * 110)
    deep.mkdir()
    for arguments, named in (
        (("--feed", str(tmp_path / "none")), str(tmp_path / "none")),
        (("--feed", str(deep)), "shorter"),
        ((*feed, "--port", "70000"), "70000"),
        ((*feed, "--listen-fd", "77"), "--listen-fd 77"),
        ((*feed, "--prot", "80"), "--prot"),
        ((*feed, "--host", "256.1.1.1"), "--host 256.1.1.1"),
        ((), "--feed"),
    ):
        monkeypatch.setattr(sys, "argv", ["fer-dashboard", *arguments])
        with pytest.raises(UserError) as error:
            main()
        assert named in str(error.value)
    assert "FER_DASHBOARD_TOKEN_FILE" in refused(*feed, FER_DASHBOARD_TOKEN_FILE="/none")


def test_without_a_token_only_this_machine_may_look(folder: Path) -> None:
    feed = ("--feed", str(folder))
    assert "FER_DASHBOARD_TOKEN" in refused(*feed, "--port", "0", "--host", "0.0.0.0")


def test_a_socket_handed_over_follows_the_same_rule(folder: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as wide:
        fd = wide.fileno()
        process = start(
            "--feed", str(folder), "--listen-fd", str(fd), env=environment(), pass_fds=(fd,)
        )
        _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "FER_DASHBOARD_TOKEN" in err


def test_a_dashboard_without_a_box_says_so(folder: Path) -> None:
    empty = folder / "empty"
    empty.mkdir()
    with dashboard(empty) as url:
        status, answer = status_and_json(f"{url}/readyz")
        assert (status, answer["reason"]) == (503, "no data from the box yet")
        assert state(url)["update"] is None
        assert os.listdir(empty) == []  # noqa: PTH208 - it makes nothing there
