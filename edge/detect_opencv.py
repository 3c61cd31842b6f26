"""The detectors that OpenCV itself runs: YuNet in its DNN module, and its Haar cascade."""

from pathlib import Path
from typing import Literal

import cv2
import cv2.data
import numpy as np

from contract.faces import Box, Image
from edge.detect_base import LEAST_SIDE, Detection, Point, reduced_size, resize


def _detection(row: list[float], across: float, down: float) -> Detection:
    """A row of OpenCV's answer: box, five points, score; in pixels of the reduced image."""
    x, y, w, h = row[:4]
    points: tuple[Point, ...] = tuple(
        (px * across, py * down) for px, py in zip(row[4:14:2], row[5:14:2], strict=True)
    )
    return Detection(Box(x * across, y * down, w * across, h * down), min(1.0, row[14]), points)


class YuNet:
    """YuNet (Wu et al., 2023) in OpenCV's DNN module.

    An image is scaled to a longer side of `detect_size` pixels, in which faces from about ten
    pixels on are found. A detector serves one thread.
    """

    name: Literal["yunet"] = "yunet"

    def __init__(
        self,
        model: Path,
        *,
        detect_size: int,
        score_threshold: float = 0.6,
        nms_threshold: float = 0.3,
        note: str = "",
    ) -> None:
        self.note = note
        self._detect_size = detect_size
        self._input_size = (detect_size, detect_size)
        self._net = cv2.FaceDetectorYN.create(
            str(model), "", self._input_size, score_threshold, nms_threshold
        )

    def detect(self, image: Image) -> list[Detection]:
        """The faces in an image, the surest first."""
        size = reduced_size(image, self._detect_size)
        reduced = resize(image, size)
        if min(size) < LEAST_SIDE:
            right, bottom = (max(0, LEAST_SIDE - side) for side in size)
            reduced = np.asarray(
                cv2.copyMakeBorder(reduced, 0, bottom, 0, right, cv2.BORDER_CONSTANT), np.uint8
            )
        input_size = (reduced.shape[1], reduced.shape[0])
        if input_size != self._input_size:
            # It rebuilds the network's buffers: not for every frame.
            self._net.setInputSize(input_size)
            self._input_size = input_size
        found = self._net.detect(reduced)[1]
        if found is None:
            return []
        across, down = image.shape[1] / size[0], image.shape[0] / size[1]
        detections = [_detection(row, across, down) for row in found.tolist()]
        return sorted(detections, key=lambda d: -d.score)


class Haar:
    """The frontal-face cascade of Viola and Jones as OpenCV ships it.

    It looks at a grey image with a longer side of at most `detect_size` pixels and finds upright
    frontal faces from a tenth of that on. It gives no probability: a face scores 1.

    The picture is not equalised, against the custom: the cascade evens out the light in its own
    window, and on webcam clips it finds far more faces without. Coarse steps of scale with few
    neighbours find as many as fine steps with many, at a fraction of the cost.
    """

    name: Literal["haar"] = "haar"

    def __init__(self, *, detect_size: int, note: str = "") -> None:
        self.note = note
        self._detect_size = detect_size
        folder = Path(cv2.data.haarcascades)
        self._cascade = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))

    def detect(self, image: Image) -> list[Detection]:
        """The faces in an image, the largest first."""
        size = reduced_size(image, min(self._detect_size, max(image.shape[:2])))
        grey = cv2.cvtColor(resize(image, size), cv2.COLOR_BGR2GRAY)
        least = max(24, self._detect_size // 10)
        found = self._cascade.detectMultiScale(
            grey, scaleFactor=1.2, minNeighbors=3, minSize=(least, least)
        )
        across, down = image.shape[1] / size[0], image.shape[0] / size[1]
        detections = [
            Detection(Box(x * across, y * down, w * across, h * down), 1.0)
            for x, y, w, h in np.asarray(found, np.float64).reshape(-1, 4).tolist()
        ]
        return sorted(detections, key=lambda d: -d.box.w * d.box.h)
