"""The states of a live camera: each fault is named in time, with its reason, and ends with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.capture_states import CameraStates, Limits, Look, RetryPolicy, State

ALIVE = Look(same=False, mean=110, spread=40)
STILL = Look(same=True, mean=110, spread=40)
BLACK = Look(same=False, mean=2, spread=1)
DEAD_BLACK = Look(same=True, mean=0, spread=0)
FPS = 30.0


class Box:
    """A camera at 30 frames a second, and whoever acts on what is due, in made-up time."""

    def __init__(self, fps: float | None = FPS) -> None:
        self.states = CameraStates("cam", chance=lambda: 0.0)
        self.now_s, self.fps = 100.0, fps
        self.replaced = 0
        assert self.states.due(self.now_s) == "open"
        self.states.opened(self.now_s, fps)

    def run(self, seconds: float, look: Look | None = ALIVE, fps: float = FPS) -> list[State]:
        """Let time pass with such frames (None: none); the states seen, at each frame."""
        seen = []
        for _ in range(round(seconds * fps)):
            self.now_s += 1 / fps
            if look is not None:
                self.states.frame(self.now_s, look)
            self.replaced += self.states.due(self.now_s) == "replace"
            seen.append(self.states.state)
        return seen

    def until(self, state: State, look: Look | None, fps: float = FPS) -> float:
        """Seconds of such frames until the state comes."""
        began = self.now_s
        while self.states.state != state:
            self.run(1 / fps, look, fps)
            assert self.now_s - began < 10, f"{state} did not come: {self.states.state}"
        return self.now_s - began


def test_a_camera_that_gives_frames_is_live_and_one_absent_at_boot_is_waiting() -> None:
    states = CameraStates("cam", chance=lambda: 0.0)
    assert (states.state, states.due(0.0)) == ("waiting", "open")
    assert states.due(0.1) is None, "it is opened once"
    states.closed(0.2, "cam is not there: plug the camera in")
    assert (states.state, states.reason) == (
        "waiting", "cam is not there: plug the camera in; retrying"
    )  # fmt: skip
    box = Box()
    assert set(box.run(10)) == {"live"}


@pytest.mark.parametrize(
    ("state", "look", "fps"),
    [("frozen", STILL, 30), ("dark", BLACK, 30), ("dark", DEAD_BLACK, 30), ("slow", ALIVE, 5)],
)
def test_a_bad_picture_is_named_within_two_seconds_and_ends_at_once(
    state: State, look: Look, fps: float
) -> None:
    box = Box()
    box.run(5)
    assert 1.0 < box.until(state, look, fps) <= 2.0 + 2.001 / fps
    assert set(box.run(5, look, fps)) == {state}, "it stays, and frames go on"
    assert box.replaced == 0
    assert box.until("live", ALIVE) <= (2.0 if state == "slow" else 1 / FPS + 1e-9)


@pytest.mark.parametrize(
    ("fps", "state"), [(30, "live"), (15, "live"), (11, "live"), (8, "slow"), (2, "slow")]
)
def test_slow_is_less_than_a_third_of_what_was_promised(fps: float, state: State) -> None:
    box = Box()
    box.run(3)
    assert box.run(6, ALIVE, fps)[-1] == state


def test_a_camera_that_promised_nothing_is_never_slow() -> None:
    box = Box(fps=None)
    assert set(box.run(6, ALIVE, 2)) == {"live"}


def test_frames_that_were_not_handed_over_are_no_slowness_of_the_camera() -> None:
    box = Box()
    for _ in range(60):
        box.now_s += 0.2
        box.states.frame(box.now_s, ALIVE, skipped=5)
        assert box.states.state == "live"


def test_a_silent_camera_is_stalled_after_two_seconds_and_its_process_replaced() -> None:
    box = Box()
    box.run(3)
    assert box.until("stalled", None) == pytest.approx(2.0, abs=0.04)
    assert box.replaced == 1
    assert box.states.due(box.now_s) == "open", "at once: frames had come"
    box.states.opened(box.now_s + 0.2, FPS)
    box.states.frame(box.now_s + 0.3, ALIVE)
    assert box.states.state == "live" and box.states.events["reopened"] == 1


def test_a_camera_of_few_frames_is_stalled_after_two_of_its_intervals() -> None:
    box = Box(fps=0.5)
    box.states.frame(box.now_s, ALIVE)
    assert box.states.due(box.now_s + 3.9) is None
    assert box.states.due(box.now_s + 4.1) == "replace"


def reopen(box: Box) -> None:
    """What the supervisor does after a `replace`: at once, another process, a first frame."""
    assert box.states.due(box.now_s) == "open", "at once: frames had come"
    box.states.opened(box.now_s + 0.2, FPS)
    box.now_s += 0.3
    box.states.frame(box.now_s, ALIVE)  # no process knows what came before its first frame


def test_a_frozen_camera_is_opened_again_and_live_when_it_moves() -> None:
    box = Box()
    box.run(3)
    box.run(9.8, STILL)
    assert (box.states.state, box.replaced) == ("frozen", 0)
    while not box.replaced:
        box.run(1 / FPS, STILL)
    assert box.states.state == "frozen"
    assert box.states.reason == "cam gave the same picture for 10 s; reopening it"
    reopen(box)
    assert box.states.events["reopened"] == 1
    assert box.states.state == "frozen", "one frame does not show that it moves"
    assert set(box.run(5)) == {"live"}
    box.run(9.8, STILL)
    assert box.replaced == 1
    box.run(0.4, STILL)
    assert box.replaced == 2, "it moved in between: the same patience as at first"


def test_a_source_that_stands_still_is_opened_less_and_less_often_and_never_looks_live() -> None:
    box = Box()
    box.run(1, STILL)
    waits: list[float] = []
    began = box.now_s - 1
    while len(waits) < 9:
        before = box.replaced
        seen = set(box.run(1 / FPS, STILL))
        assert box.now_s - began < 2.1 or seen == {"frozen"}
        if box.replaced > before:
            waits.append(box.now_s - began)
            reopen(box)
            began = box.now_s
    assert waits == pytest.approx([10, 20, 40, 80, 160, 320, 600, 600, 600], abs=0.1)


def test_a_covered_lens_is_not_opened_again_however_still_it_is() -> None:
    box = Box()
    box.run(1)
    box.run(60, DEAD_BLACK)
    assert (box.states.state, box.replaced) == ("dark", 0)


def test_opening_and_the_first_frame_have_more_time() -> None:
    limits = Limits()
    states = CameraStates("cam", chance=lambda: 0.0)
    assert states.due(0.0) == "open"
    assert states.due(limits.open_s - 0.1) is None and states.state == "waiting"
    states.opened(limits.open_s - 0.1, FPS)
    first = limits.open_s - 0.1 + limits.first_frame_s
    assert states.due(first - 0.1) is None
    assert states.due(first + 0.1) == "replace" and states.state == "stalled"
    assert states.due(first + 0.2) is None, "not at once: it gave no frame before either"


def test_an_open_that_does_not_return_is_stalled() -> None:
    states = CameraStates("cam", chance=lambda: 0.0)
    states.due(0.0)
    assert states.due(10.1) == "replace"
    assert states.reason.startswith("cam does not open for 10 s")


def test_a_killed_process_is_replaced_at_once_but_one_that_never_lived_is_not_hammered() -> None:
    box = Box()
    box.run(1)
    waits = []
    for _ in range(6):
        box.states.process_gone(box.now_s, "was killed by SIGKILL")
        began = box.now_s
        while box.states.due(box.now_s) != "open":
            box.now_s += 0.01
        waits.append(box.now_s - began)
    assert box.states.state == "lost" and "was killed by SIGKILL" in box.states.reason
    assert waits == pytest.approx([0, 0.5, 1, 2, 4, 5], abs=0.02)


def test_attempts_grow_apart_until_the_device_returns_and_then_start_anew() -> None:
    states = CameraStates("cam", chance=lambda: 0.0)
    now_s, waits = 0.0, []
    assert states.due(now_s) == "open"
    for _ in range(8):
        states.closed(now_s, "cam is not there")
        began = now_s
        while states.due(now_s) != "open":
            now_s += 0.01
        waits.append(now_s - began)
    assert waits == pytest.approx([0.25, 0.5, 1, 2, 4, 5, 5, 5], abs=0.03)
    states.closed(now_s, "cam is not there")
    assert states.absent and states.due(now_s + 0.1) is None
    states.returned(now_s + 0.1)
    assert states.due(now_s + 0.1) == "open"
    states.closed(now_s + 0.2, "cam may not be opened yet")
    assert states.due(now_s + 0.44) is None and states.due(now_s + 0.46) == "open"


def test_jitter_takes_off_up_to_half_and_the_cap_is_never_passed() -> None:
    policy = RetryPolicy()
    for attempt in (0, 3, 10, 10_000):
        longest, shortest = policy.delay_s(attempt, 0.0), policy.delay_s(attempt, 1.0)
        assert shortest == pytest.approx(longest / 2) and longest <= 5.0


LOOKS = st.sampled_from([ALIVE, STILL, BLACK, DEAD_BLACK, None])


@given(st.lists(st.tuples(LOOKS, st.floats(0.1, 4.0)), max_size=12))
def test_whatever_happened_five_good_seconds_make_it_live(
    history: list[tuple[Look | None, float]],
) -> None:
    box = Box()
    for look, seconds in history:
        for _ in range(round(seconds * 10)):
            box.now_s += 0.1
            step = box.states.due(box.now_s)
            if step == "open":
                box.states.opened(box.now_s, FPS)
            elif look is not None and not box.states.absent:
                box.states.frame(box.now_s, look, skipped=2)
    while box.states.absent:
        box.now_s += 0.1
        if box.states.due(box.now_s) == "open":
            box.states.opened(box.now_s, FPS)
    assert box.run(5)[-1] == "live"


@given(st.lists(st.sampled_from([ALIVE, STILL]), min_size=1, max_size=300))
def test_noise_now_and_then_keeps_a_still_scene_from_being_frozen(looks: list[Look]) -> None:
    box, run_s, longest_s = Box(), 0.0, 0.0
    for look in looks:
        run_s = run_s + 1 / FPS if look.same else 0.0
        longest_s = max(longest_s, run_s)
        box.run(1 / FPS, look)
        if longest_s < 1.9:
            assert box.states.state == "live"
