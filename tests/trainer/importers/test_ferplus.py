"""The FER+ importer: all protocols, no training copy of a held-back image, one calib cut."""

import csv
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from contract.expressions import INDEX
from contract.manifest import Manifest, read_manifest
from tests.trainer.data_sets import CONTEMPT, HAPPY, SAD, UNSURE, Photo, ferplus
from trainer.data.importers.ferplus import (
    FERPLUS_COLUMNS,
    PROTOCOLS,
    ferplus_label,
    import_ferplus,
)

# neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
LABELS = {
    "clear": ((0, 10, 0, 0, 0, 0, 0, 0, 0, 0), "happy", "happy", "happy"),
    "every name": ((0, 0, 0, 0, 0, 9, 1, 0, 0, 0), "disgust", "disgust", "disgust"),
    "tie to the first": ((0, 5, 0, 5, 0, 0, 0, 0, 0, 0), "happy", None, "happy"),
    "tie of neutral": ((4, 4, 0, 0, 0, 0, 0, 0, 2, 0), "neutral", None, "neutral"),
    "contempt": ((0, 0, 0, 0, 1, 0, 0, 9, 0, 0), None, None, "angry"),
    "unknown": ((0, 0, 0, 1, 0, 2, 0, 0, 7, 0), None, None, "disgust"),
    "not a face": ((1, 0, 0, 0, 0, 0, 0, 0, 0, 9), None, None, None),
    "perhaps not a face": ((5, 0, 0, 0, 0, 0, 0, 0, 0, 5), "neutral", None, "neutral"),
    "tie before contempt": ((0, 0, 0, 0, 0, 0, 5, 5, 0, 0), "fear", None, "fear"),
    "exactly half": ((0, 0, 5, 3, 2, 0, 0, 0, 0, 0), "surprise", None, "surprise"),
    "half once single votes are dropped": (
        (0, 0, 0, 0, 5, 1, 1, 1, 1, 1), "angry", "angry", "angry",
    ),
    "more than half": ((0, 0, 0, 6, 4, 0, 0, 0, 0, 0), "sad", "sad", "sad"),
    "single votes only": ((1, 1, 1, 1, 1, 1, 1, 1, 1, 1), "neutral", None, "neutral"),
    "none for the seven": ((0, 0, 0, 0, 0, 0, 0, 6, 4, 0), None, None, None),
    "no votes": ((0,) * 10, "neutral", None, None),
}  # fmt: skip


@pytest.mark.parametrize(("given_votes", "argmax", "strict", "votes"), LABELS.values(), ids=LABELS)
def test_labels_of_all_protocols(
    given_votes: tuple[int, ...], argmax: str | None, strict: str | None, votes: str | None
) -> None:
    assert ferplus_label(given_votes, "argmax") == argmax
    assert ferplus_label(given_votes, "strict") == strict
    assert ferplus_label(given_votes, "votes") == votes


@given(st.tuples(*[st.integers(0, 10)] * 10))
def test_a_protocol_leaves_rows_out_but_never_relabels_them(votes: tuple[int, ...]) -> None:
    """strict ⊂ argmax ⊂ votes, and what strict labels has a majority."""
    strict, argmax = ferplus_label(votes, "strict"), ferplus_label(votes, "argmax")
    assert strict in (None, argmax)
    if strict is not None:
        assert 2 * max(votes) > sum(v for v in votes if v > 1)
    if argmax is not None and any(votes):
        assert ferplus_label(votes, "votes") == argmax


@pytest.mark.parametrize(("protocol", "expected"), [("argmax", 3529), ("strict", 3186)])
def test_counts_of_the_real_public_test(shared: Path, protocol: str, expected: int) -> None:
    file = shared / "data/ferplus/fer2013new.csv"
    if not file.is_file():
        pytest.skip(f"needs FER+'s votes, and there is no {file}")
    with file.open(newline="") as stream:
        votes = [
            tuple(int(row[column]) for column in FERPLUS_COLUMNS)
            for row in csv.DictReader(stream)
            if row["Usage"] == "PublicTest" and row["Image name"]
        ]
    assert len(votes) == 3579
    assert sum(ferplus_label(v, protocol) is not None for v in votes) == expected


