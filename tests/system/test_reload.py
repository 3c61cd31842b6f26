"""A profile that is edited while the program runs: SIGHUP, the page, and the log of the session."""

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.bundle import Bundle
from edge.offline.session_log import read_parts
from tests.system.commands import Running, fer_edge, running, until
from tests.system.test_live import fetch, people

pytestmark = pytest.mark.usefixtures("demo_portraits")

START = """purpose = "research"
[camera]
source = "demo"
fps = 10
[smoothing]
tau_s = 0.25
"""


def post(url: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "application/json", "X-Requested-With": "fer-dashboard"}
    site = "/".join(url.split("/")[:3])
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={**headers, "Origin": site}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    one = tmp_path_factory.mktemp("profile") / "box.toml"
    one.write_text(START)
    return one


@pytest.fixture(scope="module")
def box(cache: Path, tiny: Bundle, file: Path) -> Iterator[Running]:
    pytest.importorskip("skimage.data", reason="the demo's portraits are not installed")
    arguments = ("--port", 0, "--model", tiny.folder, "--profile", file)
    with running(*arguments, cache=cache, cwd=file.parent) as one:
        yield one


def tau_s(box: Running) -> Any:
    return fetch(f"{box.url}/api/settings")[1].get("values", {}).get("smoothing.tau_s")


def reason(box: Running) -> str:
    """Why the check of the profile fails; empty if it does not."""
    checks = fetch(f"{box.url}/readyz")[1].get("checks", ())
    return next((c["reason"] for c in checks if c["name"] == "profile" and not c["ok"]), "")


def test_a_hang_up_has_the_profile_read_again(box: Running, file: Path) -> None:
    assert until(lambda: len(people(box.url)) == 2 and tau_s(box) == 0.25)
    before = set(people(box.url))
    file.write_text(START.replace("0.25", "0.75").replace("fps = 10", "fps = 15"))
    box.process.send_signal(signal.SIGHUP)
    box.said(r"settings changed: smoothing\.tau_s = 0\.75")
    assert until(lambda: tau_s(box) == 0.75)
    assert until(lambda: "camera.fps" in reason(box)), "that one needs a restart"
    assert fetch(f"{box.url}/readyz")[0] == 200
    assert set(people(box.url)) == before, "nobody is taken for somebody new"


def test_a_wrong_file_changes_nothing_and_that_is_seen(box: Running, file: Path) -> None:
    kept = tau_s(box)
    file.write_text("[smothing]\ntau_s = 9\n")
    box.process.send_signal(signal.SIGHUP)
    box.said("the profile was not taken, the old one runs on: .*did you mean 'smoothing'")
    assert until(lambda: "smothing" in reason(box))
    status, answer = post(f"{box.url}/api/reload", {})
    assert status == 400 and "smothing" in answer["error"]
    assert tau_s(box) == kept and fetch(f"{box.url}/readyz")[0] == 200
    file.write_text(START)
    status, answer = post(f"{box.url}/api/reload", {})
    assert (status, answer["values"]["smoothing.tau_s"], answer["restart"]) == (200, 0.25, [])
    assert until(lambda: reason(box) == "")


def test_the_page_sets_one_and_the_session_replays_with_all_of_it(
    box: Running, cache: Path, file: Path
) -> None:
    assert until(lambda: len(people(box.url)) == 2)
    status, answer = post(f"{box.url}/api/settings", {"set": {"smoothing.tau_s": 0.0}})
    assert (status, answer["values"]["smoothing.tau_s"]) == (200, 0.0)
    status, answer = post(f"{box.url}/api/settings", {"set": {"camera.fps": 5}})
    assert status == 400 and "read at the start only" in answer["error"]
    kpi = fetch(f"{box.url}/api/state")[1]["update"]["kpi"]
    assert "AI system" in kpi["notice"] and "research" in kpi["notice"]
    seen = kpi["frames"]
    assert until(lambda: fetch(f"{box.url}/api/state")[1]["update"]["kpi"]["frames"] > seen + 5)
    box.stop()
    session = file.parent / box.said(r"session log: (.+\.csv)")[1]
    done = fer_edge("replay", session, "--check", cache=cache)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    taken = [settings.tau_s for _, settings in read_parts(session).changes]
    assert taken == [0.75, 0.25, 0.0]
