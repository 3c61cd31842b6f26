"""The link on a real port, with a device that comes, goes and misbehaves."""

import os
import pty
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.errors import UserError
from contract.telemetry import Check
from edge.sinks.links import open_links
from edge.sinks.serial_link import SerialLink
from firmware_config.profile import load_profile
from firmware_config.serial_config import SerialConfig
from firmware_config.serial_protocol import Faces, FaceSeen
from firmware_config.simulated_mcu import PtyMcu
from tests.edge.results import a_face, a_kpi, a_result

HAPPY = Faces(1, (FaceSeen(1, "happy", 90, 1.5),))


def until(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return condition()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[PtyMcu]:
    one = PtyMcu(tmp_path / "mcu")
    yield one
    one.close()


@pytest.fixture
def link(device: PtyMcu) -> Iterator[SerialLink]:
    one = SerialLink(SerialConfig(port=str(device.link), brightness=30), "box")
    yield one
    one.close()


def test_the_device_is_told_what_the_box_sees(device: PtyMcu, link: SerialLink) -> None:
    assert until(lambda: link.problem is None)
    link.measured(a_kpi())
    link.write(a_result(0, 0, a_face()))
    assert until(lambda: device.mcu.faces == HAPPY)
    assert until(lambda: device.mcu.brightness == 30 and device.mcu.ready)
    assert any(getattr(message, "name", "") == "box" for message in device.mcu.heard)


def test_a_camera_that_is_gone_shows_nobody_and_a_box_that_is_not_ready_says_so(
    device: PtyMcu, link: SerialLink
) -> None:
    link.write(a_result(0, 0, a_face()))
    assert until(lambda: device.mcu.faces == HAPPY)
    link.measured(a_kpi(faces=0, checks=(Check("camera", False, "camera lost"),)))
    assert until(lambda: device.mcu.faces.total == 0 and not device.mcu.ready)


def test_a_loop_that_says_nothing_is_not_believed_for_long(
    device: PtyMcu, link: SerialLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.sinks.serial_link.STALE_S", 0.3)
    link.measured(a_kpi())
    link.write(a_result(0, 0, a_face()))
    assert until(lambda: device.mcu.faces == HAPPY)
    assert until(lambda: device.mcu.faces.total == 0 and not device.mcu.ready)


def test_a_port_that_comes_and_goes_is_found_again_and_the_faults_are_told(
    device: PtyMcu, link: SerialLink
) -> None:
    link.write(a_result(0, 0, a_face()))
    assert until(lambda: device.mcu.faces == HAPPY)
    for cycle in range(5):
        device.unplug()
        assert until(lambda: link.problem is not None and "is not there" in link.problem)
        device.plug_in()
        began = time.monotonic()
        link.measured(a_kpi())
        assert until(lambda: link.problem is None and device.mcu.faces == HAPPY)
        assert time.monotonic() - began < 5, "well above the second it takes on a machine at rest"
        assert link.session.connections == 2 + cycle


def test_a_port_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    port = tmp_path / "later"
    link = SerialLink(SerialConfig(port=str(port)), "box")
    try:
        assert until(lambda: "is not there" in (link.problem or ""))
        device = PtyMcu(port)
        assert until(lambda: link.problem is None)
        device.close()
    finally:
        link.close()


def test_a_device_that_takes_nothing_costs_the_loop_nothing() -> None:
    ours, theirs = pty.openpty()  # nobody reads at the other end
    link = SerialLink(SerialConfig(port=os.ttyname(theirs), most_per_s=100), "box")
    try:
        assert until(lambda: "no device answers" in (link.problem or ""))
        began = time.monotonic()
        for k in range(2000):
            link.write(a_result(k, k, a_face()))
        assert time.monotonic() - began < 1
    finally:
        began = time.monotonic()
        link.close()
        assert time.monotonic() - began < 2
        os.close(ours)
        os.close(theirs)


def test_at_the_end_the_device_shows_nobody(device: PtyMcu, link: SerialLink) -> None:
    link.measured(a_kpi())
    link.write(a_result(0, 0, a_face()))
    assert until(lambda: device.mcu.faces == HAPPY and device.mcu.ready)
    link.close()
    assert until(lambda: device.mcu.faces.total == 0 and not device.mcu.ready)


def test_a_profile_with_a_port_opens_the_link_and_others_open_none(
    device: PtyMcu, tmp_path: Path
) -> None:
    file = tmp_path / "box.toml"
    file.write_text(f'purpose = "research"\n[serial]\nport = "{device.link}"\n')
    (link,) = [
        link for link in open_links(load_profile(str(file), {})) if link.name == "serial link"
    ]
    assert until(lambda: link.problem is None)
    link.close()
    assert not [link for link in open_links(load_profile("demo", {})) if link.name == "serial link"]


@pytest.mark.parametrize("port", ["COM3", "ttyACM0", "usb:2341", "usb:23:43", "", "usb:xyzw:0043"])
def test_a_port_that_cannot_be_one_is_refused_with_the_forms(port: str, tmp_path: Path) -> None:
    file = tmp_path / "box.toml"
    file.write_text(f'[serial]\nport = "{port}"\n')
    with pytest.raises(UserError, match=r"serial\.port.*names no serial port: write /dev/serial"):
        load_profile(str(file), {})
