"""What an installation writes, that it takes all of it away again, and that a switch is atomic."""

import grp
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from contract.errors import UserError
from firmware_config.install_files import (
    RULES,
    SOURCES,
    UNITS,
    Wanted,
    groups_of,
    leftovers,
    put,
    take_away,
    wanted_files,
)
from firmware_config.install_layout import COMPLETE, Layout

PROFILE = 'name = "box"\npurpose = ["research"]\n'
MOST_EXPOSED = 3.0
"""systemd's own scale: 10 is unprotected."""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def unit_text(name: str) -> str:
    return (SOURCES / "systemd" / name).read_text()


def settings(name: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit_text(name), re.MULTILINE)


def test_what_was_written_is_taken_away_and_nothing_else(layout: Layout) -> None:
    other = layout.units / "other.service"
    other.parent.mkdir(parents=True)
    other.write_text("[Unit]\n")
    before = everything(layout.root)
    put(layout, wanted_files(layout, PROFILE, accelerator=True))
    made = everything(layout.root) - before
    assert {f"etc/systemd/system/{unit}" for unit in UNITS} <= made
    assert {"etc/fer-edge/box.toml", f"etc/udev/rules.d/{RULES}", "usr/local/bin/fer-edge"} <= made
    assert layout.profile.read_text() == PROFILE
    take_away(layout, leftovers(layout))
    assert everything(layout.root) == before


def test_what_a_box_wrote_while_it_ran_goes_too(layout: Layout) -> None:
    (layout.root / "var/log").mkdir(parents=True)
    (layout.root / "var/log/other").touch()
    before = everything(layout.root)
    put(layout, wanted_files(layout, PROFILE, accelerator=False))
    for name in ("fer-edge", "fer-edge-entrance"):  # as DynamicUser= lays them out
        private = layout.root / "var/log/private" / name
        private.mkdir(parents=True)
        (private / "session.csv").touch()
        (layout.root / "var/log" / name).symlink_to(private)
    edited = layout.units / "fer-edge@entrance.service.d"
    edited.mkdir()
    (edited / "override.conf").touch()
    (layout.units / "multi-user.target.wants/fer-edge@entrance.service").symlink_to("../x")
    take_away(layout, leftovers(layout))
    assert everything(layout.root) - before == {"var/log/private"}


def test_another_installation_removes_what_it_no_longer_wants(layout: Layout) -> None:
    put(layout, wanted_files(layout, PROFILE, accelerator=True))
    dropped = layout.units / "fer-edge.service.d/accelerator.conf"
    assert dropped.is_file()
    put(layout, wanted_files(layout, PROFILE, accelerator=False))
    assert not dropped.exists() and (layout.units / UNITS[0]).is_file()
    take_away(layout, leftovers(layout))
    assert everything(layout.root) == set()


def test_a_file_of_somebody_else_is_not_replaced_by_our_link(layout: Layout) -> None:
    taken = layout.root / "usr/local/bin/fer-edge"
    taken.parent.mkdir(parents=True)
    taken.write_text("theirs")
    with pytest.raises(UserError, match="usr/local/bin/fer-edge is there and is not ours"):
        put(layout, wanted_files(layout, PROFILE, accelerator=False))
    assert taken.read_text() == "theirs" and not layout.profile.exists()


def test_a_link_of_somebody_else_is_not_replaced_by_ours(layout: Layout) -> None:
    taken = layout.root / "usr/local/bin/fer-edge"
    taken.parent.mkdir(parents=True)
    taken.symlink_to("/home/me/venv/bin/fer-edge")
    with pytest.raises(UserError, match="usr/local/bin/fer-edge is there and is not ours"):
        put(layout, wanted_files(layout, PROFILE, accelerator=False))
    assert str(taken.readlink()) == "/home/me/venv/bin/fer-edge" and not layout.profile.exists()


def test_the_link_that_systemctl_enable_makes_is_ours(layout: Layout) -> None:
    link = layout.units / "multi-user.target.wants/fer-edge.service"
    link.parent.mkdir(parents=True)
    link.symlink_to("/etc/systemd/system/fer-edge.service")
    put(layout, wanted_files(layout, PROFILE, accelerator=False))
    take_away(layout, leftovers(layout))
    assert not link.is_symlink()


@pytest.mark.parametrize("link", ["etc", "etc/systemd/system", "var/log", "opt"])
def test_a_link_out_of_an_image_is_not_followed(tmp_path: Path, link: str) -> None:
    """In an image of a box it leads to the machine that makes it: there nothing is touched."""
    layout, machine = Layout(tmp_path / "image"), tmp_path / "machine"
    if link == "var/log":
        put(layout, wanted_files(layout, PROFILE, accelerator=False))
    (machine / "fer-edge").mkdir(parents=True)
    (machine / "fer-edge/session.csv").touch()
    (layout.root / link).parent.mkdir(parents=True, exist_ok=True)
    (layout.root / link).symlink_to(machine)
    before = everything(machine)
    with pytest.raises(UserError, match="a link on the way leads out of"), layout.changing():
        if link == "var/log":
            take_away(layout, leftovers(layout))
        put(layout, wanted_files(layout, PROFILE, accelerator=False))
    assert everything(machine) == before


def test_what_is_only_named_alike_stays(layout: Layout) -> None:
    put(layout, wanted_files(layout, PROFILE, accelerator=False))
    (layout.profile.parent / "hall.toml").touch()
    copy = layout.root / "var/log/fer-edge-copy/session.csv"
    drop_in = layout.units / "fer-edge-exporter.service.d/own.conf"
    of_hall = layout.root / "var/log/fer-edge-hall/session.csv"
    for file in (copy, drop_in, of_hall):
        file.parent.mkdir(parents=True)
        file.touch()
    take_away(layout, leftovers(layout))
    assert copy.is_file() and drop_in.is_file() and not of_hall.parent.exists()


