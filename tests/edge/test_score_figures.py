"""Accuracy, flips, lag and coverage against values worked out by hand, and what always holds."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.expressions import EXPRESSIONS, UNCERTAIN
from edge.offline.score_figures import Seen, count, pool, score
from edge.offline.score_labels import Segment


def seen(k: int, raw: str, label: str, top: str = "") -> Seen:
    """A frame of a camera at 10 per second."""
    return Seen(k / 10, raw, label, top or raw)


# Two seconds, 20 frames: happy for one second, then sad for one.
TRUTH = (Segment(0.0, 1.0, "happy"), Segment(1.0, 2.0, "sad"))
# Raw is wrong once in each second (frames 3 and 16); smoothed is not, but it is two frames late,
# and in frame 19 the face is lost.
FRAMES = [
    *(seen(k, "fear" if k == 3 else "happy", "happy", "happy") for k in range(10)),
    *(seen(k, "sad", "happy", "sad") for k in (10, 11)),
    *(seen(k, "happy" if k == 16 else "sad", "sad", "sad") for k in range(12, 18)),
    seen(18, "sad", UNCERTAIN, "sad"),
    Seen(1.9),
]


def test_a_session_worked_out_by_hand() -> None:
    found = score(count(FRAMES, TRUTH))
    assert (found.sessions, found.frames, found.faces) == (1, 20, 19)
    # 19 frames of 0.1 s with a face.
    assert found.face_s == pytest.approx(1.9)

    # Held frames: 0 to 9, and from 0.4 s after the switch on 14 to 19: 16 frames, of which raw
    # gets 3, 16 and 19 wrong and smoothed 19 alone (18 is sad behind `uncertain`).
    assert found.raw.accuracy == pytest.approx(13 / 16)
    assert found.smoothed.accuracy == pytest.approx(15 / 16)
    # Raw happy: 9 right of 10 true and 10 said; sad: 4 right of 6 true and 4 said.
    assert found.raw.per_class_f1 == pytest.approx({"happy": 18 / 20, "sad": 8 / 10})
    assert found.raw.macro_f1 == pytest.approx(0.85)
    # Smoothed sad: 5 right of 6 true and 5 said.
    assert found.smoothed.per_class_f1 == pytest.approx({"happy": 1.0, "sad": 10 / 11})

    # Raw changes at 3, 4, 10, 16, 17; the one at 10 is what the switch needs.
    assert found.raw.flips == 5
    assert found.raw.flips_per_minute == pytest.approx(5 / 1.9 * 60)
    assert found.raw.held_flips_per_minute == pytest.approx(4 / 1.9 * 60)
    assert found.raw.flip_frames == pytest.approx(5 / 19)
    # Smoothed changes at 12 and, to `uncertain`, at 18.
    assert found.smoothed.flips == 2
    assert found.smoothed.held_flips_per_minute == pytest.approx(1 / 1.9 * 60)

    assert (found.raw.switches, found.raw.unreached) == (1, 0)
    assert found.raw.lag_median_s == pytest.approx(0.0)
    assert found.smoothed.lag_median_s == pytest.approx(0.2)
    # Of 20 labelled frames 18 show an expression; 10 and 11 show the wrong one.
    assert found.coverage == pytest.approx(18 / 20)
    assert found.right_when_shown == pytest.approx(16 / 18)


def test_without_labels_flips_alone_are_counted() -> None:
    found = score(count(FRAMES, ()))
    assert (found.raw.flips, found.smoothed.flips) == (5, 2)
    assert found.coverage is None and found.smoothed.held_flips_per_minute is None
    assert found.smoothed.accuracy is None and found.smoothed.lag_median_s is None


def test_a_segment_whose_label_never_shows_is_counted_and_has_no_lag() -> None:
    late = [Segment(0.0, 1.0, "happy"), Segment(1.0, 2.0, "fear")]
    found = score(count(FRAMES, late)).smoothed
    assert (found.switches, found.unreached, found.lag_median_s) == (1, 1, None)


def test_sessions_are_pooled_not_averaged() -> None:
    long = [seen(k, "happy", "happy") for k in range(100)]
    both = score(pool([count(FRAMES, TRUTH), count(long, [Segment(0, 10, "happy")])]))
    assert both.sessions == 2
    assert both.raw.accuracy == pytest.approx((13 + 100) / 116)
    assert both.raw.flips_per_minute == pytest.approx(5 / (1.9 + 10.0) * 60)
    assert both.smoothed.lag_median_s == pytest.approx(0.2)


@given(
    label=st.sampled_from(EXPRESSIONS),
    fps=st.sampled_from((7, 10, 15, 30, 60)),
    lengths=st.lists(st.floats(0.5, 3), min_size=2, max_size=5),
)
def test_a_constant_right_label_has_no_flip_no_lag_and_no_mistake(
    label: str, fps: int, lengths: list[float]
) -> None:
    borders = [0.0]
    for length in lengths:
        borders.append(borders[-1] + length)
    segments = [Segment(a, b, label) for a, b in pairwise(borders)]
    frames = [Seen(k / fps, label, label, label) for k in range(int(borders[-1] * fps))]
    found = score(count(frames, segments))
    for one in (found.raw, found.smoothed):
        assert (one.flips, one.held_flips_per_minute, one.accuracy, one.macro_f1) == (0, 0, 1, 1)
        assert one.switches == len(lengths) - 1 and one.unreached == 0
        # The first frame of a segment comes up to an interval after its begin.
        assert one.lag_p95_s is not None and one.lag_p95_s <= 1 / fps
    assert found.coverage == found.right_when_shown == 1


@given(
    course=st.lists(
        st.tuples(st.sampled_from(EXPRESSIONS), st.sampled_from((*EXPRESSIONS, UNCERTAIN, ""))),
        min_size=2,
        max_size=60,
    )
)
def test_ratios_stay_in_their_bounds_whatever_was_shown(course: list[tuple[str, str]]) -> None:
    frames = [Seen(k / 10, raw if label else "", label, raw) for k, (raw, label) in
              enumerate(course)]  # fmt: skip
    found = score(count(frames, [Segment(0, 1, "happy"), Segment(1, 6, "fear")]))
    assert found.faces <= found.frames
    for one in (found.raw, found.smoothed):
        assert one.held_flips_per_minute is not None
        assert 0 <= one.held_flips_per_minute <= one.flips_per_minute
        assert 0 <= one.flip_frames < 1
        assert one.accuracy is None or 0 <= one.accuracy <= 1
        assert one.unreached <= one.switches == 1
    assert found.coverage is not None and 0 <= found.coverage <= 1
