"""A clip as numbered frames, decoded when they are asked for."""

import threading
from pathlib import Path

import cv2

from contract.errors import UserError

QUALITY = 85


class Clip:
    """Frames of a video file by number. Safe to use from several threads."""

    def __init__(self, file: Path) -> None:
        """Open the file. Raises `UserError` where OpenCV finds no video in it."""
        self.file = file
        self._lock = threading.Lock()
        self._next = 0
        if not file.is_file():
            raise UserError(f"no clip at {file}; record one with fer-edge record")
        # An absolute path, so that a colon in a name is not taken for a protocol.
        self._video = cv2.VideoCapture(str(file.absolute()), cv2.CAP_FFMPEG)
        self.frames = round(self._video.get(cv2.CAP_PROP_FRAME_COUNT))
        self.fps = float(self._video.get(cv2.CAP_PROP_FPS))
        if not self._video.isOpened() or self.frames < 1 or not 0 < self.fps <= 1000:
            self._video.release()
            raise UserError(f"clip {file} cannot be opened: it is damaged or no video")

    @property
    def length_s(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return self.frames / self.fps

    def jpeg(self, number: int) -> bytes | None:
        """A frame as a JPEG, counted from 0; None where there is none."""
        if not 0 <= number < self.frames:
            return None
        with self._lock:
            if number != self._next:  # to seek costs more than to read on
                self._video.set(cv2.CAP_PROP_POS_FRAMES, number)
            good, image = self._video.read()
            self._next = number + 1 if good else -1
        if not good:
            return None
        return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._video.release()
