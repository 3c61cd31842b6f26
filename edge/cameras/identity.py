"""Which device node a camera is at now, however the nodes were numbered this time.

A node's number depends on the order in which devices were found. `/dev/v4l/by-id/…` and
`/dev/v4l/by-path/…` are links that the system keeps; `usb:VID:PID[:serial]` is looked up in sysfs,
where every capture node says which USB device it belongs to.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from contract.errors import UserError
from edge.cameras.base import CameraError

SYSFS = Path("/sys/class/video4linux")
DEV = Path("/dev")
USB_FORM = "usb:VID:PID or usb:VID:PID:SERIAL, with four hex digits each, as lsusb shows them"


@dataclass(frozen=True)
class UsbId:
    """A USB camera by vendor and product (four lower-case hex digits), and serial if given."""

    vendor: str
    product: str
    serial: str = ""

    def __str__(self) -> str:
        """As the user writes it."""
        return ":".join(part for part in ("usb", self.vendor, self.product, self.serial) if part)


@dataclass(frozen=True)
class VideoNode:
    """A capture node as sysfs describes it; `usb` is None for what is not on USB."""

    node: Path
    title: str
    usb: UsbId | None


def parse_usb(text: str) -> UsbId:
    """`usb:046d:0825[:serial]` as an id. Raises `UserError` for any other form."""
    match = re.fullmatch(r"usb:([0-9a-f]{4}):([0-9a-f]{4})(?::(.+))?", text, re.IGNORECASE)
    if match is None:
        raise UserError(f"camera {text}: a USB camera is written {USB_FORM}")
    return UsbId(match[1].lower(), match[2].lower(), match[3] or "")


def _attribute(folder: Path, name: str) -> str:
    # A device may be unplugged between listing and reading: then it says nothing.
    try:
        return (folder / name).read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(entry: Path) -> int:
    digits = re.sub(r"\D", "", entry.name)
    return int(digits) if digits else 0


def video_nodes(sysfs: Path = SYSFS, dev: Path = DEV) -> list[VideoNode]:
    """Every capture node of this machine by number; nodes for metadata (index > 0) are left out."""
    try:
        entries = sorted(sysfs.iterdir(), key=_number)
    except OSError:
        return []
    found = []
    for entry in entries:
        if not entry.name.startswith("video") or _attribute(entry, "index") not in ("", "0"):
            continue
        # The link leads to the USB interface; the device it belongs to is the folder above.
        usb = (entry / "device").resolve().parent
        vendor, product = _attribute(usb, "idVendor"), _attribute(usb, "idProduct")
        identity = UsbId(vendor, product, _attribute(usb, "serial")) if vendor else None
        found.append(VideoNode(dev / entry.name, _attribute(entry, "name"), identity))
    return found


def find_usb(wanted: UsbId, sysfs: Path = SYSFS, dev: Path = DEV) -> Path:
    """The node of a USB camera. Raises `CameraError` where none matches, or more than one."""
    matching = [
        node
        for node in video_nodes(sysfs, dev)
        if node.usb is not None
        and (node.usb.vendor, node.usb.product) == (wanted.vendor, wanted.product)
        and wanted.serial in ("", node.usb.serial)
    ]
    if not matching:
        raise CameraError(f"{wanted} is not there: plug the camera in", gone=True)
    if len(matching) > 1:
        names = ", ".join(
            f"{one.node} (serial {one.usb.serial if one.usb and one.usb.serial else 'none'})"
            for one in matching
        )
        raise CameraError(
            f"{wanted} is {len(matching)} cameras: {names}; "
            "add the serial, or name one by its link in /dev/v4l/by-path",
            gone=True,
        )
    return matching[0].node
