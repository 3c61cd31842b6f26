"""A live camera, read by a process of its own that is watched and replaced at need.

A supervisor thread does what `edge.capture_states` finds due. It never waits for the camera or its
driver: those can hang only the capture process, which is then killed, or, if it hangs in the
kernel, left behind. Only the newest frame counts.
"""

import logging
import os
import random
import select
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from contract.errors import UserError
from contract.faces import Image
from edge.cameras.base import Camera, Device, Frame
from edge.capture_memory import FrameMemory
from edge.capture_process import GRACE_S, CameraRequest, CaptureProcess
from edge.capture_states import (
    ABANDONED,
    RESIZED,
    RESTARTED,
    CameraStates,
    Limits,
    Look,
    RetryPolicy,
    State,
)
from edge.logs import NEWS

OVERTAKEN = "overtaken"
"""Drop reason: a newer frame came before this one was taken."""
UNREADABLE = "unreadable"
"""Drop reason: a read failed."""

TICK_S = 0.05
"""How often it is looked whether the process runs, and, while it is absent, the device is back."""
SPARE_PAUSE_S = 5.0
"""After a spare process ended by itself, none is started for so long: it might end again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The newest frame, still in the memory that the process shares."""

    process: CaptureProcess
    memory: FrameMemory
    number: int
    message: dict[str, Any]
    sequence: int

    def take(self) -> Frame:
        """A copy, after which the slot is free again."""
        message = self.message
        image: Image = self.memory.read(message["slot"], tuple(message["shape"]))
        self.give_back()
        return Frame(image, message["mono_ns"], message["utc_ns"], self.sequence)

    def give_back(self) -> None:
        """Free the slot."""
        self.process.send("free", slot=self.message["slot"], memory=self.number)


