"""RAF-DB, the compound subset: eleven pairs of emotions (Li et al., CVPR 2017), mapped to one."""

from pathlib import Path
from typing import Any

from trainer.data.importers._raf import import_partitioned, root_of

PAIRS = {
    "1": ("happy", "surprise"),
    "2": ("happy", "disgust"),
    "3": ("sad", "fear"),
    "4": ("sad", "angry"),
    "5": ("sad", "surprise"),
    "6": ("sad", "disgust"),
    "7": ("fear", "angry"),
    "8": ("fear", "surprise"),
    "9": ("angry", "surprise"),
    "10": ("angry", "disgust"),
    "11": ("disgust", "surprise"),
}
"""Class → the two emotions of its name, in order: 1 is "happily surprised"."""


def import_rafdb_compound(*, source: Path, out: Path, seed: int) -> dict[str, Any]:
    """RAF-DB compound → `out` manifest; returns the report.

    An image is labelled with the emotion its class names first. `source` (or its folder `compound`)
    is laid out and divided like the basic subset. Raises `UserError` naming the file and line of a
    fault.
    """
    return import_partitioned(
        data_set="rafdb_compound", root=root_of(source, ("compound",)),
        classes={number: first for number, (first, _) in PAIRS.items()},
        protocol="first-named emotion", out=out, seed=seed,
    )  # fmt: skip
