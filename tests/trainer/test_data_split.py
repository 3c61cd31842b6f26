"""New splits: groups and copies whole, shares and strata kept, the seed decides."""

from collections import Counter
from pathlib import Path

import pytest

from contract.manifest import read_manifest
from tests.trainer.manifests import Face, fer_data, make


def faces() -> list[Face]:
    """200 rows of two sources and two labels; some persons with three pictures, some copies."""
    made = [
        Face(
            f"{n}.png", "train", n, ("happy", "sad")[n % 2], ("x", "y")[n // 2 % 2],
            group=f"p{n // 12}-{n % 4}" if n < 60 else "",
        )
        for n in range(190)
    ]  # fmt: skip
    return [*made, *(Face(f"copy{n}.png", "test", 100 + n) for n in range(10))]


def test_groups_and_copies_stay_together_and_every_stratum_gives_its_share(tmp_path: Path) -> None:
    manifest = make(tmp_path, faces())
    out = tmp_path / "out"
    arguments = ("--val", 0.2, "--calib", 0.1, "--test", 0.1, "--seed", 5)
    assert fer_data("split", manifest, "--out", out, *arguments) == 0
    rows = read_manifest(out / "manifest.csv").rows
    assert len(rows) == 200
    of_group = {(row.source, row.group): row.split for row in rows if row.group}
    assert all(row.split == of_group[row.source, row.group] for row in rows if row.group)
    split_of = {Path(row.path).stem: row.split for row in rows}
    assert all(split_of[f"copy{n}"] == split_of[str(100 + n)] for n in range(10))
    tally = Counter(row.split for row in rows)
    for split, wanted in {"train": 120, "val": 40, "calib": 20, "test": 20}.items():
        assert abs(tally[split] - wanted) <= 8
    per_stratum = Counter((row.source, row.label) for row in rows if row.split == "val")
    assert len(per_stratum) == 4
    assert fer_data("validate", out / "manifest.csv") == 0


def test_the_seed_decides(tmp_path: Path) -> None:
    manifest = make(tmp_path, faces())
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        assert fer_data("split", manifest, "--out", tmp_path / name, "--seed", seed) == 0
    a, b, c = ((tmp_path / name / "manifest.csv").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_split_that_is_not_wanted_any_more_leaves_no_file(tmp_path: Path) -> None:
    manifest, out = make(tmp_path, faces()), tmp_path / "out"
    assert fer_data("split", manifest, "--out", out, "--test", 0.3) == 0
    assert (out / "test.csv").is_file()
    assert fer_data("split", manifest, "--out", out, "--test", 0) == 0
    assert not (out / "test.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--val", 1.5), "--val 1.5: a share is from 0 to under 1"),
        (("--val", 0.6, "--test", 0.5), "the shares add up to 1.2; leave some rows to train"),
    ],
)
def test_impossible_shares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[object, ...], message: str
) -> None:
    manifest = make(tmp_path, faces()[:3])
    assert fer_data("split", manifest, "--out", tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err
