"""A recording, read by a thread that waits for whoever takes its frames: every one, in order.

A file does not hang as a driver does, so it needs no process of its own.
"""

import logging
import threading
from collections import deque

from edge.cameras.base import Camera, CameraError, Clock, Frame
from edge.capture_states import State

log = logging.getLogger(__name__)


class RecordingCapture:
    """Reads a recording from `start` to `close`; `queue_size` frames wait to be taken.

    State: `waiting` until the first frame, `live` until the last one is taken, then `ended`.
    """

    def __init__(self, camera: Camera, *, clock: Clock | None = None, queue_size: int = 2) -> None:
        self._camera, self._clock, self._queue_size = camera, clock or Clock(), queue_size
        self._stop = threading.Event()
        self._changed = threading.Condition()
        # All below up to the thread is guarded by _changed.
        self._frames: deque[Frame] = deque()
        self._state: State = "waiting"
        self._reason = f"{camera.name} is being opened"
        self._finished = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> "RecordingCapture":
        """Start reading; returns itself."""
        self._thread.start()
        return self

    def get(self, timeout_s: float) -> Frame | None:
        """The next frame, or None if none came in `timeout_s`; at once when it has ended.

        Raises the `UserError` of a file that turned out to be damaged, after the frames before it
        were taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._finished, timeout_s)
            if self._frames:
                frame = self._frames.popleft()
                self._changed.notify_all()
                return frame
            if self._failure is not None:
                raise self._failure
            return None

    @property
    def state(self) -> State:
        """What it is doing, as the class describes."""
        with self._changed:
            return "live" if self._frames else self._state

    @property
    def reason(self) -> str:
        """Why the state is what it is, in one line."""
        with self._changed:
            return self._reason

    @property
    def drops(self) -> dict[str, int]:
        """None: every frame of a recording counts."""
        return {}

    @property
    def events(self) -> dict[str, int]:
        """None: a recording is opened once."""
        return {}

    @property
    def reconnects(self) -> int:
        """None: a recording is opened once."""
        return 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing: a recording is as it is."""
        return ()

    @property
    def supervised(self) -> bool:
        """Is it being read, or over as it should be?"""
        return self._thread.is_alive() or self._finished

    def close(self, timeout_s: float = 2.0) -> None:
        """Stop reading. A read that does not return in `timeout_s` is left behind, not waited for.

        The file is closed by the thread that reads it.
        """
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("%s: a read does not return; it is left behind", self._camera.name)

    def _run(self) -> None:
        reason = f"{self._camera.name} was closed"
        try:
            reason = self._read()
        except Exception as error:
            # Whatever it is, it must reach the thread that waits for frames, or that waits forever.
            self._failure = error
            reason = " ".join(str(error).split())
        finally:
            self._camera.close()
            with self._changed:
                self._finished = True
                self._change("ended", reason)
                self._changed.notify_all()

    def _read(self) -> str:
        """Read until the recording ends or `close` is called; returns why."""
        try:
            self._camera.open()
            sequence = 0
            while not self._stop.is_set():
                image = self._camera.read()
                if image is None:
                    return f"{self._camera.name} has ended"
                stamp = self._clock.mono_ns(), self._clock.utc_ns()
                self._put(Frame(image, *stamp, sequence))
                sequence += 1
        except CameraError as error:
            return str(error)
        return f"{self._camera.name} was closed"

    def _put(self, frame: Frame) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._frames) < self._queue_size or self._stop.is_set()
            )
            self._frames.append(frame)
            self._change("live", f"{self._camera.name} gives frames")
            self._changed.notify_all()

    def _change(self, state: State, reason: str) -> None:
        if (state, reason) != (self._state, self._reason):
            self._state, self._reason = state, reason
            log.info("camera %s: %s", state, reason)
