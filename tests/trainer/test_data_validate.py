"""The gate: what it stops, what it says, and that it counts everything."""

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from contract.faces import Image
from contract.files import sha256_file
from contract.manifest import Row, read_manifest, write_manifest
from tests.trainer.manifests import Face, fer_data, make, picture
from trainer.data.content import contents, near_pairs
from trainer.data.validate import LISTED, validate

CLEAN = [Face("a.png", "train", 1), Face("b.png", "calib", 2), Face("c.png", "val", 3, "sad")]


def report(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    """The JSON report of a call."""
    fer_data("validate", *arguments, "--json", tmp_path / "report.json")
    found: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    return found


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a call that must fail."""
    assert fer_data("validate", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("fer-trainer: ")
    assert error.count("\n") == 1
    return error


def test_a_clean_manifest_passes_and_its_rows_are_counted(tmp_path: Path) -> None:
    manifest = make(tmp_path, CLEAN)
    assert fer_data("validate", manifest) == 0
    found = report(tmp_path, manifest)
    assert found["valid"] is True
    assert found["counts"] == {
        "x": {"train": {"happy": 1}, "calib": {"happy": 1}, "val": {"sad": 1}}
    }
    assert found["manifests"][0]["sha256"] == sha256_file(manifest)
    assert found["checked"]["decoded"] == 3


def test_a_face_in_train_and_val_fails_the_real_command_with_both_paths(tmp_path: Path) -> None:
    manifest = make(tmp_path, [*CLEAN, Face("twin.png", "train", 3)])
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "data", "validate", str(manifest)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{manifest}: line 5: {tmp_path}/images/twin.png (train)" in done.stderr
    assert f"{manifest}: line 4: {tmp_path}/images/c.png (val)" in done.stderr
    assert "fer-trainer data clean" in done.stderr


def test_the_same_pixels_in_another_format_are_the_same_face(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "twin.bmp"), cv2.cvtColor(picture(3), cv2.COLOR_GRAY2BGR))
    make(tmp_path, CLEAN)
    rows = list(read_manifest(tmp_path / "manifest.csv").rows)
    write_manifest(tmp_path / "m.csv", [*rows, Row("twin.bmp", "sad", "train", "x")])
    line = complaint(capsys, tmp_path / "m.csv")
    assert "twin.bmp (train) is the same picture as" in line
    assert "c.png (val)" in line


def test_without_decoding_the_hashes_in_the_manifest_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, [*CLEAN, Face("twin.png", "train", 3)])
    rows = read_manifest(tmp_path / "manifest.csv").rows
    hashed = [
        Row(r.path, r.label, r.split, r.source, sha256=sha256_file(tmp_path / r.path)) for r in rows
    ]
    write_manifest(tmp_path / "hashed.csv", hashed)
    assert "same picture" in complaint(capsys, tmp_path / "hashed.csv", "--decode", "none")
    # Without them nothing can be said, and that is said.
    found = report(tmp_path, tmp_path / "manifest.csv", "--decode", "none")
    assert found["checked"]["not_compared"] == 4


def test_copies_outside_the_decoded_sample_are_found_by_their_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make(tmp_path, [*CLEAN, Face("twin.png", "train", 3)])
    for seed in range(4):
        assert "same picture" in complaint(capsys, manifest, "--decode", 1, "--seed", seed)


def test_a_person_in_two_splits_fails_but_the_same_name_in_another_source_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ann = [Face("a.png", "train", 1, group="ann"), Face("b.png", "val", 2, group="ann")]
    line = complaint(capsys, make(tmp_path, ann))
    assert "same group 'ann'" in line
    assert "a.png (train)" in line
    assert "b.png (val)" in line
    other = [ann[0], Face("b.png", "val", 2, group="ann", source="y")]
    assert fer_data("validate", make(tmp_path, other)) == 0


def test_leaks_between_manifests_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = make(tmp_path / "one", [Face("a.png", "train", 1)])
    two = make(tmp_path / "two", [Face("b.png", "test", 1)])
    assert fer_data("validate", one) == fer_data("validate", two) == 0
    line = complaint(capsys, one, two)
    assert str(tmp_path / "one/images/a.png") in line
    assert str(tmp_path / "two/images/b.png") in line
    assert "data merge" in line


def test_every_fault_is_counted_and_the_first_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make(tmp_path, [*CLEAN, Face("twin.png", "train", 3), Face("rot.png", "train", 4)])
    (tmp_path / "images/rot.png").write_bytes(b"no image")
    (tmp_path / "images/a.png").unlink()
    with manifest.open("a") as stream:
        stream.write("images/b.png,hapy,train,x\nimages/b.png,happy,trian,x\nimages/b.png\n")
    line = complaint(capsys, manifest)
    assert "line 7: unknown label 'hapy', did you mean 'happy'?" in line
    assert "(and 5 more faults; --json lists them)" in line
    faults = report(tmp_path, manifest)["faults"]
    assert faults["counts"] == {
        "row": 3, "missing image": 1, "not decodable": 1, "same picture in two splits": 1,
    }  # fmt: skip
    assert len(faults["listed"]) == 6


def test_a_file_that_was_changed_is_not_the_one_its_hash_speaks_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, CLEAN)
    rows = [Row("images/a.png", "happy", "train", "x", sha256="0" * 64)]
    write_manifest(tmp_path / "m.csv", rows)
    assert "line 2: " in (line := complaint(capsys, tmp_path / "m.csv"))
    assert "is not the file the manifest's sha256 speaks of" in line


def test_copies_within_a_split_are_a_warning(tmp_path: Path) -> None:
    faces = [*CLEAN, Face("d.png", "train", 1), Face("e.png", "train", 1, "sad")]
    found = report(tmp_path, make(tmp_path, faces))
    assert found["valid"] is True
    assert found["warnings"]["counts"] == {
        "same picture twice": 1, "same picture under two labels": 1,
    }  # fmt: skip


VARIANTS: dict[str, Callable[[Image], Any]] = {
    "larger": lambda face: cv2.resize(face, (112, 112), interpolation=cv2.INTER_LINEAR),
    "brighter": lambda face: np.asarray(255 * (face / 255.0) ** 0.8, np.uint8),
    "recompressed": lambda face: cv2.imdecode(
        cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE
    ),
    "mirrored": lambda face: face[:, ::-1],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_near_duplicates_across_splits_fail_when_they_are_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], variant: str
) -> None:
    manifest = make(tmp_path, [*CLEAN, Face("near.png", "train", 9)])
    cv2.imwrite(str(tmp_path / "images/near.png"), VARIANTS[variant](picture(3)))
    assert fer_data("validate", manifest) == 0
    line = complaint(capsys, manifest, "--near")
    assert "near.png (train) is nearly the same picture as" in line
    assert "c.png (val)" in line


def test_real_faces_are_near_duplicates_only_of_themselves(shared: Path, tmp_path: Path) -> None:
    """Of so many 48×48 faces few are near each other, and those correlate pixel by pixel."""
    count = 3000
    with tarfile.open(shared / "data/ferplus/images.tar") as tar:
        members = [m for m in tar if m.name.endswith(".png")][:count]
        tar.extractall(tmp_path, members, filter="data")
    paths = [tmp_path / member.name for member in members]
    faces = [np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) for path in paths]
    changed = []
    for position in range(0, count, 100):
        changed.append(tmp_path / f"changed{position}.jpg")
        larger = cv2.resize(faces[position], (96, 96), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(changed[-1]), larger)
    looked = contents([*paths, *changed], near=True)
    pairs = near_pairs([content.near for content in looked])
    found = {(i, j - count) for i, j in pairs if i % 100 == 0 and j >= count}
    assert {(100 * n, n) for n in range(len(changed))} <= found
    among = [(i, j) for i, j in pairs if j < count]
    assert 0 < len(among) < 0.1 * count  # of 4.5 million pairs
    alike = [
        max(
            np.corrcoef(faces[i].ravel(), turned.ravel())[0, 1]
            for turned in (other, other[:, ::-1])
        )
        for i, other in ((i, faces[j]) for i, j in among)
    ]
    assert np.mean(np.array(alike) > 0.7) > 0.95


def test_a_large_manifest_is_read_whole_and_its_report_stays_small(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rows = []
    for number in range(5000):
        (tmp_path / f"images/{number}.png").touch()
        split, sha256 = ("val", number) if number < 2000 else ("train", number % 4000)
        rows.append(Row(f"images/{number}.png", "happy", split, "x", sha256=f"{sha256:064d}"))
    write_manifest(tmp_path / "m.csv", rows)
    (tmp_path / "images/4999.png").unlink()
    found = validate([tmp_path / "m.csv"], decode=0)
    assert found["rows"] == 5000
    # 4000 to 4999 repeat the hashes of 0 to 999, and the last of them is not there.
    assert found["faults"]["counts"] == {"missing image": 1, "same picture in two splits": 999}
    assert len(found["faults"]["listed"]) == LISTED
