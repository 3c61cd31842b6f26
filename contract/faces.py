"""The face crop: the only preprocessing code there is.

The trainer's cache, the calibrator, `fer-edge evaluate` and the live loop all call it, so a face is
prepared the same way wherever it is seen. Normalisation is not here: it is inside the exported
graph, which takes the uint8 arrays made below.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

# What OpenCV would print about a damaged image is said by whoever reads it, in one line of its own.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

Image = NDArray[np.uint8]
"""`H×W` grey or `H×W×3` BGR, as OpenCV reads it."""


@dataclass(frozen=True, slots=True)
class Box:
    """A face in an image: left, top, width and height in pixels, not clipped to the image."""

    x: float
    y: float
    w: float
    h: float


class CropGeometry(BaseModel):
    """How a detector's box maps to the square the model was trained on (measured, not guessed)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scale: float = Field(gt=0.2, lt=5, description="Side of the square ÷ longer side of the box.")
    shift_x: float = Field(
        0.0, ge=-1, le=1, description="Centre of the square − centre of the box, in box widths."
    )
    shift_y: float = Field(
        0.0, ge=-1, le=1, description="Centre of the square − centre of the box, in box heights."
    )


class FaceInput(BaseModel):
    """What a model wants to see. Part of a bundle; everything `prepare_*` needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(ge=16, le=512, description="Side of the square input in pixels.")
    colour: Literal["grey", "rgb"] = Field("grey", description="Channels of the input.")
    clahe: bool = Field(False, description="Equalise the luminance locally before resizing.")
    clahe_clip: float = Field(2.0, gt=0, le=40, description="OpenCV's clip limit for CLAHE.")
    clahe_grid: int = Field(8, ge=1, le=32, description="CLAHE tiles per side.")
    brighten_to: float = Field(
        0.0, ge=0, le=255,
        description="A face darker than this on average is brightened to it; 0: never.",
    )  # fmt: skip
    crop: dict[str, CropGeometry] = Field(
        default_factory=dict, description="Box → square mapping by detector (yunet, haar)."
    )

    @property
    def channels(self) -> int:
        """Channels of the prepared array: 1 for grey, 3 for rgb."""
        return 1 if self.colour == "grey" else 3


def read_image(path: Path) -> Image | None:
    """An image file as 8-bit grey or BGR, or None where there is none that can be decoded.

    Turned upright as its EXIF data say; transparency is dropped.
    """
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_ANYCOLOR)
    except (OSError, cv2.error):  # no such file; no bytes at all
        return None
    return None if image is None else np.asarray(image, np.uint8)


def square_crop(image: Image, box: Box, geometry: CropGeometry) -> Image:
    """The square around `box` as `geometry` maps it; beyond the image its edge is repeated.

    Always returns a square of at least one pixel a side, whatever the box.
    """
    side = max(1, round(geometry.scale * max(box.w, box.h)))
    centre_x = box.x + box.w * (0.5 + geometry.shift_x)
    centre_y = box.y + box.h * (0.5 + geometry.shift_y)
    left, top = round(centre_x - side / 2), round(centre_y - side / 2)
    height, width = image.shape[:2]
    # A box wholly outside still yields the nearest pixels rather than an empty slice.
    x0, x1 = min(max(left, 0), width - 1), max(min(left + side, width), 1)
    y0, y1 = min(max(top, 0), height - 1), max(min(top + side, height), 1)
    inside = image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    if inside.shape[0] == side and inside.shape[1] == side:
        return inside
    before_x = min(max(x0 - left, 0), side - inside.shape[1])
    before_y = min(max(y0 - top, 0), side - inside.shape[0])
    padded = cv2.copyMakeBorder(
        inside,
        before_y,
        side - inside.shape[0] - before_y,
        before_x,
        side - inside.shape[1] - before_x,
        cv2.BORDER_REPLICATE,
    )
    return np.asarray(padded, np.uint8)


def _equalise(image: Image, face: FaceInput) -> Image:
    clahe = cv2.createCLAHE(face.clahe_clip, (face.clahe_grid, face.clahe_grid))
    if image.ndim == 2:
        return np.asarray(clahe.apply(image), np.uint8)
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
    lab[..., 0] = clahe.apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2BGR), np.uint8)


def _brightened(image: Image, least: float) -> Image:
    """The image, or the image times what lifts its mean to `least`, clipped at white."""
    mean = float(image.mean())
    if not 0 < mean < least:
        return image
    return np.asarray(cv2.convertScaleAbs(image, alpha=least / mean), np.uint8)


def prepare_face(image: Image, face: FaceInput) -> Image:
    """An image that is the face → the model's input, `size×size×{1|3}` uint8 (rgb order).

    A non-square image is stretched. Shrinking averages areas, so no fine detail aliases; growing is
    bilinear. A dark face is brightened last, when its noise has been averaged as well.
    """
    if face.colour == "grey" and image.ndim == 3:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
    if face.clahe:
        image = _equalise(image, face)
    size = (face.size, face.size)
    if image.shape[:2] != size:
        shrinks = image.shape[0] >= face.size and image.shape[1] >= face.size
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)
    image = _brightened(image, face.brighten_to)
    if face.colour == "grey":
        return image[..., None]
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def prepare_detection(image: Image, box: Box, face: FaceInput, detector: str) -> Image:
    """A detector's box in a frame → the model's input, `size×size×{1|3}` uint8.

    Raises `KeyError` for a detector whose geometry was not measured for this model.
    """
    return prepare_face(square_crop(image, box, face.crop[detector]), face)
