"""What every camera is: something that can be opened, read and closed, and may fail meanwhile."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from contract.faces import Image


class CameraError(Exception):
    """A fault of a camera, in one line without credentials. Trying again later may help.

    `gone` says that another read cannot succeed: the camera must be opened again.
    """

    def __init__(self, message: str, *, gone: bool = False) -> None:
        super().__init__(" ".join(message.split()))
        self.gone = gone


@dataclass(frozen=True)
class Clock:
    """The two clocks: monotonic for logic, UTC for output, both in nanoseconds."""

    mono_ns: Callable[[], int] = time.monotonic_ns
    utc_ns: Callable[[], int] = time.time_ns


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a camera, stamped at the return of its `read()`.

    `image` is uint8 `H×W×3` BGR. `sequence` counts the frames read from 0, those that are dropped
    later included, so a gap shows a drop.
    """

    image: Image
    mono_ns: int
    utc_ns: int
    sequence: int


class Camera(Protocol):
    """A source of frames. Used by one thread at a time; `open` after `close` starts over."""

    @property
    def live(self) -> bool:
        """True: only the newest frame counts, and absence is waited for. False: every frame."""

    @property
    def name(self) -> str:
        """What to call it in a log: never holds credentials."""

    def open(self) -> None:
        """Get ready to read. Raises `CameraError`; trying again may help."""

    def read(self) -> Image | None:
        """The next frame, uint8 `H×W×3` BGR, or None at the end of what was recorded.

        Raises `CameraError` for a fault, and `UserError` for a file that is damaged.
        """

    def close(self) -> None:
        """Let go of the device or file; safe to call twice."""


class Recording(Camera, Protocol):
    """A camera that could be read faster than its frames were, or would be, taken."""

    @property
    def interval_s(self) -> float:
        """Seconds between the frame read last and the one before it, as they were recorded."""
