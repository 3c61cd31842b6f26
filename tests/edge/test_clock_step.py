"""The wall clock may be set while the program runs: only the UTC that is written down shows it."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.bundle import Bundle
from contract.telemetry import FrameResult
from edge.cameras.base import Frame
from edge.kpi import KpiWindow
from tests.edge.results import SECOND
from tests.edge.test_pipeline import IMAGE, LEFT, RIGHT, Faces, Mood, bundle, make

__all__ = ["bundle"]

COUNT, FPS = 45, 15
NOON = 1_780_000_000 * SECOND


def run(bundle: Bundle, utc_ns: list[int]) -> tuple[list[FrameResult], KpiWindow]:
    """Three seconds in which a mood changes and a person leaves; a time of day for each frame."""
    times = iter(range(10**12))
    mood, faces, kpi = Mood(), Faces(LEFT, RIGHT), KpiWindow()
    pipeline = make(bundle, faces, mood, now_ns=lambda: next(times))
    results = []
    for number, utc in enumerate(utc_ns):
        mood.name = "happy" if number < 15 else "sad"
        faces.boxes = [LEFT, RIGHT] if number < 30 else [LEFT]
        results.append(pipeline.process(Frame(IMAGE, number * SECOND // FPS, utc, number)))
        kpi.add(results[-1], pipeline.flips)
    return results, kpi


@pytest.fixture
def steady(bundle: Bundle) -> tuple[list[FrameResult], KpiWindow]:
    return run(bundle, [NOON + number * SECOND // FPS for number in range(COUNT)])


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(0, COUNT - 1),
    step_s=st.sampled_from([-NOON / SECOND, -3600.0, -0.5, 0.5, 3600.0, 4e8]),
)
def test_a_step_of_the_wall_clock_changes_nothing_but_utc(
    bundle: Bundle, steady: tuple[list[FrameResult], KpiWindow], at: int, step_s: float
) -> None:
    step_ns = round(step_s * SECOND)
    utc_ns = [r.utc_ns + (step_ns if n >= at else 0) for n, r in enumerate(steady[0])]
    stepped, kpi = run(bundle, utc_ns)
    assert [r.utc_ns for r in stepped] == utc_ns
    assert [replace(r, utc_ns=0) for r in stepped] == [replace(r, utc_ns=0) for r in steady[0]]
    now = COUNT * SECOND // FPS
    for figure in ("fps", "e2e_ms", "face_rate", "flips_per_minute"):
        assert getattr(kpi, figure)(now) == getattr(steady[1], figure)(now)


def test_the_scene_has_what_a_clock_could_disturb(
    steady: tuple[list[FrameResult], KpiWindow],
) -> None:
    results, kpi = steady
    labels = [face.label for result in results for face in result.faces if face.track == 1]
    assert set(labels) == {"happy", "sad"} and kpi.flips == 2
    assert {len(result.faces) for result in results} == {1, 2}
