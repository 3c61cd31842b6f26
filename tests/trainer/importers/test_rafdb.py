"""The RAF-DB importer: the basic subset, aligned or cut out of the originals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.faces import read_image
from contract.manifest import Manifest
from tests.trainer.importers.layouts import check, labels, refused, stems, text
from tests.trainer.importers.raf import aligned, original, subset
from trainer.data.importers.rafdb import import_rafdb

CLASSES = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")


def imported(source: Path, out: Path, seed: int = 1) -> tuple[Manifest, dict[str, Any]]:
    report = import_rafdb(source=source, out=out, seed=seed)["rafdb"]
    return check(out, report), report


def many() -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [(f"train_{n:05d}.jpg", n % 7 + 1) for n in range(140)]
    return rows + [(f"test_{n:04d}.jpg", n % 7 + 1) for n in range(14)]


def test_numbers_are_expressions(tmp_path: Path) -> None:
    rows: list[tuple[str, object]] = [(f"test_{n}.jpg", n) for n in range(1, 8)]
    manifest, _ = imported(subset(tmp_path / "s", rows), tmp_path / "o")
    expected = {f"test_{n}_aligned.jpg": name for n, name in enumerate(CLASSES, 1)}
    assert labels(manifest) == expected
    assert {row.source for row in manifest.rows} == {"rafdb"}


def test_test_images_are_test_and_val_and_calib_are_cut_from_training(tmp_path: Path) -> None:
    manifest, report = imported(subset(tmp_path / "s", many()), tmp_path / "o")
    assert report["rows"] == {"calib": 14, "test": 14, "train": 112, "val": 14}
    assert all(name.startswith("test_") for name in stems(manifest, "test"))
    for split in ("val", "calib"):  # stratified: two of each expression
        assert set(report["kept"][split].values()) == {2}


def test_copies_stay_together_and_those_of_test_images_are_dropped(tmp_path: Path) -> None:
    seeds = {f"train_{n:05d}.jpg": n // 2 for n in range(120)}
    seeds |= {"train_00130.jpg": 5001, "test_0001.jpg": 5001}
    manifest, report = imported(subset(tmp_path / "s", many(), seeds), tmp_path / "o")
    assert report["dropped"] == {"training copy of a val or test image": 1}
    assert "train_00130_aligned" not in stems(manifest)
    assert "test_0001_aligned" in stems(manifest, "test")


def test_the_seed_decides_the_cut(tmp_path: Path) -> None:
    source = subset(tmp_path / "s", many())
    first, _ = imported(source, tmp_path / "a", 1)
    same, _ = imported(source, tmp_path / "b", 1)
    other, _ = imported(source, tmp_path / "c", 2)
    assert first.sha256 == same.sha256
    assert stems(first, "val") != stems(other, "val")
    assert stems(first, "test") == stems(other, "test")


def test_the_parent_folder_and_nested_images_are_found(tmp_path: Path) -> None:
    root = subset(tmp_path / "s/basic", many()[-14:])
    (root / "Image/aligned").rename(root / "Image/inner")
    (root / "Image/aligned").mkdir()
    (root / "Image/inner").rename(root / "Image/aligned/aligned")  # as its archive unpacks
    manifest, _ = imported(tmp_path / "s", tmp_path / "o")
    assert len(manifest.rows) == 14


def test_without_aligned_images_the_box_is_cut_out_of_the_original(tmp_path: Path) -> None:
    text(tmp_path / "s/EmoLabel/list_patition_label.txt", "train_1.jpg 4", "train_2.jpg 5")
    original(tmp_path / "s", "train_1.jpg", 1)
    original(tmp_path / "s", "train_2.jpg", 2)
    aligned(tmp_path / "s", ["train_2.jpg"])
    manifest, _ = imported(tmp_path / "s", tmp_path / "o")
    assert labels(manifest) == {"train_1.jpg": "happy", "train_2_aligned.jpg": "sad"}
    face = read_image(manifest.path(manifest.rows[0]))
    assert face is not None
    # The box is 40×60: a square of 60 around its centre is white but for 10 columns on each side.
    assert face.shape == (60, 60, 3)
    assert (face[5:-5, 15:-15] > 240).all()
    assert (np.median(face[:, :8]) < 64) and (np.median(face[:, -8:]) < 64)
    assert manifest.path(manifest.rows[0]).resolve().is_relative_to(tmp_path / "o")


def test_an_image_listed_twice_is_kept_once_and_a_disputed_one_not_at_all(tmp_path: Path) -> None:
    rows: list[tuple[str, object]] = [
        ("train_1.jpg", 1), ("train_1.jpg", 1), ("train_2.jpg", 2), ("train_2.jpg", 3),
        ("train_3.jpg", 4),
    ]  # fmt: skip
    manifest, report = imported(subset(tmp_path / "s", rows), tmp_path / "o")
    assert sorted(stems(manifest)) == ["train_1_aligned", "train_3_aligned"]
    assert report["dropped"] == {"listed twice": 1, "listed with different labels": 2}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("train_2.jpg 8", "unknown class '8'; expected 1 to 7"),
        ("train_2.jpg 0", "unknown class '0'"),
        ("train_2.jpg", "an image name and a number are needed"),
        ("face_2.jpg 3", "'face_2.jpg' begins with neither train_ nor test_"),
        ("train_/../../x.jpg 3", "is not a file within the data set"),
        ("train_9.jpg 3", "no image at "),
    ],
)
def test_faults_are_named_with_their_line(tmp_path: Path, row: str, complaint: str) -> None:
    root = subset(tmp_path, [("train_1.jpg", 1)])
    file = text(root / "EmoLabel/list_patition_label.txt", "train_1.jpg 1", "", row)
    line = refused(import_rafdb, root, tmp_path / "out")
    assert line.startswith(f"{file}: line 3: ")
    assert complaint in line


def test_faults_of_folders_and_boxes_are_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert "EmoLabel is missing" in refused(import_rafdb, tmp_path / "empty", out)
    (tmp_path / "bare/EmoLabel").mkdir(parents=True)
    assert "list_patition_label.txt is missing" in refused(import_rafdb, tmp_path / "bare", out)

    root = tmp_path / "s"
    file = text(root / "EmoLabel/list_patition_label.txt", "train_1.jpg 4")
    original(root, "train_1.jpg", 1)
    box = root / "Annotation/boundingbox/train_1_boundingbox.txt"
    box.write_text("1 2 3")
    assert f"{box}: four numbers" in refused(import_rafdb, root, out)
    box.write_text("500 500 600 600")
    line = refused(import_rafdb, root, out)
    assert line.startswith(f"{file}: line 1: face box outside its photograph")
    box.unlink()
    assert f"no aligned image, and no face box at {box}" in refused(import_rafdb, root, out)
    aligned(root, ["train_1.jpg"])
    (root / "Image/aligned/train_1_aligned.jpg").write_bytes(b"no image")
    assert "train_1_aligned.jpg cannot be decoded" in refused(import_rafdb, root, out)
