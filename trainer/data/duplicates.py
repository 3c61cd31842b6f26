"""Rows that must not be on both sides of a split: same picture, near duplicate, same group.

The rule that names the one that yields: the row of the split that is held out further stays (test,
then val, calib, train), so what figures are reported on is left whole and training gives way.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from contract.manifest import SPLITS, Row
from trainer.data.content import near_pairs

RANK = {split: rank for rank, split in enumerate(SPLITS)}
"""How far a split is held out."""

Key = Callable[[int], Hashable | None]
"""What the rows of a number have in common, or None for a row that is compared with none."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows: the one that stays, and the one that yields to it."""

    stays: int
    yields: int


@dataclass(frozen=True)
class Shared:
    """Rows that share a key with another row.

    `leaks` yield to a row of a split held out further; `copies` are in the same split as the first
    row with their key, in the split held out furthest among those that have it.
    """

    leaks: list[Pair]
    copies: list[Pair]


def group_key(row: Row) -> Hashable | None:
    """A row's group: a person, a video or a set of copies, by names that a source gives out."""
    return (row.source, row.group) if row.group else None


def shared(rows: Sequence[Row], numbers: Sequence[int], key: Key) -> Shared:
    """Which of the rows of these numbers share a key, across splits and within one."""
    first: dict[Hashable, int] = {}
    for number in numbers:
        common = key(number)
        if common is None:
            continue
        other = first.setdefault(common, number)
        if RANK[rows[number].split] > RANK[rows[other].split]:
            first[common] = number
    leaks: list[Pair] = []
    copies: list[Pair] = []
    for number in numbers:
        common = key(number)
        if common is None or first[common] == number:
            continue
        pair = Pair(first[common], number)
        same_split = rows[pair.stays].split == rows[number].split
        (copies if same_split else leaks).append(pair)
    return Shared(leaks, copies)


def near_leaks(
    rows: Sequence[Row], numbers: Sequence[int], pictures: Mapping[int, tuple[bytes, bytes]]
) -> Iterator[Pair]:
    """Rows that are near duplicates, but not copies, of a row of a split held out further.

    `pictures` has the pixel hash and the perceptual hashes of the rows to compare. The time is
    quadratic in the number of different pictures.
    """
    by_pixels: dict[bytes, list[int]] = {}
    for number in numbers:
        if number in pictures:
            by_pixels.setdefault(pictures[number][0], []).append(number)
    members = list(by_pixels.values())
    furthest = [max(group, key=lambda number: RANK[rows[number].split]) for group in members]
    stays: dict[int, int] = {}
    for pair in near_pairs([pictures[group[0]][1] for group in members]):
        for group, other in (pair, pair[::-1]):
            for number in members[group]:
                if RANK[rows[number].split] < RANK[rows[furthest[other]].split]:
                    stays.setdefault(number, furthest[other])
    return (Pair(stays[number], number) for number in sorted(stays))
