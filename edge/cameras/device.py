"""A camera of this machine: a V4L2 device, read through OpenCV."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2

from contract.faces import Image
from edge.cameras.base import CameraError, Granted, difference
from edge.cameras.controls import apply_controls
from edge.cameras.identity import UsbId, find_usb
from edge.cameras.video import read_image_from

log = logging.getLogger(__name__)


def _fourcc(value: float) -> str:
    """The four letters of a format code, as `cv2.CAP_PROP_FOURCC` gives it."""
    number = int(value)
    if number <= 0:
        return ""
    return number.to_bytes(4, "little").decode("ascii", "replace").strip()


class V4l2Camera:
    """A camera by device path or USB id, read as MJPG with the shortest queue.

    A path that is a link is followed, and a USB id looked up, at every `open`: which node it is may
    have changed. `controls` are set at every `open` too, as a camera forgets them without power.
    """

    live = True

    def __init__(
        self, device: Path | UsbId, *, width: int, height: int, fps: float,
        controls: Mapping[str, int] | None = None,
        find: Callable[[UsbId], Path] = find_usb,
    ) -> None:  # fmt: skip
        self.name = str(device)
        self._device = device
        self._find = find
        self._asked = (width, height, fps)
        self._settings = (
            # The format comes first: it decides which sizes and rates there are.
            (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
            (cv2.CAP_PROP_FRAME_WIDTH, width),
            (cv2.CAP_PROP_FRAME_HEIGHT, height),
            (cv2.CAP_PROP_FPS, fps),
            (cv2.CAP_PROP_BUFFERSIZE, 1),
        )
        self._controls = dict(controls or {})
        self._node: Path | None = None
        self._granted: Granted | None = None
        self._capture: cv2.VideoCapture | None = None

    @property
    def granted(self) -> Granted | None:
        """What the camera granted when it was opened last; None before."""
        return self._granted

    def device(self) -> Path | None:
        """The path given; of a USB id None, as its node is known only once it is there."""
        return self._device if isinstance(self._device, Path) else None

    def device_present(self) -> bool:
        """Is there a node to open?"""
        try:
            return self._locate().exists()
        except CameraError:
            return False

    def _locate(self) -> Path:
        """The node itself. Raises `CameraError` for a camera that is not there."""
        if isinstance(self._device, UsbId):
            return self._find(self._device)
        if not self._device.exists():
            raise CameraError(f"{self.name} is not there: plug the camera in", gone=True)
        return self._device.resolve()

    def open(self) -> None:
        """Open the device, ask for size, rate, format and controls, and read back what came."""
        self.close()
        node = self._locate()
        if not os.access(node, os.R_OK | os.W_OK):
            raise CameraError(
                f"{self.name} may not be opened: add this user to the group 'video'", gone=True
            )
        capture = cv2.VideoCapture(str(node), cv2.CAP_V4L2)
        if not capture.isOpened():
            capture.release()
            raise CameraError(
                f"{self.name} does not open as a camera: "
                "close other programs that use it, or name another device",
                gone=True,
            )
        for key, value in self._settings:
            capture.set(key, value)
        refused = apply_controls(capture, self._controls)
        self._node, self._capture = node, capture
        self._note(capture, refused)

    def _note(self, capture: cv2.VideoCapture, refused: tuple[str, ...]) -> None:
        """Keep what was granted, and log what differs from what was asked, once."""
        width = round(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = capture.get(cv2.CAP_PROP_FPS)
        notes = (*difference(self._asked, width, height, fps), *refused)
        format_ = _fourcc(capture.get(cv2.CAP_PROP_FOURCC))
        granted = Granted(width, height, fps, format_, notes)
        if notes and granted != self._granted:
            log.warning("camera %s: %s", self.name, "; ".join(notes))
        self._granted = granted

    def read(self) -> Image:
        """The next frame. Raises `CameraError` when none comes within 2 s or it is damaged."""
        image = read_image_from(self._capture, self.name)
        if image is None:
            if self._node is None or not self._node.exists():
                raise CameraError(f"{self.name} is gone: plug the camera in again", gone=True)
            raise CameraError(f"{self.name} gives no frames: check its cable")
        return image

    def close(self) -> None:
        """Release the device."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
