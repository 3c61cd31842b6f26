"""Network cameras that are switched off and on again: real servers, killed and restarted."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from subprocess import Popen

import pytest

from contract.faces import Image
from edge.cameras.factory import open_camera
from edge.capture import Capture, capture_of
from edge.capture_process import CameraRequest
from tests.system.stream_servers import can_rtsp, free_port, mjpeg_server, rtsp_server

Serve = Callable[[int], AbstractContextManager[Popen[str]]]


def next_image(capture: Capture, limit_s: float = 20.0) -> Image:
    """The next frame, however long it takes the camera to come back."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        frame = capture.get(0.1)
        if frame is not None:
            return frame.image
    raise AssertionError(f"no frame: {capture.state}, {capture.reason}")


def comes_again(address: str, port: int, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Frames, none while the server is dead, frames again; and no password in any line."""
    arguments = {"text": address, "width": 640, "height": 480, "fps": 30, "seed": 0}
    camera = open_camera(address, width=640, height=480, fps=30, seed=0)
    caplog.set_level(logging.DEBUG)
    capture = capture_of(camera, CameraRequest(arguments)).start()
    try:
        with serve(port) as server:
            assert next_image(capture).shape == (120, 160, 3)
            server.kill()
            server.wait()
            end = time.monotonic() + 10
            while capture.state == "live" and time.monotonic() < end:
                capture.get(0.1)
            assert capture.state != "live"
            assert camera.name in capture.reason
        with serve(port):
            # The last frame of before may still be waiting to be taken.
            images = [next_image(capture) for _ in range(2)]
            assert images[1].shape == (120, 160, 3)
            assert capture.reconnects == 1
    finally:
        capture.close()
    assert camera.name in caplog.text and "hunter2" not in caplog.text + capture.reason


def test_an_mjpeg_camera_that_is_restarted_gives_frames_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    address = f"http://admin:hunter2@127.0.0.1:{port}/video?token=hunter2"
    comes_again(address, port, mjpeg_server, caplog)


def test_an_rtsp_camera_that_is_restarted_gives_frames_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not can_rtsp():
        pytest.skip(
            "needs Debian's gir1.2-gst-rtsp-server-1.0, python3-gi and gstreamer1.0-plugins-ugly"
        )
    port = free_port()
    comes_again(f"rtsp://admin:hunter2@127.0.0.1:{port}/live", port, rtsp_server, caplog)
