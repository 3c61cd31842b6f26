"""Capture waits, reconnects, drops what is overtaken, and never hangs."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from contract.errors import UserError
from contract.faces import Image
from edge.cameras.base import CameraError, Clock
from edge.capture import Capture, RetryPolicy, frames

IMAGE: Image = np.zeros((4, 4, 3), np.uint8)


class Scripted:
    """A camera that does what a script says, one step per `open` or `read`.

    A step is an image, None (end), an exception to raise, or an event to wait for (then an image).
    A script that is used up blocks until `close_all`.
    """

    def __init__(
        self,
        steps: list[object],
        *,
        live: bool = True,
        opens: list[CameraError | None] | None = None,
    ) -> None:
        self.live = live
        self.name = "scripted"
        self.steps = list(steps)
        self.opens = list(opens or [])
        self.over = threading.Event()
        self.opened = self.closed = self.reads = 0

    def open(self) -> None:
        self.opened += 1
        step = self.opens.pop(0) if self.opens else None
        if step is not None:
            raise step

    def read(self) -> Image | None:
        self.reads += 1
        if not self.steps:
            self.over.wait(20)
            return IMAGE
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, threading.Event):
            assert step.wait(10)
            return IMAGE
        return step  # type: ignore[return-value]

    def close(self) -> None:
        self.closed += 1


Make = Callable[..., Capture]


@pytest.fixture
def make() -> Iterator[Make]:
    """Captures with recorded instead of slept waits, closed afterwards."""
    made: list[tuple[Capture, Scripted]] = []

    def start(camera: Scripted, **options: object) -> Capture:
        options.setdefault("wait", lambda seconds: None)
        capture = Capture(camera, **options).start()  # type: ignore[arg-type]
        made.append((capture, camera))
        return capture

    yield start
    for capture, camera in made:
        camera.over.set()
        capture.close()


def until(condition: Callable[[], object], limit_s: float = 5.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def gone(text: str = "scripted is not there: plug the camera in") -> CameraError:
    return CameraError(text, gone=True)


def test_a_recording_gives_every_frame_in_order_however_slow_the_taker(make: Make) -> None:
    images = [np.full((2, 2, 3), k, np.uint8) for k in range(12)]
    camera = Scripted([*images, None], live=False)
    capture = make(camera, queue_size=2)
    until(lambda: camera.reads >= 3)
    time.sleep(0.05)
    assert camera.reads <= 4, "the reader must wait for the taker"
    assert capture.state == "live"
    seen = []
    while capture.state != "ended":
        frame = capture.get(1.0)
        if frame is not None:
            seen.append((frame.sequence, int(frame.image[0, 0, 0])))
    assert seen == [(k, k) for k in range(12)]
    assert capture.get(0.0) is None
    assert sum(capture.drops.values()) == 0
    assert "has ended" in capture.reason
    assert camera.closed >= 1


def test_of_a_live_camera_only_the_newest_frame_counts_and_drops_are_counted(make: Make) -> None:
    images: list[object] = [np.full((2, 2, 3), k, np.uint8) for k in range(10)]
    camera = Scripted(images)
    capture = make(camera)
    until(lambda: camera.reads == 11)
    frame = capture.get(1.0)
    assert frame is not None and frame.sequence == 9 and frame.image[0, 0, 0] == 9
    assert capture.drops == {"overtaken": 9}
    assert capture.get(0.0) is None


def test_frames_are_stamped_by_the_clocks_at_the_return_of_read(make: Make) -> None:
    ticks = iter(range(5, 10_000, 5))
    release = threading.Event()
    clock = Clock(mono_ns=lambda: next(ticks), utc_ns=lambda: 77)
    capture = make(Scripted([release], live=True), clock=clock)
    before = next(ticks)
    release.set()
    frame = capture.get(2.0)
    assert frame is not None and frame.mono_ns > before and frame.utc_ns == 77


def test_an_absent_camera_is_waited_for_with_growing_capped_jittered_delays(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    delays: list[float] = []
    release = threading.Event()
    camera = Scripted([release], opens=[gone() for _ in range(9)])
    with caplog.at_level(logging.INFO):
        capture = make(camera, wait=delays.append, chance=lambda: 0.0)
        until(lambda: len(delays) == 9)
        assert capture.state == "waiting"
        assert capture.reason == "scripted is not there: plug the camera in; retrying"
        assert capture.get(0.01) is None
        release.set()
        assert capture.get(2.0) is not None
    assert delays == [0.25, 0.5, 1, 2, 4, 5, 5, 5, 5]
    assert capture.state == "live" and capture.reconnects == 0
    lines = [r.getMessage() for r in caplog.records if r.name == "edge.capture"]
    assert len(lines) == 2, "a change of state is logged once, not at every attempt"


def test_jitter_takes_off_up_to_half_and_the_cap_is_never_passed() -> None:
    policy = RetryPolicy()
    for attempt in (0, 3, 10, 10_000):
        longest, shortest = policy.delay_s(attempt, 0.0), policy.delay_s(attempt, 1.0)
        assert shortest == pytest.approx(longest / 2) and longest <= 5.0


def test_a_lost_camera_comes_back_and_the_delays_start_anew(make: Make) -> None:
    delays: list[float] = []
    back = threading.Event()
    camera = Scripted(
        [IMAGE, gone("pulled"), IMAGE, gone("pulled again"), back],
        opens=[None, gone(), gone(), None, gone(), None],
    )
    capture = make(camera, wait=delays.append, chance=lambda: 0.0)
    until(lambda: camera.reads == 5)
    assert capture.state == "lost" and capture.reconnects == 1
    back.set()
    until(lambda: capture.reconnects == 2)
    assert capture.state == "live"
    assert delays == [0.25, 0.5, 1.0, 0.25, 0.5]


def test_a_camera_that_opens_but_never_gives_a_frame_is_not_hammered(make: Make) -> None:
    delays: list[float] = []
    camera = Scripted([gone("mute") for _ in range(6)])
    make(camera, wait=delays.append, chance=lambda: 0.0)
    until(lambda: len(delays) == 6)
    assert delays == [0.25, 0.5, 1, 2, 4, 5]


def test_bad_reads_are_counted_and_only_several_in_a_row_reopen(make: Make) -> None:
    bad = [CameraError("torn frame") for _ in range(7)]
    camera = Scripted([IMAGE, *bad[:2], IMAGE, *bad[2:4], IMAGE])
    capture = make(camera, retry=RetryPolicy(bad_reads=3))
    until(lambda: camera.reads == 8)
    assert camera.opened == 1 and capture.state == "live"
    assert capture.drops["unreadable"] == 4
    camera = Scripted([IMAGE, *bad[4:7], IMAGE])
    capture = make(camera, retry=RetryPolicy(bad_reads=3))
    until(lambda: camera.reads == 6)
    assert camera.opened == 2 and capture.reconnects == 1


def test_a_live_camera_whose_read_does_not_return_is_lost_and_says_so(make: Make) -> None:
    now = [0]
    clock = Clock(mono_ns=lambda: now[0], utc_ns=lambda: 0)
    back = threading.Event()
    capture = make(Scripted([IMAGE, back]), clock=clock, stall_s=2.0)
    assert capture.get(2.0) is not None
    now[0] = 1_900_000_000
    assert capture.state == "live"
    now[0] = 2_100_000_000
    assert capture.state == "lost" and "no frame for 2 s" in capture.reason
    back.set()
    assert capture.get(2.0) is not None and capture.state == "live"


def test_close_does_not_wait_for_a_stuck_read(make: Make) -> None:
    camera = Scripted([IMAGE])
    capture = make(camera)
    until(lambda: camera.reads == 2)
    start = time.monotonic()
    capture.close(timeout_s=0.2)
    assert time.monotonic() - start < 1


def test_close_interrupts_a_wait_for_an_absent_camera() -> None:
    camera = Scripted([], opens=[gone() for _ in range(100)])
    capture = Capture(camera, retry=RetryPolicy(first_s=60, cap_s=60)).start()
    until(lambda: camera.opened == 1)
    start = time.monotonic()
    capture.close()
    assert time.monotonic() - start < 1 and capture.state == "ended"


def test_close_releases_a_reader_that_waits_for_its_taker() -> None:
    camera = Scripted([IMAGE] * 10, live=False)
    capture = Capture(camera, queue_size=1).start()
    until(lambda: camera.reads == 2)
    start = time.monotonic()
    capture.close()
    assert time.monotonic() - start < 1 and camera.closed == 1


def test_a_program_with_a_stuck_camera_ends() -> None:
    program = """
