"""What all importers share: groups, cuts, and the files of an earlier import."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from contract.manifest import read_manifest
from tests.trainer.importers.layouts import save
from trainer.data.importers import IMPORTERS
from trainer.data.importers._common import Sample, cut_parts, divide, joined, write

pairs = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["", "x", "y", "z"])))


def test_every_data_set_has_an_importer() -> None:
    assert sorted(IMPORTERS) == [
        "affectnet", "expw", "fer2013", "ferplus", "muxspace", "rafdb", "rafdb_compound", "rafml",
    ]  # fmt: skip


@given(pairs)
def test_images_are_one_group_exactly_when_a_chain_of_pixels_or_names_joins_them(
    images: list[tuple[str, str]],
) -> None:
    """Against the slow way: merge until nothing changes."""
    expected = list(range(len(images)))
    for _ in images:
        for i, (pixel, name) in enumerate(images):
            for j, (other, its_name) in enumerate(images):
                if pixel == other or (name and name == its_name):
                    expected[i] = expected[j] = min(expected[i], expected[j])
    groups = joined([pixel for pixel, _ in images], [name for _, name in images])
    for i in range(len(images)):
        for j in range(i):
            together = groups[i] == groups[j] != ""
            assert together == (expected[i] == expected[j])


@given(
    st.lists(st.tuples(st.sampled_from("abcdefghijklmnopqrst"), st.sampled_from(["sad", "fear"]))),
    st.integers(0, 5),
)
def test_no_group_is_divided_by_a_cut(rows: list[tuple[str, str]], seed: int) -> None:
    groups, labels = [group for group, _ in rows], [label for _, label in rows]
    cut = cut_parts(groups, labels, ["val", "calib"], seed)
    sides = defaultdict(set)
    for position, group in enumerate(groups):
        sides[group].add(cut.get(position, "train"))
    assert all(len(found) == 1 for found in sides.values())


def test_each_part_is_a_tenth_of_the_whole() -> None:
    cut = cut_parts(range(1000), ["sad", "happy"] * 500, ["test", "val", "calib"], 3)
    assert Counter(cut.values()) == {"test": 100, "val": 100, "calib": 100}


def some(folder: Path, count: int) -> list[Sample]:
    return [
        Sample(save(folder / f"{n}.png", n), ("sad", "happy")[n % 2], "train", f"line {n}")
        for n in range(count)
    ]


def test_files_of_an_earlier_import_do_not_stay_behind(tmp_path: Path) -> None:
    """A calib.csv of other rows would be taken for a part of the new manifest."""

    def run(count: int) -> None:
        samples, lost = some(tmp_path / "images", count), Counter[str]()
        rows = divide(samples, data_set="x", source=tmp_path, out=tmp_path, seed=1, lost=lost)
        kept = [row for row in rows if row]
        write(tmp_path, kept, data_set="x", protocol="p", seed=1, lost=lost)

    run(40)
    assert (tmp_path / "calib.csv").is_file()
    run(2)
    assert {file.name for file in tmp_path.glob("*.csv")} == {"manifest.csv", "train.csv"}
    assert len(read_manifest(tmp_path / "manifest.csv").rows) == 2


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file: .*--out"):
        divide(
            some(tmp_path, 1),
            data_set="x", source=tmp_path, out=tmp_path / "file", seed=1, lost=Counter(),
        )  # fmt: skip
