"""The AffectNet importer: annotations, file lists with boxes, and folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from contract.faces import read_image
from contract.manifest import Manifest
from tests.trainer.importers.layouts import (
    check,
    labels,
    photograph,
    refused,
    save,
    stems,
    text,
)
from trainer.data.importers.affectnet import import_affectnet

CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry")
HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,"
    "valence,arousal"
)


def imported(source: Path, out: Path) -> tuple[Manifest, dict[str, Any]]:
    report = import_affectnet(source=source, out=out, seed=1)["affectnet"]
    return check(out, report), report


def annotated(folder: Path, number: int, expression: object, seed: int | None = None) -> None:
    """One image with its annotation, a text in a .npy without a shape, as the authors ship it."""
    save(folder / f"images/{number}.jpg", number if seed is None else seed, (16, 16, 3))
    file = folder / f"annotations/{number}_exp.npy"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, np.array(expression), allow_pickle=False)
    np.save(file.with_name(f"{number}_val.npy"), np.array("-0.5"), allow_pickle=False)


def test_annotations_are_read_as_text_and_as_numbers(tmp_path: Path) -> None:
    for n in range(11):
        annotated(tmp_path / "s/train_set", n, str(n))
        annotated(tmp_path / "s/val_set", 100 + n, n)
    manifest, report = imported(tmp_path / "s", tmp_path / "o")
    expected = {f"{n}.jpg": name for n, name in enumerate(CLASSES)}
    expected |= {f"{100 + n}.jpg": name for n, name in enumerate(CLASSES)}
    assert labels(manifest) == expected
    assert sorted(stems(manifest, "val")) == [str(100 + n) for n in range(7)]
    assert report["dropped"] == {
        "contempt is not one of the seven": 2,
        "none is not one of the seven": 2,
        "uncertain is not one of the seven": 2,
        "no face is not one of the seven": 2,
    }


def test_val_set_is_val_and_its_copies_leave_training(tmp_path: Path) -> None:
    for n in range(70):
        annotated(tmp_path / "s/train_set", n, str(n % 7))
    annotated(tmp_path / "s/train_set", 99, "1", seed=500)
    annotated(tmp_path / "s/val_set", 500, "1", seed=500)
    _, report = imported(tmp_path / "s", tmp_path / "o")
    assert report["rows"] == {"calib": 7, "train": 63, "val": 1}
    assert report["dropped"] == {"training copy of a val or test image": 1}


def test_without_a_val_set_one_is_cut(tmp_path: Path) -> None:
    for n in range(70):
        annotated(tmp_path / "s/train_set", n, str(n % 7))
    _, report = imported(tmp_path / "s", tmp_path / "o")
    assert report["rows"] == {"calib": 7, "train": 56, "val": 7}


def test_a_pickled_annotation_is_refused_unopened(tmp_path: Path) -> None:
    annotated(tmp_path / "s/train_set", 1, "1")
    file = tmp_path / "s/train_set/annotations/1_exp.npy"
    np.save(file, np.array(["1"], dtype=object), allow_pickle=True)
    line = refused(import_affectnet, tmp_path / "s", tmp_path / "out")
    assert line.startswith(f"{file}: not one plain number (Object arrays cannot be loaded")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (np.array("12"), "unknown class '12'; expected 0 to 10"),
        (np.array("happy"), "unknown class 'happy'"),
        (np.array(["1", "2"]), "not one plain number"),
    ],
)
def test_annotations_that_are_no_class_are_named(
    tmp_path: Path, content: np.ndarray[Any, Any], complaint: str
) -> None:
    annotated(tmp_path / "s/train_set", 1, "1")
    file = tmp_path / "s/train_set/annotations/1_exp.npy"
    np.save(file, content, allow_pickle=False)
    line = refused(import_affectnet, tmp_path / "s", tmp_path / "out")
    assert line.startswith(f"{file}: {complaint}")


def test_an_empty_annotation_and_a_missing_image_are_named(tmp_path: Path) -> None:
    annotated(tmp_path / "s/train_set", 1, "1")
    file = tmp_path / "s/train_set/annotations/1_exp.npy"
    (tmp_path / "s/train_set/images/1.jpg").unlink()
    line = refused(import_affectnet, tmp_path / "s", tmp_path / "out")
    assert line.startswith(f"{file}: no image at ")
    file.write_bytes(b"")
    line = refused(import_affectnet, tmp_path / "s", tmp_path / "out")
    assert line.startswith(f"{file}: not one plain number")
    file.unlink()
    line = refused(import_affectnet, tmp_path / "s", tmp_path / "out")
    assert "annotations: holds no *_exp.npy" in line


Listed = tuple[str, tuple[int, int, int, int], object]
"""Path, box (left, top, width, height) and expression."""


def listed(root: Path, name: str, rows: Sequence[Listed], header: bool = True) -> None:
    """A file list, and dark photographs with a white square at each box."""
    lines = [
        f"{path},{','.join(map(str, box))},1.5;2.5;3.5;4.5,{expression},-0.5,0.25"
        for path, box, expression in rows
    ]
    text(root / "Manually_Annotated_file_lists" / name, *([HEADER] if header else []), *lines)
    for number, (path, (x, y, w, h), _) in enumerate(rows):
        photo = photograph(number if name == "training.csv" else 500 + number)
        if min(x, y, w, h) >= 0:
            photo[y : y + h, x : x + w] = 255 - photo[y : y + h, x : x + w] // 8
        file = root / "Manually_Annotated_Images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), photo)


def test_faces_of_a_file_list_are_cut_out(tmp_path: Path) -> None:
    rows: list[Listed] = [(f"1/a{n}.jpg", (30 + n, 20, 40, 40), n) for n in range(11)]
    listed(tmp_path / "s", "training.csv", rows)
    listed(tmp_path / "s", "validation.csv", [("2/v.JPG", (50, 10, 30, 50), 4)], header=False)
    manifest, report = imported(tmp_path / "s", tmp_path / "o")
    expected = {f"a{n}.jpg": name for n, name in enumerate(CLASSES)}
    assert labels(manifest) == {**expected, "v.jpg": "fear"}
    assert stems(manifest, "val") == ["v"]
    assert sum(report["dropped"].values()) == 4
    for row in manifest.rows:
        face = read_image(manifest.path(row))
        assert face is not None
        if row.split != "val":
            assert face.shape == (40, 40, 3)
            assert np.median(face[2:-2, 2:-2]) > 230
        else:  # 30 wide, 50 high: widened to 50×50
            assert face.shape == (50, 50, 3)
            assert np.median(face[:, 14:-14]) > 230 > 64 > np.median(face[:, :6])


def test_boxes_that_cannot_be_cut_are_dropped_and_counted(tmp_path: Path) -> None:
    rows: list[Listed] = [
        ("1/good.jpg", (30, 20, 40, 40), 1), ("1/none.jpg", (-1, -1, -1, -1), 1),
        ("1/outside.jpg", (400, 20, 40, 40), 1), ("1/huge.jpg", (0, 0, 9000, 9000), 1),
        ("1/noface.jpg", (-1, -1, -1, -1), 10),
    ]  # fmt: skip
    listed(tmp_path / "s", "training.csv", rows)
    manifest, report = imported(tmp_path / "s", tmp_path / "o")
    assert stems(manifest) == ["good"]
    assert report["dropped"] == {
        "no face is not one of the seven": 1, "empty face box": 1,
        "face box outside its photograph": 1, "face box larger than its photograph": 1,
    }  # fmt: skip


def test_a_path_listed_twice_is_kept_once_or_not_at_all(tmp_path: Path) -> None:
    box = (30, 20, 40, 40)
    rows: list[Listed] = [
        ("1/a.jpg", box, 1), ("1/a.jpg", box, 1), ("1/b.jpg", box, 1), ("1/b.jpg", box, 2),
        ("1/c.jpg", box, 1), ("1/c.jpg", (60, 20, 40, 40), 1),
    ]  # fmt: skip
    listed(tmp_path / "s", "training.csv", rows)
    manifest, report = imported(tmp_path / "s", tmp_path / "o")
    assert stems(manifest) == ["a"]
    assert report["dropped"] == {"listed twice": 1, "listed with different labels or boxes": 4}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("1/b.jpg,1,2,3,4,5;6,eleven,0,0", "unknown class 'eleven'; expected 0 to 10"),
        ("1/b.jpg,1,2,3,4,5;6,11,0,0", "unknown class '11'"),
        ("1/b.jpg,1,2,x,4,5;6,1,0,0", "face_x, face_y, face_width, face_height are not numbers"),
        ("1/b.jpg,1,2,3", "9 fields "),
        ("../../b.jpg,1,2,3,4,5;6,1,0,0", "'../../b.jpg' is not a file within the data set"),
        ("1/absent.jpg,1,2,30,40,5;6,1,0,0", "no image at "),
    ],
)
def test_faults_of_a_list_are_named_with_their_line(
    tmp_path: Path, row: str, complaint: str
) -> None:
    listed(tmp_path / "s", "training.csv", [("1/a.jpg", (30, 20, 40, 40), 1)])
    file = tmp_path / "s/Manually_Annotated_file_lists/training.csv"
    with file.open("a") as stream:
        stream.write(f"{row}\n")
    line = refused(import_affectnet, tmp_path / "s", tmp_path / "out")
    assert line.startswith(f"{file}: line 3: {complaint}")


def test_folders_by_name_or_number(tmp_path: Path) -> None:
    for n, name in enumerate(("0", "1", "Sad", "surprise", "4", "Disgust", "anger")):
        save(tmp_path / "s/train" / name / f"t{n}.jpg", n, (16, 16, 3))
    for name in ("7", "contempt", "8"):
        save(tmp_path / "s/train" / name / "x.png", 90)
    save(tmp_path / "s/val/3/v.jpg", 50, (16, 16, 3))
    save(tmp_path / "s/test/6/e.jpg", 60, (16, 16, 3))
    manifest, report = imported(tmp_path / "s", tmp_path / "o")
    expected = {f"t{n}.jpg": name for n, name in enumerate(CLASSES)}
    assert labels(manifest) == {**expected, "v.jpg": "surprise", "e.jpg": "angry"}
    assert stems(manifest, "val") == ["v"]
    assert stems(manifest, "test") == ["e"]
    assert report["dropped"] == {
        "contempt is not one of the seven": 2, "none is not one of the seven": 1,
    }  # fmt: skip


def test_what_is_no_affectnet_is_refused(tmp_path: Path) -> None:
    line = refused(import_affectnet, tmp_path, tmp_path / "out")
    assert "has neither train_set, training.csv nor a folder train" in line
    save(tmp_path / "train/11/a.jpg", 1)
    line = refused(import_affectnet, tmp_path, tmp_path / "out")
    assert "unknown class '11'" in line
