"""The figures of a manifest, against ones worked out by hand."""

import json
from pathlib import Path

import cv2
import pytest

from tests.trainer.manifests import Face, fer_data, make, picture


def test_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split_vote = (0.0, 0.0, 0.0, 5.0, 5.0, 0.0, 0.0)  # one bit
    sure = (0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/big.png"), picture(9, side=100))
    manifest = make(
        tmp_path,
        [
            Face("a.png", "train", 1, votes=split_vote, group="ann"),
            Face("b.png", "train", 1, votes=sure, group="ann"),
            Face("c.png", "val", 2, "sad", votes=sure, group="bob"),
            Face("big.png", "val", 9, "sad", votes=sure),
        ],
    )
    assert fer_data("stats", manifest, "--json", tmp_path / "stats.json") == 0
    found = json.loads((tmp_path / "stats.json").read_text())
    assert found["counts"] == {"x": {"train": {"happy": 2}, "val": {"sad": 2}}}
    assert found["votes"]["x"] == {
        "rows": 4, "mean_entropy_bits": 0.25, "unanimous": 3, "mean_votes": 5.5,
    }  # fmt: skip
    assert found["duplicates"] == {"across_splits": 0, "within_a_split": 1, "decoded": 4}
    assert found["groups"] == 2
    assert found["sizes"] == {
        "images": 4, "grey": 4, "shorter_side": {"min": 48, "median": 48, "max": 100},
    }  # fmt: skip
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.split()[:2] == ["x", "val"])
    assert row.split()[2:] == ["0", "0", "0", "0", "2", "0", "0", "2"]


def test_missing_images_and_images_that_are_not_opened(tmp_path: Path) -> None:
    manifest = make(tmp_path, [Face("a.png", "train", 1), Face("b.png", "val", 2)])
    (tmp_path / "images/b.png").unlink()
    call = ("stats", manifest, "--decode", "none", "--json", tmp_path / "stats.json")
    assert fer_data(*call) == 0
    found = json.loads((tmp_path / "stats.json").read_text())
    assert (found["rows"], found["missing"], found["votes"]) == (2, 1, {})
    assert found["sizes"] == {"images": 0}
