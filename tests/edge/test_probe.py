"""What a device says of itself, byte by byte as the kernel answers, and the list made of it."""

import json
import struct
from pathlib import Path

import pytest

from edge import probe
from edge.cameras.v4l2_formats import (
    ENUM_FMT,
    ENUM_FRAMEINTERVALS,
    ENUM_FRAMESIZES,
    QUERYCAP,
    FrameSize,
    VideoDevice,
    VideoFormat,
    describe_device,
    open_and_describe,
)
from edge.probe import list_cameras
from tests.edge.test_identity import Sysfs

MJPG = int.from_bytes(b"MJPG", "little")
YUYV = int.from_bytes(b"YUYV", "little")


def test_request_codes_are_those_of_the_kernels_header() -> None:
    """As a C compiler prints the macros of <linux/videodev2.h>; sizes are in bits 16 to 29."""
    codes = (QUERYCAP, ENUM_FMT, ENUM_FRAMESIZES, ENUM_FRAMEINTERVALS)
    assert codes == (0x80685600, 0xC0405602, 0xC02C564A, 0xC034564B)


class Kernel:
    """Answers by offsets that a C compiler gave for the structures, not by our own layouts."""

    def __init__(self, *, capabilities: int, own: int, endless: bool = False) -> None:
        self.capabilities, self.own, self.endless = capabilities, own, endless

    def __call__(self, descriptor: int, request: int, buffer: bytearray) -> int:
        assert descriptor == 7 and len(buffer) == request >> 16 & 0x3FFF
        index = struct.unpack_from("=I", buffer)[0]
        put = struct.pack_into
        if request == QUERYCAP:
            for offset, text in ((0, "uvcvideo"), (16, "Caméra 1"), (48, "usb-1")):
                raw = text.encode()
                buffer[offset : offset + len(raw)] = raw
            put("=II", buffer, 84, self.capabilities, self.own)
        elif request == ENUM_FMT:
            assert struct.unpack_from("=I", buffer, 4)[0] == 1
            if index > 1 and not self.endless:
                raise OSError(22, "Invalid argument")
            put("=I", buffer, 8, 1 if index == 0 else 0)
            name = b"Motion-JPEG" if index == 0 else b"YUYV 4:2:2"
            buffer[12 : 12 + len(name)] = name
            put("=I", buffer, 44, MJPG if index == 0 else YUYV)
        elif request == ENUM_FRAMESIZES:
            if struct.unpack_from("=I", buffer, 4)[0] == MJPG:
                sizes = [(640, 480), (1280, 720)]
                if index >= len(sizes):
                    raise OSError(22, "Invalid argument")
                put("=III", buffer, 8, 1, *sizes[index])
            else:
                put("=7I", buffer, 8, 3, 160, 1920, 16, 120, 1080, 8)
        elif request == ENUM_FRAMEINTERVALS:
            code, width, height = struct.unpack_from("=III", buffer, 4)
            if code == YUYV:
                put("=7I", buffer, 16, 3, 1, 60, 1, 5, 1, 60)
                return 0
            assert (width, height) in ((640, 480), (1280, 720))
            intervals = [(1, 30), (1001, 15000)] if width == 640 else [(1, 10)]
            if index >= len(intervals):
                raise OSError(22, "Invalid argument")
            put("=III", buffer, 16, 1, *intervals[index])
        return 0


def test_formats_sizes_and_rates_are_read_as_the_kernel_lays_them_out() -> None:
    found = describe_device(7, Kernel(capabilities=0x84A00001, own=0x04200001))
    assert found == VideoDevice(
        driver="uvcvideo", card="Caméra 1", bus="usb-1", capture=True,
        formats=(
            VideoFormat(
                "MJPG", "Motion-JPEG", True,
                (FrameSize(640, 480, (30.0, 14.985)), FrameSize(1280, 720, (10.0,))),
            ),
            VideoFormat(
                "YUYV", "YUYV 4:2:2", False,
                (
                    FrameSize(160, 120, (60.0, 5.0), any_size=True),
                    FrameSize(1920, 1080, (60.0, 5.0), any_size=True),
                ),
            ),
        ),
    )  # fmt: skip


def test_a_node_that_gives_no_video_has_no_formats() -> None:
    metadata = describe_device(7, Kernel(capabilities=0x84A00001, own=0x04A00000))
    assert not metadata.capture and metadata.formats == ()


def test_an_old_driver_says_what_it_can_for_the_whole_device() -> None:
    assert describe_device(7, Kernel(capabilities=0x1, own=0)).capture


def test_a_driver_that_never_stops_listing_is_stopped() -> None:
    endless = describe_device(7, Kernel(capabilities=0x1, own=0, endless=True))
    assert len(endless.formats) == 256


def test_a_file_that_is_no_device_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()
    with pytest.raises(OSError):
        open_and_describe(tmp_path / "video0")


DEVICE = VideoDevice(
    "uvcvideo", "Cam", "usb-1", True, (VideoFormat("MJPG", "", True, (FrameSize(2, 1, (30.0,)),)),)
)


def test_cameras_are_listed_with_a_name_that_stays(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    tree.usb("1-1", "046d", "0825", "A1")
    tree.usb("1-2", "1bcf", "2c99")
    tree.usb("1-3", "1bcf", "2c99")
    for number, port in enumerate(("1-1", "1-2", "1-3")):
        tree.node(f"video{number}", port)
    for folder, name, node in (
        ("by-id", "usb-cam-A1", "video0"),
        ("by-path", "port-1", "video0"),
        ("by-path", "port-2", "video1"),
    ):
        (tree.dev / "v4l" / folder).mkdir(parents=True, exist_ok=True)
        (tree.dev / "v4l" / folder / name).symlink_to(tree.dev / node)
    one, two, three = list_cameras(tree.nodes, tree.dev, describe=lambda node: DEVICE)
    by_path = str(tree.dev / "v4l" / "by-path" / "port-2")
    assert [c.camera for c in (one, two, three)] == [
        "usb:046d:0825:A1",
        by_path,
        str(tree.dev / "video2"),
    ]
    assert one.by_id == (str(tree.dev / "v4l" / "by-id" / "usb-cam-A1"),)
    assert one.usable and one.mode.startswith("-rw") and one.formats == DEVICE.formats
    assert two.by_path == (by_path,) and two.by_id == ()


def test_a_camera_that_may_not_be_opened_is_listed_with_the_mend(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    tree.usb("1-1", "046d", "0825")
    tree.node("video0", "1-1")

    def refuse(node: Path) -> VideoDevice:
        raise PermissionError(13, "Permission denied", str(node))

    (one,) = list_cameras(tree.nodes, tree.dev, describe=refuse)
    assert not one.usable and f"add this user to the group '{one.owner}'" in one.problem
    assert one.owner and one.formats == ()


def test_nodes_without_video_and_nodes_that_vanish_are_told_apart(tmp_path: Path) -> None:
    tree = Sysfs(tmp_path)
    tree.usb("1-1", "046d", "0825")
    tree.node("video0", "1-1")
    tree.node("video1", "1-1")
    (tree.dev / "video1").unlink()
    found = list_cameras(
        tree.nodes, tree.dev, describe=lambda node: VideoDevice("", "", "", False, ())
    )
    assert [(Path(one.node).name, one.problem) for one in found] == [
        ("video1", "No such file or directory: plug it in again")
    ]


def test_no_camera_is_an_answer_and_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "list_cameras", list)
    assert probe.main([]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"cameras": []} and "no camera here" in err
