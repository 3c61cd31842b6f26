"""The page in a real browser, with a real dashboard and a fake box behind it."""

import json
import re
import socket
import urllib.request
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from contract.expressions import EXPRESSIONS
from contract.telemetry import FaceResult
from dashboard.streams import MAX_STREAMS
from tests.dashboard import fake_edge
from tests.dashboard.fake_edge import FakeEdge
from tests.dashboard.processes import CHROMIUM, dashboard, get, until
from tests.dashboard.watched import Watched, grave, live

TOKEN = "correct horse battery staple"

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")


def test_the_page_shows_both_people_with_labels_and_bars(watched: Watched, url: str) -> None:
    page = live(watched, url)
    cards = page.locator(".card")
    expect(cards).to_have_count(2)
    expect(page.get_by_role("heading", name=re.compile("Person"))).to_have_text(
        ["Person 1", "Person 4"]
    )
    for card in cards.all():
        label = card.locator(".label").inner_text()
        assert label.lower() in (*EXPRESSIONS, "uncertain")
        expect(card.locator(".held")).to_have_text(re.compile(r"^for \d+\ss$"))
        expect(card.locator(".bar")).to_have_count(7)
        assert [name.lower() for name in card.locator(".bar-name").all_inner_texts()] == list(
            EXPRESSIONS
        )
        shares = [int(v.split()[0]) for v in card.locator(".value").all_inner_texts()]
        assert 96 <= sum(shares) <= 104
    assert page.title() == "Live · fer-edge"
    assert page.locator("html").get_attribute("lang") == "en"


def test_kpis_move_and_are_drawn(watched: Watched, edge: FakeEdge, url: str) -> None:
    page = live(watched, url)
    fps = page.locator('[data-kpi="fps"] .tile-value')
    expect(fps).to_have_text(re.compile(r"^\d+\.\d$"))
    edge.kpi_changes = {"fps": 12.3, "drops": {"busy": 7}, "model": "another one"}
    expect(fps).to_have_text("12.3")
    expect(page.locator('[data-kpi="drops"]')).to_contain_text("7 busy")
    expect(page.locator("#details")).to_contain_text("another one")
    for key in ("fps", "e2e_p95_ms", "cpu_percent", "temperature_c"):
        line = page.locator(f'[data-kpi="{key}"] path.line')
        drawn = line.get_attribute("d")
        assert drawn
        expect(line).not_to_have_attribute("d", drawn)
    expect(page.get_by_role("img", name=re.compile("Frames per second over"))).to_be_visible()


def test_the_picture_is_live_no_other_host_is_asked_and_the_console_is_clean(
    watched: Watched, url: str
) -> None:
    page = live(watched, url)
    expect(page.locator("#picture")).to_have_js_property("naturalWidth", 640)
    expect(page.locator("#picture-note")).to_be_hidden()
    page.wait_for_timeout(500)
    assert watched.hosts == {urlsplit(url).netloc}
    assert watched.errors == []


def test_raw_view_is_a_deliberate_act_and_plainly_shown(
    watched: Watched, edge: FakeEdge, url: str
) -> None:
    page = live(watched, url)
    switch = page.get_by_role("switch", name="Pixelate faces")
    banner = page.get_by_text("Raw view is on.")
    expect(switch).to_be_checked()
    expect(switch).to_be_enabled()

    switch.click()
    page.get_by_role("button", name="Keep pixelated").click()
    expect(switch).to_be_checked()
    assert edge.values["raw_view"] is False

    switch.press("Space")  # By keyboard too; Escape is a no.
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert edge.values["raw_view"] is False

    switch.click()
    page.get_by_role("button", name="Show faces").click()
    expect(banner).to_be_visible()
    expect(switch).not_to_be_checked()
    assert edge.values["raw_view"] is True
    page.reload()
    expect(banner).to_be_visible()

    switch.click()
    expect(banner).to_be_hidden()
    expect(switch).to_be_checked()
    assert edge.values["raw_view"] is False


def test_raw_view_switched_on_elsewhere_is_shown_too(
    watched: Watched, edge: FakeEdge, url: str
) -> None:
    page = live(watched, url)
    expect(page.get_by_role("switch", name="Pixelate faces")).to_be_enabled()
    edge.values["raw_view"] = True
    expect(page.get_by_text("Raw view is on.")).to_be_visible(timeout=6000)


def test_a_switch_the_box_does_not_confirm_stays_as_it_was(
    watched: Watched, edge: FakeEdge, url: str
) -> None:
    page = live(watched, url)
    switch = page.get_by_role("switch", name="Pixelate faces")
    expect(switch).to_be_enabled()
    expect(switch).to_be_checked()  # not as the test before left it
    edge.answering = False
    switch.click()
    page.get_by_role("button", name="Show faces").click()
    expect(page.locator("#settings-error")).to_contain_text("did not answer")
    expect(switch).to_be_checked()
    expect(page.get_by_text("Raw view is on.")).to_be_hidden()


