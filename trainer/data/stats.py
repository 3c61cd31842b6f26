"""What a manifest holds, in figures."""

import math
import random
from collections import defaultdict
from statistics import fmean, median
from typing import Any

from contract.expressions import EXPRESSIONS
from contract.faces import read_image
from contract.manifest import SPLITS
from trainer.data.content import in_threads
from trainer.data.duplicates import group_key, shared
from trainer.data.reports import described
from trainer.data.rows import Table
from trainer.data.validate import count_rows, open_images

SIZES_OF = 1000
"""Images whose size is looked at."""


def vote_entropy(votes: tuple[float, ...]) -> float | None:
    """Shannon entropy of a row's votes in bits, 0 (agreed) to 2.81 (seven alike); None without."""
    total = sum(votes)
    if not total:
        return None
    return -sum(v / total * math.log2(v / total) for v in votes if v) + 0.0


def _votes(table: Table) -> dict[str, dict[str, Any]]:
    by_source = defaultdict(list)
    for row in table.rows:
        entropy = vote_entropy(row.votes) if row.votes is not None else None
        if row.votes is not None and entropy is not None:
            by_source[row.source].append((entropy, sum(row.votes)))
    return {
        source: {
            "rows": len(values),
            "mean_entropy_bits": round(fmean(entropy for entropy, _ in values), 4),
            "unanimous": sum(entropy == 0 for entropy, _ in values),
            "mean_votes": round(fmean(total for _, total in values), 4),
        }
        for source, values in sorted(by_source.items())
    }


def _sizes(table: Table, present: list[int], seed: int) -> dict[str, Any]:
    sample = sorted(random.Random(seed).sample(present, min(SIZES_OF, len(present))))
    images = in_threads(
        lambda path: None if (image := read_image(path)) is None else image.shape,
        [table.path(number) for number in sample],
        "reading sizes",
    )
    shapes = [shape for shape in images if shape is not None]
    if not shapes:
        return {"images": 0}
    sides = [min(shape[:2]) for shape in shapes]
    return {
        "images": len(shapes),
        "grey": sum(len(shape) == 2 for shape in shapes),
        "shorter_side": {"min": min(sides), "median": median(sides), "max": max(sides)},
    }


def stats(table: Table, *, decode: int | None, seed: int = 1337) -> dict[str, Any]:
    """Figures of a table: rows by source, split and label; votes; duplicates; sizes of a sample.

    `decode` is how many images are opened to find copies, as for `validate`.
    """
    present = [n for n in range(len(table.rows)) if table.path(n).is_file()]
    opened = open_images(table, present, decode, near=False, seed=seed)
    leaks: set[int] = set()
    copies: set[int] = set()
    for key in opened.keys:
        found = shared(table.rows, present, key)
        leaks |= {pair.yields for pair in found.leaks}
        copies |= {pair.yields for pair in found.copies}
    groups = {group_key(row) for row in table.rows} - {None}
    return {
        "manifests": described(table.manifests),
        "rows": len(table.rows),
        "missing": len(table.rows) - len(present),
        "counts": count_rows(table.rows),
        "votes": _votes(table),
        "groups": len(groups),
        "duplicates": {
            "across_splits": len(leaks),
            "within_a_split": len(copies - leaks),
            "decoded": len(opened.looked),
        },
        "sizes": _sizes(table, present, seed) if decode != 0 else {"images": 0},
    }


def as_table(figures: dict[str, Any]) -> list[str]:
    """Lines for people: a row for each source and split, a column for each expression."""
    width = max(len(source) for source in [*figures["counts"], "source"])
    head = "".join(f"{name:>10}" for name in (*EXPRESSIONS, "all"))
    lines = [f"{'source':{width}}  {'split':5}{head}"]
    for source, splits in figures["counts"].items():
        for split in SPLITS:
            if split in splits:
                numbers = [splits[split].get(name, 0) for name in EXPRESSIONS]
                cells = "".join(f"{number:>10}" for number in (*numbers, sum(numbers)))
                lines.append(f"{source:{width}}  {split:5}{cells}")
    for source, votes in figures["votes"].items():
        lines.append(
            f"votes of {source}: {votes['mean_votes']:.1f} on average, mean entropy "
            f"{votes['mean_entropy_bits']:.2f} bits, unanimous {votes['unanimous']} of "
            f"{votes['rows']}"
        )
    found = figures["duplicates"]
    lines.append(
        f"copies: {found['within_a_split']} within a split, {found['across_splits']} across "
        f"splits ({found['decoded']} images compared by pixels); groups: {figures['groups']}"
    )
    if figures["missing"]:
        lines.append(f"missing images: {figures['missing']}")
    if figures["sizes"]["images"]:
        sizes = figures["sizes"]
        side = sizes["shorter_side"]
        lines.append(
            f"shorter side of {sizes['images']} images: {side['min']} to {side['max']} pixels, "
            f"median {side['median']:g}; grey {sizes['grey']}"
        )
    return lines
