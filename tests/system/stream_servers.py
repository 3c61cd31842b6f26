"""Network cameras for tests: real servers on loopback, each a process that can be killed."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HOST = "127.0.0.1"
SYSTEM_PYTHON = "/usr/bin/python3"
"""GObject's bindings are a package of the system, not of an environment."""

MJPEG = """
import sys, time, cv2, numpy as np
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        k = 0
        while True:
            picture = np.full((120, 160, 3), k % 200, np.uint8)
            jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
            head = f"--frame\\r\\nContent-Type: image/jpeg\\r\\nContent-Length: {len(jpeg)}"
            self.wfile.write(head.encode() + b"\\r\\n\\r\\n" + jpeg + b"\\r\\n")
            k += 1
            time.sleep(1 / 30)

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.daemon_threads = True
print("ready", flush=True)
server.serve_forever()
"""

RTSP = """
import sys, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer

Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    "( videotestsrc is-live=true pattern=ball "
    "! video/x-raw,format=I420,width=160,height=120,framerate=15/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 "
    "! rtph264pay name=pay0 pt=96 )"
)
factory.set_shared(True)
server.get_mount_points().add_factory("/live", factory)
if not server.attach(None):
    sys.exit("the port is taken")
print("ready", flush=True)
GLib.MainLoop().run()
"""

CAN_RTSP = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
raise SystemExit(0 if Gst.ElementFactory.find("x264enc") else 1)
"""


def can_rtsp() -> bool:
    """Does this machine have the RTSP server of GStreamer, its bindings, and an H.264 encoder?"""
    try:
        done = subprocess.run([SYSTEM_PYTHON, "-c", CAN_RTSP], capture_output=True, timeout=30)
    except OSError:
        return False
    return done.returncode == 0


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def mjpeg_server(port: int) -> Iterator[subprocess.Popen[str]]:
    """MJPEG over HTTP, 160×120 at 30 fps, on any path; killed at the end if it still runs."""
    with _server([sys.executable, "-c", MJPEG, str(port)]) as process:
        yield process


@contextmanager
def rtsp_server(port: int) -> Iterator[subprocess.Popen[str]]:
    """H.264 over RTSP, 160×120 at 15 fps, at `/live`; killed at the end if it still runs."""
    with _server([SYSTEM_PYTHON, "-c", RTSP, str(port)]) as process:
        yield process


@contextmanager
def _server(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n", "the server did not start"
            yield process
        finally:
            process.kill()
