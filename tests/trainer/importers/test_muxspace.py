"""The muxspace importer: labels as people typed them, and no person on two sides."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from contract.errors import UserError
from contract.manifest import Manifest, read_manifest
from tests.trainer.data_sets import muxspace
from trainer.data.importers.muxspace import import_muxspace

PEOPLE = [f"Person_{chr(65 + n // 26)}{chr(97 + n % 26)}" for n in range(60)]


def imported(
    folder: Path, legend: list[tuple[str, str]], seeds: dict[str, int] | None = None, seed: int = 1
) -> tuple[Manifest, dict[str, Any]]:
    """The manifest and the report of a legend. Images are lossless PNGs under their names."""
    source = muxspace(folder / "source", legend, seeds or {})
    report = import_muxspace(source=source, out=folder / "out", seed=seed)["muxspace"]
    return read_manifest(folder / "out/manifest.csv"), report


def labels(manifest: Manifest) -> dict[str, str]:
    return {Path(row.path).name: row.label for row in manifest.rows}


def test_labels_are_read_whatever_their_case_and_contempt_is_dropped(tmp_path: Path) -> None:
    names = (
        "Neutral", "HAPPINESS", "surprise", "Sadness", "anger", "DISGUST", "fear", "Contempt",
    )  # fmt: skip
    legend = [(f"P{chr(97 + n)}_0001.png", name) for n, name in enumerate(names)]
    manifest, report = imported(tmp_path, legend)
    assert labels(manifest) == {
        "Pa_0001.png": "neutral", "Pb_0001.png": "happy", "Pc_0001.png": "surprise",
        "Pd_0001.png": "sad", "Pe_0001.png": "angry", "Pf_0001.png": "disgust",
        "Pg_0001.png": "fear",
    }  # fmt: skip
    assert report["dropped"] == {"contempt is not one of the seven": 1}


def test_a_doubled_row_is_kept_once_and_a_disputed_one_not_at_all(tmp_path: Path) -> None:
    legend = [
        ("A_0001.png", "happiness"), ("A_0001.png", "Happiness"),
        ("B_0001.png", "anger"), ("B_0001.png", "fear"),
        ("C_0001.png", "sadness"),
    ]  # fmt: skip
    manifest, report = imported(tmp_path, legend)
    assert labels(manifest) == {"A_0001.png": "happy", "C_0001.png": "sad"}
    assert report["dropped"] == {"listed twice": 1, "listed with different labels": 2}


def test_the_same_pixels_under_two_names_are_one_image_or_none(tmp_path: Path) -> None:
    legend = [
        ("A_0001.png", "fear"), ("B_0001.png", "fear"),
        ("C_0001.png", "anger"), ("D_0001.png", "disgust"),
        ("E_0001.png", "sadness"),
    ]  # fmt: skip
    same = {"A_0001.png": 1, "B_0001.png": 1, "C_0001.png": 2, "D_0001.png": 2}
    manifest, report = imported(tmp_path, legend, same)
    assert labels(manifest) == {"A_0001.png": "fear", "E_0001.png": "sad"}
    assert report["dropped"] == {
        "same pixels twice": 1,
        "same pixels under different labels": 2,
    }


def a_crowd() -> list[tuple[str, str]]:
    """Sixty people with one to four photos each, not all of one expression."""
    emotions = ("happiness", "neutral", "sadness")
    return [
        (f"{person}_{photo:04d}.png", emotions[(n + photo) % 3])
        for n, person in enumerate(PEOPLE)
        for photo in range(1, 2 + n % 4)
    ]


def test_no_person_is_on_two_sides(tmp_path: Path) -> None:
    manifest, report = imported(tmp_path, a_crowd())
    sides: dict[str, set[str]] = defaultdict(set)
    for row in manifest.rows:
        person = Path(row.path).name.rsplit("_", 1)[0]
        sides[person].add(row.split)
        assert row.group == person
    assert set(sides) == set(PEOPLE)
    assert all(len(found) == 1 for found in sides.values())
    shares = {name: n / len(manifest.rows) for name, n in report["rows"].items()}
    assert set(shares) == {"train", "calib", "val"}
    assert shares["train"] == pytest.approx(0.8, abs=0.05)
    assert shares["val"] == pytest.approx(0.1, abs=0.05)
    assert report["rows"] == Counter(row.split for row in manifest.rows)


def test_the_seed_decides_the_split(tmp_path: Path) -> None:
    def splits(name: str, seed: int) -> list[str]:
        return [row.split for row in imported(tmp_path / name, a_crowd(), seed=seed)[0].rows]

    assert splits("a", 1) == splits("b", 1)
    assert splits("a", 1) != splits("c", 2)


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"legend\.csv: line 3: unknown emotion 'bored'"):
        imported(tmp_path / "a", [("A_0001.png", "fear"), ("B_0001.png", "bored")])
    source = muxspace(tmp_path / "b", [("A_0001.png", "fear")], {})
    (source / "images/A_0001.png").unlink()
    with pytest.raises(UserError, match=r"no image at .*A_0001\.png"):
        import_muxspace(source=source, out=tmp_path / "out", seed=1)
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match=r"legend\.csv is missing"):
        import_muxspace(source=tmp_path / "c", out=tmp_path / "out", seed=1)
