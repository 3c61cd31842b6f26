"""A camera on a ribbon cable (CSI), read through GStreamer. Untested on hardware.

Written to the documented properties of `nvarguscamerasrc` (NVIDIA Jetson) and `libcamerasrc`
(libcamera, as on a Raspberry Pi).
"""

import re
from fractions import Fraction
from pathlib import Path

import cv2

from contract.errors import UserError
from contract.faces import Image
from edge.cameras.base import CameraError, Granted, difference
from edge.cameras.video import read_image_from

TEGRA = Path("/etc/nv_tegra_release")
"""A file that NVIDIA's system for Jetson has, and no other."""


def gstreamer_here() -> bool:
    """Was OpenCV built with GStreamer? Its wheels are not."""
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


def pipeline(sensor: int, width: int, height: int, fps: float, *, jetson: bool) -> str:
    """The GStreamer pipeline that ends in BGR frames for OpenCV, the newest only."""
    rate = Fraction(fps).limit_denominator(1001)
    size = f"width={width}, height={height}, framerate={rate.numerator}/{rate.denominator}"
    if jetson:
        source = (
            f"nvarguscamerasrc sensor-id={sensor} ! "
            f"video/x-raw(memory:NVMM), format=NV12, {size} ! "
            "nvvidconv ! video/x-raw, format=BGRx"
        )
    else:
        source = f"libcamerasrc ! video/x-raw, {size}"
    newest = "appsink drop=true max-buffers=1 sync=false"
    return f"{source} ! videoconvert ! video/x-raw, format=BGR ! {newest}"


class CsiCamera:
    """Camera `csi://N`.

    Raises `UserError` for another form, where OpenCV has no GStreamer, and for a number above 0
    without a Jetson: libcamera knows cameras by name only.
    """

    live = True

    def __init__(
        self, text: str, *, width: int, height: int, fps: float,
        gstreamer: bool | None = None, jetson: bool | None = None,
    ) -> None:  # fmt: skip
        match = re.fullmatch(r"csi://([0-9])", text, re.IGNORECASE)
        if match is None:
            raise UserError(f"camera {text}: a CSI camera is written csi://N, N from 0 to 9")
        if not (gstreamer_here() if gstreamer is None else gstreamer):
            raise UserError(
                f"camera {text} needs GStreamer, and the OpenCV installed here has none: use an "
                "OpenCV built with it (on a Jetson NVIDIA's own, else the distribution's), or a "
                "USB camera"
            )
        jetson = TEGRA.exists() if jetson is None else jetson
        if not jetson and match[1] != "0":
            raise UserError(f"camera {text}: without a Jetson only csi://0 is known; write csi://0")
        self.name = text.lower()
        self._asked = (width, height, fps)
        self._pipeline = pipeline(int(match[1]), width, height, fps, jetson=jetson)
        self._granted: Granted | None = None
        self._capture: cv2.VideoCapture | None = None

    @property
    def granted(self) -> Granted | None:
        """What the pipeline gives; None before the first `open`."""
        return self._granted

    def device(self) -> Path | None:
        """None: a ribbon cable is not plugged in while the box runs."""
        return None

    def device_present(self) -> bool:
        """True: whether a sensor answers is known only when it is opened."""
        return True

    def open(self) -> None:
        """Start the pipeline. Raises `CameraError` when it does not start."""
        self.close()
        capture = cv2.VideoCapture(self._pipeline, cv2.CAP_GSTREAMER)
        if not capture.isOpened():
            capture.release()
            raise CameraError(
                f"{self.name} does not start: check the ribbon cable, and that the camera has "
                "this size and rate",
                gone=True,
            )
        width = round(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = capture.get(cv2.CAP_PROP_FPS)
        notes = difference(self._asked, width, height, fps)
        self._granted = Granted(width, height, fps, "BGR", notes)
        self._capture = capture

    def read(self) -> Image:
        """The next frame. Raises `CameraError` when the pipeline stopped."""
        image = read_image_from(self._capture, self.name)
        if image is None:
            raise CameraError(f"{self.name} stopped: check the ribbon cable", gone=True)
        return image

    def close(self) -> None:
        """Stop the pipeline."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
