"""Frames from a camera, whatever the camera does.

A live camera is read by a process of its own (`edge/capture_live.py`): it is waited for, and only
its newest frame counts. A recording is read by a thread (`edge/capture_recording.py`) and gives
every frame. `frames` is the same without either.
"""

from collections.abc import Iterator
from typing import Protocol

from contract.errors import UserError
from edge.cameras.base import Camera, CameraError, Clock, Frame
from edge.capture_live import LiveCapture
from edge.capture_process import CameraRequest
from edge.capture_recording import RecordingCapture
from edge.capture_states import State


class Capture(Protocol):
    """What reads a camera from `start` to `close`."""

    def start(self) -> "Capture":
        """Start reading; returns itself."""

    def get(self, timeout_s: float) -> Frame | None:
        """The newest frame (of a recording: the next), or None if none came in `timeout_s`.

        None comes at once when it has ended. Raises the `UserError` of a file that turned out to be
        damaged, after the frames before it were taken.
        """

    @property
    def state(self) -> State:
        """What the camera is doing."""

    @property
    def reason(self) -> str:
        """Why the state is what it is, in one line."""

    @property
    def drops(self) -> dict[str, int]:
        """Frames lost since the start, by reason."""

    @property
    def events(self) -> dict[str, int]:
        """What happened to the camera and its process since the start, and how often."""

    @property
    def reconnects(self) -> int:
        """How often frames came again after the camera had been closed for a fault."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the camera did not grant of what it was asked, a line each."""

    @property
    def supervised(self) -> bool:
        """Is it being looked after? False would mean that nothing can come any more."""

    def close(self, timeout_s: float = 2.0) -> None:
        """Stop reading, within `timeout_s` even if the camera hangs."""


def capture_of(camera: Camera, request: CameraRequest) -> Capture:
    """What reads `camera`; `request` makes the same camera in another process."""
    return LiveCapture(camera, request) if camera.live else RecordingCapture(camera)


def frames(camera: Camera, *, cycle: bool = False, clock: Clock | None = None) -> Iterator[Frame]:
    """Every frame of a camera, read when asked for, without a thread; the camera is closed after.

    With `cycle` a recording starts over when it ends (one without a frame ends all the same).
    Raises `UserError` for a camera that fails: nothing is retried here.
    """
    clock = clock or Clock()
    sequence = 0
    try:
        while True:
            camera.open()
            start = sequence
            while (image := camera.read()) is not None:
                yield Frame(image, clock.mono_ns(), clock.utc_ns(), sequence)
                sequence += 1
            if not cycle or sequence == start:
                return
    except CameraError as error:
        raise UserError(str(error)) from None
    finally:
        camera.close()