class LiveCapture:
    """Reads a live camera from `start` to `close`. Every change of its state is logged once.

    `camera` is never opened here: it says its name, and whether its device is present. The process
    makes its own of `request`. A spare process stands by once frames came, as starting one takes
    longer than a viewer should wait.
    """

    def __init__(
        self,
        camera: Camera,
        request: CameraRequest,
        *,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
        chance: Callable[[], float] = random.random,
        start_process: Callable[[CameraRequest], CaptureProcess] = CaptureProcess,
    ) -> None:
        self._camera, self._request = camera, request
        self._start_process = start_process
        self._stop = threading.Event()
        self._changed = threading.Condition()
        # All below up to the thread is guarded by _changed.
        self._states = CameraStates(camera.name, limits=limits, retry=retry, chance=chance)
        self._logged: tuple[State, str] | None = None
        self._waiting: _Waiting | None = None
        self._drops: Counter[str] = Counter()
        self._sequence = 0
        self._notes: tuple[str, ...] = ()
        self._finished = False
        self._failure: Exception | None = None
        # These are the thread's own.
        self._process: CaptureProcess | None = None
        self._spare: CaptureProcess | None = None
        self._spare_after_s = float("-inf")
        self._abandoned: list[CaptureProcess] = []
        self._memory: tuple[FrameMemory, int] | None = None
        self._shape: list[int] | None = None
        self._present = True
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> "LiveCapture":
        """Start reading; returns itself."""
        self._thread.start()
        return self

    def get(self, timeout_s: float) -> Frame | None:
        """The newest frame that was not taken yet, or None if none came in `timeout_s`.

        Raises what the capture ended with: the `UserError` of making or opening the camera.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finished, timeout_s)
            waiting, self._waiting = self._waiting, None
            if waiting is None:
                if self._failure is not None:
                    raise self._failure
                return None
        return waiting.take()

    @property
    def state(self) -> State:
        """What the camera is doing."""
        with self._changed:
            return self._states.state

    @property
    def reason(self) -> str:
        """Why the state is what it is, in one line."""
        with self._changed:
            return self._states.reason

    @property
    def drops(self) -> dict[str, int]:
        """Frames lost since the start, by reason."""
        with self._changed:
            return dict(self._drops)

    @property
    def events(self) -> dict[str, int]:
        """What happened to the camera and its process since the start, and how often."""
        with self._changed:
            return {name: count for name, count in self._states.events.items() if count}

    @property
    def reconnects(self) -> int:
        """How often frames came again after the camera had been closed for a fault."""
        with self._changed:
            return self._states.events["reopened"]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the camera did not grant when it was opened last, a line each."""
        with self._changed:
            return self._notes

    @property
    def supervised(self) -> bool:
        """Does somebody look after the camera?"""
        return self._thread.is_alive()

    @property
    def pid(self) -> int | None:
        """The process that reads the camera now, if there is one."""
        process = self._process
        return None if process is None else process.pid

    def close(self, timeout_s: float = 2.0) -> None:
        """Stop reading; the process is asked to end, and killed if it does not."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and not self._finished:
                self._listen()
                self._look_after()
                self._act()
        except Exception as error:
            # A mistake in here must reach the thread that waits for frames, or that waits forever.
            self._failure = error
        finally:
            with self._changed:
                if not self._finished:
                    self._states.end(f"{self._camera.name} was closed")
                self._finished = True
                self._note()
                self._changed.notify_all()
            self._end(self._process, GRACE_S)
            self._end(self._spare, 0.0)

    def _listen(self) -> None:
        """Take what the process says, or wait a tick for it."""
        if self._process is None:
            self._stop.wait(TICK_S)
            return
        select.select([self._process], [], [], TICK_S)
        for message in self._process.messages():
            with self._changed:
                self._heed(self._process, message)
                self._note()

    def _look_after(self) -> None:
        """Notice a process that does not run any more, and a device that is back."""
        now = time.monotonic()
        fate = None if self._process is None else self._process.fate()
        if fate is not None:
            with self._changed:
                self._states.process_gone(now, fate)
                self._note()
            self._replace()
        if self._spare is not None and self._spare.fate() is not None:
            self._end(self._spare, 0.0)
            self._spare, self._spare_after_s = None, now + SPARE_PAUSE_S
        self._abandoned = [process for process in self._abandoned if not process.reaped()]
        if self._states.absent and isinstance(self._camera, Device):
            present = self._camera.device_present()
            if present and not self._present:
                with self._changed:
                    self._states.returned(now)
            self._present = present
        elif self._states.state == "live" and self._spare is None and now >= self._spare_after_s:
            self._spare = self._new_process()

    def _act(self) -> None:
        """Do what is due."""
        with self._changed:
            step = self._states.due(time.monotonic())
            self._note()
        if step == "replace":
            self._replace()
        elif step == "open":
            if self._process is None:
                self._process, self._spare = self._spare, None
            if self._process is None:
                self._process = self._new_process()
            if self._process is not None:
                self._process.send("open")

    def _new_process(self) -> CaptureProcess | None:
        """Another process, if the system lets us have one now."""
        try:
            return self._start_process(self._request)
        except OSError as error:
            with self._changed:
                self._states.process_gone(time.monotonic(), f"cannot be started ({error.strerror})")
                self._note()
            return None

    def _replace(self) -> None:
        """End the process; the next `open` starts another."""
        with self._changed:
            self._states.events[RESTARTED] += 1
        process, self._process, self._memory = self._process, None, None
        self._end(process, 0.0)

    def _end(self, process: CaptureProcess | None, grace_s: float) -> None:
        if process is None or process.end(grace_s):
            return
        log.warning("%s: its capture process cannot be killed; left behind", self._camera.name)
        self._abandoned.append(process)
        with self._changed:
            self._states.events[ABANDONED] += 1

    def _heed(self, process: CaptureProcess, message: dict[str, Any]) -> None:
        now, kind = time.monotonic(), message["kind"]
        if kind == "frame" and self._memory is not None:
            self._take_over(process, *self._memory, message, now)
        elif kind == "memory":
            memory = FrameMemory(message["fd"], message["slots"], message["slot_bytes"])
            os.close(message["fd"])
            self._memory = memory, message["number"]
        elif kind == "opened":
            self._states.opened(now, message["fps"])
            self._notes = tuple(message["notes"])
        elif kind == "unreadable":
            self._drops[UNREADABLE] += 1
        elif kind == "closed":
            self._states.closed(now, message["text"])
            self._present = True
        elif kind == "log":
            log.log(message["level"], "%s", message["text"])
        elif kind in ("ended", "mistake"):
            self._failure = UserError(message["text"]) if kind == "mistake" else None
            self._states.end(message.get("text", f"{self._camera.name} has ended"))
            self._finished = True
            self._changed.notify_all()

    def _take_over(
        self, process: CaptureProcess, memory: FrameMemory, number: int,
        message: dict[str, Any], now: float,
    ) -> None:  # fmt: skip
        if self._waiting is not None:
            self._drops[OVERTAKEN] += 1
            self._waiting.give_back()
        skipped = message["skipped"]
        if skipped:
            self._drops[OVERTAKEN] += skipped
        self._sequence += skipped
        self._waiting = _Waiting(process, memory, number, message, self._sequence)
        self._sequence += 1
        if self._shape is not None and self._shape != message["shape"]:
            self._states.events[RESIZED] += 1
        self._shape = message["shape"]
        self._states.frame(now, Look(**message["look"]), skipped)
        self._changed.notify_all()

    def _note(self) -> None:
        """Log a change of state."""
        seen = self._states.state, self._states.reason
        if seen == self._logged:
            return
        quiet = seen[0] in ("waiting", "live", "ended")
        if self._logged is not None or seen[0] != "waiting":
            level = logging.INFO if quiet else logging.WARNING
            # Said however soon it comes again, or a log might end in a fault that is over.
            log.log(level, "camera %s: %s", *seen, extra={NEWS: True})
        self._logged = seen
