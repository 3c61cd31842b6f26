"""The RAF-DB compound importer: eleven classes, each counted as the emotion it names first."""

from pathlib import Path

import pytest

from tests.trainer.importers.layouts import check, labels, refused
from tests.trainer.importers.raf import subset
from trainer.data.importers.rafdb_compound import import_rafdb_compound

# The names as the data set prints them, in the order of its numbers.
COMPOUND = (
    "Happily Surprised", "Happily Disgusted", "Sadly Fearful", "Sadly Angry", "Sadly Surprised",
    "Sadly Disgusted", "Fearfully Angry", "Fearfully Surprised", "Angrily Surprised",
    "Angrily Disgusted", "Disgustedly Surprised",
)  # fmt: skip
BASIC = {
    "Happily": "happy", "Sadly": "sad", "Fearfully": "fear", "Angrily": "angry",
    "Disgustedly": "disgust",
}  # fmt: skip


@pytest.mark.parametrize("parent", ["", "compound"])
def test_a_class_counts_as_the_emotion_it_names_first(tmp_path: Path, parent: str) -> None:
    rows: list[tuple[str, object]] = [
        (f"test_{number}.jpg", number) for number in range(1, len(COMPOUND) + 1)
    ]
    subset(tmp_path / "s" / parent, rows)
    report = import_rafdb_compound(source=tmp_path / "s", out=tmp_path / "o", seed=1)
    manifest = check(tmp_path / "o", report["rafdb_compound"])
    assert labels(manifest) == {
        f"test_{number}_aligned.jpg": BASIC[name.split()[0]]
        for number, name in enumerate(COMPOUND, 1)
    }
    assert {row.source for row in manifest.rows} == {"rafdb_compound"}
    assert report["rafdb_compound"]["protocol"] == "first-named emotion"


def test_val_and_calib_are_cut_from_training(tmp_path: Path) -> None:
    rows: list[tuple[str, object]] = [(f"train_{n}.jpg", n % 11 + 1) for n in range(110)]
    rows += [(f"test_{n}.jpg", n % 11 + 1) for n in range(11)]
    source = subset(tmp_path / "s", rows)
    report = import_rafdb_compound(source=source, out=tmp_path / "o", seed=1)["rafdb_compound"]
    check(tmp_path / "o", report)
    assert report["rows"]["test"] == 11
    assert 8 <= report["rows"]["val"] <= 14
    assert 8 <= report["rows"]["calib"] <= 14


def test_a_twelfth_class_is_refused(tmp_path: Path) -> None:
    source = subset(tmp_path, [("train_1.jpg", 11), ("train_2.jpg", 12)])
    line = refused(import_rafdb_compound, source, tmp_path / "out")
    assert "list_patition_label.txt: line 2: unknown class '12'; expected 1 to 11" in line
