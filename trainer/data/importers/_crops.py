"""Faces cut out of photographs, for data sets that come as photographs with boxes."""

import math
from pathlib import Path

import cv2

from contract.errors import UserError
from contract.faces import Box, CropGeometry, Image, read_image, square_crop
from trainer.data.importers._common import make_folder

FRAME = CropGeometry(scale=1.0)
"""A detector's box → a training face: the square on its longer side, the centre kept."""

SHARPNESS_SIZE = 112
_JPEG_QUALITY = 95  # the photographs are JPEG themselves; a lossless copy would be ten times larger


def photograph(path: Path, place: str) -> Image:
    """A photograph. Raises `UserError` beginning with `place` if it is missing or damaged."""
    if not path.is_file():
        raise UserError(f"{place}: no image at {path}; unpack the images again")
    image = read_image(path)
    if image is None:
        raise UserError(f"{place}: {path} cannot be decoded as an image; restore the file")
    return image


def fault_of(photo: Image, box: Box) -> str | None:
    """Why a box cannot be cut out of a photograph, or None where it can."""
    height, width = photo.shape[:2]
    if not all(map(math.isfinite, (box.x, box.y, box.w, box.h))) or min(box.w, box.h) < 1:
        return "empty face box"
    if box.x >= width or box.y >= height or box.x + box.w <= 0 or box.y + box.h <= 0:
        return "face box outside its photograph"
    if max(box.w, box.h) > 2 * max(height, width):
        return "face box larger than its photograph"
    return None


def save_face(photo: Image, box: Box, path: Path) -> Image:
    """Cut out the square around a box and keep it as a JPEG; returns the square."""
    face = square_crop(photo, box, FRAME)
    make_folder(path.parent)
    _, content = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    # Not atomic: no manifest names the file before all of them are written.
    path.write_bytes(content.tobytes())
    return face


def sharpness(face: Image) -> float:
    """Variance of the Laplacian of a face in grey at 112×112 pixels (Pech-Pacheco et al., 2000).

    The common size makes faces of all sizes comparable, and one that had to be enlarged blurred.
    """
    grey = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY) if face.ndim == 3 else face
    size = (SHARPNESS_SIZE, SHARPNESS_SIZE)
    method = cv2.INTER_AREA if grey.shape[0] >= SHARPNESS_SIZE else cv2.INTER_LINEAR
    grey = cv2.resize(grey, size, interpolation=method)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())
