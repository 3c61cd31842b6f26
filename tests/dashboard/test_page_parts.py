"""What the page offers beside the live view: state, last hour, settings, corrections, records."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from contract.expressions import EXPRESSIONS
from contract.telemetry import Check, FaceResult
from tests.dashboard import fake_edge
from tests.dashboard.fake_edge import FakeEdge
from tests.dashboard.processes import CHROMIUM, end, start, until, url_printed
from tests.dashboard.watched import Watched, grave, live

SESSION = "20260102T030405_000006Z.csv"

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")


@pytest.fixture(scope="module")
def url(edge: FakeEdge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard with a folder of session logs, in which something else lies too."""
    fake_edge.FPS = 5  # few pictures: nothing here is about them, and drawing them takes time
    logs = tmp_path_factory.mktemp("sessions")
    (logs / SESSION).write_text("# fer-edge session {}\na,b\n")
    (logs / "private.csv").write_text("not ours\n")
    process = start("--feed", str(edge.address.folder), "--port", "0", "--session-dir", str(logs))
    yield url_printed(process)
    end(process)
    fake_edge.FPS = 20


def test_the_notice_and_the_state_of_every_part_are_shown(
    watched: Watched, edge: FakeEdge, url: str
) -> None:
    page = live(watched, url)
    expect(page.get_by_role("complementary", name="Notice")).to_contain_text("A camera films")
    state = page.get_by_role("region", name="State")
    expect(state.locator("#verdict")).to_have_text("ready")
    detector = state.get_by_role("listitem").filter(has_text="detector")
    expect(detector).to_contain_text("Degraded")
    expect(detector).to_contain_text("YuNet's file was not found")
    edge.kpi_changes = {"checks": (Check("camera", False, "/dev/video0 is gone"),), "notice": ""}
    expect(state.locator("#verdict")).to_have_text("not ready")
    expect(state.get_by_role("listitem")).to_have_text("Failedcamera/dev/video0 is gone")
    expect(page.get_by_role("complementary")).to_be_hidden()
    edge.speaking = False
    expect(state.locator("#verdict")).to_have_text("not known now")
    edge.speaking = True
    expect(state.locator("#verdict")).to_have_text("not ready")


def test_every_kpi_is_there_with_its_course(watched: Watched, edge: FakeEdge, url: str) -> None:
    page = live(watched, url)
    assert page.locator(".tile").evaluate_all("tiles => tiles.map(t => t.dataset.kpi)") == [
        "fps", "e2e_p95_ms", "flips_per_minute", "drops", "cpu_percent", "rss_mb", "temperature_c",
    ]  # fmt: skip
    edge.kpi_changes = {
        "e2e_ms": {"p50": 8.25, "p95": 9.5, "p99": 77.5}, "rss_mb": 456.2, "temperature_c": None,
        "flips_per_minute": 3.25, "drops": {"overtaken": 1200},
    }  # fmt: skip
    for key, value, note in (
        ("e2e_p95_ms", r"9\.5\sms", "p50 8.3 · p99 77.5"),
        ("rss_mb", r"456\sMB", "of the program"),
        ("temperature_c", "–", "does not tell"),
        ("flips_per_minute", "3.3", "changes"),
        ("drops", "1,200", "1200 overtaken"),
    ):
        tile = page.locator(f'[data-kpi="{key}"]')
        expect(tile.locator(".tile-value")).to_have_text(re.compile(f"^{value}$"))
        expect(tile.locator(".tile-note")).to_contain_text(note)
    # p50 and p99 go beside p95, and the scale has room for them: 77.5 is under 100.
    latency = page.locator('[data-kpi="e2e_p95_ms"]')
    expect(latency.locator("path.line-beside")).to_have_count(2)
    expect(latency.locator(".top")).to_have_text("100")


def test_the_last_hour_adds_up_what_was_shown(watched: Watched, edge: FakeEdge, url: str) -> None:
    page = live(watched, url)
    rows = page.get_by_role("region", name="Last hour").locator("tbody tr")
    names = [*(e.capitalize() for e in EXPRESSIONS), "Uncertain", "Not judged"]
    expect(rows.locator("th")).to_have_text(names)
    shares = [int(text.split()[0]) for text in rows.locator("td:nth-child(3)").all_inner_texts()]
    assert 95 <= sum(shares) <= 105
    assert rows.locator("rect").count() > 0


