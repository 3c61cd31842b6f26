"""The wheel holds the rooms: every file that is not code is named by the packaging too."""

import tomllib
from pathlib import Path

import pytest

from tests.conftest import PROJECT

SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]
CACHES = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def packed() -> set[Path]:
    """The files that a build takes: code, and package data.

    Every folder below a room is a package to setuptools, unless there is a dot in its name.
    """
    patterns = ["*.py", *SETTINGS["package-data"]["*"]]
    found = {file for room in rooms() for pattern in patterns for file in room.rglob(pattern)}
    return {file for file in found if "." not in str(file.relative_to(PROJECT).parent)}


def rooms() -> list[Path]:
    return [PROJECT / name.rstrip("*") for name in SETTINGS["packages"]["find"]["include"]]


def test_every_file_of_the_rooms_is_packed() -> None:
    there = {
        file
        for room in rooms()
        for file in room.rglob("*")
        if file.is_file() and not CACHES & set(file.parts)
    }
    assert len(there) > 150
    lost = sorted(str(file.relative_to(PROJECT)) for file in there - packed())
    assert not lost, f"no pattern of pyproject.toml's package-data takes {lost}"


@pytest.mark.parametrize(
    "file",
    [
        "edge/cameras/scripts/faults.toml",
        "edge/default_bundle/bundle.json",
        "edge/default_bundle/SHA256SUMS",
        "dashboard/templates/index.html",
        "firmware_config/profiles/default.toml",
        "firmware_config/systemd/fer-edge.service",
        "firmware_config/systemd/accelerator.conf",
        "firmware_config/udev/70-fer-edge.rules",
    ],
)
def test_what_a_box_cannot_do_without_is_packed(file: str) -> None:
    assert PROJECT / file in packed()


def test_neither_tests_nor_benchmarks_are_packed() -> None:
    assert not [
        file for file in packed() if file.relative_to(PROJECT).parts[0] in ("tests", "benchmarks")
    ]
