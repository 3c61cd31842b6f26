"""The ExpW importer: faces cut out of photographs, and the set of high quality."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from contract.faces import read_image
from contract.manifest import Manifest, read_manifest
from tests.trainer.importers.layouts import check, labels, photograph, refused, stems, text
from trainer.data.importers._crops import sharpness
from trainer.data.importers.expw import Quality, import_expw

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
Box = tuple[int, int, int, int]
"""Top, left, right, bottom: the order of the label file."""
Face = tuple[str, object, Box, float, object]
"""Image name, face number, box, confidence, expression."""
BOX: Box = (20, 40, 110, 90)


def expw(
    root: Path, faces: Sequence[Face], photos: Mapping[str, NDArray[np.uint8]] | None = None
) -> Path:
    """label/label.lst and image/origin."""
    lines = [
        f"{name} {number} {' '.join(map(str, box))} {confidence} {expression}"
        for name, number, box, confidence, expression in faces
    ]
    text(root / "label/label.lst", *lines)
    (root / "image/origin").mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(dict.fromkeys(face[0] for face in faces)):
        photo = (photos or {}).get(name, photograph(seed))
        cv2.imwrite(str(root / "image/origin" / name), photo)
    return root


def imported(source: Path, out: Path, **given: Any) -> tuple[Manifest, dict[str, Any]]:
    reports = import_expw(source=source, out=out, seed=1, **given)
    assert list(reports) == ["expw", "expw hq"]
    assert reports["expw"]["hq"] == reports["expw hq"]
    return check(out, reports["expw"]), reports["expw"]


def test_numbers_are_expressions(tmp_path: Path) -> None:
    faces: list[Face] = [(f"p{n}.jpg", 0, BOX, 50.0, n) for n in range(7)]
    manifest, _ = imported(expw(tmp_path / "s", faces), tmp_path / "o")
    assert labels(manifest) == {f"p{n}_jpg_0.jpg": name for n, name in enumerate(CLASSES)}
    assert {row.source for row in manifest.rows} == {"expw"}


def test_each_face_is_the_square_around_its_box(tmp_path: Path) -> None:
    """Two faces of one photograph: one wide and white, one high and cut off by the edge."""
    photo = np.zeros((120, 200, 3), np.uint8)
    photo[30:60, 40:100] = 255  # 60 wide, 30 high
    photo[40:120, 160:200, 2] = 255  # red, down to the corner
    faces: list[Face] = [
        ("a.jpg", 0, (30, 40, 100, 60), 90, 3),
        ("a.jpg", 1, (40, 160, 220, 140), 90, 0),
    ]
    source = expw(tmp_path / "s", faces, {"a.jpg": photo})
    manifest, _ = imported(source, tmp_path / "o")
    assert labels(manifest) == {"a_jpg_0.jpg": "happy", "a_jpg_1.jpg": "angry"}
    wide, cut = (read_image(manifest.path(row)) for row in manifest.rows)
    assert wide is not None and cut is not None
    assert wide.shape == (60, 60, 3)
    assert (wide[18:42] > 240).all() and (wide[:12] < 15).all() and (wide[-12:] < 15).all()
    # 60 wide and 100 high: 100×100 from column 140; what is beyond the edges repeats them.
    assert cut.shape == (100, 100, 3)
    assert (cut[5:, 30:, 2] > 230).all() and (cut[5:, :10, 2] < 25).all()


def crowd(photos: int) -> list[Face]:
    """Photographs of one to three faces, side by side."""
    return [
        (f"p{n}.jpg", k, (20, 10 + 50 * k, 50 + 50 * k, 60), 40.0 + n, (n + k) % 7)
        for n in range(photos)
        for k in range(1 + n % 3)
    ]


def test_a_tenth_each_is_test_val_and_calib_with_photographs_whole(tmp_path: Path) -> None:
    manifest, report = imported(expw(tmp_path / "s", crowd(90)), tmp_path / "o")
    assert len(manifest.rows) == 180
    for split in ("test", "val", "calib"):
        assert 10 <= report["rows"][split] <= 26
    sides = defaultdict(set)
    for row in manifest.rows:
        sides[Path(row.path).name.split("_")[0]].add(row.split)
    assert len(sides) == 90
    assert all(len(found) == 1 for found in sides.values())


def test_the_same_photograph_under_two_names_is_on_one_side(tmp_path: Path) -> None:
    faces = crowd(60)
    twins = {f"p{n}.jpg": photograph(n // 2) for n in range(60)}
    for name in list(twins):
        twins[name] = twins[f"p{int(name[1:-4]) // 2 * 2}.jpg"]
    manifest, _ = imported(expw(tmp_path / "s", faces, twins), tmp_path / "o")
    sides = defaultdict(set)
    for row in manifest.rows:
        sides[int(Path(row.path).name[1:].split("_")[0]) // 2].add(row.split)
    assert all(len(found) == 1 for found in sides.values())


def blurred(seed: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.GaussianBlur(photograph(seed), (0, 0), 6), np.uint8)


def test_hq_is_the_part_of_the_manifest_that_passes_every_threshold(tmp_path: Path) -> None:
    big, small = (10, 30, 110, 90), (10, 30, 80, 60)
    faces: list[Face] = [
        ("good.jpg", 0, big, 60.0, 3), ("unsure.jpg", 0, big, 59.9, 3),
        ("small.jpg", 0, small, 90.0, 3), ("blurred.jpg", 0, big, 90.0, 3),
        ("all.jpg", 0, small, 10.0, 3),
    ]  # fmt: skip
    photos = {"blurred.jpg": blurred(1), "all.jpg": blurred(2)}
    source = expw(tmp_path / "s", faces, photos)
    manifest, report = imported(source, tmp_path / "o")
    assert len(manifest.rows) == 5
    hq = read_manifest(tmp_path / "o/hq.csv")
    assert stems(hq) == ["good_jpg_0"]
    assert set(hq.rows) <= set(manifest.rows)
    assert report["hq"]["dropped"] == {
        "confidence under 60": 2, "box under 64 pixels": 1, "sharpness under 25": 1,
    }  # fmt: skip
    assert report["hq"]["thresholds"] == {"confidence": 60, "side": 64, "sharpness": 25}
    assert sum(report["hq"]["rows"].values()) == 1


def test_thresholds_can_be_given_and_keep_the_splits(tmp_path: Path) -> None:
    source = expw(tmp_path / "s", crowd(40))
    everything, _ = imported(source, tmp_path / "a", quality=Quality(0, 0, 0))
    assert read_manifest(tmp_path / "a/hq.csv").rows == everything.rows
    whole, report = imported(source, tmp_path / "b", quality=Quality(60, 0, 0))
    part = read_manifest(tmp_path / "b/hq.csv")
    assert 0 < len(part.rows) < len(whole.rows)
    assert set(part.rows) <= set(whole.rows)
    assert len(part.rows) + report["hq"]["dropped"]["confidence under 60"] == len(whole.rows)
    imported(source, tmp_path / "b", quality=Quality(1e9, 0, 0))
    assert not (tmp_path / "b/hq.csv").exists()


def test_sharpness_falls_with_blur_and_with_enlargement() -> None:
    face = photograph(3, 112, 112)
    small = cv2.resize(face, (24, 24), interpolation=cv2.INTER_AREA)
    assert sharpness(np.asarray(cv2.GaussianBlur(face, (0, 0), 3), np.uint8)) < sharpness(face) / 4
    assert sharpness(np.asarray(small, np.uint8)) < sharpness(face) / 4
    assert sharpness(np.full((50, 50), 7, np.uint8)) == 0
    # One white pixel on black: the Laplacian is −4 there and 1 at its four neighbours.
    dot = np.zeros((112, 112), np.uint8)
    dot[50, 50] = 255
    assert sharpness(dot) == pytest.approx(20 * 255**2 / 112**2)


def test_lines_doubled_or_disputed_and_boxes_outside_are_dropped(tmp_path: Path) -> None:
    faces: list[Face] = [
        ("a.jpg", 0, BOX, 50, 3), ("a.jpg", 0, BOX, 50, 3), ("b.jpg", 0, BOX, 50, 3),
        ("b.jpg", 0, BOX, 50, 4), ("c.jpg", 0, (200, 300, 400, 300), 50, 3),
        ("c.jpg", 1, (50, 50, 50, 90), 50, 3), ("c.jpg", 2, BOX, 50, 3),
        ("c.jpg", 3, (0, 0, 10**9, 10**9), 50, 3),
    ]  # fmt: skip
    manifest, report = imported(expw(tmp_path / "s", faces), tmp_path / "o")
    assert sorted(stems(manifest)) == ["a_jpg_0", "c_jpg_2"]
    assert report["dropped"] == {
        "listed twice": 1, "listed with different labels or boxes": 2,
        "face box outside its photograph": 1, "empty face box": 1,
        "face box larger than its photograph": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("labels_at", "images_at"), [("label.lst", "origin"), ("label.lst", ".")])
def test_other_places_of_the_same_files(tmp_path: Path, labels_at: str, images_at: str) -> None:
    root = expw(tmp_path / "s", crowd(3))
    (root / "label/label.lst").rename(root / labels_at)
    (root / images_at).mkdir(exist_ok=True)
    for photo in (root / "image/origin").iterdir():
        photo.rename(root / images_at / photo.name)
    manifest, _ = imported(root, tmp_path / "o")
    assert len(manifest.rows) == 6


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("b.jpg 0 1 2 3 4 50 7", "unknown class '7'; expected 0 to 6"),
        ("b.jpg 0 1 2 3 4 50 sad", "unknown class 'sad'"),
        ("b.jpg 0 1 2 3 4 50", "eight fields are needed"),
        ("b.jpg 0 1 two 3 4 50 1", "eight fields are needed"),
        ("../b.jpg 0 1 2 3 4 50 1", "'../b.jpg 0' is not a file name and a face number"),
        ("b.jpg ../0 1 2 3 4 50 1", "'b.jpg ../0' is not a file name and a face number"),
        ("absent.jpg 0 10 20 30 40 50 1", "no image at "),
    ],
)
def test_faults_are_named_with_their_line(tmp_path: Path, row: str, complaint: str) -> None:
    root = expw(tmp_path / "s", [("a.jpg", 0, BOX, 50, 3)])
    file = root / "label/label.lst"
    with file.open("a") as stream:
        stream.write(f"{row}\n")
    line = refused(import_expw, root, tmp_path / "out")
    assert line.startswith(f"{file}: line 2: {complaint}")


def test_what_is_no_expw_is_refused(tmp_path: Path) -> None:
    assert "label.lst is missing" in refused(import_expw, tmp_path, tmp_path / "out")
    root = expw(tmp_path / "s", [("a.jpg", 0, BOX, 50, 3)])
    (root / "image/origin/a.jpg").write_bytes(b"no image")
    assert "a.jpg cannot be decoded" in refused(import_expw, root, tmp_path / "out")
    (root / "image/origin/a.jpg").unlink()
    line = refused(import_expw, root, tmp_path / "out")
    assert "label.lst: line 1: no image at " in line
    text(root / "label/label.lst", "")
    assert "holds no usable line" in refused(import_expw, root, tmp_path / "out")
