"""Which rows of a merged table make which manifest.

- `hq_train`: what a teacher learns from when labels matter more than their number. The `train` rows
  of high-quality sources (`HIGH_QUALITY`) and of high-quality parts (a manifest called `hq.csv`, as
  `fer-trainer data import expw` makes one), and the `calib` rows of every source.
- `test_all_sources`: the `val` and `test` rows of every source.
- `per_source`: all rows, one manifest for each source.
"""

from collections.abc import Callable, Mapping, Sequence

from contract.errors import UserError
from contract.manifest import Row

HIGH_QUALITY = frozenset({"ferplus", "rafdb", "rafdb_compound", "rafml", "affectnet"})
"""Sources whose labels come from several annotators per image, or from trained ones.

Not here: fer2013 (FER+ is its relabelling), expw but for its `hq.csv`, and muxspace (one label of
one person each).
"""
HQ_FILE = "hq.csv"

Recipe = Callable[[Sequence[Row], Sequence[int], frozenset[int]], dict[str, list[int]]]
"""(all rows, numbers of the rows to choose from, those of them in a high-quality part) → the
numbers of the rows of each manifest, by its name."""


def hq_train(
    rows: Sequence[Row], numbers: Sequence[int], hq: frozenset[int]
) -> dict[str, list[int]]:
    """`train` of high-quality sources and parts, and all of `calib`."""

    def chosen(number: int) -> bool:
        row = rows[number]
        good = row.source in HIGH_QUALITY or number in hq
        return row.split == "calib" or (row.split == "train" and good)

    return {"hq_train": [number for number in numbers if chosen(number)]}


def test_all_sources(
    rows: Sequence[Row], numbers: Sequence[int], hq: frozenset[int]
) -> dict[str, list[int]]:
    """Everything that is held out."""
    held = [number for number in numbers if rows[number].split in ("val", "test")]
    return {"test_all_sources": held}


def per_source(
    rows: Sequence[Row], numbers: Sequence[int], hq: frozenset[int]
) -> dict[str, list[int]]:
    """A manifest for each source, named after it. Raises `UserError` for a name no folder has."""
    by_source: dict[str, list[int]] = {}
    for number in numbers:
        source = rows[number].source
        if not source or source.startswith(".") or "/" in source or source in RECIPES:
            raise UserError(
                f"source '{source}' cannot name a folder of --recipe per_source; "
                "rename it in its manifest"
            )
        by_source.setdefault(source, []).append(number)
    return dict(sorted(by_source.items()))


RECIPES: Mapping[str, Recipe] = {
    "hq_train": hq_train,
    "test_all_sources": test_all_sources,
    "per_source": per_source,
}
