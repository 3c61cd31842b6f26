"""`python -m edge.capture_child FD PARENT`: a process that opens and reads a live camera.

It does what it is told over the socket FD (`edge/capture_messages.py`) and decides nothing but to
give up a camera after a few failed reads. A driver that hangs, or crashes, takes this process with
it and nothing else.
"""

import ctypes
import importlib
import logging
import os
import signal
import socket
import sys
import time
from typing import Any

import cv2
import numpy as np

from contract.errors import UserError
from contract.faces import Image
from edge.cameras.base import Camera, CameraError, Device
from edge.capture_memory import FrameMemory
from edge.capture_messages import receive, send

SLOTS = 4
"""One being written, one newest, one being copied, and one on its way back."""
BAD_READS = 3
BAD_READ_PAUSE_S = 0.02
SAMPLE_STEP = 8
_PR_SET_PDEATHSIG = 1


class _StopError(Exception):
    """The program has closed the connection, or is gone."""


class _ToProgram(logging.Handler):
    """What cameras log is logged by the program, so that it looks like the rest of its log."""

    def __init__(self, link: socket.socket) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        send(self._link, "log", level=record.levelno, text=text)


def one_line(error: Exception) -> str:
    """What went wrong, in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, CameraError) else f"{type(error).__name__}: {text}"


def make_camera(maker: str, arguments: dict[str, Any]) -> Camera:
    """The camera that `maker`, a function as `module:name`, gives for these arguments."""
    module, _, name = maker.partition(":")
    camera: Camera = getattr(importlib.import_module(module), name)(**arguments)
    return camera


def granted_of(camera: Camera) -> dict[str, Any]:
    """What an opened camera promised: `fps` or None, and `notes` of what it did not grant."""
    granted = camera.granted if isinstance(camera, Device) else None
    if granted is None:
        return {"fps": None, "notes": []}
    return {"fps": granted.fps if granted.fps > 0 else None, "notes": list(granted.notes)}


class Reader:
    """One camera, read on request, its frames handed over in shared memory."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._camera: Camera | None = None
        self._request: dict[str, Any] = {}
        self._memory: FrameMemory | None = None
        self._number = 0
        self._free: list[int] = []
        self._before: tuple[Image, Image] | None = None
        self._skipped = 0

    def run(self) -> None:
        """Obey until the connection ends."""
        try:
            while True:
                self._obey()
        except (_StopError, BrokenPipeError, ConnectionResetError):
            return
        finally:
            if self._camera is not None:
                self._camera.close()

    def _obey(self) -> None:
        """Wait for one message and do what it says."""
        message = receive(self._link)
        if message is None:
            raise _StopError
        if message["kind"] == "free":
            if message["memory"] == self._number:
                self._free.append(message["slot"])
            return
        try:
            if message["kind"] == "camera":
                self._request = message
            if self._camera is None:
                self._camera = make_camera(self._request["maker"], self._request["arguments"])
            if message["kind"] == "open":
                self._read_until_fault(self._camera)
        except UserError as error:
            send(self._link, "mistake", text=str(error))
        except _StopError:
            raise
        except Exception as error:
            # Whatever a camera raises, the program must hear of it, and may try again.
            if self._camera is not None:
                self._camera.close()
            send(self._link, "closed", text=one_line(error))

    def _read_until_fault(self, camera: Camera) -> None:
        """Open and read. Raises what the camera raises; returns at the end of a recording."""
        camera.open()
        send(self._link, "opened", **granted_of(camera))
        self._before = None
        failed = 0
        while True:
            self._heed()
            try:
                image = camera.read()
                mono_ns, utc_ns = time.monotonic_ns(), time.time_ns()
                if image is not None and (image.dtype != np.uint8 or image.shape[2:] != (3,)):
                    raise CameraError(f"{camera.name} gave a picture of the wrong kind")
            except CameraError as error:
                if error.gone:
                    raise
                failed += 1
                send(self._link, "unreadable")
                if failed >= BAD_READS:
                    raise
                time.sleep(BAD_READ_PAUSE_S)
                continue
            if image is None:
                camera.close()
                send(self._link, "ended")
                return
            failed = 0
            self._hand_over(image, mono_ns, utc_ns)

    def _heed(self) -> None:
        """Take the messages that have come meanwhile."""
        self._link.setblocking(False)
        try:
            while True:
                self._obey()
        except BlockingIOError:
            return
        finally:
            self._link.setblocking(True)

    def _hand_over(self, image: Image, mono_ns: int, utc_ns: int) -> None:
        look = self._look(image)
        if self._memory is None or image.nbytes > self._memory.slot_bytes:
            self._memory, fd = FrameMemory.create(SLOTS, image.nbytes)
            self._number += 1
            self._free = list(range(SLOTS))
            send(
                self._link, "memory", fd,
                number=self._number, slots=SLOTS, slot_bytes=self._memory.slot_bytes,
            )  # fmt: skip
            os.close(fd)
        if not self._free:
            self._heed()
        if not self._free:
            self._skipped += 1
            return
        slot = self._free.pop()
        self._memory.write(slot, image)
        send(
            self._link, "frame", slot=slot, shape=image.shape, mono_ns=mono_ns, utc_ns=utc_ns,
            skipped=self._skipped, look=look,
        )  # fmt: skip
        self._skipped = 0

    def _look(self, image: Image) -> dict[str, Any]:
        """The fields of `edge.capture_states.Look`, from every eighth pixel each way.

        All pixels are compared only where those are as before, so noise costs next to nothing.
        """
        sample = np.ascontiguousarray(image[::SAMPLE_STEP, ::SAMPLE_STEP])
        same = False
        if self._before is not None:
            old_sample, old = self._before
            same = np.array_equal(sample, old_sample) and np.array_equal(image, old)
        self._before = sample, image
        mean, spread = cv2.meanStdDev(sample.reshape(-1, 1))
        return {"same": same, "mean": float(mean[0, 0]), "spread": float(spread[0, 0])}


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        raise SystemExit(1)


def main() -> None:
    """Run the process."""
    die_with(int(sys.argv[2]))
    # A supervisor signals all processes of the box; this one ends when its program lets go of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)
    with socket.socket(fileno=int(sys.argv[1])) as link:
        logging.basicConfig(level=logging.INFO, handlers=[_ToProgram(link)])
        Reader(link).run()


if __name__ == "__main__":
    main()
