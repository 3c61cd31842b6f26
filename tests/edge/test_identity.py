"""A camera is found again whatever number its node has this time."""

from pathlib import Path

import pytest

from contract.errors import UserError
from edge.cameras.base import CameraError
from edge.cameras.identity import UsbId, find_usb, parse_usb, video_nodes


class Sysfs:
    """A tree as the kernel shows it: a link per node, that leads to an interface of a device."""

    def __init__(self, root: Path) -> None:
        self.nodes = root / "class" / "video4linux"
        self.nodes.mkdir(parents=True)
        self.devices = root / "devices"
        self.dev = root / "dev"
        self.dev.mkdir()

    def usb(self, port: str, vendor: str, product: str, serial: str = "") -> None:
        device = self.devices / port
        (device / f"{port}:1.0").mkdir(parents=True)
        (device / "idVendor").write_text(vendor + "\n")
        (device / "idProduct").write_text(product + "\n")
        if serial:
            (device / "serial").write_text(serial + "\n")

    def node(self, name: str, port: str, index: int = 0, title: str = "Cam") -> None:
        entry = self.devices / port / f"{port}:1.0" / "video4linux" / name
        entry.mkdir(parents=True)
        (entry / "index").write_text(f"{index}\n")
        (entry / "name").write_text(f"{title}\n")
        (entry / "device").symlink_to("../..")
        (self.nodes / name).symlink_to(entry)
        (self.dev / name).touch()

    def find(self, wanted: UsbId) -> Path:
        return find_usb(wanted, self.nodes, self.dev)


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    tree = Sysfs(tmp_path)
    tree.usb("1-1", "046d", "0825", "A1")
    tree.usb("1-2", "046d", "0825", "B2:x")
    tree.usb("2-1", "1bcf", "2c99")
    tree.node("video10", "1-1")
    tree.node("video11", "1-1", index=1)
    tree.node("video2", "1-2")
    tree.node("video3", "1-2", index=1)
    tree.node("video0", "2-1", title="Other")
    (tree.devices / "soc" / "csi").mkdir(parents=True)
    plain = tree.nodes / "video4"
    plain.mkdir()
    (plain / "device").symlink_to(tree.devices / "soc" / "csi")
    return tree


def test_capture_nodes_are_listed_by_number_without_their_metadata_nodes(sysfs: Sysfs) -> None:
    nodes = video_nodes(sysfs.nodes, sysfs.dev)
    assert [(one.node.name, one.usb and str(one.usb)) for one in nodes] == [
        ("video0", "usb:1bcf:2c99"),
        ("video2", "usb:046d:0825:B2:x"),
        ("video4", None),
        ("video10", "usb:046d:0825:A1"),
    ]
    assert nodes[0].title == "Other"


def test_a_machine_without_cameras_has_none(tmp_path: Path) -> None:
    assert video_nodes(tmp_path / "missing") == []


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("usb:1bcf:2c99", "video0"),
        ("usb:1BCF:2C99", "video0"),
        ("usb:046d:0825:A1", "video10"),
        ("usb:046d:0825:B2:x", "video2"),
    ],
)
def test_a_usb_camera_is_found_by_id_and_serial(sysfs: Sysfs, text: str, node: str) -> None:
    assert sysfs.find(parse_usb(text)) == sysfs.dev / node


def test_two_that_match_are_both_named(sysfs: Sysfs) -> None:
    with pytest.raises(CameraError) as caught:
        sysfs.find(parse_usb("usb:046d:0825"))
    message = str(caught.value)
    assert "is 2 cameras" in message and "add the serial" in message
    assert "video2 (serial B2:x)" in message and "video10 (serial A1)" in message


@pytest.mark.parametrize("text", ["usb:ffff:0001", "usb:046d:0825:C3", "usb:1bcf:2c99:A1"])
def test_one_that_is_not_plugged_in_is_waited_for(sysfs: Sysfs, text: str) -> None:
    with pytest.raises(CameraError, match=f"{text} is not there: plug the camera in") as caught:
        sysfs.find(parse_usb(text))
    assert caught.value.gone


@pytest.mark.parametrize("text", ["usb:", "usb:46d:825", "usb:046d", "usb:046d:0825:", "usb:x:y"])
def test_any_other_form_is_a_mistake(text: str) -> None:
    with pytest.raises(UserError, match="usb:VID:PID"):
        parse_usb(text)
