"""Ids that stay with a face, end with it, and depend on nothing else."""

import itertools
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.faces import Box
from edge.detect import Detection
from edge.track import Track, Tracker, iou

SECOND = 1_000_000_000


def face(x: float, y: float, side: float = 100.0, score: float = 0.9) -> Detection:
    return Detection(Box(x, y, side, side * 1.2), score)


def ids(tracks: list[Track]) -> list[int]:
    return [track.id for track in tracks]


def test_iou_against_a_value_worked_out_by_hand() -> None:
    # 10×10 and 10×10 shifted by (5, 0): 50 shared, 150 together.
    assert iou(Box(0, 0, 10, 10), Box(5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert iou(Box(0, 0, 10, 10), Box(10, 0, 10, 10)) == 0.0


@pytest.mark.parametrize("fps", [8, 15, 30])
@pytest.mark.parametrize("speed", [60, 300, 600])
def test_a_face_that_moves_keeps_its_id(fps: int, speed: int) -> None:
    tracker = Tracker()
    seen = [
        ids(tracker.update([face(speed * k / fps, 100)], k * SECOND // fps)) for k in range(2 * fps)
    ]
    assert all(one == [1] for one in seen)


def test_a_sudden_jerk_beyond_any_overlap_keeps_the_id() -> None:
    tracker = Tracker()
    tracker.update([face(100, 100)], 0)
    jerked = face(175, 100)
    assert iou(face(100, 100).box, jerked.box) < 0.3
    assert ids(tracker.update([jerked], SECOND // 30)) == [1]


def test_a_face_elsewhere_or_of_another_size_is_another_face() -> None:
    tracker = Tracker()
    tracker.update([face(100, 100)], 0)
    assert ids(tracker.update([face(400, 100)], SECOND // 30)) == [2]
    tracker = Tracker()
    tracker.update([face(100, 100)], 0)
    assert ids(tracker.update([face(130, 130, side=40)], SECOND // 30)) == [2]


@pytest.mark.parametrize("fps", [10, 30])
@pytest.mark.parametrize("height", [0, 25, 60])
@pytest.mark.parametrize("speed", [100, 250])
def test_crossing_faces_do_not_swap(fps: int, height: int, speed: int) -> None:
    """The detector gives one box while one face hides the other, as its suppression makes it."""
    tracker = Tracker()
    rng = np.random.default_rng(height + speed)
    last: list[Track] = []
    for k in range(round(600 / speed * fps)):
        t = k / fps
        a = face(50 + speed * t + rng.normal(0, 1), 100)
        b = face(550 - speed * t + rng.normal(0, 1), 100 + height)
        shown = [b] if iou(a.box, b.box) > 0.3 else [a, b]
        last = tracker.update(shown, round(t * SECOND))
    where = {track.id: track.box.x for track in last}
    assert where[1] > 400 and where[2] < 200


def test_an_unseen_face_is_shown_for_a_moment_then_kept_then_forgotten() -> None:
    tracker = Tracker(coast_s=0.15, max_age_s=1.0)
    start = SECOND // 5
    tracker.update([face(100, 100)], 0)
    tracker.update([face(100, 100)], start)
    gap = [(t.id, t.detected) for t in tracker.update([], start + SECOND // 10)]
    assert gap == [(1, False)]
    assert tracker.update([], start + SECOND // 5) == []
    assert tracker.alive() == {1}
    back = tracker.update([face(102, 100)], start + SECOND)
    assert [(t.id, t.detected) for t in back] == [(1, True)]
    assert tracker.update([], start + 2 * SECOND + 1) == []
    assert tracker.alive() == set()
    assert ids(tracker.update([face(102, 100)], start + 2 * SECOND + 2)) == [2]


def test_what_looked_like_a_face_for_one_frame_is_shown_for_that_frame_only() -> None:
    tracker = Tracker()
    assert ids(tracker.update([face(100, 100)], 0)) == [1]
    assert tracker.update([], SECOND // 30) == []


@pytest.mark.parametrize("fps", [5, 10, 30, 60])
def test_age_is_in_seconds_whatever_the_frame_rate(fps: int) -> None:
    tracker = Tracker(max_age_s=1.0)
    tracker.update([face(100, 100)], 0)
    for k in range(1, fps + 1):
        tracker.update([], k * SECOND // fps)
    assert ids(tracker.update([face(100, 100)], SECOND)) == [1]


boxes = st.builds(
    face,
    st.floats(0, 600),
    st.floats(0, 400),
    st.floats(10, 200),
    st.floats(0.5, 1.0),
)
courses = st.lists(st.tuples(st.lists(boxes, max_size=5), st.integers(1, SECOND)), max_size=12)


def run(
    course: list[tuple[list[Detection], int]], start: int = 0
) -> list[tuple[list[Detection], list[Track]]]:
    tracker = Tracker()
    times = itertools.accumulate((step for _, step in course), initial=start)
    return [
        (seen, tracker.update(seen, now)) for (seen, _), now in zip(course, times, strict=False)
    ]


@given(courses)
@settings(max_examples=150, deadline=None)
def test_a_detection_is_one_track_and_an_id_is_one_face(
    course: list[tuple[list[Detection], int]],
) -> None:
    for seen, tracks in run(course):
        assert ids(tracks) == sorted(set(ids(tracks)))
        detected = sorted(
            (t.box.x, t.box.y, t.box.w, t.box.h, t.score) for t in tracks if t.detected
        )
        given_ = sorted((d.box.x, d.box.y, d.box.w, d.box.h, d.score) for d in seen)
        assert detected == given_


@given(courses)
@settings(max_examples=100, deadline=None)
def test_an_id_is_not_used_again_after_its_end(
    course: list[tuple[list[Detection], int]],
) -> None:
    tracker = Tracker()
    highest, now, last_seen = 0, 0, dict[int, int]()
    for seen, step in course:
        now += step
        for track in tracker.update(seen, now):
            if not track.detected:
                continue
            if track.id in last_seen:
                assert now - last_seen[track.id] <= SECOND
            else:
                assert track.id > highest
            highest = max(highest, track.id)
            last_seen[track.id] = now


@given(courses, st.integers(0, 10**18))
@settings(max_examples=80, deadline=None)
def test_only_time_passed_matters_not_the_time(
    course: list[tuple[list[Detection], int]], start: int
) -> None:
    assert run(course) == run(course, start)


@given(courses, st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_the_order_of_detections_makes_no_difference(
    course: list[tuple[list[Detection], int]], random: Random
) -> None:
    shuffled = [(random.sample(seen, len(seen)), step) for seen, step in course]
    assert [tracks for _, tracks in run(course)] == [tracks for _, tracks in run(shuffled)]
