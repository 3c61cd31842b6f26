"""The picture of a built session before the camera spoils it: a room, and a face in it."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from contract.faces import Image

PATCH_PX = 256
MARGIN = 0.25
"""How far a face is continued beyond its image, in its sides, while it fades into the room."""
_FACE_PX = round(PATCH_PX / (1 + 2 * MARGIN))


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a face is: its centre and side in pixels of the frame, its tilt in degrees."""

    x: float
    y: float
    side: float
    tilt: float = 0.0


def room(rng: np.random.Generator, width: int, height: int) -> Image:
    """A blurred wall with large soft shapes and a little texture, `H×W×3`; nobody's home."""
    coarse = rng.integers(60, 170, (5, 7, 3)).astype(np.uint8)
    # Grey for the most part, as rooms are.
    coarse = np.asarray(coarse * 0.3 + coarse.mean(axis=2, keepdims=True) * 0.7, np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    texture = rng.integers(-6, 7, (height // 4, width // 4, 1)).astype(np.float32)
    fine = cv2.resize(texture, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    return np.asarray(np.clip(smooth + fine, 0, 255), np.uint8)


def face_patch(image: Image) -> Image:
    """A face image as a square `PATCH_PX` BGR patch, its border continued by `MARGIN`."""
    if image.ndim == 2:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    face = cv2.resize(image, (_FACE_PX, _FACE_PX), interpolation=cv2.INTER_CUBIC)
    before = (PATCH_PX - _FACE_PX) // 2
    after = PATCH_PX - _FACE_PX - before
    patch = cv2.copyMakeBorder(face, before, after, before, after, cv2.BORDER_REPLICATE)
    return np.asarray(patch, np.uint8)


def _mask() -> Image:
    """255 on the face image itself, falling smoothly to 0 at the patch's border."""
    away = np.abs(np.arange(PATCH_PX) - (PATCH_PX - 1) / 2) - _FACE_PX / 2
    beyond = np.clip(away, 0, None) / (PATCH_PX / 2 - _FACE_PX / 2)
    far = np.hypot(beyond[:, None], beyond[None, :])
    return np.asarray(255 * (0.5 + 0.5 * np.cos(np.pi * np.clip(far, 0, 1))), np.uint8)


_MASK = _mask()


def paste(frame: Image, patch: Image, pose: Pose) -> None:
    """Draw a patch into a frame, in place; the face image's side becomes `pose.side` pixels."""
    height, width = frame.shape[:2]
    middle = (PATCH_PX - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), pose.tilt, pose.side / _FACE_PX)
    turn[0, 2] += pose.x - middle
    turn[1, 2] += pose.y - middle
    # Only the part of the frame the patch can reach is touched.
    reach = math.ceil(pose.side * (0.5 + MARGIN) * math.sqrt(2)) + 2
    left, right = max(0, int(pose.x) - reach), min(width, int(pose.x) + reach)
    top, bottom = max(0, int(pose.y) - reach), min(height, int(pose.y) + reach)
    if left >= right or top >= bottom:
        return
    turn[0, 2] -= left
    turn[1, 2] -= top
    size = (right - left, bottom - top)
    face = cv2.warpAffine(patch, turn, size, flags=cv2.INTER_AREA)
    alpha = cv2.warpAffine(_MASK, turn, size, flags=cv2.INTER_LINEAR)[..., None] / np.float32(255)
    part = frame[top:bottom, left:right]
    part[:] = (part + alpha * (face - part.astype(np.float32)) + 0.5).astype(np.uint8)
