"""What a box may be for and what people are told, checked when a profile is read."""

from itertools import product
from pathlib import Path

import pytest

from contract.errors import UserError
from firmware_config.profile import Profile, load_profile
from firmware_config.purpose import PURPOSES, require_purpose


def load(tmp_path: Path, text: str) -> Profile:
    file = tmp_path / "box.toml"
    file.write_text(text)
    return load_profile(str(file), {})


@pytest.mark.parametrize("place", ["workplace", "education"])
def test_work_and_education_are_refused_with_the_article_and_the_way_out(
    tmp_path: Path, place: str
) -> None:
    for text in (f"purpose = '{place}'", f"purpose = ['research', '{place}']"):
        with pytest.raises(UserError) as error:
            load(tmp_path, text)
        told = str(error.value)
        assert told.startswith(f"{tmp_path / 'box.toml'}: purpose: '{place}' alone is refused")
        assert "AI Act, Art. 5(1)(f)" in told and f'purpose = ["{place}", "safety"]' in told


@pytest.mark.parametrize(
    ("place", "reason"), product(["workplace", "education"], ["medical", "safety"])
)
def test_medical_and_safety_reasons_allow_them(tmp_path: Path, place: str, reason: str) -> None:
    assert load(tmp_path, f"purpose = ['{place}', '{reason}']").purpose == (place, reason)


def test_one_word_is_a_list_of_one_and_another_word_is_none(tmp_path: Path) -> None:
    assert load(tmp_path, "purpose = 'research'").purpose == ("research",)
    for text in ("purpose = 'fun'", "purpose = ['private', 'fun']", "purpose = 5"):
        with pytest.raises(UserError, match="purpose"):
            load(tmp_path, text)


def test_without_a_purpose_a_profile_runs_at_a_desk_and_is_not_deployed(tmp_path: Path) -> None:
    profile = load(tmp_path, "")
    assert profile.purpose == ()
    with pytest.raises(UserError) as error:
        require_purpose(profile.purpose, "box.toml")
    assert str(error.value).startswith("box.toml: purpose: ")
    assert all(word in str(error.value) for word in PURPOSES)
    require_purpose(("public",), "box.toml")


def test_people_are_told_of_the_camera_the_system_its_purpose_and_what_is_kept(
    tmp_path: Path,
) -> None:
    told = load(tmp_path, "purpose = ['workplace', 'safety']").notice_text()
    for words in ("camera", "AI system", "facial expressions", "workplace, safety", "are logged"):
        assert words in told
    silent = load(tmp_path, "[output]\nsession = false").notice_text()
    assert "logged" not in silent and "Purpose" not in silent
    sent = load(tmp_path, "[mqtt]\nhost = 'broker.local'").notice_text()
    assert "the estimates are logged and sent to other systems" in sent
    own = "Hier filmt eine Kamera; ein KI-System schätzt Gesichtsausdrücke."
    assert load(tmp_path, f"notice = '{own}'").notice_text() == own
    with pytest.raises(UserError, match="notice"):
        load(tmp_path, "notice = ''")
