"""Labelling a clip: on a page that only this machine opens, by keys, saved beside the clip."""

import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import psutil
import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from edge.cli import main
from edge.offline.label_app import checked, create_app
from edge.offline.label_clip import Clip
from edge.offline.score_labels import Segment, read_labels
from tests.dashboard.processes import CHROMIUM, CHROMIUM_ARGUMENTS
from tests.system.commands import environment, program

FPS, FRAMES = 10, 40
TOKEN, PORT = "the-token", 8123
HOST = {"Host": f"127.0.0.1:{PORT}"}


def make_clip(file: Path) -> Path:
    """Four seconds in which frame k has brightness 5·k."""
    writer = cv2.VideoWriter(
        str(file), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), FPS, (64, 48)
    )
    for number in range(FRAMES):
        writer.write(np.full((48, 64, 3), 5 * number, np.uint8))
    writer.release()
    return file


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.avi")


@pytest.fixture
def client(clip: Path) -> Iterator[FlaskClient]:
    opened = Clip(clip)
    yield create_app(opened, TOKEN, PORT).test_client()
    opened.close()


def segment(start: float, end: float, label: str = "happy") -> dict[str, Any]:
    return {"start_s": start, "end_s": end, "label": label}


def save(client: FlaskClient, *segments: Any) -> tuple[int, Any]:
    answer = client.put(f"/{TOKEN}/labels", json={"segments": segments}, headers=HOST)
    return answer.status_code, answer.get_json()


def test_frames_come_in_any_order(client: FlaskClient) -> None:
    for number in (0, 1, 2, 30, 3, FRAMES - 1, 0):
        answer = client.get(f"/{TOKEN}/frame/{number}.jpg", headers=HOST)
        assert answer.content_type == "image/jpeg"
        image = cv2.imdecode(np.frombuffer(answer.data, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (48, 64, 3)
        assert image.mean() == pytest.approx(5 * number, abs=2)
    assert client.get(f"/{TOKEN}/frame/{FRAMES}.jpg", headers=HOST).status_code == 404


def test_what_is_marked_is_saved_beside_the_clip_and_read_again(
    client: FlaskClient, clip: Path
) -> None:
    code, answer = save(client, segment(2, 3.5, "sad"), segment(0.5, 2))
    assert code == 200
    assert answer["segments"] == [segment(0.5, 2.0), segment(2.0, 3.5, "sad")]
    file = clip.parent / "labels.csv"
    assert file.read_text() == "start_s,end_s,label\n0.5,2.0,happy\n2.0,3.5,sad\n"
    assert read_labels(file) == (Segment(0.5, 2.0, "happy"), Segment(2.0, 3.5, "sad"))
    about = client.get(f"/{TOKEN}/clip", headers=HOST).get_json()
    assert about["segments"] == answer["segments"]
    assert (about["frames"], about["fps"], about["length_s"]) == (FRAMES, FPS, 4.0)
    assert about["expressions"] == list(EXPRESSIONS)
    assert save(client) == (200, {"segments": []})
    assert [f.name for f in clip.parent.iterdir()] == ["clip.avi"], "nothing marked, nothing kept"


@pytest.mark.parametrize(
    ("segments", "says"),
    [
        ([segment(0, 2), segment(1.5, 3, "sad")],
         "sad from 1.50 s overlaps happy, which ends at 2.00 s; remove one of them first"),
        ([segment(1, 2), segment(1, 2)], "happy from 1.00 s overlaps happy"),
        ([segment(1, 1)], "happy from 1.00 s must end after it starts"),
        ([segment(3, 4.5)], "happy until 4.50 s reaches beyond the clip (4.00 s)"),
        ([segment(-1, 2)], "beyond the clip"),
        ([segment(0, 1, "hapy")], "unknown label 'hapy', did you mean 'happy'?"),
        ([segment(0, float("nan"))], "end_s must be a time"),
        ([{**segment(0, 1), "start_s": "0"}], "start_s must be a time in seconds, got '0'"),
        ([{"label": "happy"}], "start_s, end_s and label"),
        ([7], "start_s, end_s and label"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line_and_the_file_stays(
    client: FlaskClient, clip: Path, segments: list[Any], says: str
) -> None:
    assert save(client, segment(0, 1))[0] == 200
    before = (clip.parent / "labels.csv").read_bytes()
    code, answer = save(client, *segments)
    assert code == 400 and says in answer["error"] and "\n" not in answer["error"]
    assert (clip.parent / "labels.csv").read_bytes() == before


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"segments": 1}', b"\xff", b"null"])
def test_what_is_no_list_of_segments_is_refused(client: FlaskClient, body: bytes) -> None:
    answer = client.put(
        f"/{TOKEN}/labels", data=body, content_type="application/json", headers=HOST
    )
    assert (answer.status_code, answer.get_json()) == (400, {"error": "segments must be a list"})


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4000), st.integers(0, 4000), st.sampled_from(EXPRESSIONS)
        ),
        max_size=5,
    )
)  # fmt: skip
def test_accepted_are_exactly_stretches_that_no_moment_belongs_to_twice(
    drawn: list[tuple[int, int, str]],
) -> None:
    given_ = [segment(a / 1000, b / 1000, label) for a, b, label in drawn]
    covered = np.zeros(4001, int)
    for a, b, _ in drawn:
        covered[a:b] += 1
    possible = all(b > a for a, b, _ in drawn) and covered.max(initial=0) <= 1
    try:
        found = checked(given_, 4.0)
    except UserError:
        assert not possible
        return
    assert possible
    assert [(s.start_s, s.end_s, s.label) for s in found] == sorted(
        (a / 1000, b / 1000, label) for a, b, label in drawn
    )


