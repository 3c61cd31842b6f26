"""What every camera is: something that can be opened, read and closed, and may fail meanwhile."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

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


@dataclass(frozen=True, slots=True)
class Granted:
    """What an opened camera really gives, as read back from it: pixels and frames per second.

    `format` is how frames come over the wire (`MJPG`); `notes` has one line for everything that
    was asked for and is not so.
    """

    width: int
    height: int
    fps: float
    format: str
    notes: tuple[str, ...] = ()


def difference(
    asked: tuple[int, int, float], width: int, height: int, fps: float
) -> tuple[str, ...]:
    """A line saying what was `asked` (width, height, fps) and what came instead, or nothing.

    An unknown rate (0) or one within 1 % is no difference: 29.97 is what 30 means.
    """
    same_rate = fps <= 0 or abs(fps - asked[2]) <= 0.01 * asked[2]
    if (width, height) == asked[:2] and same_rate:
        return ()
    rate = f" at {fps:.4g}" if fps > 0 else ""
    return (f"asked {asked[0]}×{asked[1]} at {asked[2]:.4g}, got {width}×{height}{rate}",)


@runtime_checkable
class Device(Protocol):
    """What a camera that can be unplugged knows besides being a `Camera`."""

    @property
    def granted(self) -> Granted | None:
        """What it gives; None before the first successful `open`."""

    def device(self) -> Path | None:
        """The path that appears when it is plugged in, where that is known beforehand."""

    def device_present(self) -> bool:
        """Is it there to be opened? Opens nothing: it may be asked many times a second."""
