"""Cameras as a user names them: files, folders, devices, streams, and the demo."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from contract.faces import Image
from edge.cameras import demo_scene
from edge.cameras.base import Camera, CameraError
from edge.cameras.demo import DemoCamera
from edge.cameras.device import V4l2Camera
from edge.cameras.factory import open_camera
from edge.cameras.images import Images
from edge.cameras.pace import Paced
from edge.cameras.video import STREAM_SCHEMES, StreamCamera, safe_address
from edge.capture import frames


def camera(text: str | Path, paced: bool = False) -> Camera:
    return open_camera(str(text), width=640, height=480, fps=30, seed=0, paced=paced)


def grey(level: int, size: tuple[int, int] = (48, 64)) -> Image:
    return np.full((*size, 3), level, np.uint8)


def write_clip(path: Path, levels: list[int], fps: float = 25) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
    for level in levels:
        writer.write(grey(level))
    writer.release()


def levels(source: Camera) -> list[int]:
    return [round(float(f.image.mean())) for f in frames(source)]


# Files and folders


def test_a_folder_of_images_is_read_in_natural_order_whatever_the_formats(tmp_path: Path) -> None:
    for name, level in (("f1.png", 10), ("f2.bmp", 20), ("f10.JPG", 100), ("f9.webp", 90)):
        cv2.imwrite(str(tmp_path / name), grey(level))
    (tmp_path / "notes.txt").write_text("not an image")
    assert levels(camera(tmp_path)) == pytest.approx([10, 20, 90, 100], abs=1)


def test_one_image_is_one_frame_and_grey_becomes_colour(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((5, 7), 33, np.uint8))
    (frame,) = frames(camera(tmp_path / "a.png"))
    assert frame.image.shape == (5, 7, 3) and frame.image.dtype == np.uint8


def test_a_clip_gives_every_frame_and_ends(tmp_path: Path) -> None:
    write_clip(tmp_path / "a:b.avi", [0, 50, 100, 150, 200])
    assert levels(camera(tmp_path / "a:b.avi")) == pytest.approx([0, 50, 100, 150, 200], abs=2)


def test_a_folder_of_clips_plays_them_in_turn_and_cycles_on_demand(tmp_path: Path) -> None:
    write_clip(tmp_path / "1.avi", [10, 20])
    write_clip(tmp_path / "2.avi", [30])
    assert levels(camera(tmp_path)) == pytest.approx([10, 20, 30], abs=2)
    cycled = frames(camera(tmp_path), cycle=True)
    seen = [next(cycled) for _ in range(7)]
    cycled.close()  # type: ignore[attr-defined]
    assert [f.sequence for f in seen] == list(range(7))
    means = [float(f.image.mean()) for f in seen]
    assert means == pytest.approx([10, 20, 30, 10, 20, 30, 10], abs=2)


def damaged_folder(folder: Path) -> str:
    (folder / "x.png").write_bytes(b"\x89PNG nothing")
    return str(folder / "x.png")


def text_as_clip(folder: Path) -> str:
    (folder / "x.mkv").write_text("this is no video\n" * 50)
    return str(folder / "x.mkv")


def empty_folder(folder: Path) -> str:
    (folder / "nothing").mkdir()
    return str(folder / "nothing")


def mixed_folder(folder: Path) -> str:
    cv2.imwrite(str(folder / "a.png"), grey(1))
    write_clip(folder / "b.avi", [1])
    return str(folder)


def empty_image(folder: Path) -> str:
    (folder / "zero.jpg").touch()
    return str(folder / "zero.jpg")


def fifo(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return str(folder / "pipe")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda f: str(f / "missing.mkv"), "no camera file at"),
        (lambda f: "dmo", "did you mean 'demo'"),
        (lambda f: "", "the camera is empty"),
        (damaged_folder, "cannot be decoded"),
        (empty_image, "cannot be decoded"),
        (text_as_clip, "cannot be opened"),
        (empty_folder, "holds no image"),
        (mixed_folder, "keep one kind"),
        (fifo, "neither a file nor a folder"),
        (lambda f: "rstp://camera/stream", "did you mean 'rtsp'"),
        (lambda f: "rtsp://", "names no host"),
        (lambda f: "cis://0", "did you mean 'csi'"),
        (lambda f: "usb:46d:825", "four hex digits each"),
        (lambda f: "scripted:fault", "did you mean 'faults'"),
        (lambda f: "scripted:", "no such script"),
        (lambda f: f"scripted:{f / 'missing.toml'}", "no such script"),
        (lambda f: "x" * 300, "cannot be read"),
    ],
)
def test_a_mistake_in_the_camera_is_one_line_that_names_it(
    tmp_path: Path,
    make: Callable[[Path], str],
    says: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    text = make(tmp_path)
    with pytest.raises(UserError) as caught:
        camera(text)
    message = str(caught.value)
    assert says in message and "\n" not in message
    assert Path(text).name in message or "://" in text
    assert capfd.readouterr().err == ""


def test_a_damaged_image_further_on_is_named_when_its_turn_comes(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), grey(1))
    (tmp_path / "2.png").write_bytes(b"broken")
    source = frames(camera(tmp_path))
    next(source)
    with pytest.raises(UserError, match=r"2\.png"):
        next(source)


# Devices


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("0", "/dev/video0"),
        ("07", "/dev/video7"),
        ("/dev/video3", "/dev/video3"),
        ("/dev/v4l/by-id/usb-cam", "/dev/v4l/by-id/usb-cam"),
    ],
)
def test_an_absent_device_is_waited_for_not_a_mistake(text: str, device: str) -> None:
    source = camera(text)
    assert isinstance(source, V4l2Camera) and source.live and source.name == device
    if not Path(device).exists():
        with pytest.raises(CameraError, match=f"{device} is not there: plug the camera in"):
            source.open()


def test_a_device_that_is_no_camera_is_a_fault_with_a_mend(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(CameraError, match="/dev/null does not open as a camera"):
        camera("/dev/null").open()
    assert capfd.readouterr().err == ""


# Streams


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://user:secret@cam:554/live", "rtsp://cam:554/live"),
        ("RTSP://user:se/cr#e?t@cam/live", "rtsp://cam/live"),
        ("http://user:a@b@cam/video.mjpg", "http://cam/video.mjpg"),
        ("http://cam/video.cgi?user=me&pwd=secret", "http://cam/video.cgi"),
        ("rtsp://cam/user=me_password=secret_channel=1.sdp", "rtsp://cam/…"),
        ("http://cam:8080/x", "http://cam:8080/x"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    assert safe_address(address) == shown
    assert camera(address).name == shown


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)


@given(scheme=st.sampled_from(STREAM_SCHEMES), user=WORDS, password=WORDS, path=WORDS)
def test_no_user_and_no_password_is_shown_whatever_its_letters(
    scheme: str, user: str, password: str, path: str
) -> None:
    secret = f"◆{user}:◇{password}▪"
    where = re.sub("[@?#=]", "", path)
    shown = safe_address(f"{scheme}://{secret}@cam:554/{where}")
    assert shown == f"{scheme}://cam:554/{where}"


@given(name=WORDS, value=WORDS)
def test_no_query_and_no_setting_in_a_path_is_shown_whatever_its_letters(
    name: str, value: str
) -> None:
    value = "◆" + re.sub("[/?#@]", "", value)
    for address in (f"http://cam/video?{name}={value}", f"rtsp://cam/a/{name}={value}/live"):
        assert "◆" not in safe_address(address)


SILENCE = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from edge.cameras.factory import open_camera
from edge.cameras.base import CameraError
from contract.errors import UserError
for text in sys.argv[1:]:
    try:
        open_camera(text, width=640, height=480, fps=30, seed=0).open()
    except (CameraError, UserError) as error:
        print(error)
"""


