"""A V4L2 camera: no device here, so OpenCV is a fake that answers as a driver would."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

from contract.errors import UserError
from contract.faces import Image
from edge.cameras.base import CameraError, Device, Granted, difference
from edge.cameras.controls import CONTROLS
from edge.cameras.csi import CsiCamera, gstreamer_here, pipeline
from edge.cameras.device import V4l2Camera
from edge.cameras.identity import UsbId
from firmware_config.camera_config import CameraControls
from firmware_config.profile import load_profile

MJPG = cv2.VideoWriter.fourcc(*"MJPG")
BRIGHTNESS, AUTO, TIME = (CONTROLS[n] for n in ("brightness", "exposure_auto", "exposure"))


class Driver:
    """A driver that grants what it is asked, except where `grants` says otherwise."""

    grants: ClassVar[dict[int, float]] = {}
    refuses: ClassVar[set[int]] = set()
    opened: ClassVar[list[str]] = []
    told: ClassVar[list[tuple[int, float]]] = []
    good = True

    def __init__(self, name: str, api: int) -> None:
        Driver.opened.append(name)
        self.state: dict[int, float] = {}

    def isOpened(self) -> bool:  # noqa: N802
        return self.good

    def set(self, key: int, value: float) -> bool:
        Driver.told.append((key, value))
        if key in self.refuses:
            return False
        self.state[key] = self.grants.get(key, value)
        return True

    def get(self, key: int) -> float:
        return self.state.get(key, 0.0)

    def read(self) -> tuple[bool, Image | None]:
        return False, None

    def release(self) -> None:
        Driver.told.append((-1, 0))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> type[Driver]:
    for name, empty in (("grants", {}), ("refuses", set()), ("opened", []), ("told", [])):
        monkeypatch.setattr(Driver, name, empty)
    monkeypatch.setattr(cv2, "VideoCapture", Driver)
    return Driver


@pytest.fixture
def node(tmp_path: Path) -> Path:
    (tmp_path / "video0").touch()
    return tmp_path / "video0"


def test_a_device_is_asked_for_mjpg_first_and_the_shortest_queue(
    driver: type[Driver], node: Path
) -> None:
    source = V4l2Camera(node, width=320, height=240, fps=15)
    source.open()
    assert driver.told == [
        (cv2.CAP_PROP_FOURCC, MJPG),
        (cv2.CAP_PROP_FRAME_WIDTH, 320),
        (cv2.CAP_PROP_FRAME_HEIGHT, 240),
        (cv2.CAP_PROP_FPS, 15),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ]
    with pytest.raises(CameraError, match="gives no frames") as caught:
        source.read()
    assert not caught.value.gone
    node.unlink()
    with pytest.raises(CameraError, match="plug the camera in again") as caught:
        source.read()
    assert caught.value.gone
    source.close()
    source.close()
    assert driver.told.count((-1, 0)) == 1


def test_what_was_granted_is_read_back_and_a_difference_is_one_line_once(
    driver: type[Driver], node: Path, caplog: pytest.LogCaptureFixture
) -> None:
    driver.grants = {cv2.CAP_PROP_FRAME_WIDTH: 640, cv2.CAP_PROP_FRAME_HEIGHT: 480}
    source = V4l2Camera(node, width=1280, height=720, fps=30)
    assert source.granted is None and isinstance(source, Device)
    with caplog.at_level(logging.INFO):
        source.open()
        source.open()
    line = "asked 1280×720 at 30, got 640×480 at 30"
    assert source.granted == Granted(640, 480, 30.0, "MJPG", (line,))
    assert [record.getMessage() for record in caplog.records] == [f"camera {node}: {line}"]


@pytest.mark.parametrize(
    ("width", "fps", "notes"),
    [
        (640, 30.0, ()),
        (640, 29.97, ()),
        (640, 0.0, ()),
        (640, 15.0, ("asked 640×480 at 30, got 640×480 at 15",)),
        (320, 0.0, ("asked 640×480 at 30, got 320×480",)),
    ],
)
def test_a_rate_that_is_unknown_or_nearly_so_is_no_difference(
    width: int, fps: float, notes: tuple[str, ...]
) -> None:
    assert difference((640, 480, 30.0), width, 480, fps) == notes


def test_controls_are_set_at_every_opening_switches_first(driver: type[Driver], node: Path) -> None:
    wanted = {"brightness": 128, "exposure": 250, "exposure_auto": 1}
    source = V4l2Camera(node, width=640, height=480, fps=30, controls=wanted)
    for _ in range(2):
        driver.told.clear()
        source.open()
        controls = [(key, value) for key, value in driver.told if key in CONTROLS.values()]
        assert controls == [(AUTO, 1), (TIME, 250), (BRIGHTNESS, 128)]
        assert source.granted is not None and source.granted.notes == ()


def test_a_control_that_is_refused_or_changed_is_a_note(driver: type[Driver], node: Path) -> None:
    driver.refuses, driver.grants = {TIME}, {BRIGHTNESS: 64}
    wanted = {"brightness": 128, "exposure": 250}
    source = V4l2Camera(node, width=640, height=480, fps=30, controls=wanted)
    source.open()
    assert source.granted is not None and source.granted.notes == (
        "control exposure: the camera refused 250",
        "control brightness: asked 128, got 64",
    )


def test_the_profile_knows_the_controls_that_can_be_set(tmp_path: Path) -> None:
    assert set(CameraControls.model_fields) == set(CONTROLS)
    file = tmp_path / "box.toml"
    file.write_text("[camera]\ncontrols = { exposure_auto = 1, brightness = 128 }")
    named = load_profile(str(file), {}).camera.controls.named()
    assert named == {"exposure_auto": 1, "brightness": 128}
    file.write_text("[camera.controls]\nbrigthness = 128")
    with pytest.raises(UserError, match=r"'camera\.controls\.brigthness', did you mean 'bright"):
        load_profile(str(file), {})


def test_a_link_is_followed_anew_at_every_opening(
    driver: type[Driver], tmp_path: Path, node: Path
) -> None:
    link = tmp_path / "by-id"
    source = V4l2Camera(link, width=640, height=480, fps=30)
    assert not source.device_present() and source.device() == link
    with pytest.raises(CameraError, match="by-id is not there"):
        source.open()
    link.symlink_to(node)
    assert source.device_present()
    source.open()
    (tmp_path / "video7").touch()
    node.unlink()
    assert not source.device_present(), "a link that leads nowhere is no camera"
    link.unlink()
    link.symlink_to(tmp_path / "video7")
    source.open()
    assert driver.opened == [str(node), str(tmp_path / "video7")]


def test_a_usb_id_is_looked_up_anew_at_every_opening(
    driver: type[Driver], tmp_path: Path, node: Path
) -> None:
    now: list[Path] = []

    def find(wanted: UsbId) -> Path:
        if not now:
            raise CameraError(f"{wanted} is not there", gone=True)
        return now[0]

    source = V4l2Camera(UsbId("046d", "0825"), width=640, height=480, fps=30, find=find)
    assert source.name == "usb:046d:0825" and source.device() is None
    assert not source.device_present()
    with pytest.raises(CameraError, match="usb:046d:0825 is not there"):
        source.open()
    now.append(node)
    assert source.device_present()
    source.open()
    (tmp_path / "video7").touch()
    now[0] = tmp_path / "video7"
    source.open()
    assert driver.opened == [str(node), str(tmp_path / "video7")]


# CSI


def test_a_csi_camera_without_gstreamer_is_one_line_with_a_mend() -> None:
    with pytest.raises(UserError, match=r"csi://0 needs GStreamer.*or a USB camera"):
        CsiCamera("csi://0", width=640, height=480, fps=30, gstreamer=False)
    if not gstreamer_here():
        with pytest.raises(UserError, match="needs GStreamer"):
            CsiCamera("csi://0", width=640, height=480, fps=30)


@pytest.mark.parametrize(
    ("text", "jetson", "says"),
    [("csi://", True, "csi://N"), ("csi://x", True, "csi://N"), ("csi://1", False, "only csi://0")],
)
def test_a_csi_camera_of_another_form_is_a_mistake(text: str, jetson: bool, says: str) -> None:
    with pytest.raises(UserError, match=says):
        CsiCamera(text, width=640, height=480, fps=30, gstreamer=True, jetson=jetson)


def test_the_pipelines_name_sensor_size_and_rate_and_keep_the_newest_frame() -> None:
    jetson = pipeline(1, 1280, 720, 30, jetson=True)
    assert jetson.startswith("nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM)")
    other = pipeline(0, 640, 480, 29.97, jetson=False)
    assert other.startswith("libcamerasrc ! video/x-raw, width=640, height=480")
    assert "width=1280, height=720, framerate=30/1" in jetson
    assert "framerate=2997/100" in other
    for text in (jetson, other):
        assert text.endswith("format=BGR ! appsink drop=true max-buffers=1 sync=false")


def test_a_csi_camera_that_does_not_start_is_waited_for(
    driver: type[Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    make: Callable[[], CsiCamera] = lambda: CsiCamera(  # noqa: E731
        "csi://0", width=640, height=480, fps=30, gstreamer=True, jetson=True
    )
    source = make()
    source.open()
    assert driver.opened[0].startswith("nvarguscamerasrc")
    with pytest.raises(CameraError, match="csi://0 stopped") as caught:
        source.read()
    assert caught.value.gone
    monkeypatch.setattr(Driver, "good", False)
    with pytest.raises(CameraError, match="does not start: check the ribbon cable"):
        make().open()
    assert np.all([isinstance(source, Device), source.live, source.device() is None])
