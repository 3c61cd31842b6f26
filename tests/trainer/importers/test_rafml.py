"""The RAF-ML importer: distributions over six emotions, labelled by the largest share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from contract.expressions import INDEX
from contract.manifest import Manifest
from tests.trainer.importers.layouts import check, labels, refused, stems, text
from tests.trainer.importers.raf import aligned
from trainer.data.importers.rafml import import_rafml

Listed = tuple[str, Sequence[object], object]
"""Image name; shares of surprise, fear, disgust, happiness, sadness, anger; partition."""


def rafml(root: Path, rows: Sequence[Listed], seeds: Mapping[str, int] | None = None) -> Path:
    lines = [f"{name} {' '.join(map(str, shares))}" for name, shares, _ in rows]
    text(root / "EmoLabel/distribution.txt", *lines)
    text(root / "EmoLabel/partition_label.txt", *(f"{name} {part}" for name, _, part in rows))
    aligned(root, [name for name, _, _ in rows], dict(seeds or {}))
    return root


def imported(source: Path, out: Path) -> tuple[Manifest, dict[str, Any]]:
    report = import_rafml(source=source, out=out, seed=1)["rafml"]
    return check(out, report), report


def one_hot(column: int) -> list[float]:
    return [0.7 if n == column else 0.06 for n in range(6)]


def test_the_largest_share_is_the_label_and_the_shares_are_kept(tmp_path: Path) -> None:
    rows: list[Listed] = [(f"{n:04d}.jpg", one_hot(n), 1) for n in range(6)]
    rows.append(("0006.jpg", (0.05, 0.1, 0.15, 0.2, 0.24, 0.26), 1))
    manifest, _ = imported(rafml(tmp_path / "s", rows), tmp_path / "o")
    assert list(labels(manifest).values()) == [
        "surprise", "fear", "disgust", "happy", "sad", "angry", "angry",
    ]  # fmt: skip
    votes = manifest.rows[-1].votes
    assert votes is not None
    assert {name: votes[INDEX[name]] for name in INDEX} == {
        "surprise": 0.05, "fear": 0.1, "disgust": 0.15, "happy": 0.2, "sad": 0.24, "angry": 0.26,
        "neutral": 0,
    }  # fmt: skip


def test_a_tie_goes_to_the_first_in_the_data_sets_order(tmp_path: Path) -> None:
    """In ours angry comes before fear."""
    rows: list[Listed] = [("1.jpg", (0, 0.5, 0, 0, 0, 0.5), 0)]
    manifest, _ = imported(rafml(tmp_path / "s", rows), tmp_path / "o")
    assert manifest.rows[0].label == "fear"


def test_partitions_are_splits(tmp_path: Path) -> None:
    rows: list[Listed] = [(f"{n:04d}.jpg", one_hot(n % 6), int(n >= 120)) for n in range(132)]
    seeds = {"0007.jpg": 77, "0125.jpg": 77}
    rafml(tmp_path / "s/RAF-ML", rows, seeds)
    manifest, report = imported(tmp_path / "s", tmp_path / "o")
    assert stems(manifest, "test") == [f"{n:04d}_aligned" for n in range(120, 132)]
    assert report["dropped"] == {"training copy of a val or test image": 1}
    assert report["rows"] == {"calib": 12, "test": 12, "train": 95, "val": 12}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("2.jpg 0.1 0.2 0.3 0.4 0", "six shares"),
        ("2.jpg 0.1 0.2 0.3 0.4 0 0 0", "six shares"),
        ("2.jpg 0 0 0 0 0 0", "six shares that are not all 0"),
        ("2.jpg 0.1 0.2 -0.3 0.4 0 0", "six shares"),
        ("2.jpg 0.1 0.2 nan 0.4 0 0", "six shares"),
        ("2.jpg a b c d e f", "six shares"),
        ("3.jpg 0 0 0 0 0 1", "3.jpg has no line in partition_label.txt"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path: Path, row: str, complaint: str) -> None:
    root = rafml(tmp_path, [("1.jpg", one_hot(0), 0), ("2.jpg", one_hot(0), 0)])
    text(root / "EmoLabel/distribution.txt", "1.jpg 0 0 0 0 0 1", row)
    line = refused(import_rafml, root, tmp_path / "out")
    assert "distribution.txt: line 2: " in line
    assert complaint in line


def test_a_wrong_partition_is_named(tmp_path: Path) -> None:
    root = rafml(tmp_path, [("1.jpg", one_hot(0), 0), ("2.jpg", one_hot(0), 2)])
    line = refused(import_rafml, root, tmp_path / "out")
    assert "partition_label.txt: line 2: unknown partition '2'" in line
    (root / "EmoLabel/partition_label.txt").unlink()
    assert "partition_label.txt is missing" in refused(import_rafml, root, tmp_path / "out")
