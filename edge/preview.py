"""The picture a viewer sees: faces pixelated unless the raw view is on, boxes and labels drawn."""

import cv2
import numpy as np

from contract.expressions import UNCERTAIN
from contract.faces import Box, Image
from contract.telemetry import FaceResult, FrameResult

BLOCKS = 7
"""Cells a pixelated face is wide: too few to tell who it is."""
MARGIN = 0.3
"""Pixelated beyond the box, as a share of it, since detectors cut off hair and chin."""
MEMORY_S = 2.0
"""How long the place of a face that is no longer detected stays pixelated."""
_COLOURS = {"certain": (96, 200, 120), UNCERTAIN: (160, 160, 160)}
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def _clip(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    left, top = max(0, int(box.x - box.w * MARGIN)), max(0, int(box.y - box.h * MARGIN))
    right = min(width, int(box.x + box.w * (1 + MARGIN)) + 1)
    bottom = min(height, int(box.y + box.h * (1 + MARGIN)) + 1)
    return left, top, right, bottom


def pixelate(image: Image, box: Box) -> None:
    """Replace the surroundings of `box` by a coarse grid of its mean colours, in place."""
    left, top, right, bottom = _clip(box, image.shape[1], image.shape[0])
    if right - left < 1 or bottom - top < 1:
        return
    region = image[top:bottom, left:right]
    cell = max(1, round(max(region.shape[:2]) / BLOCKS))
    grid = (max(1, region.shape[1] // cell), max(1, region.shape[0] // cell))
    small = cv2.resize(region, grid, interpolation=cv2.INTER_AREA)
    size = (region.shape[1], region.shape[0])
    image[top:bottom, left:right] = cv2.resize(small, size, interpolation=cv2.INTER_NEAREST)


def _caption(image: Image, face: FaceResult) -> None:
    x, y, w, h = (round(v) for v in face.box)
    colour = _COLOURS.get(face.label, _COLOURS["certain"])
    cv2.rectangle(image, (x, y), (x + w, y + h), colour, 2, cv2.LINE_AA)
    text = f"Person {face.track}: {face.label}"
    if face.label != UNCERTAIN:
        text += f" {face.confidence:.0%}"
    (width, height), base = cv2.getTextSize(text, _FONT, 0.5, 1)
    left = min(max(0, x), max(0, image.shape[1] - width - 8))
    top = y - height - base - 6 if y > height + base + 6 else y + h
    cv2.rectangle(image, (left, top), (left + width + 8, top + height + base + 6), colour, -1)
    place = (left + 4, top + height + 3)
    cv2.putText(image, text, place, _FONT, 0.5, (20, 20, 20), 1, cv2.LINE_AA)


class Preview:
    """Draws previews; remembers where faces were, so that one missed frame does not show one."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[Box, int]] = {}

    def note(self, result: FrameResult) -> None:
        """Remember where a frame's faces are; call it for every frame, drawn or not."""
        kept = {
            track: (box, seen)
            for track, (box, seen) in self._places.items()
            if result.mono_ns - seen <= MEMORY_S * 1e9
        }
        kept.update((face.track, (Box(*face.box), result.mono_ns)) for face in result.faces)
        self._places = kept  # a new dict: another thread may be drawing from the old one

    def draw(self, image: Image, result: FrameResult, *, raw: bool) -> bytes:
        """A JPEG of the frame; with `raw` the faces are shown as they are."""
        canvas = np.array(image)
        if not raw:
            for box, _ in self._places.values():
                pixelate(canvas, box)
        for face in result.faces:
            _caption(canvas, face)
        done, encoded = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 75])
        if not done:
            raise ValueError(f"a frame of shape {image.shape} cannot be encoded as JPEG")
        return encoded.tobytes()
