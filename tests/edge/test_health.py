"""Ready means that pictures come and results of them; each reason is nearest to the cause."""

import pytest

from contract.telemetry import Check
from edge.capture_states import State
from edge.health import Health


def first_fault(health: Health, now_s: float) -> str | None:
    """Why the box is not ready."""
    failed = [c for c in health.checks(now_s) if c.critical and not c.ok]
    return failed[0].reason if failed else None


def working(now_s: float = 10.0, fps: float = 30.0) -> Health:
    health = Health(0.0, fps)
    health.camera("live", "cam gives frames", True)
    health.frame(now_s)
    health.result(now_s)
    return health


def test_it_is_ready_only_once_a_result_is_there() -> None:
    health = Health(0.0, 30.0)
    assert first_fault(health, 0.1) == "camera waiting"
    health.camera("live", "cam gives frames", True)
    assert first_fault(health, 0.1) == "no frame yet"
    health.frame(0.2)
    assert first_fault(health, 0.2) == "no result yet"
    health.result(0.21)
    assert first_fault(health, 0.3) is None


@pytest.mark.parametrize("state", ["waiting", "lost", "stalled", "frozen", "dark", "slow", "ended"])
def test_every_state_but_live_is_not_ready_with_its_reason(state: State) -> None:
    health = working()
    health.camera(state, "cam is not as it should be", True)
    assert first_fault(health, 10.1) == f"camera {state}: cam is not as it should be"
    health.camera("live", "cam gives frames", True)
    assert first_fault(health, 10.1) is None


def test_frames_without_results_are_not_ready_and_say_what_went_wrong() -> None:
    health = working(10.0)
    for tenth in range(31):
        health.frame(10.0 + tenth / 10)
        health.failed("a frame could not be processed: no memory")
    assert first_fault(health, 13.0) is None
    reason = "no result for 3 s: a frame could not be processed: no memory"
    assert first_fault(health, 13.1) == reason
    health.result(13.2)
    assert first_fault(health, 13.3) is None


def test_frames_that_stop_without_a_word_of_the_camera_are_noticed() -> None:
    health = working(10.0)
    assert first_fault(health, 13.0) is None
    assert first_fault(health, 14.4) == "no frame for 4 s"


def test_a_camera_of_few_frames_has_three_of_its_intervals() -> None:
    health = working(10.0, fps=0.5)
    assert first_fault(health, 15.9) is None and first_fault(health, 16.1) is not None


def test_what_the_box_can_do_without_is_shown_but_not_critical() -> None:
    health = working()
    health.part("detector", "haar", "Haar cascade instead of YuNet: no file")
    health.part("session log", "is written", "")
    assert first_fault(health, 10.1) is None
    assert health.checks(10.1)[-2:] == (
        Check("detector", False, "Haar cascade instead of YuNet: no file", critical=False),
        Check("session log", True, "is written", critical=False),
    )


def test_progress_means_results_of_the_newest_frames() -> None:
    health = working(10.0)
    for tenth in range(100):
        health.frame(11.0 + tenth / 10)
    assert health.progressing(16.0) and not health.progressing(16.1)
    health.result(21.0)
    assert health.progressing(21.1)


def test_an_absent_camera_is_progress_while_somebody_looks_after_it() -> None:
    health = Health(0.0, 30.0)
    health.camera("waiting", "cam is not there", True)
    assert health.progressing(3600.0)
    health.camera("waiting", "cam is not there", False)
    assert not health.progressing(3600.0)
