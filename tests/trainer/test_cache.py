"""The packed cache: what the model sees, made once, remade when anything it depends on changes."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from contract.errors import UserError
from contract.faces import FaceInput, prepare_face
from contract.manifest import Manifest, Row, read_manifest, write_manifest
from trainer.data.cache import packed_faces

FACE = FaceInput(size=24)


def images(folder: Path, count: int = 4) -> Manifest:
    """Colour photos of several sizes and their manifest."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(count):
        photo = rng.integers(0, 256, (30 + n, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{n}.png"), photo)
        rows.append(Row(f"{n}.png", "happy", "train", "x"))
    write_manifest(folder / "m.csv", rows)
    return read_manifest(folder / "m.csv")


def cached(manifest: Manifest) -> list[Path]:
    return sorted((manifest.file.parent / ".cache").glob("*.npy"))


@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_it_holds_what_the_model_sees_in_the_manifests_order(tmp_path: Path, colour: str) -> None:
    manifest = images(tmp_path)
    face = FaceInput.model_validate({"size": 24, "colour": colour, "clahe": True})
    faces = packed_faces(manifest, face)
    assert faces.shape == (4, 24, 24, face.channels)
    assert faces.dtype == np.uint8
    for row, packed in zip(manifest.rows, faces, strict=True):
        photo = cv2.imread(str(manifest.path(row)))
        np.testing.assert_array_equal(packed, prepare_face(np.asarray(photo, np.uint8), face))


def test_it_is_made_once(tmp_path: Path) -> None:
    manifest = images(tmp_path)
    first = packed_faces(manifest, FACE).copy()
    for row in manifest.rows:
        manifest.path(row).unlink()  # not looked at again
    np.testing.assert_array_equal(packed_faces(manifest, FACE), first)
    assert len(cached(manifest)) == 1


def _reversed(manifest: Manifest) -> tuple[Manifest, FaceInput]:
    write_manifest(manifest.file, manifest.rows[::-1])
    return read_manifest(manifest.file), FACE


CHANGES: dict[str, Callable[[Manifest], tuple[Manifest, FaceInput]]] = {
    "manifest": _reversed,
    "size": lambda manifest: (manifest, FaceInput(size=32)),
    "colour": lambda manifest: (manifest, FaceInput(size=24, colour="rgb")),
    "clahe": lambda manifest: (manifest, FaceInput(size=24, clahe=True)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_it_is_remade_when_what_it_depends_on_changes(
    tmp_path: Path, change: Callable[[Manifest], tuple[Manifest, FaceInput]]
) -> None:
    manifest = images(tmp_path)
    before = packed_faces(manifest, FACE).copy()
    changed, face = change(manifest)
    after = packed_faces(changed, face)
    assert before.tobytes() != after.tobytes()
    first = cv2.imread(str(changed.path(changed.rows[0])))
    np.testing.assert_array_equal(after[0], prepare_face(np.asarray(first, np.uint8), face))


def test_an_image_that_cannot_be_decoded_is_named_with_its_line(tmp_path: Path) -> None:
    manifest = images(tmp_path)
    (tmp_path / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    with pytest.raises(UserError, match=r"m\.csv: line 4: .*2\.png cannot be decoded"):
        packed_faces(manifest, FACE)
    assert cached(manifest) == []  # and nothing half-made is left to be taken for whole
