"""What every face detector is and shares: a detection, the interface, and the scaled-down frame."""

from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np

from contract.faces import Box, Image

# For strips of 32 rows or less OpenCV's YuNet answers with boxes of infinite size.
LEAST_SIDE = 64

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Detection:
    """A face in an image, and how sure the detector is (0…1).

    `landmarks` are, in the image's pixels, the face's own right eye, left eye, nose tip and right
    and left corner of the mouth; empty from a detector that gives none.
    """

    box: Box
    score: float
    landmarks: tuple[Point, ...] = ()


class Detector(Protocol):
    """Finds faces. Each has its own idea of a box; a bundle's crop has a geometry for each."""

    @property
    def name(self) -> Literal["yunet", "haar"]:
        """The key of this detector's geometry in a bundle."""

    @property
    def note(self) -> str:
        """Why this detector and not a better one, in one line; empty if there is nothing to say."""

    def detect(self, image: Image) -> list[Detection]:
        """The faces in a uint8 `H×W×3` BGR image, boxes in its pixels, the surest first."""


def reduced_size(image: Image, longer_side: int) -> tuple[int, int]:
    """Width and height of the image at its own aspect with this longer side."""
    height, width = image.shape[:2]
    scale = longer_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize(image: Image, size: tuple[int, int]) -> Image:
    """The image at `size` (width, height): areas are averaged where it shrinks.

    It is halved as long as that does not overshoot: OpenCV averages 2×2 pixels many times quicker
    than areas of any other size.
    """
    while image.shape[1] >= 2 * size[0] and image.shape[0] >= 2 * size[1]:
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
    if (image.shape[1], image.shape[0]) == size:
        return image
    shrinks = size[0] <= image.shape[1] and size[1] <= image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)