def many() -> list[Photo]:
    """120 training photos and what may go wrong with them, 10 of PublicTest, 4 of PrivateTest."""
    photos = []
    for n in range(120):
        votes = (HAPPY, SAD, UNSURE, CONTEMPT)[n % 4 if n % 20 else 3]
        # Every sixth photo shares its pixels with the one before: duplicate groups.
        photos.append(Photo("Training", f"t{n:03d}.png", votes, seed=n - (n % 6 == 1)))
    photos += [Photo("PublicTest", f"v{n}.png", (HAPPY, SAD)[n % 2], 1000 + n) for n in range(8)]
    # Within val nothing is dropped but what the protocol drops.
    photos += [Photo("PublicTest", "v8.png", HAPPY, 1000), Photo("PublicTest", "v9.png", UNSURE, 9)]
    photos += [Photo("PrivateTest", f"p{n}.png", SAD, 2000 + n) for n in range(4)]
    photos += [
        Photo("Training", "copy_of_v3.png", HAPPY, 1003),
        Photo("Training", "copy_of_v3_again.png", HAPPY, 1003),
        Photo("Training", "copy_of_p1.png", HAPPY, 2001),
        Photo("Training", "twin.png", HAPPY, 3000),
        Photo("Training", "twin_and_copy.png", HAPPY, 1004),
    ]
    return photos


TWINS = ("twin.png", "twin_and_copy.png", "not_there.png")


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of manifests and the reports."""
    root = tmp_path_factory.mktemp("ferplus")
    source = ferplus(root / "source", many(), TWINS)
    return root / "out", import_ferplus(source=source, out=root / "out", seed=1)


def manifest(out: Path, protocol: str, name: str = "manifest") -> Manifest:
    return read_manifest(out / protocol / f"{name}.csv")


def names(rows: Manifest) -> list[str]:
    return [Path(row.path).name for row in rows.rows]


def test_training_twins_of_held_back_images_are_dropped_and_counted(
    imported: tuple[Path, dict[str, Any]],
) -> None:
    out, reports = imported
    # v9 has the pixels of t009, which is its training copy.
    gone = {"copy_of_v3.png", "copy_of_v3_again.png", "copy_of_p1.png", "t009.png", *TWINS}
    for protocol in PROTOCOLS:
        assert not gone & set(names(manifest(out, protocol)))
        dropped = reports[protocol]["dropped"]
        assert dropped["training image with a twin in test"] == 2
        assert dropped["training copy of a val or test image"] == 4


def test_val_and_test_are_kept_whole(imported: tuple[Path, dict[str, Any]]) -> None:
    out, reports = imported
    assert names(manifest(out, "argmax").select("val")) == [f"v{n}.png" for n in range(10)]
    assert names(manifest(out, "strict").select("val")) == [f"v{n}.png" for n in range(9)]
    assert reports["strict"]["dropped"]["no expression by the strict protocol (val)"] == 1
    for protocol in PROTOCOLS:
        assert names(manifest(out, protocol).select("test")) == [f"p{n}.png" for n in range(4)]


def test_every_row_is_kept_or_counted(imported: tuple[Path, dict[str, Any]]) -> None:
    out, reports = imported
    for protocol in PROTOCOLS:
        kept = manifest(out, protocol)
        assert len(kept.rows) + sum(reports[protocol]["dropped"].values()) == len(many())
        assert reports[protocol]["rows"] == Counter(row.split for row in kept.rows)


def test_calib_is_a_tenth_with_duplicate_groups_whole(
    imported: tuple[Path, dict[str, Any]],
) -> None:
    out, _ = imported
    kept = manifest(out, "argmax")
    splits: dict[str, set[str]] = {}
    for row in kept.rows:
        if row.group:
            splits.setdefault(row.group, set()).add(row.split)
    assert len([s for s in splits.values() if s <= {"train", "calib"}]) >= 10
    assert all(len(found) == 1 for found in splits.values())
    trained = len(kept.select("train").rows) + len(kept.select("calib").rows)
    assert 0.05 < len(kept.select("calib").rows) / trained < 0.15


def test_the_votes_manifest_keeps_what_was_voted_for_beside_another_answer(
    imported: tuple[Path, dict[str, Any]],
) -> None:
    """Photos with contempt on top and a vote for neutral have no label by argmax."""
    out, reports = imported
    argmax, votes = manifest(out, "argmax"), manifest(out, "votes")
    extra = dict(zip(names(votes), votes.rows, strict=True))
    for name, row in zip(names(argmax), argmax.rows, strict=True):
        assert extra.pop(name) == row
    assert extra
    assert {row.label for row in extra.values()} == {"neutral"}
    assert {row.votes for row in extra.values()} == {(0, 0, 0, 0, 0, 0, 1)}
    assert not any("votes protocol" in reason for reason in reports["votes"]["dropped"])


def test_all_protocols_share_one_cut(imported: tuple[Path, dict[str, Any]]) -> None:
    """Else a row that fits one model's temperature would have trained the other."""
    out, _ = imported
    argmax, strict, votes = (manifest(out, protocol) for protocol in PROTOCOLS)
    split_of = {name: row.split for name, row in zip(names(votes), votes.rows, strict=True)}
    assert 0 < len(strict.rows) < len(argmax.rows) < len(votes.rows)
    for smaller in (argmax, strict):
        for name, row in zip(names(smaller), smaller.rows, strict=True):
            assert split_of[name] == row.split