def test_a_lost_camera_and_a_silent_box_are_said(
    watched: Watched, edge: FakeEdge, url: str
) -> None:
    page = live(watched, url)
    edge.kpi_changes = {"camera": "lost", "notes": ("/dev/video0 unplugged, trying again",)}
    edge.people = []
    expect(page.locator("#connection")).to_have_text("Camera lost")
    expect(page.get_by_role("region", name="Needs attention")).to_contain_text("unplugged")
    expect(page.locator(".card")).to_have_count(0)
    edge.speaking = False
    expect(page.locator("#connection")).to_have_text(re.compile(r"No data from the box for [4-9]"))
    edge.speaking, edge.kpi_changes, edge.people = True, {}, [1, 4]
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.get_by_role("region", name="Needs attention")).to_be_hidden()
    expect(page.locator(".card")).to_have_count(2)


def test_an_undecided_face_is_not_given_a_label(
    watched: Watched, edge: FakeEdge, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = fake_edge.make_face

    def undecided(track: int, t: float) -> FaceResult:
        return replace(known(track, t), label="uncertain", top="sad", confidence=0.31)

    monkeypatch.setattr(fake_edge, "make_face", undecided)
    card = live(watched, url).locator(".card").first
    expect(card.locator(".label")).to_have_text("Uncertain")
    expect(card.locator(".confidence")).to_have_text(re.compile(r"Sad\? 31\s%"))
    expect(card.locator(".bar.shown")).to_have_count(0)


def test_the_page_survives_a_restart_of_the_server(watched: Watched, edge: FakeEdge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with dashboard(edge.address.folder, port):
        page = live(watched, f"http://127.0.0.1:{port}")
    expect(page.locator("#connection")).to_have_text("Reconnecting…")
    with dashboard(edge.address.folder, port):
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator(".card")).to_have_count(2)
        sent = edge.previews_sent
        assert until(lambda: edge.previews_sent > sent + 3)


def test_one_viewer_too_many_is_told_why_and_let_in_later(
    watched: Watched, edge: FakeEdge, url: str
) -> None:
    def free() -> bool:
        return json.loads(get(f"{url}/api/state"))["streams"]["active"] == 0

    assert until(free)  # those of the test before
    with ExitStack() as others:
        for _ in range(MAX_STREAMS):
            others.enter_context(urllib.request.urlopen(f"{url}/events", timeout=5)).read(1)
        watched.page.goto(url)
        expect(watched.page.locator("#connection")).to_contain_text("Too many viewers")
    expect(watched.page.locator("#connection")).to_have_text("Live")


def test_a_hidden_page_gives_its_streams_back(watched: Watched, edge: FakeEdge, url: str) -> None:
    page = live(watched, url)
    assert until(lambda: edge.previewing)
    show = (
        "value => { Object.defineProperty(document, 'hidden', {value, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    page.evaluate(show, True)
    assert until(lambda: not edge.previewing)
    page.evaluate(show, False)
    expect(page.locator("#connection")).to_have_text("Live")
    assert until(lambda: edge.previewing)


def test_with_a_token_the_page_asks_for_it(watched: Watched, edge: FakeEdge) -> None:
    page = watched.page
    with dashboard(edge.address.folder, FER_DASHBOARD_TOKEN=TOKEN) as url:
        page.goto(url)
        assert page.url == f"{url}/login"
        assert grave(page) == []
        page.get_by_label("Access token").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        page.get_by_label("Access token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#connection")).to_have_text("Live")
        cookie = page.context.cookies()[0]
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url(f"{url}/login")
        page.goto(url)
        assert page.url == f"{url}/login"


def test_nothing_is_cut_off_at_any_width(watched: Watched, url: str) -> None:
    page = live(watched, url)
    expect(page.locator(".card")).to_have_count(2)
    expect(page.locator("#model-facts dd")).not_to_have_count(0)
    page.get_by_text("Model card").click()
    for width in (320, 390, 768, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_is_all_reachable_by_keyboard_and_named(watched: Watched, url: str) -> None:
    page = live(watched, url)
    expect(page.get_by_role("switch", name="Pixelate faces")).to_be_enabled()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    for reached in ("theme", "pixelate"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == reached
    for role, count in (("banner", 1), ("main", 1), ("complementary", 1), ("region", 8)):
        expect(page.get_by_role(role)).to_have_count(count)  # type: ignore[arg-type]
    unnamed = page.locator(
        "img:not([alt]), svg:not([aria-label], [aria-hidden]), button:empty, input:not([id])"
    )
    expect(unnamed).to_have_count(0)
