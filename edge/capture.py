"""Frames from a camera, whatever the camera does: opened, read and opened again by a thread.

A live camera that is absent or fails is waited for, and only its newest frame counts. A recording
gives every frame: its reader waits for whoever takes them. `frames` is the same without a thread.
"""

import logging
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from contract.errors import UserError
from edge.cameras.base import Camera, CameraError, Clock, Frame

log = logging.getLogger(__name__)

State = Literal["waiting", "live", "lost", "ended"]

OVERTAKEN = "overtaken"
"""Drop reason: a newer frame came before this one was taken."""
UNREADABLE = "unreadable"
"""Drop reason: a read of a live camera failed."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a live camera is opened again.

    After `bad_reads` failed reads in a row it is closed. The n-th attempt to open it waits
    `first_s`·2ⁿ, at most `cap_s`, of which up to half is taken off at random; a frame starts the
    count anew. `bad_read_pause_s` is waited between failed reads.
    """

    bad_reads: int = 3
    first_s: float = 0.25
    cap_s: float = 5.0
    bad_read_pause_s: float = 0.02

    def delay_s(self, attempt: int, chance: float) -> float:
        """Seconds to wait before attempt `attempt` (from 0); `chance` is uniform in [0, 1)."""
        full = min(self.cap_s, self.first_s * 2.0 ** min(attempt, 30))
        return full * (1.0 - chance / 2.0)


class Capture:
    """Reads a camera in a thread of its own from `start` to `close`.

    State: `waiting` until the first frame; `live` while frames come; `lost` when a live camera
    failed, or gave no frame for `stall_s`; `ended` when a recording is over and its last frame
    taken. Every change of state is logged once.
    """

    def __init__(
        self,
        camera: Camera,
        *,
        clock: Clock | None = None,
        retry: RetryPolicy | None = None,
        stall_s: float = 2.0,
        queue_size: int = 2,
        chance: Callable[[], float] = random.random,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._camera = camera
        self._clock = clock or Clock()
        self._retry = retry or RetryPolicy()
        self._stall_ns = round(stall_s * 1e9)
        self._queue_size = queue_size
        self._chance = chance
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._changed = threading.Condition()
        # All below is guarded by _changed.
        self._frames: deque[Frame] = deque()
        self._state: State = "waiting"
        self._reason = f"{camera.name} is being opened"
        self._last_ns: int | None = None
        self._drops: Counter[str] = Counter()
        self._reconnects = 0
        self._reopened = False
        self._sequence = 0
        self._finished = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> "Capture":
        """Start reading; returns itself."""
        self._thread.start()
        return self

    def get(self, timeout_s: float) -> Frame | None:
        """The newest frame (of a recording: the next), or None if none came in `timeout_s`.

        None comes at once when the recording has ended. Raises the `UserError` of a file that
        turned out to be damaged, after the frames before it were taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._finished, timeout_s)
            self._notice_stall()
            if self._frames:
                frame = self._frames.popleft()
                self._changed.notify_all()
                return frame
            if self._failure is not None:
                raise self._failure
            return None

    @property
    def state(self) -> State:
        """What the camera is doing, as the class describes."""
        with self._changed:
            self._notice_stall()
            if self._finished:
                return "live" if self._frames else "ended"
            return self._state

    @property
    def reason(self) -> str:
        """Why the state is what it is, in one line."""
        with self._changed:
            self._notice_stall()
            return self._reason

    @property
    def drops(self) -> dict[str, int]:
        """Frames lost since the start, by reason."""
        with self._changed:
            return dict(self._drops)

    @property
    def reconnects(self) -> int:
        """How often frames came again after the camera had been closed for a fault."""
        with self._changed:
            return self._reconnects

    def close(self, timeout_s: float = 2.0) -> None:
        """Stop reading. A read that does not return in `timeout_s` is left behind, not waited for.

        The camera is closed by the thread that reads it: a driver may not bear it from another.
        """
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if not self._thread.is_alive():
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("%s: a read does not return; it is left behind", self._camera.name)

    def _run(self) -> None:
        reason = f"{self._camera.name} was closed"
        try:
            reason = self._read_until_end()
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

    def _read_until_end(self) -> str:
        """Open and read until the recording ends or `close` is called; returns why."""
        attempt = 0
        while not self._stop.is_set():
            before = self._sequence
            try:
                self._camera.open()
                if not self._read_while_good():
                    return f"{self._camera.name} has ended"
            except CameraError as error:
                if not self._camera.live:
                    return str(error)
                self._camera.close()
                with self._changed:
                    state: State = "waiting" if self._last_ns is None else "lost"
                    self._reopened = self._last_ns is not None
                    self._change(state, f"{error}; retrying")
            if self._sequence > before:
                attempt = 0
            if not self._stop.is_set():
                self._wait(self._retry.delay_s(attempt, self._chance()))
            attempt += 1
        return f"{self._camera.name} was closed"

    def _read_while_good(self) -> bool:
        """Read until `close` (True), the end of a recording (False), or a `CameraError`."""
        failed = 0
        while not self._stop.is_set():
            try:
                image = self._camera.read()
            except CameraError as error:
                if not self._camera.live or error.gone:
                    raise
                failed += 1
                with self._changed:
                    self._drops[UNREADABLE] += 1
                if failed >= self._retry.bad_reads:
                    raise
                self._wait(self._retry.bad_read_pause_s)
                continue
            mono_ns, utc_ns = self._clock.mono_ns(), self._clock.utc_ns()
            if image is None:
                return False
            failed = 0
            self._put(Frame(image, mono_ns, utc_ns, self._sequence))
        return True

    def _put(self, frame: Frame) -> None:
        with self._changed:
            if self._camera.live:
                self._drops[OVERTAKEN] += len(self._frames)
                self._frames.clear()
            else:
                self._changed.wait_for(
                    lambda: len(self._frames) < self._queue_size or self._stop.is_set()
                )
            self._frames.append(frame)
            self._sequence += 1
            self._last_ns = frame.mono_ns
            self._reconnects += self._reopened
            self._reopened = False
            self._change("live", f"{self._camera.name} gives frames")
            self._changed.notify_all()

    def _notice_stall(self) -> None:
        """A live camera whose read does not return is lost too, though its thread cannot say so."""
        if self._state != "live" or not self._camera.live or self._last_ns is None:
            return
        age_ns = self._clock.mono_ns() - self._last_ns
        if age_ns > self._stall_ns:
            seconds = f"{self._stall_ns / 1e9:g}"
            self._change("lost", f"{self._camera.name} gave no frame for {seconds} s; waiting")

    def _change(self, state: State, reason: str) -> None:
        if state == self._state and reason == self._reason:
            return
        self._state, self._reason = state, reason
        level = logging.WARNING if state in ("waiting", "lost") else logging.INFO
        log.log(level, "camera %s: %s", state, reason)


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
