"""Cutting a part off a set of rows by a seed, with groups kept whole."""

import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def cut_groups(
    items: Sequence[T], groups: Sequence[Hashable], labels: Sequence[str], share: float, seed: int
) -> set[int]:
    """Positions of about `share` of the items, stratified by label, no group divided.

    A group counts under the label of its first item. The choice depends on the seed and the order
    of the items alone.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    by_label: dict[str, list[list[int]]] = defaultdict(list)
    for positions in members.values():
        by_label[labels[positions[0]]].append(positions)
    chosen: set[int] = set()
    for label in sorted(by_label):
        stratum = by_label[label]
        random.Random(f"{seed}:{label}").shuffle(stratum)
        wanted = share * sum(len(positions) for positions in stratum)
        taken = 0
        for positions in stratum:
            if taken + len(positions) / 2 > wanted:
                break
            chosen.update(positions)
            taken += len(positions)
    return chosen


def counts(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, in the order of the names."""
    tally: dict[str, int] = defaultdict(int)
    for value in values:
        tally[value] += 1
    return dict(sorted(tally.items()))
