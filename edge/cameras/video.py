"""What OpenCV reads through FFmpeg: network streams and video files."""

import os
import re
from pathlib import Path

import cv2
import numpy as np

from contract.errors import UserError
from contract.faces import Image
from edge.cameras.base import CameraError

STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")

# FFmpeg and OpenCV print addresses, passwords included, when a stream fails: both are silenced, and
# what they would have said is said by our own errors. FFmpeg reads its level at the first use in a
# process, so this is set on import, before any.
os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"
os.environ.pop("OPENCV_FFMPEG_DEBUG", None)
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def safe_address(address: str) -> str:
    """An address without what may be secret: user and password, query, and `key=value` in paths.

    Everything before the last `@` goes, as passwords in the wild hold unescaped `/`, `#` and `?`.
    """
    scheme, _, rest = address.partition("://")
    rest = rest.rpartition("@")[2]
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    path = "/".join("…" if "=" in part else part for part in rest.split("/"))
    return f"{scheme.lower()}://{path}"


def read_image_from(capture: cv2.VideoCapture | None, name: str) -> Image | None:
    """The next frame, or None where there is none. Raises `CameraError` for a damaged one."""
    if capture is None:
        raise CameraError(f"{name} is not open", gone=True)
    try:
        good, image = capture.read()
    except cv2.error:
        raise CameraError(f"{name} gave a frame that OpenCV cannot decode") from None
    return np.asarray(image, np.uint8) if good and image is not None else None


class StreamCamera:
    """A network camera: RTSP over TCP, or MJPEG over HTTP."""

    live = True

    def __init__(
        self, address: str, *, open_timeout_s: float = 5.0, read_timeout_s: float = 5.0
    ) -> None:
        self.name = safe_address(address)
        self._address = address
        self._timeouts = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(open_timeout_s * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(read_timeout_s * 1000),
        ]  # fmt: skip
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        """Connect. Raises `CameraError` when there is no answer, or no video in it."""
        self.close()
        capture = cv2.VideoCapture(self._address, cv2.CAP_FFMPEG, self._timeouts)
        if not capture.isOpened():
            capture.release()
            raise CameraError(
                f"{self.name} does not answer with video: "
                "check that the camera is on, the address and the password",
                gone=True,
            )
        self._capture = capture

    def read(self) -> Image:
        """The next frame. Raises `CameraError` when the stream ended or stands still."""
        image = read_image_from(self._capture, self.name)
        if image is None:
            raise CameraError(f"{self.name} stopped sending: check the camera", gone=True)
        return image

    def close(self) -> None:
        """Disconnect."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


class VideoFiles:
    """Video files, played one after the other, every frame of each."""

    live = False

    def __init__(self, name: str, files: list[Path]) -> None:
        self.name = name
        self.interval_s = 1 / 30
        """Of the file being played; 1/30 where it does not say."""
        self._files = files
        self._next = 0
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        """Start with the first file."""
        self.close()
        self._next = 0

    def read(self) -> Image | None:
        """The next frame, or None after the last of the last file.

        Raises `UserError` naming a file in which OpenCV finds no video, when its turn comes.
        """
        while True:
            if self._capture is not None:
                image = read_image_from(self._capture, self.name)
                if image is not None:
                    return image
                self.close()
            if self._next >= len(self._files):
                return None
            image = self._begin(self._files[self._next])
            self._next += 1
            return image

    def _begin(self, file: Path) -> Image:
        # An absolute path, so that a colon in a name is not taken for a protocol.
        capture = cv2.VideoCapture(str(file.absolute()), cv2.CAP_FFMPEG)
        image = read_image_from(capture, str(file)) if capture.isOpened() else None
        if image is None:
            capture.release()
            raise UserError(
                f"video {file} cannot be opened: it is damaged or no video; "
                "try another file, or convert it to MP4 or MKV"
            )
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.interval_s = 1 / fps if 1 <= fps <= 1000 else 1 / 30
        self._capture = capture
        return image

    def close(self) -> None:
        """Close the file being played."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
