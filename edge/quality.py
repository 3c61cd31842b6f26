"""Whether a face is good enough to judge; if not, the label is `low_quality` and not a guess."""

import math
from collections.abc import Sequence

import cv2
import cv2.typing
import numpy as np

from contract.faces import Box, Image
from edge.detect_base import Point
from firmware_config.profile import QualityConfig

SIDE = 48
"""Pixels a side at which a face is looked at: what is finer the model does not see either."""
MARGIN = 0.1
"""Left out on each side of the box: hair and background are no part of the face."""


def _spread(values: cv2.typing.MatLike) -> float:
    return float(cv2.meanStdDev(values)[1][0, 0])


def sharpness(grey: Image) -> float:
    """Detail over contrast: the spread of the Laplacian over that of the pixels themselves.

    It falls with blur and hardly changes with light or contrast. 0 for a plain image.
    """
    spread = _spread(grey)
    return _spread(cv2.Laplacian(grey, cv2.CV_16S)) / spread if spread >= 1 else 0.0


def turn(landmarks: Sequence[Point]) -> float:
    """How far the nose tip is off the middle of the eyes, along the line between the eyes.

    In distances between the eyes: 0 for a frontal face, 0.5 where the nose is below an eye.
    `landmarks` are those of `edge.detect_base.Detection`; infinite where the eyes coincide.
    """
    (rx, ry), (lx, ly), (nx, ny) = landmarks[:3]
    across, down = lx - rx, ly - ry
    apart = across * across + down * down
    if apart == 0:
        return math.inf
    return abs(((nx - (rx + lx) / 2) * across + (ny - (ry + ly) / 2) * down) / apart)


class QualityGate:
    """Judges faces by a profile's bounds. Without state: each frame on its own."""

    def __init__(self, config: QualityConfig) -> None:
        self._config = config

    def judge(self, image: Image, box: Box, landmarks: Sequence[Point] = ()) -> str:
        """Why the face in `box` of a frame cannot be judged, or an empty string if it can.

        One of "too small", "turned away", "too dark", "too bright", "blurred". `image` is
        uint8 `H×W×3` BGR; without `landmarks` nothing is said about the pose.
        """
        config = self._config
        if not config.enabled:
            return ""
        if min(box.w, box.h) < config.least_side:
            return "too small"
        if landmarks and turn(landmarks) > config.most_turn:
            return "turned away"
        height, width = image.shape[:2]
        left, right = box.x + MARGIN * box.w, box.x + (1 - MARGIN) * box.w
        top, bottom = box.y + MARGIN * box.h, box.y + (1 - MARGIN) * box.h
        part = image[
            max(0, round(top)) : min(height, round(bottom)),
            max(0, round(left)) : min(width, round(right)),
        ]
        if part.shape[0] < 2 or part.shape[1] < 2:
            return "too small"  # What is left of it inside the picture.
        grey = np.asarray(cv2.cvtColor(_reduced(part), cv2.COLOR_BGR2GRAY), np.uint8)
        light = cv2.mean(grey)[0]
        if light < config.least_light:
            return "too dark"
        if light > config.most_light:
            return "too bright"
        return "blurred" if sharpness(grey) < config.least_sharpness else ""


def _reduced(part: Image) -> Image:
    """The face at `SIDE` pixels a side, areas averaged where that is cheap."""
    while min(part.shape[:2]) >= 2 * SIDE:
        half = (part.shape[1] // 2, part.shape[0] // 2)
        part = np.asarray(cv2.resize(part, half, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), np.uint8)
