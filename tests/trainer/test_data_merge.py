"""Several manifests become one, or several by recipe, and none leaks into another."""

from pathlib import Path

import pytest

from contract.manifest import Row, read_manifest, write_manifest
from tests.trainer.manifests import Face, fer_data, make

VOTES = (0.0, 0.0, 0.0, 8.0, 1.0, 0.0, 1.0)


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """FER+ with votes, FER2013 with some of its pictures, ExpW with its high-quality part."""
    ferplus = [
        Face("a.png", "train", 1, "happy", "ferplus", votes=VOTES),
        Face("b.png", "calib", 2, "happy", "ferplus", votes=VOTES),
        Face("c.png", "val", 3, "happy", "ferplus", votes=VOTES),
    ]
    fer2013 = [
        Face("a.png", "train", 1, "sad", "fer2013"),
        Face("c.png", "train", 3, "sad", "fer2013"),
        Face("d.png", "train", 4, "sad", "fer2013"),
        Face("e.png", "test", 5, "sad", "fer2013"),
    ]
    expw = [
        Face("f.png", "train", 6, "fear", "expw", group="photo1"),
        Face("g.png", "train", 7, "fear", "expw", group="photo2"),
        Face("h.png", "val", 8, "fear", "expw", group="photo3"),
    ]
    return [
        make(tmp_path / "ferplus", ferplus),
        make(tmp_path / "fer2013", fer2013),
        make(tmp_path / "expw", expw),
        make(tmp_path / "expw", [expw[0], expw[2]], "hq.csv"),
    ]


def listed(file: Path) -> list[tuple[str, str, str]]:
    """(source, image, split) of every row; read_manifest checks that every image is there."""
    return [(r.source, Path(r.path).stem, r.split) for r in read_manifest(file).rows]


def test_one_manifest_of_all(tmp_path: Path, sources: list[Path]) -> None:
    assert fer_data("merge", *sources, "--out", tmp_path / "out") == 0
    merged = tmp_path / "out/manifest.csv"
    assert listed(merged) == [
        ("ferplus", "a", "train"), ("ferplus", "b", "calib"), ("ferplus", "c", "val"),
        ("fer2013", "d", "train"), ("fer2013", "e", "test"),
        ("expw", "f", "train"), ("expw", "g", "train"), ("expw", "h", "val"),
    ]  # fmt: skip
    assert fer_data("validate", merged) == 0


def test_votes_are_kept(tmp_path: Path, sources: list[Path]) -> None:
    assert fer_data("merge", *sources, "--out", tmp_path / "out") == 0
    votes = {Path(r.path).stem: r.votes for r in read_manifest(tmp_path / "out/manifest.csv").rows}
    assert votes["a"] == VOTES
    assert votes["d"] == (0,) * 7  # what a manifest says of a row without votes


def test_recipes(tmp_path: Path, sources: list[Path]) -> None:
    out = tmp_path / "out"
    assert fer_data("merge", *sources, "--out", out, "--recipe", "all") == 0
    assert listed(out / "hq_train/manifest.csv") == [
        ("ferplus", "a", "train"), ("ferplus", "b", "calib"), ("expw", "f", "train"),
    ]  # fmt: skip
    assert listed(out / "test_all_sources/manifest.csv") == [
        ("ferplus", "c", "val"), ("fer2013", "e", "test"), ("expw", "h", "val"),
    ]  # fmt: skip
    assert listed(out / "fer2013/manifest.csv") == [
        ("fer2013", "d", "train"), ("fer2013", "e", "test"),
    ]  # fmt: skip
    # What is learnt from and what is measured on do not leak into each other.
    files = [out / name / "manifest.csv" for name in ("hq_train", "test_all_sources", "fer2013")]
    assert fer_data("validate", *files) == 0
    assert all((file.parent / "clean_report.json").is_file() for file in files)


def test_a_recipe_that_selects_nothing_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make(tmp_path, [Face("a.png", "train", 1)])
    call = ("merge", manifest, "--out", tmp_path / "out", "--recipe", "test_all_sources")
    assert fer_data(*call) == 2
    assert "--recipe test_all_sources: selects no row" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_a_path_writes_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "in", [Face("a.png", "train", 1)])
    write_manifest(tmp_path / "in/m.csv", [Row("images/a.png", "sad", "train", "../../etc")])
    out = tmp_path / "deep/out"
    assert fer_data("merge", tmp_path / "in/m.csv", "--out", out, "--recipe", "per_source") == 2
    assert "source '../../etc' cannot name a folder" in capsys.readouterr().err
    assert not out.exists()
