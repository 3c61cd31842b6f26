"""A live camera whose faults are files in a folder, so that a test drives it in another process.

`device` is there while the camera is plugged in; while `stuck` is there a read does not return;
`size` holds the height of its frames; `damaged` makes the next read fail, and is removed by it.
"""

import time
from pathlib import Path

import numpy as np

from contract.errors import UserError
from contract.faces import Image
from edge.cameras.base import CameraError, Granted
from edge.capture_process import CameraRequest

FPS = 50.0


class FaultyCamera:
    """Noise at 50 frames a second; the first pixel of frame k is k modulo 256."""

    live, name = True, "faulty"

    def __init__(self, folder: Path, mistake: str = "") -> None:
        self._folder, self._mistake = folder, mistake
        self._noise = np.random.default_rng(0)
        self._count = 0
        self._open = False

    @property
    def granted(self) -> Granted | None:
        return Granted(64, 48, FPS, "noise") if self._open else None

    def device(self) -> Path | None:
        return self._folder / "device"

    def device_present(self) -> bool:
        return (self._folder / "device").exists()

    def open(self) -> None:
        if self._mistake:
            raise UserError(self._mistake)
        if not self.device_present():
            raise CameraError("faulty is not there: plug the camera in", gone=True)
        self._open = True

    def read(self) -> Image:
        time.sleep(1 / FPS)
        while (self._folder / "stuck").exists():
            time.sleep(0.02)
        if not self.device_present():
            raise CameraError("faulty is gone: plug the camera in again", gone=True)
        damaged = self._folder / "damaged"
        if damaged.exists():
            damaged.unlink()
            raise CameraError("faulty gave a damaged frame")
        size = self._folder / "size"
        height = int(size.read_text()) if size.exists() else 48
        image = self._noise.integers(0, 255, (height, 64, 3), np.uint8)
        image[0, 0] = self._count % 256
        self._count += 1
        return image

    def close(self) -> None:
        self._open = False


def make(folder: str, mistake: str = "") -> FaultyCamera:
    """The camera of a folder."""
    return FaultyCamera(Path(folder), mistake)


def request(folder: Path, mistake: str = "") -> CameraRequest:
    """What has another process make it; it must find `tests` on its path."""
    return CameraRequest({"folder": str(folder), "mistake": mistake}, "tests.faulty_camera:make")
