"""A recording gives every frame and its end; frames come without a thread too."""

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
from edge.capture import capture_of, frames
from edge.capture_live import LiveCapture
from edge.capture_process import CameraRequest
from edge.capture_recording import RecordingCapture

IMAGE: Image = np.zeros((4, 4, 3), np.uint8)


class Scripted:
    """A camera that does what a script says, one step per `open` or `read`.

    A step is an image, None (end), an exception to raise, or an event to wait for (then an image).
    A script that is used up blocks until `over`.
    """

    name = "scripted"

    def __init__(
        self,
        steps: list[object],
        *,
        live: bool = False,
        opens: list[CameraError | None] | None = None,
    ) -> None:
        self.live = live
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


Make = Callable[..., RecordingCapture]


@pytest.fixture
def make() -> Iterator[Make]:
    """Captures that are closed afterwards."""
    made: list[tuple[RecordingCapture, Scripted]] = []

    def start(camera: Scripted, **options: object) -> RecordingCapture:
        capture = RecordingCapture(camera, **options).start()  # type: ignore[arg-type]
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


def test_a_live_camera_is_read_by_a_process_and_a_recording_by_a_thread() -> None:
    request = CameraRequest({})
    assert isinstance(capture_of(Scripted([], live=True), request), LiveCapture)
    assert isinstance(capture_of(Scripted([]), request), RecordingCapture)


def test_a_recording_gives_every_frame_in_order_however_slow_the_taker(make: Make) -> None:
    images = [np.full((2, 2, 3), k, np.uint8) for k in range(12)]
    camera = Scripted([*images, None])
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


def test_frames_are_stamped_by_the_clocks_at_the_return_of_read(make: Make) -> None:
    ticks = iter(range(5, 10_000, 5))
    release = threading.Event()
    clock = Clock(mono_ns=lambda: next(ticks), utc_ns=lambda: 77)
    capture = make(Scripted([release]), clock=clock)
    before = next(ticks)
    release.set()
    frame = capture.get(2.0)
    assert frame is not None and frame.mono_ns > before and frame.utc_ns == 77


def test_close_does_not_wait_for_a_stuck_read(make: Make) -> None:
    camera = Scripted([IMAGE])
    capture = make(camera)
    until(lambda: camera.reads == 2)
    start = time.monotonic()
    capture.close(timeout_s=0.2)
    assert time.monotonic() - start < 1


def test_close_releases_a_reader_that_waits_for_its_taker() -> None:
    camera = Scripted([IMAGE] * 10)
    capture = RecordingCapture(camera, queue_size=1).start()
    until(lambda: camera.reads == 2)
    start = time.monotonic()
    capture.close()
    assert time.monotonic() - start < 1 and camera.closed == 1


def test_a_program_with_a_stuck_camera_ends() -> None:
    program = """
import time
from edge.capture_recording import RecordingCapture as Capture
class Stuck:
    live, name = False, "stuck"
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
    capture = make(Scripted([IMAGE, error]))
    assert capture.get(2.0) is not None
    with pytest.raises(type(error), match=str(error)):
        while capture.get(2.0) is None:
            pass
    assert capture.state == "ended"


def test_a_recording_that_fails_has_ended_and_says_why(make: Make) -> None:
    capture = make(Scripted([IMAGE, CameraError("clip.mp4 gave a frame that cannot be decoded")]))
    assert capture.get(2.0) is not None
    until(lambda: capture.state == "ended")
    assert capture.get(0.0) is None
    assert capture.reason == "clip.mp4 gave a frame that cannot be decoded"


def test_frames_without_a_thread_close_the_camera_however_they_end() -> None:
    camera = Scripted([IMAGE, IMAGE, None])
    assert [f.sequence for f in frames(camera)] == [0, 1]
    assert camera.closed == 1
    camera = Scripted([IMAGE, IMAGE])
    source = frames(camera)
    next(source)
    source.close()  # type: ignore[attr-defined]
    assert camera.closed == 1


def test_frames_of_an_empty_recording_end_even_when_cycled() -> None:
    assert list(frames(Scripted([None, None]), cycle=True)) == []


def test_frames_of_an_absent_camera_are_a_mistake_of_the_user() -> None:
    with pytest.raises(UserError, match="plug the camera in"):
        next(frames(Scripted([], opens=[gone()])))