def test_only_who_knows_the_token_on_this_machine_is_answered(client: FlaskClient) -> None:
    for path in ("", "clip", "label.js", "frame/0.jpg"):
        assert client.get(f"/{TOKEN}/{path}", headers=HOST).status_code == 200
        assert client.get(f"/another/{path}", headers=HOST).status_code == 404
        for host in ("evil.example", "evil.example:8123", "127.0.0.1:1", "127.0.0.1"):
            answer = client.get(f"/{TOKEN}/{path}", headers={"Host": host})
            assert answer.status_code == 403, host
    assert client.put("/another/labels", json={"segments": []}, headers=HOST).status_code == 404
    for path in ("/", "/favicon.ico", f"/{TOKEN}/../label.py", f"/{TOKEN}/label.py"):
        assert client.get(path, headers=HOST).status_code in (404, 308)


def test_the_page_may_ask_nobody_else_and_is_kept_nowhere(client: FlaskClient) -> None:
    for path in ("", "label.js", "label.css", "icon.svg", "frame/0.jpg", "nothing"):
        headers = client.get(f"/{TOKEN}/{path}", headers=HOST).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"


def test_a_file_that_is_no_clip_or_another_clips_labels_are_told(
    clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"no clip at .*none\.avi; record one"):
        main(["label", str(tmp_path / "none.avi")])
    other = tmp_path / "text.avi"
    other.write_text("no video")
    with pytest.raises(UserError, match="damaged or no video"):
        main(["label", str(other)])
    (tmp_path / "labels.csv").write_text("start_s,end_s,label\n0.0,9.0,happy\n")
    with pytest.raises(UserError, match="they do not belong together"):
        main(["label", str(clip)])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page of a running `fer-edge label`, and its clip."""
    clip = make_clip(tmp_path_factory.mktemp("label") / "clip.avi")
    process = subprocess.Popen(
        [program("fer-edge"), "label", str(clip)],
        env=environment(clip.parent / "cache"), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        found = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/$", line)
        assert found is not None, line
        yield found[0], clip
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_person_labels_a_clip_by_keys_alone(served: tuple[str, Path]) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    from playwright.sync_api import expect, sync_playwright

    url, clip = served
    labels = clip.parent / "labels.csv"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS, headless=True
        )
        page = browser.new_page()
        page.set_default_timeout(20_000)
        expect.set_options(timeout=20_000)
        errors: list[str] = []
        hosts: set[str] = set()
        page.on(
            "console",
            lambda m: errors.append(m.text) if m.type == "error" and "400" not in m.text else None,
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(url)
        expect(page.locator("#time")).to_have_text("0.00 of 4.00 s")
        expect(page.locator("#picture")).to_have_js_property("naturalWidth", 64)

        def press(*keys: str) -> None:
            for key in keys:
                page.keyboard.press(key)

        # Happy from 0.2 to 1.2 s, then sad at once until 1.4 s.
        press("ArrowRight", "ArrowRight", "4")
        expect(page.locator("#state")).to_have_text("happy since 0.20 s")
        expect(page.get_by_role("button", name="4 happy")).to_have_attribute("aria-pressed", "true")
        press("Shift+ArrowRight", "5", "ArrowRight", "ArrowRight", "5")
        expect(page.locator("#saved")).to_have_text("Saved: 2 labelled")
        expect(page.locator("#segments li")).to_have_count(2)
        assert read_labels(labels) == (Segment(0.2, 1.2, "happy"), Segment(1.2, 1.4, "sad"))

        # Angry over all of it is refused, and said.
        press("Home", "1", "End", "1")
        expect(page.get_by_role("alert")).to_have_text(
            "Not saved: happy from 0.20 s overlaps angry, which ends at 3.90 s; "
            "remove one of them first"
        )
        assert len(read_labels(labels)) == 2

        # What is at this place is removed; what was begun is forgotten.
        press("Home", "Shift+ArrowRight", "Delete")
        expect(page.locator("#segments li")).to_have_count(1)
        press("7", "ArrowRight", "Escape")
        expect(page.locator("#state")).to_have_text("")
        assert read_labels(labels) == (Segment(1.2, 1.4, "sad"),)

        # Played to its end, the last stretch ends with the clip.
        press("End", *["ArrowLeft"] * 4, "6", "Space")
        expect(page.locator("#saved")).to_have_text("Saved: 2 labelled")
        assert read_labels(labels)[1] == Segment(3.5, 4.0, "surprise")
        expect(page.get_by_role("button", name="Play")).to_be_visible()

        page.reload()
        expect(page.locator("#segments li")).to_have_count(2)
        for width in (320, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("button:empty, img:not([alt]), input:not([id])").count() == 0
        assert (errors, hosts) == ([], {urlsplit(url).netloc})
        browser.close()
        expect.set_options(timeout=5_000)


def test_the_server_listens_on_this_machine_alone(served: tuple[str, Path]) -> None:
    url, _ = served
    port = urlsplit(url).port
    listening = [
        c.laddr
        for c in psutil.net_connections("inet")
        if c.status == "LISTEN" and c.laddr.port == port
    ]
    assert [address.ip for address in listening] == ["127.0.0.1"]
    with urllib.request.urlopen(f"{url}clip", timeout=10) as answer:
        assert json.load(answer)["frames"] == FRAMES
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)