def test_labels_from_before_the_votes_make_a_manifest_of_their_own(tmp_path: Path) -> None:
    photos = [Photo("Training", f"t{n}.png", HAPPY, n) for n in range(20)]
    photos.append(Photo("PublicTest", "v.png", UNSURE, 100))
    source = ferplus(tmp_path / "source", photos)
    file = source / "fer2013_labels.csv"
    file.write_text("Image name,emotion\nt3.png,fear\nt4.png,sad\nv.png,angry\n")
    reports = import_ferplus(source=source, out=tmp_path / "out", seed=1)
    found = manifest(tmp_path / "out", "fer2013")
    labels = {Path(row.path).name: row.label for row in found.rows}
    assert labels == {"t3.png": "fear", "t4.png": "sad", "v.png": "angry"}
    assert {row.votes for row in found.rows} == {None}
    assert reports["fer2013"]["dropped"]["no FER2013 label (train)"] == 18
    argmax = manifest(tmp_path / "out", "argmax")
    cut = dict(zip(names(argmax), (row.split for row in argmax.rows), strict=True))
    assert all(row.split == cut.get(Path(row.path).name, row.split) for row in found.rows)
    file.write_text("Image name,emotion\nt3.png,fearful\n")
    with pytest.raises(UserError, match=r"fer2013_labels\.csv: line 2: unknown emotion 'fearful'"):
        import_ferplus(source=source, out=tmp_path / "again", seed=1)


def test_votes_stand_under_their_expressions(tmp_path: Path) -> None:
    photos = [Photo("Training", f"{n}.png", (1, 2, 3, 4, 5, 6, 7, 0, 0, 0), n) for n in range(3)]
    import_ferplus(source=ferplus(tmp_path / "s", photos), out=tmp_path / "o", seed=1)
    row = manifest(tmp_path / "o", "argmax").rows[0]
    assert row.label == "fear"
    assert row.votes is not None
    by_name = {name: row.votes[INDEX[name]] for name in INDEX}
    assert by_name == {
        "neutral": 1, "happy": 2, "surprise": 3, "sad": 4, "angry": 5, "disgust": 6, "fear": 7,
    }  # fmt: skip


def test_the_csv_of_a_split_and_the_report_agree_with_the_manifest(
    imported: tuple[Path, dict[str, Any]],
) -> None:
    out, reports = imported
    for protocol in PROTOCOLS:
        whole = manifest(out, protocol)
        for split in ("train", "calib", "val", "test"):
            assert manifest(out, protocol, split).rows == whole.select(split).rows
        report = json.loads((out / protocol / "clean_report.json").read_text())
        assert report == reports[protocol]
        assert report["sha256"]["manifest.csv"] == whole.sha256


