"""Resolving what validation finds, by rules; images and input manifests are never changed.

In this order (`RULES` is what a report says of it):

1. A row whose image is missing, cannot be decoded, or is not the file of its `sha256`, is dropped.
2. A row that lists the same file again with the same label and split is dropped.
3. The same picture in two splits stays in the one held out further (test, val, calib, train).
4. Likewise the rows of a group (a person, a video): those of the lower split are dropped.
5. Likewise near duplicates, where they are looked for.
6. Copies within `train` or `calib` are kept once. Where their labels differ, a row with votes
   outranks one without (more people stand behind it), then the majority's label wins; without a
   majority all are dropped, as nobody knows which is right.

`val` and `test` keep their copies, so that figures stay comparable with those of others.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contract.errors import UserError
from contract.manifest import Row
from trainer.data.content import NEAR_BITS, Content, contents
from trainer.data.duplicates import Pair, group_key, near_leaks, shared
from trainer.data.reports import described, write_data_set
from trainer.data.rows import Table

REPORT = "clean_report.json"
RULES = [
    "missing, not decodable, or not the file of its sha256: dropped",
    "the same file listed again with the same label and split: dropped",
    "same picture, same group, or (with --near) near duplicate in two splits: the row of the split "
    "held out further stays (test > val > calib > train), the others are dropped",
    "copies within train or calib: kept once; if labels differ, rows with votes outrank rows "
    "without, then the majority's label wins, and without a majority all are dropped",
    "val and test keep their copies",
]


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that is left out, why, and the row it yields to, if there is one."""

    row: int
    reason: str
    stays: int | None = None


def _unusable(row: Row, content: Content) -> str | None:
    if content.sha256 is None:
        return "image is missing"
    if content.pixels is None:
        return "cannot be decoded"
    if row.sha256 and row.sha256 != content.sha256:
        return "not the file of its sha256"
    return None


def _winner(rows: Sequence[Row], copies: Sequence[int]) -> int | None:
    """Which of several copies stays; None where their labels contradict each other."""
    # Beside rows with votes, a manifest gives the others seven zeros.
    voted = [number for number in copies if any(rows[number].votes or ())]
    candidates = voted or copies
    (label, most), *others = Counter(rows[n].label for n in candidates).most_common(2)
    if others and others[0][1] == most:
        return None
    return next(number for number in candidates if rows[number].label == label)


def _copies(rows: Sequence[Row], numbers: Sequence[int], looked: Sequence[Content]) -> list[Drop]:
    same: dict[tuple[str, bytes | None], list[int]] = defaultdict(list)
    for number in numbers:
        if rows[number].split in ("train", "calib"):
            same[rows[number].split, looked[number].pixels].append(number)
    drops = []
    for copies in same.values():
        winner = _winner(rows, copies)
        for number in copies:
            if winner is None:
                drops.append(Drop(number, "copies with contradicting labels"))
            elif number != winner:
                agrees = rows[number].label == rows[winner].label
                reason = "copy within a split" if agrees else "copy with an outvoted label"
                drops.append(Drop(number, reason, winner))
    return drops


def resolve(table: Table, looked: Sequence[Content], near: bool) -> list[Drop]:
    """What to drop from a table, by the rules above, so that it has no leak; in row order.

    `looked` is the content of every row's image, with perceptual hashes for `near`.
    """
    rows = table.rows
    drops: dict[int, Drop] = {}

    def left() -> list[int]:
        return [number for number in range(len(rows)) if number not in drops]

    def drop(found: Iterator[Drop] | Sequence[Drop]) -> None:
        drops.update((each.row, each) for each in found)

    def yielding(pairs: Iterator[Pair] | Sequence[Pair], reason: str) -> None:
        drop([Drop(pair.yields, reason, pair.stays) for pair in pairs])

    unusable = ((n, _unusable(row, looked[n])) for n, row in enumerate(rows))
    drop([Drop(number, reason) for number, reason in unusable if reason])
    listed = shared(rows, left(), lambda n: (table.file(n), rows[n].label, rows[n].split))
    yielding(listed.copies, "same file listed again")
    yielding(
        shared(rows, left(), lambda n: looked[n].pixels).leaks, "same picture in another split"
    )
    yielding(
        shared(rows, left(), lambda n: group_key(rows[n])).leaks, "same group in another split"
    )
    if near:
        pictures = {n: (pixels, looked[n].near) for n in left() if (pixels := looked[n].pixels)}
        yielding(near_leaks(rows, left(), pictures), "near duplicate in another split")
    drop(_copies(rows, left(), looked))
    return [drops[number] for number in sorted(drops)]


@dataclass(frozen=True)
class Cleaned:
    """A table and what `resolve` made of it."""

    table: Table
    looked: Sequence[Content]
    drops: Sequence[Drop]
    near: bool

    @property
    def kept(self) -> list[int]:
        """The rows that stay."""
        dropped = {drop.row for drop in self.drops}
        return [number for number in range(len(self.table.rows)) if number not in dropped]

    def rows_for(self, folder: Path, numbers: Sequence[int]) -> list[Row]:
        """Rows as a manifest in `folder` lists them, each with the hash of its file."""
        rebased = self.table.rebased(numbers, folder)
        return [
            replace(row, sha256=self.looked[number].sha256 or "")
            for number, row in zip(numbers, rebased, strict=True)
        ]

    def report(self) -> dict[str, Any]:
        """What was read, by which rules it was resolved, and every row that was dropped."""
        table = self.table
        return {
            "manifests": described(table.manifests),
            "rules": RULES,
            "near_bits": NEAR_BITS if self.near else None,
            "actions": dict(Counter(drop.reason for drop in self.drops)),
            "dropped": [
                {
                    "row": table.place(drop.row),
                    "label": table.rows[drop.row].label,
                    "reason": drop.reason,
                    "stays": None if drop.stays is None else table.place(drop.stays),
                }
                for drop in self.drops
            ],
        }


def cleaned(table: Table, near: bool) -> Cleaned:
    """Open every image of a table and resolve what is found. Raises `UserError` if no row stays."""
    looked = contents([table.path(number) for number in range(len(table.rows))], near)
    result = Cleaned(table, looked, resolve(table, looked, near), near)
    if not result.kept:
        reason, count = Counter(drop.reason for drop in result.drops).most_common(1)[0]
        raise UserError(
            f"{table.manifests[0].file}: no row would be left ({count} of {len(table.rows)}: "
            f"{reason}); nothing was written"
        )
    return result


def clean(table: Table, out: Path, near: bool) -> dict[str, Any]:
    """Write what stays of a table to `out`, with `clean_report.json`; returns the report."""
    result = cleaned(table, near)
    return write_data_set(out, result.rows_for(out, result.kept), result.report(), REPORT)
