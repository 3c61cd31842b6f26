"""`fer-edge check`: a profile is right or one line says why not; keys explain themselves."""

from pathlib import Path

import pytest

from contract.errors import UserError
from edge.check import main
from firmware_config.key_table import config_table
from firmware_config.keys import keys
from firmware_config.profile import profile_names

Out = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_that_ships_is_right(name: str, capsys: Out) -> None:
    assert main([name]) == 0
    assert capsys.readouterr().out.startswith(f"{name} is right; of {len(keys())} keys it sets ")


def test_it_lists_what_a_profile_changes_and_hides_a_password(tmp_path: Path, capsys: Out) -> None:
    file = tmp_path / "box.toml"
    file.write_text(
        "purpose = 'safety'\n[camera]\nsource = 'rtsp://ada:hidden-word@cam/live'\nfps = 30\n"
        "[smoothing]\npreset = 'calm'\ntau_s = 0.5\n"
    )
    assert main([str(file), "--deployed"]) == 0
    out = capsys.readouterr().out
    assert 'smoothing.preset = "calm"' in out and "smoothing.dwell_s = 1.0" in out
    assert "camera.fps" not in out, "that is the default"
    assert 'camera.source = "rtsp://cam/live"' in out and "hidden-word" not in out


def test_a_wrong_profile_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "box.toml"
    file.write_text("[camra]\nsource = 'demo'\n")
    with pytest.raises(UserError, match=r"unknown key 'camra', did you mean 'camera'\?"):
        main([str(file)])


def test_a_profile_without_a_purpose_is_right_but_not_to_be_deployed(capsys: Out) -> None:
    assert main(["default"]) == 0
    assert "refused where it is deployed" in capsys.readouterr().out
    with pytest.raises(UserError, match="default: purpose: a deployed profile says"):
        main(["default", "--deployed"])
    assert main(["demo", "--deployed"]) == 0


def test_a_key_explains_itself_with_its_value_in_a_profile(tmp_path: Path, capsys: Out) -> None:
    file = tmp_path / "box.toml"
    file.write_text("[smoothing]\ntau_s = 0.75\n")
    assert main([str(file), "--explain", "smoothing.tau_s"]) == 0
    out = capsys.readouterr().out
    for words in ("seconds", "number from 0 to 10", "0.05", "in box:", "0.75", "may change"):
        assert words in out
    assert main(["--explain", "camera.fps"]) == 0
    assert "a restart is needed" in capsys.readouterr().out
    assert main(["--explain", "smoothing"]) == 0
    out = capsys.readouterr().out
    assert out.count("while it runs:") == sum(name.startswith("smoothing.") for name in keys())


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("smoothing.tau", "smoothing.tau_s"), ("tau_s", "smoothing.tau_s"), ("sesion_dir", None),
    ],
)  # fmt: skip
def test_a_key_that_is_none_is_said_with_the_nearest(wanted: str, near: str | None) -> None:
    with pytest.raises(UserError) as error:
        main(["--explain", wanted])
    assert f"--explain {wanted}: no such key or section" in str(error.value)
    assert near is None or f"did you mean '{near}'?" in str(error.value)


def test_the_table_is_the_documents(capsys: Out) -> None:
    assert main(["--table"]) == 0
    assert capsys.readouterr().out == config_table()
