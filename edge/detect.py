"""Faces in a frame: YuNet, or the Haar cascade that comes with OpenCV."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import cv2
import cv2.data
import numpy as np

from contract.errors import UserError
from contract.faces import Box, Image
from edge.detector_files import YUNET_FILE, fault_of, find_yunet, model_folders

YUNET_SIZE = 320
HAAR_SIZE = 480
# For strips of 32 rows or less OpenCV's YuNet answers with boxes of infinite size.
LEAST_SIDE = 64

DetectorKind = Literal["auto", "yunet", "haar"]


@dataclass(frozen=True, slots=True)
class Detection:
    """A face in an image, and how sure the detector is (0…1)."""

    box: Box
    score: float


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


def _reduced_size(image: Image, longer_side: int) -> tuple[int, int]:
    """Width and height of the image at its own aspect with this longer side."""
    height, width = image.shape[:2]
    scale = longer_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resize(image: Image, size: tuple[int, int]) -> Image:
    if (image.shape[1], image.shape[0]) == size:
        return image
    shrinks = size[0] <= image.shape[1] and size[1] <= image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


class YuNet:
    """YuNet (Wu et al., 2023) in OpenCV's DNN module.

    An image is scaled to a longer side of `detect_size` pixels, in which faces from about ten
    pixels on are found. A detector serves one thread.
    """

    name: Literal["yunet"] = "yunet"
    note = ""

    def __init__(
        self,
        model: Path,
        *,
        detect_size: int = YUNET_SIZE,
        score_threshold: float = 0.6,
        nms_threshold: float = 0.3,
    ) -> None:
        self._detect_size = detect_size
        self._input_size = (detect_size, detect_size)
        self._net = cv2.FaceDetectorYN.create(
            str(model), "", self._input_size, score_threshold, nms_threshold
        )

    def detect(self, image: Image) -> list[Detection]:
        """The faces in an image, the surest first."""
        size = _reduced_size(image, self._detect_size)
        reduced = _resize(image, size)
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
        detections = [
            Detection(Box(x * across, y * down, w * across, h * down), min(1.0, score))
            for x, y, w, h, score in found[:, (0, 1, 2, 3, 14)].tolist()
        ]
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

    def __init__(self, *, detect_size: int = HAAR_SIZE, note: str = "") -> None:
        self.note = note
        self._detect_size = detect_size
        folder = Path(cv2.data.haarcascades)
        self._cascade = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))

    def detect(self, image: Image) -> list[Detection]:
        """The faces in an image, the largest first."""
        size = _reduced_size(image, min(self._detect_size, max(image.shape[:2])))
        grey = cv2.cvtColor(_resize(image, size), cv2.COLOR_BGR2GRAY)
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


def make_detector(
    kind: DetectorKind = "auto",
    *,
    folders: Sequence[Path] | None = None,
    detect_size: int | None = None,
    score_threshold: float = 0.6,
) -> Detector:
    """A detector of this kind; `auto` is YuNet if its pinned file is at hand, otherwise Haar.

    `detect_size` is the longer side, in pixels, at which a frame is searched (default: 320 for
    YuNet, 480 for Haar); `score_threshold` is YuNet's. `folders` are searched for the file
    (default: `model_folders()`). The `note` of a Haar cascade that stands in says why.

    Raises `UserError` if `yunet` is demanded and cannot be had.
    """
    if kind == "haar":
        return Haar(detect_size=detect_size or HAAR_SIZE)
    searched = model_folders() if folders is None else tuple(folders)
    model = find_yunet(searched)
    if model is None:
        places = " or ".join(str(folder) for folder in searched)
        fault = f"no {YUNET_FILE} in {places}"
    else:
        fault = fault_of(model)
    if model is not None and not fault:
        return YuNet(model, detect_size=detect_size or YUNET_SIZE, score_threshold=score_threshold)
    if kind == "yunet":
        raise UserError(f"detector yunet: {fault}; get the file or use the detector haar")
    return Haar(
        detect_size=detect_size or HAAR_SIZE, note=f"Haar cascade instead of YuNet: {fault}"
    )
