"""A recording played at its own rate, as if it happened now."""

import time
from collections.abc import Callable

from contract.faces import Image
from edge.cameras.base import Recording


class Paced:
    """A recording whose `read` returns no sooner than its frame is due.

    `interval_s` overrides the recording's own. A reader that falls behind by more than a frame
    goes on from there: frames are never handed out in a burst to catch up.
    """

    def __init__(
        self,
        camera: Recording,
        *,
        interval_s: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._camera = camera
        self._interval_s = interval_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._due_s: float | None = None

    @property
    def live(self) -> bool:
        """As the recording says."""
        return self._camera.live

    @property
    def name(self) -> str:
        """As the recording says."""
        return self._camera.name

    @property
    def interval_s(self) -> float:
        """Seconds between frames."""
        return self._interval_s or self._camera.interval_s

    def open(self) -> None:
        """Open the recording; its first frame is due at once."""
        self._camera.open()
        self._due_s = None

    def read(self) -> Image | None:
        """The next frame, when it is due. It is decoded before the wait, so it comes on time."""
        image = self._camera.read()
        if image is None:
            return None
        now = self._monotonic()
        interval = self.interval_s
        due = now if self._due_s is None else self._due_s + interval
        if now > due + interval:
            due = now
        if due > now:
            self._sleep(due - now)
        self._due_s = due
        return image

    def close(self) -> None:
        """Close the recording."""
        self._camera.close()
