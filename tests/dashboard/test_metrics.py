"""Prometheus reads what the box counted, by promtool's own judgement of the text."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from contract.telemetry import Check, FeedAddress, Histogram, LiveUpdate, Totals, to_json
from dashboard.feed import STALE_AFTER_S, Feed, Reading
from dashboard.metrics import metrics_page
from tests.edge.results import a_kpi

E2E = Histogram((0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 4), 8100.0)
TOTALS = Totals(
    e2e=E2E,
    stages={"detect": E2E, "classify": Histogram()},
    face_frames=280, flip_frames=14, flips=15, face_s=9.5,
    labels={"happy": 200, "uncertain": 20}, judged=250, sure=30, poor={"too dark": 7},
)  # fmt: skip
KPI = a_kpi(
    drops={"overtaken": 3, 'odd "reason"\n': 1},
    camera_events={"reopened": 2},
    checks=(Check("camera", True, "camera live"), Check("session log", False, "full", False)),
    temperature_c=51.5,
    totals=TOTALS,
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def feed(tmp_path: Path, clock: Clock) -> Iterator[Feed]:
    """A feed into which readings are put by hand; it is never started."""
    feed = Feed(FeedAddress(tmp_path), clock)
    yield feed
    feed.close()


def put(feed: Feed, kpi: object = KPI) -> None:
    update = LiveUpdate(None, kpi)  # type: ignore[arg-type]
    feed.telemetry.put(Reading(update, to_json(update), feed.clock()))


def scrape(feed: Feed) -> str:
    app = Flask(__name__)
    app.register_blueprint(metrics_page(feed))
    response = app.test_client().get("/metrics")
    assert (response.status_code, response.mimetype) == (200, "text/plain")
    return response.text


def samples(feed: Feed) -> dict[str, float]:
    """Every sample by name and labels, as in `name{label="value"}`."""
    found = {}
    for family in text_string_to_metric_families(scrape(feed)):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_the_totals_of_the_box_are_there_in_base_units(feed: Feed) -> None:
    put(feed)
    found = samples(feed)
    expected = {
        "fer_up": 1, "fer_ready": 1, "fer_telemetry_age_seconds": 0, "fer_frames_total": 300,
        "fer_cpu_ratio": 0.5, "fer_resident_memory_bytes": 200 * 2**20,
        "fer_temperature_celsius": 51.5, 'fer_dropped_frames_total{reason="overtaken"}': 3,
        'fer_camera_events_total{event="reopened"}': 2, "fer_face_frames_total": 280,
        "fer_flip_frames_total": 14, "fer_flips_total": 15, "fer_face_seconds_total": 9.5,
        'fer_faces_total{label="happy"}': 200, 'fer_faces_total{label="uncertain"}': 20,
        "fer_judged_faces_total": 250, "fer_sure_faces_total": 30,
        'fer_poor_faces_total{reason="too dark"}': 7,
        'fer_camera_state{state="live"}': 1, 'fer_check_ok{check="camera",critical="true"}': 1,
        'fer_check_ok{check="session log",critical="false"}': 0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_what_never_happened_yet_is_a_zero(feed: Feed) -> None:
    """A series that begins with its first event has no rise for a rule to see."""
    put(feed, a_kpi())
    found = samples(feed)
    assert found['fer_faces_total{label="disgust"}'] == 0
    assert found['fer_poor_faces_total{reason="too dark"}'] == 0
    assert found['fer_camera_events_total{event="reopened"}'] == 0
    assert "fer_temperature_celsius" not in found


def test_histograms_are_cumulative_in_seconds(feed: Feed) -> None:
    put(feed)
    found = samples(feed)
    assert found['fer_end_to_end_seconds_bucket{le="0.002"}'] == 0
    assert found['fer_end_to_end_seconds_bucket{le="0.004"}'] == 1
    assert found['fer_end_to_end_seconds_bucket{le="0.008"}'] == 6
    assert found['fer_end_to_end_seconds_bucket{le="1.0"}'] == 6
    assert found['fer_end_to_end_seconds_bucket{le="+Inf"}'] == 10
    assert found["fer_end_to_end_seconds_count"] == 10
    assert found["fer_end_to_end_seconds_sum"] == pytest.approx(8.1)
    assert found['fer_stage_seconds_bucket{le="0.006",stage="detect"}'] == 3
    assert found['fer_stage_seconds_count{stage="classify"}'] == 0


def test_a_box_that_is_silent_shows_no_old_numbers(feed: Feed, clock: Clock) -> None:
    assert samples(feed) == {"fer_up": 0, "fer_ready": 0}
    put(feed)
    clock.now_s += STALE_AFTER_S + 1
    age_s = STALE_AFTER_S + 1
    assert samples(feed) == {"fer_up": 0, "fer_ready": 0, "fer_telemetry_age_seconds": age_s}


def test_a_box_that_is_not_ready_says_so(feed: Feed) -> None:
    put(feed, replace(KPI, checks=(Check("camera", False, "camera lost"),)))
    assert (samples(feed)["fer_up"], samples(feed)["fer_ready"]) == (1, 0)


def test_without_the_extra_it_says_what_to_install(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.exposition", None)
    app = Flask(__name__)
    app.register_blueprint(metrics_page(feed))
    response = app.test_client().get("/metrics")
    assert response.status_code == 501
    assert re.search(r"pip install 'fer-edge\[fleet\]'", response.get_json()["error"])


@pytest.mark.parametrize("fresh", [True, False])
def test_promtool_finds_nothing_to_complain_about(feed: Feed, fresh: bool) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (apt-get install prometheus)")
    if fresh:
        put(feed)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=scrape(feed), text=True, capture_output=True,
        timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
