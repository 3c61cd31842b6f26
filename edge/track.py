"""Which face is which from frame to frame: boxes are matched by overlap with where each was headed.

In the spirit of SORT (Bewley et al., 2016), with a plain constant-velocity prediction in place of a
Kalman filter, and with every duration in seconds instead of frames.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contract.faces import Box
from edge.detect_base import Detection, Point


@dataclass(frozen=True, slots=True)
class Track:
    """A face that is followed; `box`, `score` and `landmarks` as of its last detection.

    `detected` is False while the face is shown without having been seen in this very frame. In a
    frame that was not searched, `box` and `landmarks` are where they are expected to be.
    """

    id: int
    box: Box
    score: float
    detected: bool
    landmarks: tuple[Point, ...] = ()


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0…1."""
    wide = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    high = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    if wide <= 0 or high <= 0:
        return 0.0
    both = wide * high
    return both / (a.w * a.h + b.w * b.h - both)


def _distance(a: Box, b: Box) -> float:
    """Between the centres of two boxes, in mean sides of the two."""
    apart = math.hypot(a.x + a.w / 2 - b.x - b.w / 2, a.y + a.h / 2 - b.y - b.h / 2)
    return apart * 4 / max(a.w + a.h + b.w + b.h, 1e-9)


def _alike(a: Box, b: Box) -> bool:
    """Whether one face could have either size: areas within a factor of 3."""
    small, large = sorted((a.w * a.h, b.w * b.h))
    return large <= 3 * small


class _Face:
    """A track in the making: its last detection, when that was, and how it moved."""

    def __init__(self, number: int, detection: Detection, mono_ns: int) -> None:
        self.number = number
        self.box = detection.box
        self.score = detection.score
        self.landmarks = detection.landmarks
        self.born_ns = self.seen_ns = mono_ns
        self.trusted_ns = mono_ns
        """Until then it was seen, or followed through frames that were not searched."""
        self._velocity = (0.0, 0.0)

    def unseen_s(self, mono_ns: int) -> float:
        return (mono_ns - self.trusted_ns) / 1e9

    def moved(self, mono_ns: int, horizon_s: float) -> Point:
        """How far the face should have gone since; movement is believed in for `horizon_s` only."""
        ahead = min((mono_ns - self.seen_ns) / 1e9, horizon_s)
        return self._velocity[0] * ahead, self._velocity[1] * ahead

    def expected(self, mono_ns: int, horizon_s: float) -> Box:
        """Where the face should be now."""
        right, down = self.moved(mono_ns, horizon_s)
        return Box(self.box.x + right, self.box.y + down, self.box.w, self.box.h)

    def see(self, detection: Detection, mono_ns: int, tau_s: float) -> None:
        """Take a detection of this face; velocity follows with the time constant `tau_s`."""
        passed = (mono_ns - self.seen_ns) / 1e9
        box, old = detection.box, self.box
        if passed > 0:
            moved = (
                (box.x + box.w / 2 - old.x - old.w / 2) / passed,
                (box.y + box.h / 2 - old.y - old.h / 2) / passed,
            )
            share = 1 - math.exp(-passed / tau_s)
            vx, vy = self._velocity
            self._velocity = (vx + share * (moved[0] - vx), vy + share * (moved[1] - vy))
        self.box, self.score, self.landmarks = box, detection.score, detection.landmarks
        self.seen_ns = self.trusted_ns = mono_ns


def _place(detection: Detection) -> tuple[float, ...]:
    box = detection.box
    return (box.x, box.y, box.w, box.h, detection.score)


class Tracker:
    """Gives faces ids that stay with them. An id is never used for a second face.

    A detection belongs to the track whose expected box overlaps it by `iou_threshold` or more, best
    pairs first; what is left over, to the nearest track of a like size within `reach` (in sides of
    a face), for fast movement; what is left then begins a track. While it is not seen, a track is
    shown for `coast_s` more, if it was followed for that long before (a hand taken for a face in
    one frame is not); not seen for more than `max_age_s`, it ends, and the same face begins
    another.
    """

    def __init__(
        self,
        *,
        iou_threshold: float = 0.3,
        reach: float = 0.8,
        max_age_s: float = 1.0,
        coast_s: float = 0.15,
        velocity_tau_s: float = 0.15,
    ) -> None:
        self._iou_threshold = iou_threshold
        self._reach = reach
        self._max_age_s = max_age_s
        self._coast_s = coast_s
        self._velocity_tau_s = velocity_tau_s
        self._faces: list[_Face] = []
        self._updated_ns = 0
        self._next = 1

    def update(self, detections: Sequence[Detection], mono_ns: int) -> list[Track]:
        """The faces in view after a frame's detections, by id.

        `mono_ns` is the frame's monotonic time and must not go back. The order of `detections`
        makes no difference.
        """
        self._updated_ns = mono_ns
        self._faces = [f for f in self._faces if f.unseen_s(mono_ns) <= self._max_age_s]
        # A fixed order makes ids independent of the order in which a detector names faces.
        waiting = sorted(detections, key=_place)
        expected = [f.expected(mono_ns, self._coast_s) for f in self._faces]
        free = set(range(len(self._faces)))
        for cost, limit in ((self._gap, 1 - self._iou_threshold), (self._far, self._reach)):
            pairs = sorted(
                (cost(expected[f], detection.box), self._faces[f].number, f, d)
                for f in free
                for d, detection in enumerate(waiting)
            )
            taken: set[int] = set()
            for value, _, f, d in pairs:
                if value <= limit and f in free and d not in taken:
                    self._faces[f].see(waiting[d], mono_ns, self._velocity_tau_s)
                    free.remove(f)
                    taken.add(d)
            waiting = [detection for d, detection in enumerate(waiting) if d not in taken]
        for detection in waiting:
            self._faces.append(_Face(self._next, detection, mono_ns))
            self._next += 1
        unseen = {self._faces[f].number for f in free}
        return [
            Track(face.number, face.box, face.score, face.number not in unseen, face.landmarks)
            for face in self._faces
            if face.number not in unseen or self._coasts(face, mono_ns)
        ]

    def follow(self, mono_ns: int) -> list[Track]:
        """The faces in view in a frame that is not searched: `predict`, and it is believed.

        Nobody looked, so none of them counts as unseen meanwhile.
        """
        for face in self._followed():
            face.trusted_ns = mono_ns
        return self.predict(mono_ns)

    def _followed(self) -> list[_Face]:
        return [face for face in self._faces if face.seen_ns == self._updated_ns]

    def predict(self, mono_ns: int) -> list[Track]:
        """Where the faces that were seen in the last update should be, at a constant velocity."""
        tracks = []
        for face in self._followed():
            right, down = face.moved(mono_ns, self._coast_s)
            points = tuple((x + right, y + down) for x, y in face.landmarks)
            box = face.expected(mono_ns, self._coast_s)
            tracks.append(Track(face.number, box, face.score, False, points))
        return tracks

    def alive(self) -> set[int]:
        """The ids that have not ended, as of the last update; those not shown are among them."""
        return {face.number for face in self._faces}

    def _coasts(self, face: _Face, mono_ns: int) -> bool:
        followed_s = (face.seen_ns - face.born_ns) / 1e9
        return followed_s >= self._coast_s >= face.unseen_s(mono_ns)

    @staticmethod
    def _gap(expected: Box, seen: Box) -> float:
        return 1 - iou(expected, seen)

    @staticmethod
    def _far(expected: Box, seen: Box) -> float:
        return _distance(expected, seen) if _alike(expected, seen) else math.inf
