"""The installed units under their own restrictions, run by a real systemd."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.errors import UserError
from edge.install_services import Services
from edge.install_version import Source
from edge.upgrade_command import upgrade
from firmware_config.install_files import put, wanted_files
from firmware_config.install_layout import COMPLETE, Layout
from tests.conftest import shared_folder
from tests.edge.stub_version import StubMaker, wheel_file
from tests.system.commands import LIMIT_S, until
from tests.system.private_systemd import (
    ENVIRONMENT,
    PYTHON,
    PrivateSystemd,
    private_systemd,
    why_not,
)
from tests.system.test_live import fetch

UNIT = "fer-edge.service"
OTHER = "fer-edge@hall.service"
PROGRAM = f'#!/bin/sh\nexec {PYTHON} -P -m edge "$@"\n'
LOG = f"[Service]\nEnvironment={ENVIRONMENT}\nStandardError=append:/opt/log\n"

HALL = """
purpose = ["research"]
camera.source = "/dev/video63"
detector.kind = "haar"
runtime.backend = "onnxruntime"
dashboard.enabled = false
"""
"""A box that starts soon and waits for its camera."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[PrivateSystemd]:
    """A machine with the units, of which the program is this tree."""
    if reason := why_not():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("box")
    layout = Layout(root)
    version = layout.versions / "1"
    (version / "bin").mkdir(parents=True)
    for name in ("fer-edge", "python"):
        file = version / "bin" / name
        file.write_text(PROGRAM if name == "fer-edge" else "#!/bin/sh\n")
        file.chmod(0o755)
    (version / COMPLETE).touch()
    layout.switch("1")
    profile = f'purpose = ["research"]\n[camera]\nsource = "demo"\n[dashboard]\nport = {port}\n'
    put(layout, wanted_files(layout, profile, accelerator=True))
    hall = layout.profile.with_name("hall.toml")
    hall.write_text(HALL)
    for unit in ("fer-edge.service.d", "fer-edge@.service.d"):
        (layout.units / unit / "test.conf").write_text(LOG)
    if (models := shared_folder() / "models").is_dir():
        layout.models.mkdir()
        for file in models.glob("*.onnx"):
            (layout.models / file.name).write_bytes(file.read_bytes())
    # The folders above are another user's to pass, as under /opt.
    for folder in (root, *root.parents):
        if folder.is_relative_to("/tmp"):
            folder.chmod(0o755)
    try:
        with private_systemd(root) as manager:
            yield manager
    except OSError as error:
        pytest.skip(str(error))


def log(box: PrivateSystemd) -> str:
    file = box.root / "opt/log"
    return file.read_text() if file.exists() else "(no log)"


def show(box: PrivateSystemd, unit: str, name: str) -> str:
    return box.run(["systemctl", "show", "--value", f"--property={name}", unit]).stdout.strip()


@pytest.fixture(scope="module")
def started(box: PrivateSystemd) -> PrivateSystemd:
    done = box.run(["systemctl", "start", UNIT])
    assert done.returncode == 0, done.stderr + log(box)
    return box


@pytest.mark.usefixtures("demo_portraits")
def test_the_program_works_under_the_units_own_restrictions(
    started: PrivateSystemd, port: int
) -> None:
    assert until(lambda: show(started, UNIT, "StatusText") == "ready"), log(started)
    address = f"http://127.0.0.1:{port}/readyz"
    assert until(lambda: fetch(address)[0] == 200), fetch(address)
    process = started.main_process(UNIT)
    kernel = Path(f"/proc/{process.pid}/status").read_text()
    assert process.uids().real >= 61184  # systemd's range for users of a service
    assert "NoNewPrivs:\t1" in kernel and "Seccomp:\t2" in kernel
    assert "CapEff:\t0000000000000000" in kernel and "CapBnd:\t0000000000000000" in kernel
    (session,) = started.path("/var/log/private/fer-edge").glob("*.csv")
    assert until(lambda: session.stat().st_size > 2000)
    assert list(started.path("/var/cache/private/fer-edge").rglob("*"))
    assert started.run(["systemctl", "reload", UNIT]).returncode == 0
    assert until(lambda: "profile" in log(started).splitlines()[-1]), log(started)
    assert show(started, UNIT, "ActiveState") == "active"
    denied = ("Permission denied", "Operation not permitted", "Read-only file system")
    assert not any(text in log(started) for text in denied), log(started)


def test_a_second_camera_runs_beside_it(started: PrivateSystemd) -> None:
    done = started.run(["systemctl", "start", OTHER])
    assert done.returncode == 0, done.stderr + log(started)
    assert show(started, OTHER, "ActiveState") == "active"
    assert show(started, OTHER, "StatusText").startswith("not ready: ")
    assert started.path("/var/log/private/fer-edge-hall").is_dir()
    assert started.main_process(OTHER).pid != started.main_process(UNIT).pid
    began = time.monotonic()
    assert started.run(["systemctl", "stop", OTHER]).returncode == 0
    assert time.monotonic() - began < LIMIT_S
    assert show(started, OTHER, "Result") == "success"


def test_a_mistake_in_the_profile_is_said_and_not_tried_again(box: PrivateSystemd) -> None:
    profile = Layout(box.root).profile.with_name("wrong.toml")
    profile.write_text("[camera]\nsourc = 1\n")
    assert box.run(["systemctl", "start", "fer-edge@wrong.service"]).returncode != 0
    assert show(box, "fer-edge@wrong.service", "ExecMainStatus") == "2"
    assert show(box, "fer-edge@wrong.service", "NRestarts") == "0"
    assert show(box, "fer-edge@wrong.service", "ActiveState") == "failed"
    assert "camera.sourc" in log(box)
    box.run(["systemctl", "reset-failed", "fer-edge@wrong.service"])
    profile.unlink()


def test_a_version_that_does_not_start_goes_back_by_itself(
    started: PrivateSystemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stub's program is no program: systemd finds that it ends at once."""
    StubMaker(monkeypatch)
    layout = Layout(started.root)
    services = Services(started.run)
    with pytest.raises(UserError, match="1 is back and runs"):
        upgrade(layout, Source(wheel_file(tmp_path)), services)
    assert layout.current() == "1"
    assert show(started, UNIT, "ActiveState") == "active"
    assert until(lambda: show(started, UNIT, "StatusText") == "ready"), log(started)
