"""The detector is spared only while it is not needed; time is handed in."""

from hypothesis import given
from hypothesis import strategies as st

from contract.faces import Box
from edge.schedule import MOST_MOVE, SURE_SCORE, DetectorSchedule
from edge.track import Track
from tests.edge.results import SECOND

SIZE = (640, 480)
FACE = Box(100, 100, 80, 100)
SURE = Track(1, FACE, 0.9, True)
INTERVAL_S = 0.2


def after_search(*found: Track, mono_ns: int = SECOND) -> DetectorSchedule:
    schedule = DetectorSchedule("adaptive", INTERVAL_S)
    schedule.searched(mono_ns, SIZE, found)
    return schedule


def test_every_means_every() -> None:
    schedule = DetectorSchedule()
    schedule.searched(SECOND, SIZE, [SURE])
    assert schedule.due(SECOND + 1, SIZE, [SURE])


def test_the_first_frame_is_searched() -> None:
    assert DetectorSchedule("adaptive", 5.0).due(0, SIZE, [])


def test_a_face_that_is_followed_well_is_left_alone_until_the_interval_is_over() -> None:
    schedule = after_search(SURE)
    assert not schedule.due(SECOND + SECOND // 30, SIZE, [SURE])
    assert not schedule.due(SECOND + SECOND // 5 - 1, SIZE, [SURE])
    assert schedule.due(SECOND + SECOND // 5, SIZE, [SURE])


def test_doubt_brings_the_detector_back_at_once() -> None:
    soon = SECOND + SECOND // 30
    unsure = Track(1, FACE, SURE_SCORE - 0.01, True)
    missed = Track(1, FACE, 0.9, False)
    assert after_search().due(soon, SIZE, [])
    assert after_search(unsure).due(soon, SIZE, [unsure])
    assert after_search(SURE, missed).due(soon, SIZE, [SURE])
    assert after_search(SURE).due(soon, (320, 240), [SURE]), "boxes are in pixels of another size"
    assert after_search(SURE).due(SECOND - 1, SIZE, [SURE]), "a clock that went back"


@given(st.floats(0, 60), st.floats(0, 60))
def test_a_face_that_should_have_moved_far_is_looked_for(right: float, down: float) -> None:
    moved = Track(1, Box(FACE.x + right, FACE.y + down, FACE.w, FACE.h), 0.9, False)
    far = (right**2 + down**2) ** 0.5 / 100
    if abs(far - MOST_MOVE) > 1e-6:
        assert after_search(SURE).due(SECOND + 1, SIZE, [moved]) == (far > MOST_MOVE)


@given(
    st.floats(0.02, 2.0),
    st.lists(st.integers(1, SECOND // 2), min_size=1, max_size=60),
    st.lists(st.sampled_from(["sure", "unsure", "missed", "none"]), min_size=60, max_size=60),
)
def test_a_frame_is_never_left_out_when_the_last_search_is_too_old(
    interval_s: float, gaps: list[int], outcomes: list[str]
) -> None:
    """And after a search that found doubt the next frame is searched, whatever the rate."""
    schedule = DetectorSchedule("adaptive", interval_s)
    now, searched, doubt = 0, -1, True
    for gap, outcome in zip(gaps, outcomes, strict=False):
        now += gap
        due = schedule.due(now, SIZE, [SURE])
        too_old = searched < 0 or now - searched >= round(interval_s * 1e9)
        assert due == (doubt or too_old)
        if due:
            found = {
                "sure": [SURE],
                "unsure": [Track(1, FACE, 0.1, True)],
                "missed": [Track(1, FACE, 0.9, False)],
                "none": [],
            }[outcome]
            schedule.searched(now, SIZE, found)
            searched, doubt = now, outcome != "sure"
