"""Still images as a recording: a folder of them, or one."""

from pathlib import Path

import cv2
import numpy as np

from contract.errors import UserError
from contract.faces import Image

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
)


def read_image(path: Path) -> Image:
    """An image file as uint8 `H×W×3` BGR. Raises `UserError` naming a file that is not one."""
    # imdecode rather than imread: it says nothing on stderr of its own.
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except OSError as error:
        raise UserError(
            f"image {path} cannot be read ({error.strerror}); mend its permissions"
        ) from None
    except cv2.error:
        image = None
    if image is None:
        raise UserError(
            f"image {path} cannot be decoded: it is damaged or no image; remove or replace it"
        )
    return np.asarray(image, np.uint8)


class Images:
    """Image files, one frame each, in the order given.

    Each is decoded when its turn comes, so a damaged one is a `UserError` of `read`, not of `open`.
    """

    live = False

    def __init__(self, name: str, files: list[Path], *, interval_s: float) -> None:
        self.name = name
        self.interval_s = interval_s
        self._files = files
        self._next = 0

    def open(self) -> None:
        """Start with the first image."""
        self._next = 0

    def read(self) -> Image | None:
        """The next image, or None after the last."""
        if self._next >= len(self._files):
            return None
        image = read_image(self._files[self._next])
        self._next += 1
        return image

    def close(self) -> None:
        """Nothing is held open between reads."""
