"""How `--calib` is divided and read."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.faces import FaceInput, prepare_face
from contract.manifest import Manifest, Row, read_manifest, write_manifest
from quantize.calibration import check_rows, divide, load_faces, rows_hash
from tests.models import make_images


def rows_of(labels: list[int], groups: list[int] | None = None) -> list[Row]:
    """Rows with these classes; group 0 means none."""
    groups = groups or [0] * len(labels)
    return [
        Row(f"{i}.png", EXPRESSIONS[label], "val", "x", group=f"g{group}" if group else "")
        for i, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]


labels = st.lists(st.integers(0, 6), min_size=2, max_size=300)
grouped = st.lists(
    st.tuples(st.integers(0, 6), st.one_of(st.just(0), st.integers(1, 40))),
    min_size=2,
    max_size=300,
)


@given(grouped, st.integers(0, 2**32), st.integers(1, 200))
def test_every_row_is_in_one_part_and_a_group_is_in_one_part(
    pairs: list[tuple[int, int]], seed: int, ranges_rows: int
) -> None:
    rows = rows_of([label for label, _ in pairs], [group for _, group in pairs])
    division = divide(rows, seed, ranges_rows)
    assert sorted(division.ranges + division.gate) == list(range(len(rows)))
    assert len(division.ranges) <= min(ranges_rows, len(rows) // 2)
    groups_there = {rows[n].group for n in division.ranges} - {""}
    assert not groups_there & {rows[n].group for n in division.gate}
    assert divide(rows, seed, ranges_rows) == division


@given(labels, st.integers(0, 2**32), st.integers(1, 200))
def test_classes_keep_their_shares(classes: list[int], seed: int, ranges_rows: int) -> None:
    division = divide(rows_of(classes), seed, ranges_rows)
    target = min(ranges_rows, len(classes) // 2)
    assert len(division.ranges) == target
    there, everywhere = Counter(classes[n] for n in division.ranges), Counter(classes)
    for label, n in everywhere.items():
        assert abs(there[label] - target * n / len(classes)) < 1


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 2))
def test_another_seed_is_another_division(seed: int) -> None:
    rows = rows_of([n % 7 for n in range(200)])
    assert divide(rows, seed) != divide(rows, seed + 1)


def test_by_default_at_most_1500_rows_are_for_ranges() -> None:
    division = divide(rows_of([n % 7 for n in range(3000)]), 0)
    assert (len(division.ranges), len(division.gate)) == (1500, 1500)


def test_the_hash_tells_which_rows(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "m.csv", "", tuple(rows_of([0, 1, 2])))
    assert rows_hash(manifest, [0, 1]) == rows_hash(manifest, [0, 1])
    assert rows_hash(manifest, [0, 1]) != rows_hash(manifest, [0, 2])


def test_a_test_row_is_refused_with_its_line(tmp_path: Path) -> None:
    rows = [Row(f"{n}.png", "happy", "test" if n == 7 else "val", "x") for n in range(150)]
    write_manifest(tmp_path / "m.csv", rows)
    lines = (tmp_path / "m.csv").read_text().splitlines()
    lines.insert(3, "")  # blank lines are skipped, and count
    (tmp_path / "m.csv").write_text("\n".join(lines))
    manifest = read_manifest(tmp_path / "m.csv", check_files=False)
    with pytest.raises(UserError, match=r"m\.csv: line 10: .*7\.png is a test row"):
        check_rows(manifest)


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="99 rows are too few"):
        check_rows(Manifest(tmp_path / "m.csv", "", tuple(rows_of([0] * 99))))
    check_rows(Manifest(tmp_path / "m.csv", "", tuple(rows_of([0] * 100))))


@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_faces_are_prepared_as_everywhere_else(tmp_path: Path, colour: str) -> None:
    manifest = read_manifest(make_images(tmp_path, 1, size=60))
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    cv2.imwrite(str(manifest.path(manifest.rows[1])), pixels)
    face = FaceInput.model_validate({"size": 40, "colour": colour, "clahe": True})
    loaded = load_faces(manifest, [0, 1], face, "test")
    grey = cv2.imread(str(manifest.path(manifest.rows[0])), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(loaded[0], prepare_face(grey, face))
    np.testing.assert_array_equal(loaded[1], prepare_face(pixels, face))
    assert loaded.shape == (2, 40, 40, face.channels)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_an_unreadable_image_is_named_with_its_line(tmp_path: Path, content: bytes) -> None:
    manifest = read_manifest(make_images(tmp_path, 2))
    manifest.path(manifest.rows[4]).write_bytes(content)
    with pytest.raises(UserError, match=r"val\.csv: line 6: .*00004\.png cannot be read"):
        load_faces(manifest, range(len(manifest.rows)), FaceInput(size=48), "test")
