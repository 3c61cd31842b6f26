"""A box tells a microcontroller what it sees, and outlives its unplugging."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from contract.bundle import Bundle
from firmware_config.simulated_mcu import PtyMcu
from tests.system.commands import running, until


def serial_check(url: str) -> dict[str, object]:
    """What `/readyz` says about the link."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=10) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    checks: list[dict[str, object]] = json.loads(body)["checks"]
    return next((check for check in checks if check["name"] == "serial link"), {})


@pytest.mark.timeout(180)
def test_the_program_tells_a_device_who_is_in_view(
    tmp_path: Path, cache: Path, tiny: Bundle, demo_portraits: None
) -> None:
    device = PtyMcu(tmp_path / "mcu")
    profile = tmp_path / "box.toml"
    profile.write_text(
        f"""
        purpose = "research"
        [camera]
        source = "demo"
        [dashboard]
        port = 0
        [output]
        session = false
        [serial]
        port = "{device.link}"
        brightness = 20
        """
    )
    flags = ["--profile", profile, "--model", tiny.folder]
    try:
        with running(*flags, cache=cache, cwd=tmp_path) as box:
            assert until(lambda: device.mcu.faces.total > 0 and device.mcu.ready), box.log
            assert device.mcu.brightness == 20
            assert until(lambda: serial_check(box.url).get("ok") is True)

            device.unplug()
            assert until(lambda: "is not there" in str(serial_check(box.url).get("reason")))
            device.plug_in()
            assert until(lambda: device.mcu.faces.total > 0), box.log
            assert until(lambda: serial_check(box.url).get("ok") is True)

            assert box.stop() < 5
            assert until(lambda: device.mcu.faces.total == 0 and not device.mcu.ready)
            assert "Traceback" not in box.log
    finally:
        device.close()
