"""The table of every key is what the schema says, and the schema says enough."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from firmware_config.key_table import config_table
from firmware_config.keys import keys, sections, values_of
from firmware_config.profile import Profile, load_profile, profile_names

PAGE = Path(__file__).parents[2] / "docs" / "config.md"


def every_field(model: type[BaseModel], above: str = "") -> list[str]:
    """Dotted names of all fields, found without the JSON schema."""
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += every_field(field.annotation, f"{above}{name}.")
        else:
            found.append(above + name)
    return found


def test_every_field_is_a_key_with_a_description() -> None:
    found = keys()
    assert list(found) == every_field(Profile)
    assert all(key.name == name and key.description for name, key in found.items())
    assert {key.section for key in found.values()} - {""} <= set(sections())


def test_the_committed_page_is_the_schemas() -> None:
    assert all(f"| `{name}` |" in config_table() for name in profile_names())
    assert PAGE.read_text(encoding="utf-8") == config_table(), (
        "docs/config.md is old: fer-edge check --table > docs/config.md"
    )


@pytest.mark.parametrize(
    ("key", "ends"),
    [
        ("least_side", "| number from 0 to 1000 | `24.0` | live |"),
        ("fps", "| number above 0 to 240 | `30.0` |  |"),
        ("size", "| whole number from 96 to 1920 | – |  |"),
        ("backend", '| auto, openvino, onnxruntime | `"auto"` |  |'),
        ("session_dir", '| path | `"sessions"` |  |'),
        ("session", "| true or false | `true` |  |"),
    ],
)
def test_a_row_tells_bounds_the_default_and_whether_it_is_live(key: str, ends: str) -> None:
    (row,) = (line for line in config_table().splitlines() if line.startswith(f"| `{key}` |"))
    assert row.endswith(ends)


def test_only_what_can_change_without_a_restart_is_live() -> None:
    live = {name for name, key in keys().items() if key.live}
    assert {name.partition(".")[0] for name in live} == {"smoothing", "quality", "dashboard"}
    assert {name for name in live if name.startswith("dashboard")} == {"dashboard.preview_fps"}
    every = {name for name in keys() if name.startswith(("smoothing.", "quality."))}
    assert every <= live


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_that_ships_has_a_value_for_every_key(name: str) -> None:
    profile = load_profile(name, {})
    values = values_of(profile)
    assert list(values) == list(keys())
    assert values["smoothing.tau_s"] == profile.smoothing.tau_s
    assert values["output.session_dir"] == str(profile.output.session_dir)
