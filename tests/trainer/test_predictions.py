"""The file of predictions: comes back whole, and a wrong one is said to be so."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from tests.trainer.answers import answers
from trainer.predictions import Predictions, load_predictions, save_predictions


def same(one: Predictions, two: Predictions) -> bool:
    arrays = all(
        np.array_equal(getattr(one, name), getattr(two, name)) for name in ("labels", "logits")
    )
    rest = ("paths", "sources", "splits", "temperature", "manifest_sha256", "protocol", "name")
    return arrays and all(getattr(one, name) == getattr(two, name) for name in rest)


def test_predictions_come_back_whole(tmp_path: Path) -> None:
    p = replace(answers(5), paths=["a b.png", "ü/é.png", "c,d.png", "../x.png", "笑.png"])
    save_predictions(tmp_path / "deep/p.npz", p)
    found = load_predictions(tmp_path / "deep/p.npz")
    assert same(found, p)
    assert found.labels.dtype == np.int64
    assert found.logits.dtype == np.float32


@given(st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_any_number_of_rows_comes_back(count: int, seed: int) -> None:
    p = answers(count, seed)
    stream = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.predictions.write_atomic", lambda _, write: write(stream))
        save_predictions(Path("p.npz"), p)
    stream.seek(0)
    assert same(load_predictions(stream), p)  # type: ignore[arg-type]


def test_the_same_content_is_the_same_file(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        save_predictions(tmp_path / name, answers())
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_a_split_is_selected_with_all_its_columns() -> None:
    p = replace(answers(6), splits=["val", "calib", "val", "calib", "calib", "val"])
    part = p.select("calib")
    assert part.paths == [p.paths[n] for n in (1, 3, 4)]
    assert part.sources == [p.sources[n] for n in (1, 3, 4)]
    assert part.splits == ["calib"] * 3
    np.testing.assert_array_equal(part.labels, p.labels[[1, 3, 4]])
    np.testing.assert_array_equal(part.logits, p.logits[[1, 3, 4]])
    assert (len(p), len(part), len(p.select("test"))) == (6, 3, 0)


def test_probabilities_are_at_the_temperature() -> None:
    p = replace(answers(2), temperature=2.0)
    expected = np.exp(p.logits.astype(float) / 2)
    np.testing.assert_allclose(p.probabilities(), expected / expected.sum(1, keepdims=True))


def changed(file: Path, about: dict[str, Any], **columns: Any) -> Path:
    """A file of predictions with some of its content replaced."""
    save_predictions(file, answers(4))
    with np.load(file) as stored:
        content = dict(stored)
    told = json.loads(str(content["about"])) | about
    content |= {"about": np.array(json.dumps(told))} | columns
    np.savez(file, **content)
    return file


@pytest.mark.parametrize(
    ("about", "columns", "message"),
    [
        ({"expressions": [*EXPRESSIONS[1:], EXPRESSIONS[0]]}, {}, "in the order 'disgust fear"),
        ({"schema": 2}, {}, "schema 2, this program reads 1"),
        ({"temperature": 0.0}, {}, "its temperature is 0.0"),
        ({"temperature": "warm"}, {}, "not readable"),
        ({}, {"labels": np.array([0, 1, 7, 2])}, "a label is not in 0…6"),
        ({}, {"labels": np.array([0, 1, -1, 2])}, "a label is not in 0…6"),
        ({}, {"logits": np.full((4, 7), np.nan)}, "not a finite number"),
        ({}, {"logits": np.zeros((4, 8))}, "N×7 logits"),
        ({}, {"logits": np.zeros((5, 7))}, "different lengths"),
        ({}, {"paths": np.array(["x"])}, "different lengths"),
        ({}, {"paths": np.array([{}] * 4, object)}, "not readable"),
    ],
)
def test_content_that_cannot_be_right_is_refused(
    tmp_path: Path, about: dict[str, Any], columns: dict[str, Any], message: str
) -> None:
    file = changed(tmp_path / "p.npz", about, **columns)
    with pytest.raises(UserError, match=message) as caught:
        load_predictions(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_none_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no predictions at .*missing\.npz"):
        load_predictions(tmp_path / "missing.npz")
    whole = tmp_path / "whole.npz"
    save_predictions(whole, answers())
    for name, content in {
        "text": b"path,label\n",
        "empty": b"",
        "cut": whole.read_bytes()[:500],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: not readable as predictions"):
            load_predictions(tmp_path / name)
    with pytest.raises(UserError, match="not readable"):
        load_predictions(tmp_path)
