"""The rules for devices: understood by udev, in place among its own, for the right devices."""

import re
import shutil
import subprocess

import pytest

from firmware_config.install_files import RULES, SOURCES

FILE = SOURCES / "udev" / RULES
TOKEN = re.compile(
    r'(?P<key>[A-Z]+)(\{(?P<name>\w+)\})?(?P<operator>==|!=|\+=|:=|=)"(?P<value>[^"]*)"'
)
MATCHED = {"SUBSYSTEM", "ENV"}
ASSIGNED = {"GROUP", "MODE", "SYMLINK", "ENV", "GOTO", "LABEL"}


def rules() -> list[list[dict[str, str]]]:
    """Every rule as its tokens; fails for a line that is not made of tokens alone."""
    found = []
    for line in FILE.read_text().splitlines():
        if line and not line.startswith("#"):
            parts = [TOKEN.fullmatch(part) for part in re.split(r",\s*", line)]
            assert all(parts), line
            found.append([part.groupdict() for part in parts if part])
    return found


def test_every_rule_is_made_of_what_udev_knows() -> None:
    for rule in rules():
        for token in rule:
            asked = token["operator"] in ("==", "!=")
            assert token["key"] in (MATCHED if asked else ASSIGNED), token


def test_every_jump_has_its_label_further_down() -> None:
    jumps = [(n, t["value"]) for n, rule in enumerate(rules()) for t in rule if t["key"] == "GOTO"]
    labels = {t["value"]: n for n, rule in enumerate(rules()) for t in rule if t["key"] == "LABEL"}
    assert jumps and all(labels[name] > number for number, name in jumps)


def test_udev_finds_no_fault() -> None:
    if shutil.which("udevadm") is None:
        pytest.skip("needs udevadm: apt-get install udev")
    done = subprocess.run(["udevadm", "verify", str(FILE)], capture_output=True, text=True)
    if "Unknown command verb" in done.stderr or "Unknown operation" in done.stderr:
        pytest.skip("needs a udevadm that verifies rules (systemd 254 or newer)")
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_comes_after_what_it_asks_for_and_before_what_it_tells() -> None:
    """60-serial and 60-persistent-v4l fill ID_…; ModemManager reads its switch from 77 on."""
    assert 60 < int(RULES.partition("-")[0]) < 77


def test_modem_manager_leaves_every_microcontroller_alone() -> None:
    (told,) = [
        {token["name"] or token["key"]: token["value"] for token in rule}
        for rule in rules()
        if any(token["name"] == "ID_MM_DEVICE_IGNORE" for token in rule)
    ]
    assert told == {
        "GROUP": "dialout", "MODE": "0660", "ID_MM_DEVICE_IGNORE": "1", "ID_MM_PORT_IGNORE": "1",
    }  # fmt: skip


def test_no_device_is_for_everybody() -> None:
    modes = [token["value"] for rule in rules() for token in rule if token["key"] == "MODE"]
    assert modes and all(mode.endswith("0") for mode in modes)
