"""`fer-edge --camera …` as a whole: the program, its dashboard, a browser, and the end of them."""

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from contract.bundle import Bundle
from contract.expressions import EXPRESSIONS, UNCERTAIN
from tests.dashboard.processes import CHROMIUM, CHROMIUM_ARGUMENTS
from tests.edge.test_session_csv import read
from tests.system.commands import Running, running, until

pytestmark = pytest.mark.usefixtures("demo_portraits")

LABELS = {*EXPRESSIONS, UNCERTAIN}
ENDS_WITHIN_S = 3.0
ABSENT = "/dev/video97"


def fetch(url: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON at a URL; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
    except (OSError, ValueError):
        return 0, {}


def people(url: str) -> dict[int, str]:
    """Track → label of the newest frame, as the dashboard has it."""
    update = fetch(f"{url}/api/state")[1].get("update") or {}
    faces = (update.get("frame") or {}).get("faces", [])
    return {face["track"]: face["label"] for face in faces}


def dashboard_of(box: Running) -> psutil.Process:
    """The process of the page."""
    (found,) = (child for child in box.children() if "dashboard" in child.cmdline())
    return found


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo at ten frames a second, so that a busy machine keeps up."""
    file = tmp_path_factory.mktemp("profile") / "calm.toml"
    file.write_text('[camera]\nsource = "demo"\nfps = 10\n[runtime]\nthreads = 1\n')
    return file


@pytest.fixture(scope="module")
def box(
    tmp_path_factory: pytest.TempPathFactory, cache: Path, tiny: Bundle, profile: Path
) -> Iterator[Running]:
    """A running box that sees the demo's two people."""
    pytest.importorskip("skimage.data", reason="the demo's portraits are not installed")
    arguments = ("--camera", "demo", "--port", 0, "--model", tiny.folder, "--profile", profile)
    with running(*arguments, cache=cache, cwd=tmp_path_factory.mktemp("box")) as one:
        yield one


def test_it_says_where_its_page_is_and_what_it_saw_first(box: Running) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", box.url)
    first = box.said(r"first result after ([\d.]+) s: (.+)")
    assert float(first[1]) < 60
    assert "Traceback" not in box.log


def test_the_dashboard_shows_two_people_with_labels(box: Running) -> None:
    assert until(lambda: len(people(box.url)) == 2)
    assert set(people(box.url).values()) <= LABELS
    assert until(lambda: fetch(f"{box.url}/readyz")[0] == 200)
    kpi = fetch(f"{box.url}/api/state")[1]["update"]["kpi"]
    assert (kpi["source"], kpi["model"], kpi["camera"]) == ("demo", "tiny", "live")


def test_a_real_browser_shows_both_of_them_by_name(box: Running) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS, headless=True
        )
        page = browser.new_page()
        page.set_default_timeout(20_000)
        expect.set_options(timeout=20_000)
        page.goto(box.url)
        expect(page.locator("#connection")).to_have_text("Live")
        cards = page.locator(".card")
        expect(cards).to_have_count(2)
        names = page.get_by_role("heading", name=re.compile("Person")).all_inner_texts()
        assert len(set(names)) == 2 and all(re.fullmatch(r"Person \d+", n) for n in names)
        for card in cards.all():
            assert card.locator(".label").inner_text().lower() in LABELS
            expect(card.locator(".bar")).to_have_count(len(EXPRESSIONS))
        expect(page.locator("#picture")).to_have_js_property("naturalWidth", 640)
        browser.close()
        expect.set_options(timeout=5_000)


def test_faces_are_shown_only_after_asking_for_them(box: Running) -> None:
    def setting(value: bool | None = None) -> bool:
        body = None if value is None else json.dumps({"set": {"raw_view": value}}).encode()
        headers = {"Content-Type": "application/json", "X-Requested-With": "fer-dashboard"}
        request = urllib.request.Request(
            f"{box.url}/api/settings", data=body, headers={**headers, "Origin": box.url}
        )
        with urllib.request.urlopen(request, timeout=5) as response:
            return bool(json.load(response)["values"]["raw_view"])

    assert until(lambda: fetch(f"{box.url}/api/settings")[0] == 200)
    assert setting() is False
    assert setting(True) is setting() is True
    assert "raw view switched on" in box.said("raw view.*")[0]
    assert setting(False) is setting() is False


def test_a_dashboard_that_is_killed_comes_back_at_the_same_address(box: Running) -> None:
    assert until(lambda: len(people(box.url)) == 2)
    child = dashboard_of(box)
    child.send_signal(signal.SIGKILL)
    box.said("dashboard ended with code -9; starting it again")
    assert until(lambda: len(people(box.url)) == 2)
    assert dashboard_of(box).pid != child.pid
    assert box.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_ends_it_soon_and_wholly(
    number: signal.Signals, tmp_path: Path, cache: Path, tiny: Bundle, profile: Path
) -> None:
    arguments = ("--camera", "demo", "--port", 0, "--model", tiny.folder, "--profile", profile)
    with running(*arguments, cache=cache, cwd=tmp_path, TMPDIR=str(tmp_path)) as one:
        url = one.url
        one.said("first result")
        assert until(lambda: len(people(url)) == 2)
        children = one.children()
        assert len(children) > 1 and list(tmp_path.glob("fer-edge-*"))
        took = one.stop(number)
        assert one.process.returncode == 0, one.log
        assert took < ENDS_WITHIN_S
        assert "Traceback" not in one.log and "label changes" in one.log
    assert not any(psutil.pid_exists(child.pid) for child in children)
    assert not list(tmp_path.glob("fer-edge-*")), "no socket is left behind"
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))):
        pass  # the port is free again

    (session,) = (tmp_path / "sessions").glob("*.csv")
    header, rows = read(session)
    assert header["bundle"]["sha256"] == tiny.sha256
    assert (header["camera"], header["profile"]["name"]) == ("demo", "calm")
    assert rows and all(None not in row and None not in row.values() for row in rows), "cut short"
    assert session.read_text().endswith("\n")
    assert {row["label"] for row in rows} <= {*LABELS, ""}


def test_an_absent_camera_is_waited_for_and_that_is_said(
    tmp_path: Path, cache: Path, tiny: Bundle
) -> None:
    assert not Path(ABSENT).exists()
    arguments = ("--camera", ABSENT, "--port", 0, "--model", tiny.folder)
    with running(*arguments, cache=cache, cwd=tmp_path) as one:
        one.said(f"camera waiting: {ABSENT} is not there: plug the camera in; retrying")

        def reason() -> str:
            status, body = fetch(f"{one.url}/readyz")
            return str(body.get("reason")) if status == 503 else ""

        assert until(lambda: ABSENT in reason()), reason()
        assert reason().startswith("camera waiting: ")
        assert one.process.poll() is None
        took = one.stop(signal.SIGINT)
        assert (one.process.returncode, took < ENDS_WITHIN_S) == (0, True)
        assert f"no frame came from {ABSENT}" in one.log


def test_the_second_box_on_a_port_says_so_and_the_first_goes_on(
    box: Running, tmp_path: Path, cache: Path, tiny: Bundle
) -> None:
    port = box.url.rpartition(":")[2]
    arguments = ("--camera", "demo", "--port", port, "--model", tiny.folder)
    with running(*arguments, cache=cache, cwd=tmp_path) as second:
        second.said(f"fer-edge: .*127.0.0.1 port {port}: address already in use")
        assert second.process.wait(10) == 2
    assert list(tmp_path.iterdir()) == []
    assert until(lambda: len(people(box.url)) == 2)
