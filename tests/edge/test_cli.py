"""The command line: flags over the profile, one line for a mistake, nothing heavy for either."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.errors import UserError
from edge import cli, live
from edge.cli import main
from firmware_config.profile import Profile


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Profile]:
    """The profiles the live loop was started with."""
    profiles: list[Profile] = []

    def keep(profile: Profile, read: Callable[[], Profile]) -> int:
        assert read() == profile, "a reload reads the file and the flags again"
        profiles.append(profile)
        return 0

    monkeypatch.setattr(live, "run_live", keep)
    return profiles


@pytest.fixture
def box(tmp_path: Path) -> str:
    """A profile in which nothing is at its default."""
    file = tmp_path / "box.toml"
    file.write_text(
        """
        [camera]
        source = "/dev/video5"
        width = 320
        [detector]
        kind = "haar"
        [runtime]
        bundle = "/models/of/the/box"
        backend = "onnxruntime"
        threads = 3
        [dashboard]
        port = 9000
        host = "192.0.2.7"
        [output]
        session_dir = "/log"
        """
    )
    return str(file)


def test_without_flags_the_profile_holds(ran: list[Profile], box: str) -> None:
    assert main(["--profile", box]) == 0
    (profile,) = ran
    assert profile.name == "box"
    assert (profile.camera.source, profile.camera.width) == ("/dev/video5", 320)
    assert (profile.runtime.threads, profile.dashboard.port) == (3, 9000)
    assert profile.dashboard.enabled and profile.output.session


@pytest.mark.parametrize(
    ("flags", "section", "key", "value"),
    [
        (["--camera", "demo"], "camera", "source", "demo"),
        (["--model", "other"], "runtime", "bundle", Path("other")),
        (["--backend", "openvino"], "runtime", "backend", "openvino"),
        (["--threads", "1"], "runtime", "threads", 1),
        (["--detector", "yunet"], "detector", "kind", "yunet"),
        (["--host", "127.0.0.1"], "dashboard", "host", "127.0.0.1"),
        (["--port", "0"], "dashboard", "port", 0),
        (["--no-dashboard"], "dashboard", "enabled", False),
        (["--session-dir", "here"], "output", "session_dir", Path("here")),
        (["--no-session"], "output", "session", False),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_flag_overrides_its_key_and_no_other(
    ran: list[Profile], box: str, flags: list[str], section: str, key: str, value: Any
) -> None:
    main(["--profile", box])
    main(["--profile", box, *flags])
    before, after = (profile.model_dump() for profile in ran)
    assert before[section][key] != value
    assert after[section][key] == value
    after[section][key] = before[section][key]
    assert after == before


def test_the_users_own_command_needs_nothing_else(ran: list[Profile]) -> None:
    assert main(["--camera", "/dev/video0", "--headless"]) == 0
    assert main([]) == 0
    assert ran[0] == ran[1]
    assert ran[0].camera.source == "/dev/video0"
    assert (ran[0].dashboard.host, ran[0].runtime.bundle) == ("127.0.0.1", None)


def test_a_service_manager_starts_only_what_says_what_it_is_for(
    ran: list[Profile], box: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    with pytest.raises(UserError, match=r"box\.toml: purpose: a deployed profile says"):
        main(["--profile", box])
    assert ran == []
    file = Path(box)
    file.write_text("purpose = 'safety'\n" + file.read_text())
    assert main(["--profile", box]) == 0
    assert [profile.purpose for profile in ran] == [("safety",)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evalute"], "unknown command 'evalute', did you mean 'evaluate'?"),
        (["demo"], "unknown command 'demo'"),
        (["--camra", "demo"], "--camra"),
        (["--port", "http"], "invalid int value: 'http'"),
        (["--port", "70000"], "dashboard.port"),
        (["--threads", "0"], "runtime.threads"),
        (["--detector", "yolo"], "invalid choice: 'yolo'"),
        (["--profile", "dmeo"], "no such profile, did you mean 'demo'?"),
        (["bench", "--camera", "demo"], "--json"),
        (["evaluate", "--manifest", "m.csv", "--json", "/dev/null/x.json"], "cannot be written"),
        (["evaluate", "--manifest", "m.csv", "--json", "."], "is a folder"),
        (["evaluate", "--manifest", "none.csv", "--json", "x.json"], "no manifest at none.csv"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_that_names_it(
    ran: list[Profile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        main(arguments)
    assert says in str(error.value)
    assert ran == [] and list(tmp_path.iterdir()) == []


def test_help_names_every_command_and_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for word in (*cli.COMMANDS, "--camera", "--profile", "--no-session", "/dev/videoN", "demo"):
        assert word in shown


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"fer-edge {command}" in capsys.readouterr().out


def test_the_box_imports_neither_torch_nor_pandas_and_answers_a_mistake_without_a_runtime() -> None:
    program = (
        "import sys, edge.cli, edge.live, edge.offline.bench, edge.offline.evaluate\n"
        "heavy = {'torch', 'pandas', 'timm', 'nncf', 'sklearn', 'scipy', 'onnx'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    program = (
        "import sys, edge.cli\n"
        "sys.argv = ['fer-edge', '--camra', 'demo']\n"
        "assert edge.cli.run() == 2\n"
        "slow = {'cv2', 'openvino', 'onnxruntime', 'zmq', 'flask'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
