"""The rows of `--calib`: divided by a seed, read, prepared.

Ranges are fitted on one part and the gate measured on the other, so that no bundle is accepted on
the rows it was made from.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from contract.errors import UserError
from contract.faces import FaceInput, prepare_face, read_image
from contract.manifest import Manifest, Row

RANGES_ROWS = 1500
"""Far more than ranges need: the temperature is fitted on them too."""
LEAST_ROWS = 100
"""Half of them are left for the gate, where one row is then two points of accuracy."""


@dataclass(frozen=True)
class Division:
    """Row numbers of a manifest, ascending: each row is in exactly one of the two."""

    ranges: tuple[int, ...]
    gate: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """One part of the rows: row numbers, splits, labels `N`, prepared faces `N×H×W×C`."""

    rows: tuple[int, ...]
    splits: tuple[str, ...]
    labels: NDArray[np.int64]
    faces: NDArray[np.uint8]
    rows_sha256: str


def _quotas(rows: Sequence[Row], target: int) -> dict[str, int]:
    """How many rows of each class make up `target` rows with the classes' own shares.

    Largest remainders get what rounding down leaves over, ties going to the rarer class.
    """
    count = Counter(row.label for row in rows)
    exact = {label: target * n / len(rows) for label, n in count.items()}
    quota = {label: int(value) for label, value in exact.items()}
    order = sorted(count, key=lambda label: (quota[label] - exact[label], count[label], label))
    for label in order[: target - sum(quota.values())]:
        quota[label] += 1
    return quota


def divide(rows: Sequence[Row], seed: int, ranges_rows: int = RANGES_ROWS) -> Division:
    """Divide rows into a part for ranges and a part for the gate, stratified by class.

    The part for ranges has `ranges_rows` rows, or half of all if that is fewer, and less only where
    rows of one `group`, which stay together, do not fit. The same rows and seed give the same
    division.
    """
    left = _quotas(rows, min(ranges_rows, len(rows) // 2))
    together: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        together[f"group {row.group}" if row.group else f"row {number}"].append(number)
    units = list(together.values())
    ranges: list[int] = []
    for which in np.random.Generator(np.random.PCG64(seed)).permutation(len(units)):
        unit = units[which]
        need = Counter(rows[number].label for number in unit)
        if all(left[label] >= n for label, n in need.items()):
            ranges += unit
            for label, n in need.items():
                left[label] -= n
    chosen = set(ranges)
    return Division(tuple(sorted(ranges)), tuple(n for n in range(len(rows)) if n not in chosen))


def rows_hash(manifest: Manifest, numbers: Sequence[int]) -> str:
    """SHA-256 of the list `path,label` of these rows: which rows, exactly, a figure rests on."""
    lines = (f"{manifest.rows[n].path},{manifest.rows[n].label}\n" for n in numbers)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_rows(manifest: Manifest) -> None:
    """Raises `UserError` for a test row, naming its line, or for too few rows."""
    for row in manifest.rows:
        if row.split == "test":
            raise UserError(
                f"{manifest.place(row)} is a test row, and test rows are held back from "
                "quantization; give a list of calib or val rows"
            )
    if len(manifest.rows) < LEAST_ROWS:
        raise UserError(
            f"{manifest.file}: {len(manifest.rows)} rows are too few to fit ranges and to judge "
            f"the result on others; give at least {LEAST_ROWS}, better a thousand"
        )


def load_faces(
    manifest: Manifest, numbers: Sequence[int], face: FaceInput, purpose: str
) -> NDArray[np.uint8]:
    """The images of these rows, each taken as the face itself → `N×size×size×C` uint8.

    Shows progress on a terminal. Raises `UserError` naming line and path of an unreadable image.
    """
    faces = np.empty((len(numbers), face.size, face.size, face.channels), np.uint8)
    for i, number in enumerate(tqdm(numbers, desc=purpose, unit="image", disable=None)):
        row = manifest.rows[number]
        image = read_image(manifest.path(row))
        if image is None:
            raise UserError(
                f"{manifest.place(row)} cannot be read as an image; "
                "replace the file or remove the row"
            )
        faces[i] = prepare_face(image, face)
    return faces


def read_part(manifest: Manifest, rows: Sequence[int], face: FaceInput, purpose: str) -> Part:
    """These rows of a manifest, read and prepared. Raises `UserError` as `load_faces` does."""
    return Part(
        rows=tuple(rows),
        splits=tuple(sorted({manifest.rows[number].split for number in rows})),
        labels=manifest.labels()[list(rows)],
        faces=load_faces(manifest, rows, face, purpose),
        rows_sha256=rows_hash(manifest, rows),
    )
