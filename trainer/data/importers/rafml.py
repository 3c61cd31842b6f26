"""RAF-ML: blended expressions as distributions over six emotions (Li & Deng, IJCV 2019)."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from trainer.data.importers._common import Sample, divide, lines, listed_once, write
from trainer.data.importers._raf import face_of, label_file, name_and_number, root_of

COLUMNS = ("surprise", "fear", "disgust", "happy", "sad", "angry")
_PARTITIONS = {"0": "train", "1": "test"}


def _partitions(file: Path) -> dict[str, str]:
    """Image name → train or test."""
    found = {}
    for place, line in lines(file):
        name, number = name_and_number(line, place)
        if number not in _PARTITIONS:
            raise UserError(f"{place}: unknown partition '{number}'; 0 is train, 1 is test")
        found[name] = _PARTITIONS[number]
    return found


def _distribution(fields: list[str], place: str) -> tuple[float, ...]:
    """Shares of the seven expressions, in their order; neutral is not among the six."""
    try:
        shares = tuple(map(float, fields))
    except ValueError:
        shares = ()
    sound = len(shares) == len(COLUMNS) and all(math.isfinite(s) and s >= 0 for s in shares)
    if not sound or sum(shares) == 0:
        raise UserError(f"{place}: an image name and six shares that are not all 0 are needed")
    by_name = dict(zip(COLUMNS, shares, strict=True))
    return tuple(by_name.get(name, 0.0) for name in EXPRESSIONS)


def import_rafml(*, source: Path, out: Path, seed: int) -> dict[str, Any]:
    """RAF-ML → `out` manifest; returns the report.

    `source` (or its folder `RAF-ML`) holds `EmoLabel/distribution.txt`, `EmoLabel/
    partition_label.txt` (0 train, 1 test) and the images as RAF-DB has them. The label is the
    emotion with the largest share, ties to the first in the data set's order; the distribution is
    kept as votes. `val` and `calib` are cut from the training images. Raises `UserError` naming the
    file and line of a fault.
    """
    lost: Counter[str] = Counter()
    root = root_of(source, ("RAF-ML",))
    partitions = _partitions(label_file(root, ("partition_label.txt",)))
    listed = []
    for place, line in lines(label_file(root, ("distribution.txt",))):
        name, *fields = line.split()
        votes = _distribution(fields, place)
        if name not in partitions:
            raise UserError(f"{place}: {name} has no line in partition_label.txt; add it")
        listed.append((place, name, votes))
    once = listed_once([r[1] for r in listed], [r[2] for r in listed], "distributions", lost)
    samples = []
    for place, name, votes in (listed[i] for i in once):
        share = dict(zip(EXPRESSIONS, votes, strict=True))
        label = max(COLUMNS, key=lambda column: share[column])
        face = face_of(root, name, place, out)
        samples.append(Sample(face, label, partitions[name], place, votes))
    rows = divide(samples, data_set="rafml", source=source, out=out, seed=seed, lost=lost)
    kept = [row for row in rows if row is not None]
    return {"rafml": write(out, kept, data_set="rafml", protocol="argmax", seed=seed, lost=lost)}
