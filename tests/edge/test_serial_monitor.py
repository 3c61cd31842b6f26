"""`fer-edge serial-monitor`: every word on the line, in words."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract.errors import UserError
from edge import serial_monitor
from edge.serial_monitor import describe, main
from firmware_config.serial_protocol import Frame, Kind
from firmware_config.simulated_mcu import PtyMcu


@pytest.fixture
def device(tmp_path: Path) -> Iterator[PtyMcu]:
    one = PtyMcu(tmp_path / "mcu")
    yield one
    one.close()


def test_it_speaks_as_the_box_and_prints_both_sides(
    device: PtyMcu, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--seconds", "1", "--show", "happy", "--brightness", "40", "--query"]
    assert main([str(device.link), *flags]) == 0
    said = capsys.readouterr().out
    for line in (
        r"> #0 HELLO version=1 answer=False name=serial-monitor",
        r"< #\d+ HELLO version=1 answer=True name=simulated",
        r"> #\d+ BRIGHTNESS percent=40",
        r"> #\d+ QUERY$",
        r"< #\d+ ACKNOWLEDGE sequence=\d+ result=DONE",
        r"> #\d+ FACES total=1 \[person 1 happy 100 % for 0 s\]",
        r"< #\d+ STATUS brightness=40 ",
    ):
        assert re.search(rf"^ +\d+\.\d{{3}} {line}", said, re.MULTILINE), line


def test_faults_are_asked_for_over_the_line_and_what_they_break_is_counted(
    device: PtyMcu, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(device.link), "--seconds", "2.5", "--fault", "corrupt 1"]) == 0
    assert re.search(r"! heard so far: 1 damaged, 1 lost", capsys.readouterr().out)


def test_a_device_that_never_answers_ends_it_with_one(
    device: PtyMcu, capsys: pytest.CaptureFixture[str]
) -> None:
    device.fault("silent 60")
    assert main([str(device.link), "--seconds", "0.3"]) == 1
    assert "no device answers" in capsys.readouterr().err


def test_a_device_that_is_unplugged_is_one_line(device: PtyMcu) -> None:
    with pytest.raises(UserError, match="went away"):
        main([str(device.link), "--seconds", "10", "--fault", "unplug 0.1"])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["/nowhere/ttyX"], "/nowhere/ttyX is not there: plug the device in"),
        (["COM3"], "'COM3' names no serial port"),
        (["/dev/null", "--brightness", "101"], "--brightness 101: give a percentage"),
        (["/dev/null", "--baud", "0"], "--baud 0: give 1200 to 4000000"),
        (["/dev/null", "--fault", "x" * 65], "at most 64 bytes"),
        (["/dev/null", "--show", "bored"], "invalid choice: 'bored'"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], why: str) -> None:
    with pytest.raises(UserError, match=re.escape(why)):
        main(arguments)


@dataclass
class Usb:
    device: str
    vid: int | None = None
    pid: int | None = None
    serial_number: str | None = None


def test_without_a_port_it_lists_them_as_a_profile_names_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = [Usb("/dev/ttyUSB0", 0x1A86, 0x7523), Usb("/dev/ttyACM0", 0x2341, 0x43, "A1")]
    monkeypatch.setattr(serial_monitor, "usb_ports", lambda: ports)
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "/dev/ttyACM0  usb:2341:0043:A1",
        "/dev/ttyUSB0  usb:1a86:7523",
    ]
    monkeypatch.setattr(serial_monitor, "usb_ports", list)
    assert main([]) == 0
    assert "no serial port here" in capsys.readouterr().err


def test_what_is_not_understood_is_shown_as_it_is() -> None:
    assert describe(Frame(0x33, 7, b"\x01\xff")) == "#7 unknown type 0x33: 01 ff"
    assert describe(Frame(Kind.BRIGHTNESS, 8, b"\x65")).startswith("#8 101 is more than 100")