def test_a_tar_gives_the_same_as_folders(
    imported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    source = ferplus(tmp_path / "source", many(), TWINS, packed=True)
    import_ferplus(source=source, out=tmp_path / "out", seed=1)
    for protocol in PROTOCOLS:
        folders, packed = manifest(imported[0], protocol), manifest(tmp_path / "out", protocol)
        assert [
            (row.label, row.split, row.votes, row.group, row.sha256) for row in packed.rows
        ] == [(row.label, row.split, row.votes, row.group, row.sha256) for row in folders.rows]
        # The images are beside the manifests: the source may go.
        assert all(
            packed.path(row).resolve().is_relative_to(tmp_path / "out") for row in packed.rows
        )


def test_the_seed_decides_the_cut_and_nothing_else(
    imported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    source = imported[0].parent / "source"
    import_ferplus(source=source, out=tmp_path / "same", seed=1)
    import_ferplus(source=source, out=tmp_path / "other", seed=2)
    first, same = manifest(imported[0], "argmax"), manifest(tmp_path / "same", "argmax")
    other = manifest(tmp_path / "other", "argmax")
    assert [row.split for row in first.rows] == [row.split for row in same.rows]
    assert [row.split for row in first.rows] != [row.split for row in other.rows]
    assert names(first) == names(other)


def refused(source: Path, out: Path) -> str:
    with pytest.raises(UserError) as raised:
        import_ferplus(source=source, out=out, seed=1)
    return str(raised.value)


def test_faults_of_the_source_are_named_with_file_and_line(tmp_path: Path) -> None:
    good = Photo("Training", "a.png", HAPPY, 1)

    def source(name: str, *photos: Photo) -> Path:
        return ferplus(tmp_path / name, photos)

    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert "fer2013new.csv is missing" in refused(tmp_path / "empty", out)

    other = source("usage", good, Photo("Test", "b.png", HAPPY, 2))
    assert "fer2013new.csv: line 3: unknown Usage 'Test'" in refused(other, out)

    words = source("words", Photo("Training", "a.png", ("many",) * 10, 1))
    assert "fer2013new.csv: line 2: ten whole-number vote columns" in refused(words, out)

    short = source("short", Photo("Training", "a.png", (1, 2), 1))
    assert "fer2013new.csv: line 2: ten whole-number vote columns" in refused(short, out)

    gone = source("gone", good, Photo("Training", "b.png", HAPPY, 2))
    (gone / "FER2013Train/b.png").unlink()
    assert "fer2013new.csv: line 3: no image at " in refused(gone, out)

    damaged = source("damaged", good, Photo("Training", "b.png", HAPPY, 2))
    (damaged / "FER2013Train/b.png").write_bytes(b"no image")
    line = refused(damaged, out)
    assert "fer2013new.csv: line 3: " in line
    assert "b.png cannot be decoded" in line

    header = source("header", good)
    (header / "fer2013new.csv").write_text("a,b\n1,2\n")
    assert "line 1: column 'Usage' is missing" in refused(header, out)


def test_a_row_without_an_image_name_is_passed_over(tmp_path: Path) -> None:
    """FER+ leaves the name out where FER2013's image was removed."""
    source = ferplus(tmp_path / "s", [Photo("Training", f"{n}.png", HAPPY, n) for n in range(3)])
    with (source / "fer2013new.csv").open("a") as stream:
        stream.write("Training,,0,0,0,0,0,0,0,0,0,10\n")
    import_ferplus(source=source, out=tmp_path / "o", seed=1)
    assert len(manifest(tmp_path / "o", "argmax").rows) == 3


def test_an_archive_that_is_none_or_hostile_is_refused(tmp_path: Path) -> None:
    source = ferplus(tmp_path / "s", [Photo("Training", "a.png", HAPPY, 1)])
    (source / "images.tar").write_bytes(b"not a tar archive")
    assert "images.tar: not a readable tar archive" in refused(source, tmp_path / "out")

    (tmp_path / "evil.txt").write_text("x")
    with tarfile.open(source / "images.tar", "w") as tar:
        tar.add(tmp_path / "evil.txt", "../../escaped.txt")
    assert "images.tar: not a readable tar archive" in refused(source, tmp_path / "deep/out")
    assert not list(tmp_path.rglob("escaped.txt"))
