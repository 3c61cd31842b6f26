"""KPIs are what they say they are, and forget what is past."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.telemetry import LATENCY_BOUNDS_MS, FrameResult, Histogram, Totals
from edge.kpi import KpiTotals, KpiWindow, percentiles
from tests.edge.results import SECOND, a_face, a_result


def at(second: float, faces: int = 1, e2e_ms: float = 10.0) -> FrameResult:
    people = (a_face(track) for track in range(1, faces + 1))
    stages = {"detect": e2e_ms / 2}
    return a_result(0, round(second * SECOND), *people, e2e_ms=e2e_ms, stages_ms=stages)


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=200))
def test_percentiles_are_numpys(values: list[float]) -> None:
    found = percentiles(iter(values))
    assert list(found) == ["p50", "p95", "p99"]
    assert list(found.values()) == pytest.approx(np.percentile(values, [50, 95, 99]).tolist())


def test_before_the_first_frame_there_is_nothing_to_report() -> None:
    kpi = KpiWindow()
    assert percentiles([]) == {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    assert (kpi.frames, kpi.fps(0), kpi.face_rate(0), kpi.flips_per_minute(0)) == (0, 0, 0, 0)
    assert kpi.stages_ms(0) == {}


@pytest.mark.parametrize("fps", [7, 30, 120])
def test_the_frame_rate_is_counted(fps: int) -> None:
    kpi = KpiWindow()
    for k in range(3 * fps + 1):
        kpi.add(at(k / fps), 0)
    assert kpi.fps(3 * SECOND) == pytest.approx(fps, rel=1e-6)
    assert kpi.frames == 3 * fps + 1


def test_the_frame_rate_falls_when_no_frame_comes_any_more() -> None:
    kpi = KpiWindow()
    for k in range(31):
        kpi.add(at(k / 30), 0)
    assert kpi.fps(1 * SECOND) == pytest.approx(30)
    assert kpi.fps(5 * SECOND) == pytest.approx(6)
    assert kpi.fps(12 * SECOND) == 0.0


def test_latencies_are_those_of_the_last_ten_seconds() -> None:
    kpi = KpiWindow()
    for k in range(100):
        kpi.add(at(k / 10, e2e_ms=100.0), 0)
    recent = np.linspace(5, 15, 101)
    for k, e2e in enumerate(recent):
        kpi.add(at(21 + k / 20, e2e_ms=float(e2e)), 0)
    now = 26 * SECOND
    assert list(kpi.e2e_ms(now).values()) == pytest.approx(
        np.percentile(recent, [50, 95, 99]).tolist()
    )
    assert kpi.stages_ms(now)["detect"]["p50"] == pytest.approx(5.0)
    assert kpi.e2e_ms(40 * SECOND)["p99"] == 0.0


def test_a_stage_that_did_not_run_in_a_frame_does_not_count_as_zero() -> None:
    kpi = KpiWindow()
    kpi.add(a_result(0, 0, stages_ms={"detect": 8.0, "classify": 2.0}), 0)
    kpi.add(a_result(1, SECOND // 30, stages_ms={"classify": 4.0}), 0)
    stages = kpi.stages_ms(SECOND // 30)
    assert stages["detect"]["p50"] == 8.0
    assert stages["classify"]["p50"] == 3.0


def test_the_face_rate_is_the_share_of_recent_frames_with_a_face() -> None:
    kpi = KpiWindow()
    for k in range(40):
        kpi.add(at(k / 10, faces=2 if k % 4 else 0), 0)
    assert kpi.face_rate(4 * SECOND) == pytest.approx(0.75)
    assert kpi.face_rate(20 * SECOND) == 0.0


@pytest.mark.parametrize("faces", [1, 2])
def test_flips_are_per_minute_of_a_face_in_view(faces: int) -> None:
    kpi = KpiWindow()
    for k in range(301):
        kpi.add(at(k / 10, faces), flips=faces if k in (100, 200) else 0)
    # Two flips of each face in half a minute of each.
    assert kpi.flips_per_minute(30 * SECOND) == pytest.approx(4.0)
    assert kpi.flips == 2 * faces


def test_flips_are_forgotten_after_a_minute() -> None:
    kpi = KpiWindow()
    for k in range(1001):
        kpi.add(at(k / 10), flips=1 if k == 50 else 0)
    assert kpi.flips_per_minute(100 * SECOND) == 0.0
    assert kpi.flips == 1


def test_time_without_frames_is_no_time_in_view() -> None:
    kpi = KpiWindow()
    for second in (0, 0.5, 1.0, 40.0, 40.5, 41.0):
        kpi.add(at(second), flips=1 if second == 0.5 else 0)
    # 1 s before the gap, 1 s after it, and at most 1 s of the gap itself.
    assert kpi.flips_per_minute(41 * SECOND) == pytest.approx(60 / 3)


def test_the_totals_of_a_run_count_flips_by_time_of_faces_and_by_frames() -> None:
    totals = KpiTotals()
    assert (totals.face_rate, totals.flip_frame_share, totals.flips_per_minute) == (0, 0, 0)
    for k in range(301):
        in_view = k < 201
        totals.add(at(k / 10, 2 if in_view else 0), 2 if k == 50 else k == 150)
    # Two faces for 20 s each, three changes in two frames of the 201 with a face.
    assert totals.flips_per_minute == pytest.approx(3 * 60 / 40)
    assert totals.flip_frame_share == pytest.approx(2 / 201)
    assert totals.face_rate == pytest.approx(201 / 301)


def test_the_totals_do_not_forget_what_the_window_does() -> None:
    kpi = KpiWindow()
    for k in range(1001):
        kpi.add(at(k / 10), flips=1 if k == 50 else 0)
    assert kpi.flips_per_minute(100 * SECOND) == 0.0
    assert kpi.totals.flips_per_minute == pytest.approx(0.6)


def test_what_goes_to_viewers_counts_faces_by_what_was_shown_of_them() -> None:
    totals = KpiTotals()
    assert totals.snapshot() == Totals()
    sure = a_face(1, confidence=0.96)
    doubtful = a_face(2, label="uncertain", confidence=0.4)
    dark = a_face(3, label="low_quality", probabilities=(), confidence=0.99, quality="too dark")
    totals.add(a_result(0, 0, sure, doubtful, dark), 0)
    totals.add(a_result(1, SECOND // 2, sure, a_face(2, confidence=0.95)), 1)
    totals.add(a_result(2, SECOND), 0)
    found = totals.snapshot()
    assert found.labels == {"happy": 3, "uncertain": 1, "low_quality": 1}
    # 0.95 itself is not above it, and a face too poor to judge is sure of nothing.
    assert (found.judged, found.sure, found.poor) == (4, 2, {"too dark": 1})
    assert (found.face_frames, found.flip_frames, found.flips, found.face_s) == (2, 1, 1, 1.0)


def test_latencies_are_counted_under_the_bound_they_do_not_exceed() -> None:
    totals = KpiTotals()
    for e2e_ms in (0.5, 2.0, 2.001, 1000.0, 5000.0):
        totals.add(a_result(0, 0, e2e_ms=e2e_ms, stages_ms={"detect": 3.0}), 0)
    totals.add(a_result(0, 0, e2e_ms=7.0, stages_ms={}), 0)
    expected = [0] * (len(LATENCY_BOUNDS_MS) + 1)
    for bound, count in ((2.0, 2), (4.0, 1), (8.0, 1), (1000.0, 1)):
        expected[LATENCY_BOUNDS_MS.index(bound)] = count
    expected[-1] = 1
    found = totals.snapshot()
    assert found.e2e.counts == tuple(expected)
    assert found.e2e.sum_ms == pytest.approx(6011.501)
    detect = found.stages["detect"]
    assert detect.counts[LATENCY_BOUNDS_MS.index(4.0)] == sum(detect.counts) == 5
    assert list(found.stages) == ["detect"]


def test_what_was_handed_out_does_not_change_any_more() -> None:
    """It is on its way to viewers in another thread while frames are counted."""
    totals = KpiTotals()
    totals.add(a_result(0, 0, a_face(1)), 0)
    before = totals.snapshot()
    totals.add(a_result(1, SECOND, a_face(1)), 1)
    assert (before.labels, before.face_frames, sum(before.e2e.counts)) == ({"happy": 1}, 1, 1)
    assert Histogram() == Totals().e2e


@given(st.lists(st.floats(0, 1e5), max_size=50))
def test_no_value_is_lost_from_a_histogram(values: list[float]) -> None:
    totals = KpiTotals()
    for value in values:
        totals.add(a_result(0, 0, e2e_ms=value), 0)
    found = totals.snapshot().e2e
    below = [sum(v <= bound for v in values) for bound in LATENCY_BOUNDS_MS]
    assert np.cumsum(found.counts).tolist() == [*below, len(values)]