import time
from edge.capture import Capture
class Stuck:
    live, name = True, "stuck"
    def open(self): pass
    def read(self): time.sleep(1000)
    def close(self): pass
capture = Capture(Stuck()).start()
capture.get(0.1)
capture.close(timeout_s=0.2)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], timeout=20, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0


@pytest.mark.parametrize("error", [UserError("image x.png is damaged"), ValueError("a bug")])
def test_what_the_reader_meets_is_raised_where_frames_are_taken(
    make: Make, error: Exception
) -> None:
    capture = make(Scripted([IMAGE, error], live=False))
    assert capture.get(2.0) is not None
    with pytest.raises(type(error), match=str(error)):
        while capture.get(2.0) is None:
            pass
    assert capture.state == "ended"


def test_frames_without_a_thread_close_the_camera_however_they_end() -> None:
    camera = Scripted([IMAGE, IMAGE, None], live=False)
    assert [f.sequence for f in frames(camera)] == [0, 1]
    assert camera.closed == 1
    camera = Scripted([IMAGE, IMAGE], live=False)
    source = frames(camera)
    next(source)
    source.close()  # type: ignore[attr-defined]
    assert camera.closed == 1


def test_frames_of_an_empty_recording_end_even_when_cycled() -> None:
    assert list(frames(Scripted([None, None], live=False), cycle=True)) == []


def test_frames_of_an_absent_camera_are_a_mistake_of_the_user() -> None:
    with pytest.raises(UserError, match="plug the camera in"):
        next(frames(Scripted([], opens=[gone()])))
