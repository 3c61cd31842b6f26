"""What is resolved, by which rule, and that nothing but new files is written."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.files import sha256_file
from contract.manifest import SPLITS, Manifest, Row, read_manifest
from tests.trainer.manifests import Face, fer_data, make, picture
from trainer.data.clean import resolve
from trainer.data.content import Content
from trainer.data.duplicates import group_key, shared
from trainer.data.rows import Table


def cleaned(
    tmp_path: Path, faces: Iterable[Face], *arguments: object
) -> tuple[list[str], dict[str, Any]]:
    """Names of the rows that stay, as `name split`, and the report."""
    manifest = make(tmp_path / "in", faces)
    assert fer_data("clean", manifest, "--out", tmp_path / "out", *arguments) == 0
    stays = read_manifest(tmp_path / "out/manifest.csv")
    report = json.loads((tmp_path / "out/clean_report.json").read_text())
    return [f"{Path(row.path).name} {row.split}" for row in stays.rows], report


def test_the_split_held_out_further_keeps_the_picture(tmp_path: Path) -> None:
    faces = [
        Face("1.png", "train", 1), Face("2.png", "val", 1), Face("3.png", "calib", 2),
        Face("4.png", "train", 2), Face("5.png", "test", 3), Face("6.png", "val", 3),
        Face("7.png", "train", 4),
    ]  # fmt: skip
    stays, report = cleaned(tmp_path, faces)
    assert stays == ["2.png val", "3.png calib", "5.png test", "7.png train"]
    assert report["actions"] == {"same picture in another split": 3}
    assert report["dropped"][0] == {
        "row": f"{tmp_path}/in/manifest.csv: line 2: {tmp_path}/in/images/1.png (train)",
        "label": "happy",
        "reason": "same picture in another split",
        "stays": f"{tmp_path}/in/manifest.csv: line 3: {tmp_path}/in/images/2.png (val)",
    }


def test_a_person_stays_on_the_held_out_side(tmp_path: Path) -> None:
    faces = [
        Face("1.png", "train", 1, group="ann"), Face("2.png", "val", 2, group="ann"),
        Face("3.png", "train", 3, group="bob"),
    ]  # fmt: skip
    stays, report = cleaned(tmp_path, faces)
    assert stays == ["2.png val", "3.png train"]
    assert report["actions"] == {"same group in another split": 1}


TEN = (0.0, 0.0, 0.0, 0.0, 10.0, 0.0, 0.0)
COPIES = {
    "agreeing": (["sad", "sad"], [None, None], ["0.png"]),
    "outvoted": (["happy", "sad", "sad"], [None] * 3, ["1.png"]),
    "tied": (["happy", "sad"], [None, None], []),
    "votes outrank labels": (["happy", "happy", "sad"], [None, None, TEN], ["2.png"]),
}


@pytest.mark.parametrize(("labels", "votes", "left"), COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("split", ["train", "calib"])
def test_copies_within_a_split(
    tmp_path: Path, split: str, labels: list[str], votes: list[Any], left: list[str]
) -> None:
    copies = [
        Face(f"{n}.png", split, 1, label, votes=vote)
        for n, (label, vote) in enumerate(zip(labels, votes, strict=True))
    ]
    stays, _ = cleaned(tmp_path, [*copies, Face("other.png", split, 2, votes=votes[-1])])
    assert stays == [f"{name} {split}" for name in [*left, "other.png"]]


def test_held_out_splits_keep_their_copies_but_not_a_row_listed_twice(tmp_path: Path) -> None:
    faces = [Face("1.png", "val", 1), Face("2.png", "val", 1, "sad"), Face("1.png", "val", 1)]
    stays, report = cleaned(tmp_path, faces)
    assert stays == ["1.png val", "2.png val"]
    assert report["actions"] == {"same file listed again": 1}


def test_unusable_images_are_dropped_and_nothing_that_was_there_is_changed(tmp_path: Path) -> None:
    make(tmp_path / "in", faces := [Face(f"{n}.png", "train", n) for n in range(3)])
    (tmp_path / "in/images/0.png").write_bytes(b"damaged")
    make(tmp_path / "in", [*faces, Face("3.png", "train", 3)])
    with (tmp_path / "in/manifest.csv").open("a") as stream:
        stream.write("images/gone.png,happy,train,x\n")
    before = {file: file.read_bytes() for file in (tmp_path / "in").rglob("*") if file.is_file()}
    assert fer_data("clean", tmp_path / "in/manifest.csv", "--out", tmp_path / "out") == 0
    assert before == {f: f.read_bytes() for f in (tmp_path / "in").rglob("*") if f.is_file()}
    report = json.loads((tmp_path / "out/clean_report.json").read_text())
    assert report["actions"] == {"cannot be decoded": 1, "image is missing": 1}
    # read_manifest looks for every image: the paths are right from the new folder.
    stays = read_manifest(tmp_path / "out/manifest.csv")
    assert [row.sha256 for row in stays.rows] == [sha256_file(stays.path(r)) for r in stays.rows]
    assert report["sha256"]["manifest.csv"] == stays.sha256
    assert report["rows"] == {"train": 3}


def test_paths_are_right_through_a_linked_folder(tmp_path: Path) -> None:
    manifest = make(tmp_path / "deep/er/in", [Face("1.png", "train", 1)])
    (tmp_path / "real/a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real/a/b")
    assert fer_data("clean", manifest, "--out", tmp_path / "link/out") == 0
    assert len(read_manifest(tmp_path / "link/out/manifest.csv").rows) == 1


def test_near_duplicates_yield_and_the_result_is_valid(tmp_path: Path) -> None:
    faces = [Face("1.png", "train", 1), Face("2.png", "val", 2), Face("near.png", "train", 3)]
    make(tmp_path / "in", faces)
    cv2.imwrite(str(tmp_path / "in/images/near.png"), picture(2, side=96))
    stays, report = cleaned(tmp_path, faces, "--near")
    assert stays == ["1.png train", "2.png val"]
    assert report["actions"] == {"near duplicate in another split": 1}
    assert fer_data("validate", tmp_path / "out/manifest.csv", "--near") == 0


def test_nothing_is_written_where_no_row_would_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.csv").write_text("path,label,split,source\ngone.png,sad,train,x\n")
    assert fer_data("clean", tmp_path / "m.csv", "--out", tmp_path / "out") == 2
    assert "no row would be left (1 of 1: image is missing)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


tables = st.lists(
    st.builds(
        lambda split, label, seed, group: (
            Row(f"{seed}", label, split, "x", group=f"g{group}" if group else ""),
            bytes([seed]),
        ),
        st.sampled_from(SPLITS),
        st.sampled_from(["happy", "sad"]),
        st.integers(0, 8),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=25,
)


@given(tables)
def test_what_is_left_has_no_leak_and_the_furthest_split_is_whole(
    made: list[tuple[Row, bytes]],
) -> None:
    rows = [row for row, _ in made]
    looked = [Content("0" * 64, pixels) for _, pixels in made]
    drops = resolve(Table([Manifest(Path("m.csv"), "", tuple(rows))]), looked, near=False)
    left = sorted(set(range(len(rows))) - {drop.row for drop in drops})
    assert not shared(rows, left, lambda n: looked[n].pixels).leaks
    assert not shared(rows, left, lambda n: group_key(rows[n])).leaks
    # Of test only what is listed twice goes; and whoever yields, yields to a row that was kept.
    lost = {drop.reason for drop in drops if rows[drop.row].split == "test"}
    assert lost <= {"same file listed again"}
    for drop in drops:
        assert drop.stays is None or SPLITS.index(rows[drop.stays].split) >= SPLITS.index(
            rows[drop.row].split
        )
