"""The label is a function of time: the frame rate, noise and a clock that stumbles do not show."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.expressions import EXPRESSIONS, INDEX, UNCERTAIN
from edge.smooth import Shown, Smoother, SmoothingSettings
from tests.edge.results import SECOND, peaked

FLAT = tuple(1 / 7 for _ in EXPRESSIONS)
MS = SECOND // 1000


def settings_of(
    tau_s: float = 0.25, hysteresis: float = 0.1, threshold: float = 0.4, **more: float
) -> SmoothingSettings:
    return SmoothingSettings(tau_s, hysteresis, (threshold,) * len(EXPRESSIONS), **more)


def array(values: tuple[float, ...]) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


@st.composite
def simplex(draw: st.DrawFn) -> NDArray[np.float64]:
    """Seven probabilities."""
    weights = draw(st.lists(st.floats(0, 1), min_size=7, max_size=7))
    assume(sum(weights) > 1e-6)
    return np.array(weights) / sum(weights)


# A part of a scene: what is shown (None: nothing in particular), how clearly, and for how long in
# fifths of a second, so that every change falls on a frame of 10, 15 and 30 fps alike.
Part = tuple[str | None, float, int]
PARTS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.sampled_from(EXPRESSIONS)), st.floats(0.8, 0.95), st.integers(5, 12)
    ),
    min_size=2,
    max_size=6,
)


def switches(
    scene: list[Part], fps: int, settings: SmoothingSettings, offset_ms: int = 0
) -> list[tuple[str, float]]:
    """The labels shown of a scene filmed at a rate: each with the second it appeared.

    Every change of the scene comes `offset_ms` later than its parts say.
    """
    smoother, seen, last = Smoother(settings), list[tuple[str, float]](), ""
    ends_ns = [int(end) * SECOND // 5 + offset_ms * MS for end in np.cumsum([p[2] for p in scene])]
    for k in range(ends_ns[-1] * fps // SECOND):
        at_ns = k * SECOND // fps
        # Rounded up, for a frame of 15 or 30 fps is a third of a nanosecond before its time.
        name, share, _ = scene[int(np.searchsorted(ends_ns, at_ns + 1, side="right"))]
        p = array(FLAT if name is None else peaked(name, share))
        label = smoother.update(p, at_ns).label
        if label != last:
            seen.append((label, k / fps))
            last = label
    return seen


def assert_alike(scene: list[Part], settings: SmoothingSettings, offset_ms: int = 0) -> None:
    """The same labels at 10, 15 and 30 fps, at times within one interval of the slower rate."""
    ten, fifteen, thirty = (switches(scene, fps, settings, offset_ms) for fps in (10, 15, 30))
    for slow, fast, interval in ((ten, thirty, 1 / 10), (ten, fifteen, 1 / 10),
                                 (fifteen, thirty, 1 / 15)):  # fmt: skip
        assert [label for label, _ in slow] == [label for label, _ in fast]
        for (_, at_slow), (_, at_fast) in zip(slow, fast, strict=True):
            assert abs(at_slow - at_fast) <= interval + 1e-6


TAUS = st.one_of(st.just(0.0), st.floats(0.05, 0.25))
LEADS = st.floats(0.05, 0.15)


@settings(max_examples=40)
@given(scene=PARTS, tau_s=TAUS, hysteresis=LEADS)
def test_the_same_scene_switches_at_the_same_times_at_any_frame_rate(
    scene: list[Part], tau_s: float, hysteresis: float
) -> None:
    assert_alike(scene, settings_of(tau_s, hysteresis))


@settings(max_examples=40)
@given(scene=PARTS, tau_s=TAUS, hysteresis=LEADS, vote_s=st.floats(0.02, 0.6))
def test_so_it_does_with_a_vote(
    scene: list[Part], tau_s: float, hysteresis: float, vote_s: float
) -> None:
    assert_alike(scene, settings_of(tau_s, hysteresis, vote_s=vote_s))


@settings(max_examples=40)
@given(scene=PARTS, tau_s=st.floats(0, 0.1), hysteresis=LEADS, evidence_s=st.floats(0.01, 0.08))
def test_so_it_does_when_evidence_adds_up(
    scene: list[Part], tau_s: float, hysteresis: float, evidence_s: float
) -> None:
    assert_alike(scene, settings_of(tau_s, hysteresis, evidence_s=evidence_s))


@settings(max_examples=10, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    scene=PARTS, tau_s=TAUS, hysteresis=LEADS, dwell_s=st.floats(0.05, 3),
    vote_s=st.sampled_from((0.0, 0.2)),
)  # fmt: skip
def test_so_it_does_with_a_dwell_that_outlasts_parts_of_the_scene(
    scene: list[Part], tau_s: float, hysteresis: float, dwell_s: float, vote_s: float
) -> None:
    def labels(dwell_s: float) -> list[str]:
        wanted = settings_of(tau_s, hysteresis, dwell_s=dwell_s, vote_s=vote_s)
        return [label for label, _ in switches(scene, 30, wanted)]

    # Clear of the border in time as well: a slow frame more or less of a dwell changes no label.
    around = (labels(max(0, dwell_s + shift_s)) for shift_s in (-0.11, -0.05, 0, 0.05, 0.11))
    assume(len({tuple(each) for each in around}) == 1)
    assert_alike(scene, settings_of(tau_s, hysteresis, dwell_s=dwell_s, vote_s=vote_s))


@settings(max_examples=40)
@given(scene=PARTS, tau_s=st.floats(0.03, 0.1), offset_ms=st.integers(0, 199))
def test_so_it_does_when_the_scene_changes_between_two_frames(
    scene: list[Part], tau_s: float, offset_ms: int
) -> None:
    assert_alike(scene, settings_of(tau_s), offset_ms)


@given(
    inputs=st.lists(st.tuples(simplex(), st.integers(1, 300)), min_size=2, max_size=60),
    dwell_s=st.floats(0.05, 2), tau_s=st.sampled_from((0.0, 0.1)),
    vote_s=st.sampled_from((0.0, 0.1)),
)  # fmt: skip
def test_no_label_is_shown_for_less_than_the_dwell(
    inputs: list[tuple[NDArray[np.float64], int]], dwell_s: float, tau_s: float, vote_s: float
) -> None:
    smoother = Smoother(settings_of(tau_s, 0.05, 0.3, dwell_s=dwell_s, vote_s=vote_s))
    now_ms, gaps = 0, []
    for p, gap_ms in inputs:
        now_ms += gap_ms
        if smoother.update(p, now_ms * MS).flipped:
            gaps.append((now_ms, gap_ms))
    # The rules may have changed it at any time since the frame before the one that shows it.
    assert all(b - a >= dwell_s * 1000 - gap - 1e-6 for (a, gap), (b, _) in pairwise(gaps))


def test_a_dwell_holds_a_label_through_a_short_glimpse_of_another() -> None:
    def shown(dwell_s: float) -> list[str]:
        smoother = Smoother(settings_of(tau_s=0.0, dwell_s=dwell_s))
        moods = ["happy"] * 10 + ["sad"] * 5 + ["happy"] * 10
        labels = [
            smoother.update(array(peaked(mood, 0.9)), k * 50 * MS).label
            for k, mood in enumerate(moods)
        ]
        return [label for k, label in enumerate(labels) if labels[k - 1 : k] != [label]]

    assert shown(0.0) == ["happy", "sad", "happy"]
    assert shown(0.8) == ["happy"], "0.5 s of happy and 0.25 s of sad are less than the dwell"


def test_a_vote_takes_what_was_on_top_for_most_of_its_window() -> None:
    smoother = Smoother(settings_of(tau_s=0.0, vote_s=0.3))
    smoother.update(array(peaked("happy", 0.9)), 0)
    # 10 ms a tick: 15 of 30 are a tie, which changes nothing, and 16 are most of them.
    assert smoother.update(array(peaked("sad", 0.9)), 150 * MS).label == "happy"
    assert smoother.update(array(peaked("sad", 0.9)), 160 * MS).label == "sad"


def test_a_glimpse_shorter_than_half_the_vote_is_not_seen_and_nothing_flickers() -> None:
    smoother = Smoother(settings_of(tau_s=0.0, vote_s=0.2))
    labels = {
        smoother.update(array(peaked("fear" if k % 10 == 5 else "happy", 0.9)), k * 33 * MS).label
        for k in range(200)
    }
    assert labels == {"happy"}


@given(lead=st.floats(0.15, 0.85), evidence_s=st.floats(0.02, 0.2))
def test_a_label_gives_way_when_the_lead_over_time_is_the_evidence(
    lead: float, evidence_s: float
) -> None:
    smoother = Smoother(
        settings_of(tau_s=0.0, hysteresis=0.1, threshold=0.2, evidence_s=evidence_s)
    )
    smoother.update(array(peaked("happy", 0.9)), 0)
    p = np.zeros(7)
    p[INDEX["happy"]], p[INDEX["sad"]] = (1 - lead) / 2, (1 + lead) / 2
    # By hand: beyond the hysteresis it adds up at lead - 0.1, or, where happy is so weak that it
    # speaks against itself, at what it lacks of threshold less half the hysteresis.
    rate = max(lead - 0.1, 0.2 - 0.05 - (1 - lead) / 2)
    ticks = evidence_s / rate / 0.01
    assume(abs(ticks - round(ticks)) > 1e-6)
    shown = [smoother.update(p, k * 10 * MS).label for k in range(1, 500)]
    assert shown.index("sad") + 1 == int(np.ceil(ticks))


def test_what_comes_and_goes_never_has_evidence_enough() -> None:
    def flips(evidence_s: float) -> int:
        smoother = Smoother(settings_of(tau_s=0.0, evidence_s=evidence_s))
        moods = (["happy"] * 3 + ["fear"] * 2) * 40
        return sum(
            smoother.update(array(peaked(mood, 0.9)), k * 33 * MS).flipped
            for k, mood in enumerate(moods)
        )

    assert flips(0.0) == 79, "in and out each time, but for the last"
    # Two frames add 66 ms x 0.78, three take 99 ms x 0.55 off again.
    assert flips(0.06) == 0


def test_one_expression_passes_into_another_without_uncertain_between() -> None:
    def shown(evidence_s: float) -> list[str]:
        smoother, seen = Smoother(settings_of(0.0, 0.2, 0.6, evidence_s=evidence_s)), list[str]()
        for k in range(60):
            share = min(1.0, max(0.0, (k - 20) / 8))
            p = array(peaked("happy", 0.9)) * (1 - share) + array(peaked("sad", 0.9)) * share
            label = smoother.update(p, k * 33 * MS).label
            seen += [label] if seen[-1:] != [label] else []
        return seen

    assert shown(0.0) == ["happy", UNCERTAIN, "sad"]
    assert shown(0.08) == ["happy", "sad"]


def test_a_face_that_stays_unclear_becomes_uncertain_and_a_clear_one_returns_soon() -> None:
    smoother = Smoother(settings_of(tau_s=0.0, hysteresis=0.1, evidence_s=0.06))
    smoother.update(array(peaked("angry", 0.9)), 0)
    # 0.35 - 0.25 a second: 0.6 s. Then 0.9 - 0.4: 0.12 s.
    unclear = [smoother.update(array(peaked("angry", 0.25)), k * 50 * MS).label for k in (11, 13)]
    assert unclear == ["angry", UNCERTAIN]
    clear = [smoother.update(array(peaked("angry", 0.9)), k * 50 * MS).label for k in (15, 16)]
    assert clear == [UNCERTAIN, "angry"]


def test_a_frame_after_a_long_gap_stands_for_one_second_only() -> None:
    long, second = (Smoother(settings_of(tau_s=1.0)) for _ in range(2))
    for smoother, gap in ((long, 60), (second, 1)):
        smoother.update(array(peaked("sad", 1.0)), 0)
        shown = smoother.update(array(peaked("happy", 1.0)), gap * SECOND)
        assert shown.smoothed[INDEX["sad"]] == pytest.approx(np.exp(-1))


def test_time_without_evidence_is_nobodys() -> None:
    smoother = Smoother(settings_of(tau_s=0.5))
    assert smoother.hold(0) is None
    before = smoother.update(array(peaked("sad", 1.0)), 0)
    held = smoother.hold(2 * SECOND)
    assert held is not None
    assert (held.smoothed, held.label, held.held_s) == (before.smoothed, "sad", 2.0)
    # The next frame stands for the 0.1 s since, not for the 2.1 s since the last one judged.
    after = smoother.update(array(peaked("happy", 1.0)), 21 * SECOND // 10)
    assert after.smoothed[INDEX["sad"]] == pytest.approx(np.exp(-0.2))


@settings(max_examples=40)
@given(scene=PARTS)
def test_every_part_of_a_scene_is_shown_in_the_end(scene: list[Part]) -> None:
    shown = [label for label, _ in switches(scene, 30, settings_of())]
    wanted: list[str] = []
    for name, _, _ in scene:
        label = name or UNCERTAIN
        if wanted[-1:] != [label]:
            wanted.append(label)
    assert shown == wanted


@given(p=simplex(), times=st.lists(st.integers(0, 10 * SECOND), min_size=2, max_size=30))
def test_a_constant_input_never_flips(p: NDArray[np.float64], times: list[int]) -> None:
    smoother = Smoother(settings_of())
    results = [smoother.update(p, t) for t in times]
    assert not any(shown.flipped for shown in results)
    assert len({shown.label for shown in results}) == 1
    assert results[-1].smoothed == tuple(p)


@given(
    leads=st.lists(st.floats(-0.98, 0.98), min_size=2, max_size=60),
    tau_s=st.sampled_from((0.0, 0.05, 0.25)),
    hysteresis=st.floats(0.02, 0.15),
)
def test_two_that_differ_by_less_than_the_hysteresis_never_alternate(
    leads: list[float], tau_s: float, hysteresis: float
) -> None:
    smoother = Smoother(settings_of(tau_s, hysteresis, threshold=0.3))
    flips = 0
    for k, lead in enumerate(leads):
        p = np.full(7, 0.02)
        p[INDEX["happy"]] = 0.45 + lead * hysteresis / 2
        p[INDEX["sad"]] = 0.45 - lead * hysteresis / 2
        flips += smoother.update(p, k * 33 * MS).flipped
    assert flips == 0


def test_a_lead_of_the_hysteresis_takes_the_label_and_a_smaller_one_does_not() -> None:
    def shown(lead: float) -> str:
        smoother = Smoother(settings_of(tau_s=0.0, hysteresis=0.1))
        smoother.update(array(peaked("happy", 0.8)), 0)
        p = np.full(7, 0.02)
        p[INDEX["happy"]], p[INDEX["sad"]] = 0.45 - lead / 2, 0.45 + lead / 2
        return smoother.update(p, SECOND).label

    assert shown(0.09) == "happy"
    assert shown(0.11) == "sad"


@given(
    base=st.floats(0.25, 0.5),
    noise=st.lists(st.floats(0, 0.99), min_size=2, max_size=60),
    tau_s=st.sampled_from((0.0, 0.1)),
    hysteresis=st.floats(0.02, 0.2),
)
def test_noise_of_less_than_half_the_hysteresis_does_not_flicker_at_the_threshold(
    base: float, noise: list[float], tau_s: float, hysteresis: float
) -> None:
    smoother = Smoother(settings_of(tau_s, hysteresis, threshold=0.4))
    labels = [
        smoother.update(array(peaked("fear", base + share * hysteresis / 2)), k * 33 * MS).label
        for k, share in enumerate(noise)
    ]
    changes = sum(a != b for a, b in pairwise(labels))
    assert changes <= 1, "it may appear once; it may not come and go"


def test_a_face_that_gets_unclear_becomes_uncertain_and_comes_back() -> None:
    smoother = Smoother(settings_of(tau_s=0.0, hysteresis=0.1))

    def label(share: float, second: int) -> Shown:
        return smoother.update(array(peaked("angry", share)), second * SECOND)

    assert [label(share, k).label for k, share in enumerate((0.39, 0.41, 0.36, 0.34, 0.39))] == [
        UNCERTAIN, "angry", "angry", UNCERTAIN, UNCERTAIN,
    ]  # fmt: skip
    back = label(0.5, 9)
    assert (back.label, back.top, back.flipped, back.held_s) == ("angry", "angry", True, 0.0)
    assert label(0.5, 12).held_s == 3.0


@given(inputs=st.lists(st.tuples(simplex(), st.integers(0, 500)), min_size=1, max_size=40))
def test_the_smoothed_are_probabilities(inputs: list[tuple[NDArray[np.float64], int]]) -> None:
    smoother, time_ns = Smoother(settings_of()), 0
    for p, gap_ms in inputs:
        time_ns += gap_ms * MS
        shown = smoother.update(p, time_ns)
        assert sum(shown.smoothed) == pytest.approx(1.0, abs=1e-9)
        assert min(shown.smoothed) >= 0
        assert shown.confidence == max(shown.smoothed)
        assert shown.top == EXPRESSIONS[shown.smoothed.index(shown.confidence)]


@given(p=simplex(), other=simplex(), back_ms=st.integers(0, 5000))
def test_time_that_goes_back_counts_as_no_time(
    p: NDArray[np.float64], other: NDArray[np.float64], back_ms: int
) -> None:
    stumbled, steady = Smoother(settings_of()), Smoother(settings_of())
    at = 10 * SECOND
    before = stumbled.update(p, at)
    steady.update(p, at)
    during = stumbled.update(other, at - back_ms * MS)
    assert during.smoothed == before.smoothed
    assert during.held_s == 0
    # Nor is the time made up for when the clock is right again.
    assert stumbled.update(other, at + 40 * MS) == steady.update(other, at + 40 * MS)


def test_the_average_is_that_of_an_exponential_window() -> None:
    smoother = Smoother(settings_of(tau_s=0.5))
    smoother.update(array(peaked("sad", 1.0)), 0)
    shown = smoother.update(array(peaked("happy", 1.0)), SECOND // 2)
    assert shown.smoothed[INDEX["sad"]] == pytest.approx(np.exp(-1))
    assert shown.smoothed[INDEX["happy"]] == pytest.approx(1 - np.exp(-1))


def test_each_expression_has_its_own_threshold() -> None:
    thresholds = tuple(0.7 if name == "disgust" else 0.4 for name in EXPRESSIONS)
    for name, label in (("disgust", UNCERTAIN), ("happy", "happy")):
        shown = Smoother(SmoothingSettings(0.25, 0.1, thresholds)).update(
            array(peaked(name, 0.6)), 0
        )
        assert (shown.top, shown.label) == (name, label)