def refusing_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_no_secret_reaches_a_log_or_an_error() -> None:
    host = f"127.0.0.1:{refusing_port()}"
    done = subprocess.run(
        [
            sys.executable, "-c", SILENCE,
            f"rtsp://admin:hunter2@{host}/live",
            f"http://admin:hunter2@{host}/live?pwd=hunter2",
            f"ftp://admin:hunter2@{host}/live",
        ],
        capture_output=True, text=True, timeout=60, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.count(host) == 3
    assert "hunter2" not in done.stdout + done.stderr and "admin" not in done.stdout + done.stderr


@contextlib.contextmanager
def mjpeg_server(hang: threading.Event | None = None) -> Iterator[ThreadingHTTPServer]:
    """A real MJPEG camera on loopback at about 50 fps; with `hang` set it stops sending."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            k = 0
            with contextlib.suppress(OSError):
                while not (hang and hang.is_set()):
                    jpeg = cv2.imencode(".jpg", grey(k % 200, (120, 160)))[1].tobytes()
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}"
                    self.wfile.write(head.encode() + b"\r\n\r\n" + jpeg + b"\r\n")
                    k += 1
                    time.sleep(0.02)
                time.sleep(5)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def test_an_mjpeg_stream_over_http_is_read() -> None:
    with mjpeg_server() as server:
        source = camera(f"http://127.0.0.1:{server.server_port}/video")
        start = time.monotonic()
        source.open()
        shapes = {source.read().shape for _ in range(10)}  # type: ignore[union-attr]
        assert time.monotonic() - start < 5
        source.close()
    assert shapes == {(120, 160, 3)}


def test_a_stream_that_stands_still_is_a_fault_within_its_limit() -> None:
    hang = threading.Event()
    with mjpeg_server(hang) as server:
        source = StreamCamera(
            f"http://me:secret@127.0.0.1:{server.server_port}/", read_timeout_s=0.5
        )
        source.open()
        source.read()
        hang.set()
        start = time.monotonic()
        with pytest.raises(CameraError, match="stopped sending") as caught:
            for _ in range(1000):
                source.read()
        assert time.monotonic() - start < 4
        assert caught.value.gone and "secret" not in str(caught.value)
        source.close()


# Pace


def test_a_paced_recording_comes_at_its_own_rate_and_never_in_a_burst(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.avi", [1] * 6, fps=10)
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    recording = camera(tmp_path / "a.avi")
    paced = Paced(recording, monotonic=lambda: now[0], sleep=sleep)  # type: ignore[arg-type]
    paced.open()
    times = []
    for k in range(6):
        paced.read()
        times.append(now[0] - 100)
        if k == 2:
            now[0] += 1.0
    assert times == pytest.approx([0, 0.1, 0.2, 1.2, 1.3, 1.4])
    assert paced.read() is None


def test_images_are_paced_by_the_rate_asked_for(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), grey(1))
    paced = open_camera(str(tmp_path), width=1, height=1, fps=5, seed=0)
    assert isinstance(paced, Paced) and paced.interval_s == pytest.approx(0.2)
    assert not paced.live
    assert Paced(Images("x", [], interval_s=1), interval_s=0.04).interval_s == 0.04


# Demo


@pytest.fixture(scope="module")
def demo() -> DemoCamera:
    made = DemoCamera(seed=1)
    made.open()
    return made


def test_a_demo_frame_depends_on_seed_and_number_only(demo: DemoCamera) -> None:
    other = DemoCamera(seed=1)
    other.open()
    backwards = [other.frame(k) for k in (500, 3, 2, 1, 0)][::-1]
    forwards = [demo.frame(k) for k in (0, 1, 2, 3, 500)]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    another = DemoCamera(seed=2)
    another.open()
    assert not np.array_equal(another.frame(0), forwards[0])


def test_demo_frames_move_and_carry_noise_as_a_webcams(demo: DemoCamera) -> None:
    one, two, later = (demo.frame(k).astype(np.int32) for k in (0, 1, 60))
    assert one.shape == (480, 640, 3)
    wall = np.s_[5:40, 270:380]
    assert 1 < np.std(one[wall] - two[wall]) < 12
    person = np.s_[100:300, 100:270]
    assert np.abs(one[person] - later[person]).mean() > 3 * np.abs(one[wall] - later[wall]).mean()


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1280, 720), (320, 240), (480, 640)])
def test_the_demo_comes_in_the_size_asked_for(width: int, height: int) -> None:
    source = open_camera("demo", width=width, height=height, fps=30, seed=0, paced=False)
    source.open()
    image = source.read()
    assert image is not None and image.shape == (height, width, 3)


def test_the_demo_is_live_when_paced_and_gives_every_frame_when_not() -> None:
    assert camera("demo", paced=True).live
    assert not camera("demo", paced=False).live


def test_the_demo_without_its_portraits_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo_scene.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'fer-edge\[demo\]'"):
        camera("demo")


def test_the_demo_does_not_import_the_packages_of_its_portraits() -> None:
    program = (
        "import sys; from edge.cameras.demo import DemoCamera; c = DemoCamera(); c.open(); "
        "c.read(); print({'matplotlib', 'skimage', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=60, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.strip() == "set()"
