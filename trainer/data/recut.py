"""New splits for a manifest, whatever splits it has."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from contract.errors import UserError
from contract.manifest import Row
from trainer.data.clean import REPORT
from trainer.data.content import NEAR_BITS, Content, contents, near_pairs
from trainer.data.duplicates import group_key
from trainer.data.reports import described, write_data_set
from trainer.data.rows import Table
from trainer.data.splits import cut_groups


def together(rows: Sequence[Row], looked: Sequence[Content], near: bool) -> list[int]:
    """A number for every row; rows that must be in one split have the same.

    Those are rows of a group, of the same picture, and (`near`) of nearly the same, in any chain.
    """
    above: dict[Hashable, Hashable] = {}

    def top(node: Hashable) -> Hashable:
        while (up := above.setdefault(node, node)) != node:
            above[node] = above[up]
            node = up
        return node

    for number, (row, content) in enumerate(zip(rows, looked, strict=True)):
        for common in (group_key(row), content.pixels):
            if common is not None:
                above[top(common)] = top(number)
    if near:
        pictures = {content.pixels: content.near for content in looked if content.pixels}
        names = list(pictures)
        for first, second in near_pairs(list(pictures.values())):
            above[top(names[first])] = top(names[second])
    number_of: dict[Hashable, int] = {}
    return [number_of.setdefault(top(number), len(number_of)) for number in range(len(rows))]


def recut(
    table: Table, out: Path, shares: dict[str, float], seed: int, near: bool
) -> dict[str, Any]:
    """Cut `test`, `val` and `calib` by their shares of all rows, the rest is `train`; write it.

    Stratified by source and label, by the seed and the order of the rows alone. Raises `UserError`
    for shares that leave nothing to train on, and for an image that cannot be read (clean first).
    """
    for split, share in shares.items():
        if not 0 <= share < 1:
            raise UserError(f"--{split} {share:g}: a share is from 0 to under 1")
    if sum(shares.values()) >= 1:
        raise UserError(f"the shares add up to {sum(shares.values()):g}; leave some rows to train")
    looked = contents([table.path(number) for number in range(len(table.rows))], near)
    for number, content in enumerate(looked):
        if content.pixels is None:
            raise UserError(
                f"{table.place(number)} cannot be decoded as an image; drop it with: fer-trainer "
                f"data clean {table.manifests[0].file} --out FOLDER"
            )
    units = together(table.rows, looked, near)
    strata = [f"{row.source}/{row.label}" for row in table.rows]
    split_of: dict[int, str] = {}
    for step, split in enumerate(("test", "val", "calib")):
        rest = [number for number in range(len(table.rows)) if number not in split_of]
        share = shares[split] * len(table.rows) / len(rest)
        chosen = cut_groups(
            rest, [units[n] for n in rest], [strata[n] for n in rest], share, seed + step
        )
        split_of |= {rest[position]: split for position in chosen}
    rebased = table.rebased(range(len(table.rows)), out)
    rows = [replace(row, split=split_of.get(n, "train")) for n, row in enumerate(rebased)]
    moved = Counter(
        f"{before.split} → {after.split}"
        for before, after in zip(table.rows, rows, strict=True)
        if before.split != after.split
    )
    report = {
        "manifests": described(table.manifests),
        "rules": [
            "cut anew by the seed, stratified by source and label; a group and the copies of a "
            "picture (with --near also near duplicates) stay together"
        ],
        "shares": shares,
        "seed": seed,
        "near_bits": NEAR_BITS if near else None,
        "units": len(set(units)),
        "actions": dict(sorted(moved.items())),
    }
    return write_data_set(out, rows, report, REPORT)
