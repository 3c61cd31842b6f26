"""One line for a mistake the user can mend, made from whatever went wrong."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import UserError, nearest
from contract.provenance import commit_of_this_project
from contract.validation import explain


def test_a_user_error_is_one_line() -> None:
    assert str(UserError("a\n  thing\tis wrong\r\n")) == "a thing is wrong"


def test_the_nearest_word_is_suggested_only_if_it_is_near() -> None:
    assert nearest("hapy", ["sad", "happy"]) == ", did you mean 'happy'?"
    assert nearest("xyz", ["sad", "happy"]) == ""
    assert nearest("xyz", []) == ""


class Inner(BaseModel):
    """A section."""

    model_config = ConfigDict(extra="forbid")
    colour: str = "grey"


class Outer(BaseModel):
    """A file."""

    model_config = ConfigDict(extra="forbid")
    size: int = Field(gt=0)
    inner: Inner = Inner()
    by_name: dict[str, Inner] = {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"size": 1, "sise": 2}, "f.toml: unknown key 'sise', did you mean 'size'?"),
        (
            {"size": 1, "inner": {"color": "x"}},
            "f.toml: unknown key 'inner.color', did you mean 'colour'?",
        ),
        (
            {"size": 1, "by_name": {"yunet": {"color": "x"}}},
            "f.toml: unknown key 'by_name.yunet.color'",
        ),
        ({"size": 0}, "f.toml: size: input should be greater than 0, got 0"),
        ({}, "f.toml: size: field required"),
        ({"size": "x", "inner": 3}, "and 1 more"),
        (3, "f.toml: the whole file: "),
    ],
)
def test_a_models_complaint_is_one_line_with_file_and_key(content: object, message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate(content)
    line = str(explain(raised.value, Outer, Path("f.toml")))
    assert message in line
    assert "\n" not in line


def test_a_long_value_is_not_repeated_in_full() -> None:
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate({"size": "x" * 5000})
    assert len(str(explain(raised.value, Outer, "f.toml"))) < 300


def test_the_commit_is_named_or_said_to_be_unknown() -> None:
    commit = commit_of_this_project()
    assert commit == "unknown" or len(commit.removesuffix("-dirty")) == 40
