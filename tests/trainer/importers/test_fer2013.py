"""The FER2013 importer: both CSV headers, the folders, and their faults."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from contract.faces import read_image
from contract.manifest import Manifest
from tests.trainer.data_sets import pixels
from tests.trainer.importers.layouts import check, labels, refused, save, stems, text
from trainer.data.importers.fer2013 import import_fer2013

Face = tuple[object, str, int]
"""Emotion, Usage and the seed of the pixels."""

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def face(seed: int) -> str:
    return " ".join(map(str, pixels(seed, (48, 48)).ravel()))


def csv(folder: Path, faces: Sequence[Face]) -> Path:
    """fer2013.csv as the challenge shipped it."""
    rows = [f"{emotion},{face(seed)},{usage}" for emotion, usage, seed in faces]
    text(folder / "fer2013.csv", "emotion,pixels,Usage", *rows)
    return folder


def newer(folder: Path, faces: Sequence[Face]) -> Path:
    """icml_face_data.csv: another order, and a space after each comma of the header."""
    rows = [f"{emotion},{usage},{face(seed)}" for emotion, usage, seed in faces]
    text(folder / "icml_face_data.csv", "emotion, Usage, pixels", *rows)
    return folder


def many() -> list[Face]:
    faces: list[Face] = [(n % 7, "Training", n - (n % 6 == 1)) for n in range(84)]
    faces += [(n % 7, "PublicTest", 1000 + n) for n in range(7)]
    faces += [(n % 7, "PrivateTest", 2000 + n) for n in range(7)]
    return [*faces, (3, "Training", 1002), (4, "Training", 2001), (4, "Training", 2001)]


def imported(source: Path, out: Path, seed: int = 1) -> Manifest:
    report = import_fer2013(source=source, out=out, seed=seed)
    assert list(report) == ["fer2013"]
    return check(out, report["fer2013"])


def test_numbers_are_expressions_and_pixels_are_kept(tmp_path: Path) -> None:
    faces: list[Face] = [(n, "Training", n) for n in range(7)]
    manifest = imported(csv(tmp_path / "s", faces), tmp_path / "o")
    assert [row.label for row in manifest.rows] == list(CLASSES)
    for seed, row in enumerate(manifest.rows):
        image = read_image(manifest.path(row))
        assert image is not None
        np.testing.assert_array_equal(image, pixels(seed, (48, 48)))


def test_usages_are_splits_and_training_copies_are_dropped(tmp_path: Path) -> None:
    source = csv(tmp_path / "s", many())
    report = import_fer2013(source=source, out=tmp_path / "o", seed=1)["fer2013"]
    manifest = check(tmp_path / "o", report)
    assert report["dropped"] == {"training copy of a val or test image": 3}
    assert stems(manifest, "val") == [f"fer{n:07d}" for n in range(84, 91)]
    assert stems(manifest, "test") == [f"fer{n:07d}" for n in range(91, 98)]
    assert report["rows"]["train"] + report["rows"]["calib"] == 84
    assert 5 <= report["rows"]["calib"] <= 12


def test_both_headers_give_the_same_manifest(tmp_path: Path) -> None:
    old = imported(csv(tmp_path / "old", many()), tmp_path / "o")
    new = imported(newer(tmp_path / "new", many()), tmp_path / "n")
    assert old.rows == new.rows


def test_the_seed_decides_the_cut(tmp_path: Path) -> None:
    source = csv(tmp_path / "s", many())
    first, same = (imported(source, tmp_path / name, 1) for name in "ab")
    other = imported(source, tmp_path / "c", 2)
    assert first.sha256 == same.sha256
    assert stems(first, "calib") != stems(other, "calib")


def folders(root: Path, train: int = 70, val: int = 0) -> Path:
    """`train/<label>` and `test/<label>` with the names the two known copies use."""
    for n in range(train):
        save(root / "train" / CLASSES[n % 7] / f"Training_{n}.jpg", n, (48, 48))
    for n in range(14):
        save(root / "test" / f"{CLASSES[n % 7]}" / f"PrivateTest_{n}.jpg", 2000 + n, (48, 48))
    for n in range(val):
        save(root / "validation" / CLASSES[n % 7] / f"PublicTest_{n}.jpg", 1000 + n, (48, 48))
    return root


def test_folders_have_their_val_cut_from_training(tmp_path: Path) -> None:
    manifest = imported(folders(tmp_path / "s"), tmp_path / "o")
    assert len(stems(manifest, "test")) == 14
    assert all(name.startswith("PrivateTest") for name in stems(manifest, "test"))
    assert len(stems(manifest, "val")) == len(stems(manifest, "calib")) == 7
    for name, label in labels(manifest).items():
        assert label == CLASSES[int(name.removesuffix(".jpg").rpartition("_")[2]) % 7]


def test_a_val_folder_is_val(tmp_path: Path) -> None:
    manifest = imported(folders(tmp_path / "s", val=7), tmp_path / "o")
    assert sorted(stems(manifest, "val")) == [f"PublicTest_{n}" for n in range(7)]


def test_folders_may_be_named_otherwise(tmp_path: Path) -> None:
    names = {"Angry": "angry", "fearful": "fear", "surprised": "surprise", "6": "neutral"}
    for n, name in enumerate(names):
        save(tmp_path / "s/train" / name / f"{name}.png", n)
    text(tmp_path / "s/train/Angry/Thumbs.db", "not an image")
    manifest = imported(tmp_path / "s", tmp_path / "o")
    assert labels(manifest) == {f"{name}.png": label for name, label in names.items()}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (f"7,{face(1)},Training", "unknown class '7'; expected 0 to 6"),
        (f"sad,{face(1)},Training", "unknown class 'sad'"),
        (f"3,{face(1)},Testing", "unknown Usage 'Testing'"),
        (f"3,{face(1)} 7,Training", "2305 pixels instead of 48×48"),
        ("3,1 2 3,Training", "3 pixels instead of 48×48"),
        (f"3,{face(1)[:-3]} 256,Training", "a pixel is not a whole number from 0 to 255"),
        ("3", "unknown Usage ''"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path: Path, row: str, complaint: str) -> None:
    text(tmp_path / "fer2013.csv", "emotion,pixels,Usage", f"3,{face(2)},Training", row)
    line = refused(import_fer2013, tmp_path, tmp_path / "out")
    assert line.startswith(f"{tmp_path / 'fer2013.csv'}: line 3: {complaint}")


def test_what_is_no_fer2013_is_refused(tmp_path: Path) -> None:
    assert "neither fer2013.csv" in refused(import_fer2013, tmp_path, tmp_path / "out")
    text(tmp_path / "a/fer2013.csv", "emotion,pixels", f"3,{face(1)}")
    line = refused(import_fer2013, tmp_path / "a", tmp_path / "out")
    assert "line 1: column 'Usage' is missing" in line
    (tmp_path / "b").mkdir()
    (tmp_path / "b/fer2013.csv").write_bytes(b"\xff\xfe\x00\x81")
    assert "not a CSV text file" in refused(import_fer2013, tmp_path / "b", tmp_path / "out")
    save(tmp_path / "c/train/hapy/1.png", 1)
    line = refused(import_fer2013, tmp_path / "c", tmp_path / "out")
    assert "unknown class 'hapy', did you mean 'happy'?" in line
    (tmp_path / "d/train/happy").mkdir(parents=True)
    line = refused(import_fer2013, tmp_path / "d", tmp_path / "out")
    assert "holds no image of the seven expressions" in line
    save(tmp_path / "e/train/happy/1.png", 1).write_bytes(b"")
    line = refused(import_fer2013, tmp_path / "e", tmp_path / "out")
    assert "1.png cannot be decoded" in line
