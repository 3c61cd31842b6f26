"""A serial port is found by name, and a port that cannot be used says why."""

import errno
import os
import pty
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.sinks import serial_port
from edge.sinks.serial_port import PortError, locate, open_port, parting


@dataclass
class Usb:
    device: str
    vid: int | None
    pid: int | None
    serial_number: str | None


PORTS = [
    Usb("/dev/ttyS0", None, None, None),
    Usb("/dev/ttyACM0", 0x2341, 0x0043, "A1"),
    Usb("/dev/ttyACM1", 0x2341, 0x0043, "B:2"),
    Usb("/dev/ttyUSB0", 0x1A86, 0x7523, None),
]


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("usb:1a86:7523", "/dev/ttyUSB0"),
        ("usb:1A86:7523", "/dev/ttyUSB0"),
        ("usb:2341:0043:A1", "/dev/ttyACM0"),
        ("usb:2341:0043:B:2", "/dev/ttyACM1"),
        ("/dev/serial/by-id/usb-x", "/dev/serial/by-id/usb-x"),
    ],
)
def test_a_port_is_found_by_its_name(name: str, node: str) -> None:
    assert locate(name, lambda: PORTS) == node


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("usb:dead:beef", "usb:dead:beef is not there: plug the device in"),
        ("usb:2341:0043:C3", "usb:2341:0043:C3 is not there"),
        ("usb:2341:0043", r"is 2 ports: /dev/ttyACM0 \(serial A1\), /dev/ttyACM1 \(serial B:2\)"),
    ],
)
def test_none_or_two_that_match_are_named(name: str, why: str) -> None:
    with pytest.raises(PortError, match=why):
        locate(name, lambda: PORTS)


@pytest.mark.parametrize("fault", [TypeError("int() argument"), OSError(errno.ENODEV, "gone")])
def test_a_device_that_goes_away_while_ports_are_listed_is_looked_for_again(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def going() -> list[Usb]:
        raise fault

    monkeypatch.setattr(serial_port.serial.tools.list_ports, "comports", going)
    with pytest.raises(PortError, match="usb:2341:0043 is not there"):
        open_port("usb:2341:0043", 115_200)


def test_a_port_has_one_user() -> None:
    ours, theirs = pty.openpty()
    try:
        node = os.ttyname(theirs)
        port = open_port(node, 115_200)
        with pytest.raises(PortError, match="in use by another program"):
            open_port(node, 115_200)
        port.close()
        open_port(node, 115_200).close()
    finally:
        os.close(ours)
        os.close(theirs)


def test_what_is_no_port_says_so(tmp_path: Path) -> None:
    with pytest.raises(PortError, match="is not there: plug the device in"):
        open_port(str(tmp_path / "nothing"), 115_200)
    (tmp_path / "file").touch()
    with pytest.raises(PortError, match="cannot be opened"):
        open_port(str(tmp_path / "file"), 115_200)


def test_a_port_of_others_names_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise serial_port.serial.SerialException(errno.EACCES, "Permission denied")

    monkeypatch.setattr(serial_port.serial, "Serial", refuse)
    with pytest.raises(PortError, match="add it to the group dialout"):
        open_port("/dev/ttyACM0", 115_200)


def test_a_device_that_is_stuck_is_told_from_one_that_is_gone() -> None:
    stuck = serial_port.serial.SerialTimeoutException("Write timeout")
    assert parting("/dev/ttyACM0", stuck) == "/dev/ttyACM0 takes nothing: the device is stuck"
    gone = serial_port.serial.SerialException(
        "device reports readiness to read but returned no data"
    )
    assert parting("/dev/ttyACM0", gone) == "/dev/ttyACM0 went away"
