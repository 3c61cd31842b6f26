"""A preset fills what a profile leaves open, in seconds, and hides no mistake."""

from pathlib import Path

import pytest

from contract.errors import UserError
from firmware_config.profile import SMOOTHING_PRESETS, SmoothingConfig, load_profile


def smoothing(tmp_path: Path, text: str) -> SmoothingConfig:
    file = tmp_path / "box.toml"
    file.write_text(f"[smoothing]\n{text}\n")
    return load_profile(str(file), {}).smoothing


def test_the_plans_windows_are_seconds_of_its_30_frames(tmp_path: Path) -> None:
    plan = smoothing(tmp_path, "preset = 'plan'")
    assert (plan.vote_s, plan.hysteresis) == (pytest.approx(0.1667, abs=1e-4), 0.1)
    calm = smoothing(tmp_path, "preset = 'plan-calm'")
    assert (calm.vote_s, calm.hysteresis) == (pytest.approx(0.2333, abs=1e-4), 0.15)


def test_the_file_wins_over_its_preset_and_a_flag_over_both(tmp_path: Path) -> None:
    found = smoothing(tmp_path, "preset = 'calm'\ndwell_s = 0.25")
    assert (found.dwell_s, found.tau_s) == (0.25, SMOOTHING_PRESETS["calm"]["tau_s"])
    flags = {"smoothing.preset": "plan", "smoothing.dwell_s": 0.5}
    found = load_profile(str(tmp_path / "box.toml"), flags).smoothing
    assert (found.dwell_s, found.vote_s) == (0.5, SMOOTHING_PRESETS["plan"]["vote_s"])


def test_without_a_preset_the_defaults_hold() -> None:
    assert SmoothingConfig() == SmoothingConfig(preset="custom")
    assert (SmoothingConfig().dwell_s, SmoothingConfig().vote_s) == (0.0, 0.0)


@pytest.mark.parametrize("preset", sorted(SMOOTHING_PRESETS))
def test_a_profile_written_down_with_its_preset_is_read_as_it_was(preset: str) -> None:
    config = SmoothingConfig.model_validate({"preset": preset, "tau_s": 0.33})
    assert SmoothingConfig.model_validate(config.model_dump()) == config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("preset = 'clam'", "smoothing.preset: input should be 'custom', 'calm'"),
        ("preset = 5", "smoothing.preset"),
        ("preset = 'calm'\ndwel_s = 1", "unknown key 'smoothing.dwel_s', did you mean 'dwell_s'?"),
        ("preset = 'plan'\nvote_s = -1", "smoothing.vote_s"),
    ],
)
def test_a_mistake_is_told_by_its_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        smoothing(tmp_path, text)
    assert says in str(error.value)


def test_sessions_need_room_for_one_file_and_the_next(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least twice session_max_mb"):
        load_profile("default", {"output.session_total_mb": 100.0})