def test_a_profile_with_a_password_is_at_no_moment_everybodys(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def chown(path: Path, *, group: str) -> None:
        seen.append((group, path.stat().st_mode & 0o777))

    monkeypatch.setattr(shutil, "chown", chown)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(grp, "getgrall", lambda: [grp.struct_group(("video", "x", 44, []))])
    for _ in range(2):
        put(layout, wanted_files(layout, PROFILE, accelerator=False))
    assert seen == [("video", 0o600)] * 2
    assert layout.profile.stat().st_mode & 0o777 == 0o640


def test_the_boot_link_leads_to_the_unit(layout: Layout) -> None:
    put(layout, wanted_files(layout, PROFILE, accelerator=False))
    link = layout.units / "multi-user.target.wants/fer-edge.service"
    assert link.resolve() == (layout.units / "fer-edge.service").resolve()


def test_the_groups_of_the_units_are_told(layout: Layout) -> None:
    assert groups_of(wanted_files(layout, PROFILE, accelerator=False)) == {"video", "dialout"}
    with_gpu = wanted_files(layout, PROFILE, accelerator=True)
    assert groups_of(with_gpu) == {"video", "dialout", "render"}


# The units.


def test_both_units_restrict_alike() -> None:
    """They differ in names alone: what is found for one holds for the other."""
    single, template = (unit_text(name) for name in UNITS)
    named = template.replace("%i.toml", "box.toml").replace("-%i", "").replace(" %i", "")

    def lines(text: str) -> list[str]:
        text = text.replace("before a camera", "before camera")
        return [line for line in text.splitlines() if not line.startswith("#")]

    assert lines(named) == lines(single)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_leaves_the_inference_runtime_what_it_needs(unit: str) -> None:
    text = "\n".join(line for line in unit_text(unit).splitlines() if not line.startswith("#"))
    assert "MemoryDenyWriteExecute" not in text and "ProcSubset" not in text
    denied = " ".join(value for value in settings(unit, "SystemCallFilter") if value[0] == "~")
    assert "@resources" not in denied and "sched_setaffinity" not in denied
    assert "AF_INET" in settings(unit, "RestrictAddressFamilies")[0]


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_keeps_pictures_out_of_core_dumps_and_other_users(unit: str) -> None:
    assert settings(unit, "LimitCORE") == ["0"]
    assert settings(unit, "UMask") == ["0077"]
    assert settings(unit, "DynamicUser") == ["yes"]
    assert settings(unit, "DevicePolicy") == ["closed"]


@pytest.fixture
def image(layout: Layout) -> Path:
    """An installation in a folder that has the units and the commands every Debian has."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    put(layout, wanted_files(layout, PROFILE, accelerator=True))
    theirs = next(
        p for p in (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system")) if p.is_dir()
    )
    shutil.copytree(theirs, layout.root / "usr/lib/systemd/system", symlinks=True)
    for command in ("opt/fer-edge/versions/1/bin/fer-edge", "bin/kill"):
        file = layout.root / command
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    layout.switch("1")
    return layout.root


@pytest.mark.parametrize("unit", ["fer-edge.service", "fer-edge@entrance.service"])
def test_systemd_finds_no_fault_with_a_unit(image: Path, unit: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={image}", unit],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_a_unit_well_protected(image: Path, unit: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--root={image}",
         unit.replace("@.", "@entrance.")],
        capture_output=True, text=True,
    )  # fmt: skip
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSED


# Versions.


def made(layout: Layout, *versions: str) -> None:
    for version in versions:
        folder = layout.versions / version
        folder.mkdir(parents=True)
        (folder / COMPLETE).touch()


def test_a_reader_always_finds_a_current_version(layout: Layout) -> None:
    made(layout, "old", "new")
    layout.switch("old")
    done, missed, reads = threading.Event(), [], []

    def read() -> None:
        while not done.is_set():
            reads.append(1)
            if not (layout.link / COMPLETE).is_file():
                missed.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(200):
        layout.switch(("new", "old")[turn % 2])
    done.set()
    reader.join()
    assert layout.current() == "old" and len(reads) > 10 and not missed


def test_a_link_holds_when_the_root_moves(layout: Layout, tmp_path: Path) -> None:
    made(layout, "old")
    layout.switch("old")
    moved = tmp_path / "moved"
    shutil.copytree(layout.root / "opt", moved / "opt", symlinks=True)
    assert (moved / "opt/fer-edge/current" / COMPLETE).is_file()


def test_a_version_that_is_interrupted_on_its_way_out_is_not_whole(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(layout, "old", "new")

    def broken(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", broken)
    with pytest.raises(KeyboardInterrupt):
        layout.remove_all_but("new")
    assert not layout.is_whole("old") and layout.is_whole("new")


def test_two_commands_do_not_change_it_at_once(layout: Layout) -> None:
    with (
        layout.changing(),
        pytest.raises(UserError, match="at work"),
        Layout(layout.root).changing(),
    ):
        pass  # pragma: no cover
    with layout.changing():
        pass


def test_a_wanted_file_says_what_it_is() -> None:
    assert str(Wanted(Path("/a"), b"123")) == "/a (3 bytes)"
    assert str(Wanted(Path("/a"), link=Path("/b"))) == "/a -> /b"
