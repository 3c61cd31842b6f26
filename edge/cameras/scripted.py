"""A camera that fails on schedule: what the tests drive, and what shows how the box takes it.

The scene is drawn or played; the faults are those of a script. Which frame comes and which fault is
on depends on the time since time zero only. So a camera that is opened again, or made anew in
another process from the same time zero, goes on where the schedule is by then.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from contract.faces import Image
from edge.cameras.base import CameraError, Granted, Recording, difference
from edge.cameras.script import Script

READ_LIMIT_S = 2.0
"""A read that got no frame for so long (or for two frames) fails, as a real device's does."""


class Scene(Protocol):
    """Where the pictures come from."""

    def open(self) -> None:
        """Get ready."""

    def frame(self, index: int) -> Image:
        """The picture for frame `index`, which never goes back."""

    def close(self) -> None:
        """Let go."""


class Looped:
    """A recording as a scene: its next picture for every frame, from the start after its end."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def open(self) -> None:
        """Start with its first picture."""
        self._recording.open()

    def frame(self, index: int) -> Image:
        """The next picture. Raises `UserError` for a file that is damaged."""
        image = self._recording.read()
        if image is None:
            self._recording.open()
            image = self._recording.read()
        if image is None:
            raise CameraError(f"{self._recording.name} has no pictures", gone=True)
        return image

    def close(self) -> None:
        """Close its file."""
        self._recording.close()


class ScriptedCamera:
    """A scene with the faults of a script, live: the newest frame, at the script's rate.

    Frames have `size` (width, height in pixels) and come `fps` times a second, which may differ
    from what was `asked` (width, height, fps). `epoch_s` is time zero of the schedule on the
    monotonic clock, which all processes share; without it, time zero is the first `open`.
    """

    live = True

    def __init__(
        self, name: str, script: Script, scene: Scene, *,
        size: tuple[int, int],
        fps: float,
        asked: tuple[int, int, float],
        epoch_s: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self.name = name
        self._script = script
        self._scene = scene
        self._epoch_s = epoch_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._size = size
        self._fps = fps
        self._asked = asked
        self._granted: Granted | None = None
        self._opened_s: float | None = None
        self._newest = -1
        self._picture: Image | None = None

    @property
    def granted(self) -> Granted | None:
        """What the script gives; None before the first successful `open`."""
        return self._granted

    def device(self) -> Path | None:
        """None: there is no node to watch."""
        return None

    def device_present(self) -> bool:
        """False while it has disappeared."""
        return self._script.active("disappear", self._now_s()) is None

    def _now_s(self) -> float:
        """Seconds since time zero."""
        return 0.0 if self._epoch_s is None else self._monotonic() - self._epoch_s

    def _sleep_until(self, t_s: float) -> None:
        wait = t_s - self._now_s()
        if wait > 0:
            self._sleep(wait)

    def open(self) -> None:
        """Open the scene. Raises `CameraError` while the device has disappeared."""
        self.close()
        if self._epoch_s is None:
            self._epoch_s = self._monotonic()
        stuck = self._script.ends_s("stuck_open", self._now_s())
        if stuck is not None:
            self._sleep_until(stuck)
        if not self.device_present():
            raise CameraError(f"{self.name} is not there: plug the camera in", gone=True)
        self._scene.open()
        notes = difference(self._asked, *self._size, self._fps)
        self._granted = Granted(*self._size, self._fps, "scripted", notes)
        now = self._now_s()
        self._opened_s = now
        # Frames from before the opening are not handed out.
        self._newest = math.ceil(now * self._fps) - 1
        self._picture = None

    def read(self) -> Image:
        """The next frame when it is due, or the newest at once if one is due already.

        Raises `CameraError` when the device disappeared since `open`, and when no frame came for
        `READ_LIMIT_S`.
        """
        if self._opened_s is None:
            raise CameraError(f"{self.name} is not open", gone=True)
        patience = max(READ_LIMIT_S, 2 / self._fps)
        limit = self._now_s() + patience
        while True:
            self._stop_if_gone(self._opened_s)
            index = max(math.floor(self._now_s() * self._fps), self._newest + 1)
            due = index / self._fps
            if due > limit:
                self._sleep_until(limit)
                raise CameraError(f"{self.name} gives no frames: check its cable")
            self._sleep_until(due)
            stuck = self._script.ends_s("stuck", due)
            if stuck is not None:
                self._sleep_until(stuck)
                limit = stuck + patience
                self._newest = max(index, math.ceil(stuck * self._fps) - 1)
                continue
            self._newest = index
            if self._comes(index, due):
                self._stop_if_gone(self._opened_s)
                return self._show(index, due)

    def _stop_if_gone(self, opened_s: float) -> None:
        # Even if it is back by now: what was opened was the device before it disappeared.
        began = self._script.began_s("disappear", self._now_s())
        if began is not None and began > opened_s:
            self.close()
            raise CameraError(f"{self.name} is gone: plug the camera in again", gone=True)

    def _comes(self, index: int, due: float) -> bool:
        """Is there a frame at all?"""
        if self._script.active("drop", due):
            return False
        slow = self._script.active("slow", due)
        if slow is None or slow.fps is None or slow.fps >= self._fps:
            return True
        share = slow.fps / self._fps
        return math.floor(index * share) != math.floor((index - 1) * share)

    def _show(self, index: int, due: float) -> Image:
        """The picture of frame `index` with the faults that change how it looks."""
        script = self._script
        before = self._picture
        if before is None or not script.active("freeze", due):
            picture = self._scene.frame(index)
            if picture.shape[1::-1] != self._size:
                picture = np.asarray(cv2.resize(picture, self._size), np.uint8)
            self._picture = picture
        shown: Image = np.array(self._picture, np.uint8)
        if before is not None and script.active("tear", due):
            half = shown.shape[0] // 2
            shown[:half] = before[:half]
        if script.active("black", due):
            # A covered lens is not quite black, and no two of its frames are the same.
            shown = np.random.default_rng(index).integers(0, 3, shown.shape, np.uint8)
        if script.active("wrong_colour", due):
            shown = np.ascontiguousarray(shown[..., ::-1])
        other = script.active("resolution", due)
        if other is not None and other.width and other.height:
            shown = np.asarray(cv2.resize(shown, (other.width, other.height)), np.uint8)
        return shown

    def close(self) -> None:
        """Let go of the scene; time goes on."""
        if self._opened_s is not None:
            self._opened_s = None
            self._scene.close()
