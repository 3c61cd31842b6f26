"""When the detector looks: on every frame, or seldom while the tracker follows every face well."""

import math
from collections.abc import Sequence
from typing import Literal

from contract.faces import Box
from edge.track import Track

SURE_SCORE = 0.75
"""A face under this score is looked for again in the next frame."""
MOST_MOVE = 0.2
"""A face expected to have moved by more than this, in its own longer sides, is looked for again."""


def _move(old: Box, new: Box) -> float:
    return math.hypot(new.x - old.x, new.y - old.y) / max(old.w, old.h, 1e-9)


class DetectorSchedule:
    """Says of each frame whether it is to be searched; time comes with the frames.

    `every`: all of them. `adaptive`: a frame is searched when the last search is `interval_s` old
    or more; and at once when there is no face, when one was missed or was less sure than
    `SURE_SCORE` in the last search, when one has moved far, when frames change their size, or when
    the clock went back. So a face that comes into a picture that holds another is found within
    `interval_s`.
    """

    def __init__(
        self, kind: Literal["every", "adaptive"] = "every", interval_s: float = 0.2
    ) -> None:
        self._kind = kind
        self._interval_ns = round(interval_s * 1e9)
        self._searched_ns: int | None = None
        self._size: tuple[int, int] | None = None
        self._found: dict[int, Box] = {}
        self._doubtful = True

    def due(self, mono_ns: int, size: tuple[int, int], expected: Sequence[Track]) -> bool:
        """Whether to search this frame of `size` in which these tracks are expected."""
        if self._kind == "every" or self._searched_ns is None or self._doubtful:
            return True
        passed = mono_ns - self._searched_ns
        return (
            not 0 <= passed < self._interval_ns
            or size != self._size
            or any(_move(self._found.get(t.id, t.box), t.box) > MOST_MOVE for t in expected)
        )

    def searched(self, mono_ns: int, size: tuple[int, int], found: Sequence[Track]) -> None:
        """A frame of `size` was searched, and these tracks are in view after it."""
        self._searched_ns, self._size = mono_ns, size
        self._found = {track.id: track.box for track in found}
        self._doubtful = not found or any(
            not track.detected or track.score < SURE_SCORE for track in found
        )
