"""What may change while it runs: wholly or not at all, and never by a profile that is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from edge.live_settings import LiveSettings
from firmware_config.profile import SMOOTHING_PRESETS, Profile, SmoothingConfig, load_profile
from tests.edge.test_feed import Time


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "box.toml"


@pytest.fixture
def box(file: Path) -> Callable[[str], LiveSettings]:
    """The settings of a program that was started with a profile of this text."""

    def start(text: str) -> LiveSettings:
        file.write_text(text)
        read = lambda: load_profile(str(file), {"camera.width": 320})  # noqa: E731
        return LiveSettings(read(), read)

    return start


def fresh() -> LiveSettings:
    profile = Profile(name="desk")
    return LiveSettings(profile, lambda: profile)


def test_the_schema_allows_what_is_set_and_a_person_can_read_it() -> None:
    settings = fresh()
    schema, values = settings.schema(), settings.values()
    jsonschema.validate(values, schema)
    assert json.loads(json.dumps(values)) == values
    assert set(schema["properties"]) == set(values)
    for name in ("raw_view", "smoothing.tau_s", "smoothing.abstain_threshold", "quality.enabled"):
        assert name in values
    assert not {name for name in values if name.startswith(("camera", "detector", "runtime"))}
    assert "dashboard.raw_view_s" not in values, "a viewer must not make raw views last"
    titles = [each["title"] for each in schema["properties"].values()]
    assert len(set(titles)) == len(titles)


def test_one_setting_changes_that_one_and_no_other() -> None:
    settings = fresh()
    before, profile = settings.values(), settings.profile
    settings.change({"smoothing.tau_s": 1, "quality.enabled": False})
    assert settings.values() == {**before, "smoothing.tau_s": 1.0, "quality.enabled": False}
    assert settings.profile.smoothing.tau_s == 1.0 and settings.profile is not profile
    profile = settings.profile
    settings.change({"smoothing.tau_s": 1.0})
    assert settings.profile is profile, "nothing new for the loop to take"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"smoothing.tau_s": 11}, "smoothing.tau_s: input should be less than or equal to 10"),
        ({"smoothing.tau_s": "1"}, "smoothing.tau_s: input should be a valid number, got '1'"),
        ({"smoothing.tau_s": None}, "smoothing.tau_s"),
        ({"smoothing.tau_s": float("nan")}, "smoothing.tau_s"),
        ({"smoothing.tau": 1}, "did you mean 'smoothing.tau_s'?"),
        ({"quality.enabled": 1}, "quality.enabled: input should be a valid boolean"),
        ({"smoothing.preset": "clam"}, "smoothing.preset"),
        ({"smoothing.preset": ["calm"]}, "smoothing.preset"),
        ({"camera.source": "demo"}, "camera.source is read at the start only"),
        ({"purpose": ["safety"]}, "purpose is read at the start only"),
        ({"smoothing": {}}, "unknown key 'smoothing'"),
        ({"raw_view": 1}, "raw_view: give true or false"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_nothing_of_it_is_taken(
    changes: dict[str, Any], says: str
) -> None:
    settings = fresh()
    before, profile = settings.values(), settings.profile
    for mixed in (changes, {"smoothing.hysteresis": 0.5, "raw_view": True, **changes}):
        with pytest.raises(UserError) as error:
            settings.change(mixed)
        assert says in str(error.value)
        assert settings.values() == before and settings.profile is profile


NAMES = st.sampled_from([*fresh().values(), "camera.width", "nonsense"])
JSON = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))


@given(changes=st.dictionaries(NAMES, JSON, max_size=3))
def test_any_request_is_taken_as_a_whole_or_refused(changes: dict[str, Any]) -> None:
    settings = fresh()
    before = settings.values()
    try:
        settings.change(changes)
    except UserError:
        assert settings.values() == before
    else:
        assert {name: settings.values()[name] for name in changes} == changes
        jsonschema.validate(settings.values(), settings.schema())


def test_a_preset_fills_what_is_not_asked_for_with_it() -> None:
    settings = fresh()
    settings.change({"smoothing.tau_s": 3.0, "smoothing.quality_grace_s": 2.0})
    settings.change({"smoothing.preset": "calm", "smoothing.dwell_s": 0.125})
    smoothing = settings.profile.smoothing
    assert smoothing.preset == "calm"
    assert (smoothing.tau_s, smoothing.dwell_s) == (SMOOTHING_PRESETS["calm"]["tau_s"], 0.125)
    assert smoothing.quality_grace_s == 2.0, "of that the preset says nothing"
    settings.change({"smoothing.tau_s": 0.75})
    assert settings.profile.smoothing.tau_s == 0.75


def test_the_raw_view_ends_by_itself_and_a_reload_does_not_prolong_it() -> None:
    clock, profile = Time(), Profile(name="desk")
    settings = LiveSettings(profile, lambda: profile, clock)
    settings.change({"raw_view": True})
    clock.now += profile.dashboard.raw_view_s - 1
    settings.change({"smoothing.tau_s": 1.0})
    settings.reload()
    assert settings.raw_view
    clock.now += 2
    assert not settings.raw_view and settings.values()["raw_view"] is False


def test_a_reload_takes_live_keys_and_names_those_that_need_a_restart(
    box: Callable[[str], LiveSettings], file: Path
) -> None:
    settings = box("[smoothing]\ntau_s = 0.5\n")
    settings.change({"smoothing.hysteresis": 0.3})
    file.write_text(
        "[smoothing]\ntau_s = 0.75\n[camera]\nfps = 15\nwidth = 1280\n[output]\nsession = false\n"
    )
    settings.reload()
    assert settings.restart == ("camera.fps", "output.session"), "the width is a flag's"
    assert "camera.fps, output.session" in settings.note
    assert settings.profile.smoothing.tau_s == 0.75
    default = SmoothingConfig().hysteresis
    assert settings.profile.smoothing.hysteresis == default, (
        "what the page set gives way to the file"
    )
    assert (settings.profile.camera.fps, settings.profile.output.session) == (30.0, True)
    file.write_text("")
    settings.reload()
    assert (settings.restart, settings.note) == ((), "")
    assert settings.profile.smoothing.tau_s == SmoothingConfig().tau_s


@pytest.mark.parametrize("text", ["[smoothing]\ntau = 1", "[camera", "purpose = 'workplace'", None])
def test_a_wrong_file_keeps_the_old_profile_until_it_is_mended(
    box: Callable[[str], LiveSettings], file: Path, text: str | None
) -> None:
    settings = box("[smoothing]\ntau_s = 0.5\n")
    profile = settings.profile
    file.unlink()
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError) as error:
        settings.reload()
    assert settings.profile is profile
    assert str(error.value) in settings.note and "the old one runs on" in settings.note
    file.write_text("[smoothing]\ntau_s = 0.6\n")
    settings.reload()
    assert (settings.note, settings.profile.smoothing.tau_s) == ("", 0.6)