def test_a_face_too_poor_to_judge_says_why(
    watched: Watched, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = fake_edge.make_face

    def dark(track: int, t: float) -> FaceResult:
        return replace(known(track, t), label="low_quality", probabilities=(), quality="too dark")

    monkeypatch.setattr(fake_edge, "make_face", dark)
    card = live(watched, url).locator(".card").first
    expect(card.locator(".label")).to_have_text("Not judged")
    expect(card.locator(".confidence")).to_have_text("too dark")


def test_settings_are_drawn_from_the_schema_and_change_the_box(
    watched: Watched, edge: FakeEdge, url: str
) -> None:
    page = live(watched, url)
    form = page.get_by_role("region", name="Settings")
    least = form.get_by_label("Least time of a label")
    assert (least.get_attribute("min"), least.get_attribute("max")) == ("0", "10")
    expect(least).to_have_accessible_description("A label stays this long.")
    expect(form.get_by_role("group", name="Smoothing")).to_contain_text("Least time of a label")
    for label in ("raw_view", "Show faces"):  # it has its own switch, which asks first
        expect(form.get_by_label(label)).to_have_count(0)

    least.fill("2.5")
    least.press("Enter")
    expect(form.get_by_role("status")).to_have_text("Least time of a label: changed.")
    form.get_by_label("Preset").select_option("calm")
    form.get_by_role("switch", name="Judge quality").click()
    threshold = form.get_by_label("Threshold for 'uncertain'")
    threshold.fill("0.4")
    threshold.blur()
    assert until(lambda: edge.values["smoothing.abstain_threshold"] == 0.4)
    threshold.fill("")
    threshold.blur()
    changed = {
        "smoothing.hold_s": 2.5, "smoothing.preset": "calm",
        "smoothing.abstain_threshold": None, "quality.enabled": False,
    }  # fmt: skip
    assert until(lambda: changed.items() <= edge.values.items())


def test_a_setting_that_the_box_refuses_goes_back_and_says_why(
    watched: Watched, edge: FakeEdge, url: str
) -> None:
    page = live(watched, url)
    form = page.get_by_role("region", name="Settings")
    least = form.get_by_label("Least time of a label")
    least.fill("-1")
    least.blur()
    expect(form.get_by_role("alert").filter(has_text="Not changed")).to_contain_text("right type")
    expect(least).to_have_value("0")
    least.press_sequentially("e")
    least.blur()
    expect(form.get_by_role("alert").filter(has_text="number")).to_be_visible()
    assert edge.values["smoothing.hold_s"] == 0.0


def test_what_others_change_shows_but_not_under_the_hands_of_who_types(
    watched: Watched, edge: FakeEdge, url: str
) -> None:
    page = live(watched, url)
    form = page.get_by_role("region", name="Settings")
    least, preset = form.get_by_label("Least time of a label"), form.get_by_label("Preset")
    least.press_sequentially("7")
    edge.values.update({"smoothing.preset": "calm", "smoothing.hold_s": 5.0})
    expect(preset).to_have_value("calm", timeout=6000)
    expect(least).to_have_value(re.compile("7"))


def test_the_profile_is_read_again_on_request(watched: Watched, edge: FakeEdge, url: str) -> None:
    page = live(watched, url)
    form = page.get_by_role("region", name="Settings")
    edge.restart = ["camera.source"]
    form.get_by_role("button", name="Read the profile again").click()
    expect(form.get_by_role("status")).to_contain_text("Restart the box to use its camera.source")
    edge.answering = False
    form.get_by_role("button", name="Read the profile again").click()
    expect(form.get_by_role("status")).to_contain_text("Not read: the box did not answer")


def open_dialog(page: Page) -> None:
    page.get_by_role("button", name="That is wrong: person 1").click()
    expect(page.get_by_role("dialog")).to_contain_text("What did person 1 show?")


def test_that_is_wrong_sends_the_right_expression_and_no_picture(
    watched: Watched, edge: FakeEdge, url: str
) -> None:
    page = live(watched, url)
    open_dialog(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert edge.corrections == []

    open_dialog(page)
    choices = page.get_by_role("dialog").locator(".choices button:visible")
    assert 6 <= choices.count() <= 7  # what was shown is not offered as what it should have been
    page.wait_for_timeout(300)
    page.get_by_role("dialog").get_by_role("button", name="Disgust").press("Enter")
    expect(page.locator("#correction-result")).to_contain_text(
        "person 1: Disgust, not Neutral"  # as the box has it, which may have changed meanwhile
    )
    expect(page.get_by_role("dialog")).to_be_hidden()
    (sent,) = edge.corrections
    assert (sent["track"], sent["expression"]) == (1, "disgust")
    assert 0.3 <= sent["age_s"] < 5
    assert set(sent) == {"track", "expression", "age_s"}


def test_a_correction_that_is_not_kept_says_so(watched: Watched, edge: FakeEdge, url: str) -> None:
    page = live(watched, url)
    open_dialog(page)
    edge.people = []
    page.get_by_role("dialog").get_by_role("button", name="Disgust").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("was not in view")


def test_a_correction_of_what_is_long_past_is_not_taken_for_something_else(
    watched: Watched, edge: FakeEdge, url: str
) -> None:
    page = live(watched, url)
    open_dialog(page)
    page.evaluate("{ const now = performance.now(); performance.now = () => now + 61000; }")
    page.get_by_role("dialog").get_by_role("button", name="Disgust").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("more than a minute")
    assert edge.corrections == []


def test_session_logs_are_listed_and_downloaded(watched: Watched, url: str) -> None:
    page = live(watched, url)
    links = page.get_by_role("region", name="Session logs").get_by_role("link")
    expect(links).to_have_text([SESSION])
    with page.expect_download() as download:
        links.click()
    assert download.value.suggested_filename == SESSION
    assert Path(download.value.path()).read_text() == "# fer-edge session {}\na,b\n"


def test_the_model_is_shown_with_its_figures_and_its_card_as_text(
    watched: Watched, url: str
) -> None:
    page = live(watched, url)
    model = page.get_by_role("region", name="Model")
    expect(model.locator("#model-facts")).to_contain_text("int8 on openvino")
    expect(model.locator("#model-figures tr")).to_have_text("val, argmax120.7500.500–")
    model.get_by_text("Model card").click()
    card = model.locator("#model-card")
    expect(card.get_by_role("heading", level=3)).to_have_text("A card")
    expect(card).to_contain_text("<b>not bold</b>")
    expect(card.get_by_role("listitem")).to_have_text(["one", "two"])
    expect(card.get_by_role("cell")).to_have_text(["accuracy", "0.7500"])


def background(page: Page) -> Any:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_light_and_dark_follow_the_system_until_somebody_chooses(
    watched: Watched, url: str
) -> None:
    page = live(watched, url)
    button = page.get_by_role("button", name="Dark")
    page.emulate_media(color_scheme="light")
    light = background(page)
    page.emulate_media(color_scheme="dark")
    dark = background(page)
    assert light != dark
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    assert background(page) == light
    page.reload()
    assert background(page) == light
    page.get_by_role("button", name="Dark").click()
    assert background(page) == dark
    page.emulate_media(color_scheme="light")
    assert background(page) == light, "back with the system, it follows it again"


def test_axe_finds_nothing_serious(watched: Watched, edge: FakeEdge, url: str) -> None:
    page = live(watched, url)
    page.emulate_media(color_scheme="light")
    edge.kpi_changes = {"notes": ("something needs attention",)}
    expect(page.get_by_role("region", name="Needs attention")).to_be_visible()
    page.get_by_text("Model card").click()
    assert grave(page) == []
    page.emulate_media(color_scheme="dark")
    assert grave(page, "color-contrast") == []
    open_dialog(page)
    assert grave(page) == []
    assert watched.errors == []
