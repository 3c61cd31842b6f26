"""Profiles say what they hold, and a wrong one says where it is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from contract.errors import UserError
from firmware_config.camera_config import CameraConfig
from firmware_config.profile import (
    DashboardConfig,
    DetectorConfig,
    OutputConfig,
    Profile,
    RuntimeConfig,
    SmoothingConfig,
    load_profile,
    profile_names,
)


def wrong(file: Path, text: str, **overrides: Any) -> str:
    """What a user is told of a profile with this text."""
    file.write_text(text)
    with pytest.raises(UserError) as error:
        load_profile(str(file), overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "box.toml"


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_that_ships_loads(name: str) -> None:
    assert load_profile(name, {}).name == name


def test_the_default_profile_is_every_key_at_its_default() -> None:
    assert "default" in profile_names() and "demo" in profile_names()
    assert load_profile("default", {}) == Profile(name="default")
    assert load_profile("demo", {}).camera.source == "demo"


def test_every_key_is_described() -> None:
    def check(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                check(field.annotation)

    check(Profile)


def test_a_key_that_is_a_time_or_a_size_says_its_unit() -> None:
    for section in (CameraConfig, DetectorConfig, SmoothingConfig, DashboardConfig):
        for name, field in section.model_fields.items():
            text = str(field.description).lower()
            if name.endswith("_s"):
                assert "second" in text, name
            if name in ("width", "height"):
                assert "pixel" in text, name


def test_a_profile_is_named_by_itself_or_by_its_file(file: Path) -> None:
    file.write_text("")
    assert load_profile(str(file), {}).name == "box"
    file.write_text('name = "the one at the door"')
    assert load_profile(str(file), {}).name == "the one at the door"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[camera]\nsorce = 'demo'", "unknown key 'camera.sorce', did you mean 'source'?"),
        ("[smothing]\ntau_s = 1", "unknown key 'smothing', did you mean 'smoothing'?"),
        ("[smoothing]\ntau = 1", "unknown key 'smoothing.tau', did you mean 'tau_s'?"),
        ("[camera]\nwidth = 'wide'", "camera.width"),
        ("[camera]\nwidth = 32", "camera.width: input should be greater than or equal to 64"),
        ("[camera]\nfps = nan", "camera.fps"),
        ("[runtime]\nthreads = 2.5", "runtime.threads"),
        ("[dashboard]\nport = 70000", "dashboard.port"),
        ("[detector]\nkind = 'yolo'", "detector.kind"),
        ("camera = 'demo'", "camera: "),
        ("[smoothing]\ntau_s = -1\nhysteresis = 2", "(and 1 more)"),
        ("[camera", "not readable as TOML"),
        ("[camera]\nfps = 30\nfps = 15", "not readable as TOML"),
    ],
    ids=lambda value: value.replace("\n", " "),
)
def test_a_mistake_names_the_file_the_key_and_the_mend(file: Path, text: str, says: str) -> None:
    told = wrong(file, text)
    assert told.startswith(f"{file}: ")
    assert says in told


def test_a_flag_for_a_section_that_is_none_is_told_as_the_files_fault(file: Path) -> None:
    assert "camera: " in wrong(file, "camera = 5", **{"camera.source": "demo"})


def test_a_profile_that_is_not_there_suggests_one(tmp_path: Path) -> None:
    for name, says in (
        ("defualt", "did you mean 'default'?"),
        (str(tmp_path / "none.toml"), "or a .toml file"),
    ):
        with pytest.raises(UserError, match="no such profile") as error:
            load_profile(name, {})
        assert says in str(error.value)
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UserError, match=r"folder\.toml"):
        load_profile(str(tmp_path / "folder.toml"), {})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.toml"):
        load_profile(str(tmp_path / "binary.toml"), {})


def test_overrides_win_and_are_checked_like_the_file(file: Path) -> None:
    file.write_text("[camera]\nsource = 'demo'\nwidth = 320\n")
    profile = load_profile(str(file), {"camera.source": "/dev/video1", "runtime.threads": 4})
    assert (profile.camera.source, profile.camera.width) == ("/dev/video1", 320)
    assert profile.runtime.threads == 4
    assert "runtime.threads" in wrong(file, "", **{"runtime.threads": 0})
    assert "did you mean 'source'" in wrong(file, "", **{"camera.sauce": "demo"})


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20)


PROFILES = st.builds(
    Profile,
    name=TEXT,
    purpose=st.lists(st.sampled_from(("private", "research", "medical")), max_size=2).map(tuple),
    notice=st.one_of(st.none(), TEXT.map(lambda text: text.ljust(20, "x"))),
    camera=st.builds(
        CameraConfig, source=TEXT, width=st.integers(64, 7680), height=st.integers(64, 4320),
        fps=st.floats(0, 240, exclude_min=True),
    ),
    detector=st.builds(
        DetectorConfig, kind=st.sampled_from(("auto", "yunet", "haar")), interval_s=st.floats(0, 5)
    ),
    runtime=st.builds(
        RuntimeConfig, bundle=st.one_of(st.none(), TEXT.map(Path)),
        backend=st.sampled_from(("auto", "openvino", "onnxruntime")), threads=st.integers(1, 64),
    ),
    smoothing=st.builds(
        SmoothingConfig, tau_s=st.floats(0, 10), hysteresis=st.floats(0, 1, exclude_max=True),
        abstain_threshold=st.one_of(st.none(), st.floats(0, 1)),
    ),
    dashboard=st.builds(
        DashboardConfig, enabled=st.booleans(), host=TEXT, port=st.integers(0, 65535),
        preview_fps=st.floats(0, 60, exclude_min=True),
        raw_view_s=st.floats(0, 3600, exclude_min=True),
    ),
    output=st.builds(OutputConfig, session=st.booleans(), session_dir=TEXT.map(Path)),
)  # fmt: skip


def toml(profile: Profile) -> str:
    """A profile as TOML. JSON's strings, numbers and booleans are TOML's too."""
    content = profile.model_dump(mode="json", exclude_none=True)
    sections = {key: value for key, value in content.items() if isinstance(value, dict)}

    def pairs(values: dict[str, Any]) -> list[str]:
        return [f"{key} = {json.dumps(v, ensure_ascii=False)}" for key, v in values.items()]

    lines = pairs({key: value for key, value in content.items() if key not in sections})
    for section, values in sections.items():
        lines += [f"[{section}]", *pairs(values)]
    return "\n".join(lines)


@given(profile=PROFILES)
def test_any_profile_written_down_is_read_as_it_was(
    profile: Profile, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(toml(profile), encoding="utf-8")
    assert load_profile(str(file), {}) == profile
