"""The gate every manifest passes before a stage spends a second on it.

**Faults** fail it: a row that cannot be read, a missing image, one that cannot be decoded or is not
the file of its `sha256`, and a leak: the same picture, or rows of the same group (a person, a
video), in two splits. Near duplicates across splits are a fault too, when they are looked for
(`near`): a picture that differs by a watermark tests memory as well as its copy does, and the
threshold is far from what two different photos reach.

**Warnings** do not: copies within one split, and copies under different labels. They waste time
and blur labels, but no figure is made better by them.
"""

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.errors import UserError
from contract.files import sha256_file
from contract.manifest import Manifest, Row, missing_image, no_rows, scan_rows
from trainer.data.content import NEAR_BITS, Content, contents, file_hash, in_threads
from trainer.data.duplicates import Key, Pair, group_key, near_leaks, shared
from trainer.data.rows import Table

LISTED = 1000
"""Messages a report holds; all faults are counted."""


@dataclass
class Findings:
    """Faults or warnings: how many of each kind, and the first of them in words."""

    counts: Counter[str] = field(default_factory=Counter)
    listed: list[dict[str, str]] = field(default_factory=list)

    def add(self, kind: str, message: str) -> None:
        """Count one, and list it while there is room."""
        self.counts[kind] += 1
        if len(self.listed) < LISTED:
            self.listed.append({"kind": kind, "message": message})


def _read(file: Path, faults: Findings) -> Manifest:
    rows: list[Row] = []
    for row in scan_rows(file):
        if isinstance(row, UserError):
            faults.add("row", str(row))
        else:
            rows.append(row)
    if not rows and not faults.counts:
        raise no_rows(file)
    return Manifest(file, sha256_file(file), tuple(rows))


def _files_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def _present(table: Table, faults: Findings) -> list[int]:
    """The rows whose image is there: by listing each folder once, as asking for each is slower."""
    by_folder: dict[tuple[Path, str], list[int]] = defaultdict(list)
    start = 0
    for manifest in table.manifests:
        for number, row in enumerate(manifest.rows, start):
            by_folder[manifest.file, row.path.rpartition("/")[0]].append(number)
        start += len(manifest.rows)
    rows = table.rows
    missing: dict[int, UserError] = {}
    for (file, head), numbers in by_folder.items():
        names = _files_in(file.parent / head)
        for number in numbers:
            # A name may be found though it is not listed so: another case, another Unicode form.
            if rows[number].path.rpartition("/")[2] not in names:
                fault = missing_image(file, rows[number])
                if fault:
                    missing[number] = fault
    for number in sorted(missing):
        faults.add("missing image", str(missing[number]))
    return [number for number in range(len(rows)) if number not in missing]


def count_rows(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, int]]]:
    """Rows by source, split and label."""
    tally = Counter((row.source, row.split, row.label) for row in rows)
    nested: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for (source, split, label), count in sorted(tally.items()):
        nested[source][split][label] = count
    return {source: dict(splits) for source, splits in nested.items()}


@dataclass(frozen=True)
class Opened:
    """Which images were opened, and what is known of the content of every row."""

    looked: dict[int, Content]
    files: dict[int, str]
    """The SHA-256 of a row's file, as the manifest or the file itself says."""

    @property
    def keys(self) -> list[Key]:
        """By what copies are found: pixels where images were opened, bytes for the rest."""
        by_bytes: Key = self.files.get

        def by_pixels(number: int) -> bytes | None:
            return self.looked[number].pixels if number in self.looked else None

        every = len(self.looked) >= len(self.files)
        return [by_pixels] if every else [by_bytes, by_pixels] if self.looked else [by_bytes]


def open_images(
    table: Table, present: Sequence[int], decode: int | None, near: bool, seed: int
) -> Opened:
    """Decode the images of a seeded sample of `decode` rows (None: all), and hash their files.

    The files of the other rows are hashed where the manifest does not say their hash, but for
    `decode` 0, which opens nothing.
    """
    sample: Sequence[int] = present
    if decode is not None and decode < len(present):
        sample = sorted(random.Random(seed).sample(present, decode))
    looked = dict(zip(sample, contents([table.path(n) for n in sample], near), strict=True))
    files = {n: table.rows[n].sha256 for n in present if table.rows[n].sha256}
    if decode != 0:
        found = {n: content.sha256 for n, content in looked.items()}
        unknown = [n for n in present if n not in files and n not in found]
        paths = [table.path(n) for n in unknown]
        found |= zip(unknown, in_threads(file_hash, paths, "hashing files"), strict=True)
        files |= {n: sha256 for n, sha256 in found.items() if sha256}
    return Opened(looked, files)


def _check_contents(table: Table, opened: Opened, faults: Findings) -> None:
    for number, content in opened.looked.items():
        said = table.rows[number].sha256
        if content.pixels is None:
            faults.add(
                "not decodable",
                f"{table.place(number)} cannot be decoded as an image; restore it, or drop the row "
                "with fer-trainer data clean",
            )
        elif said and said != content.sha256:
            faults.add(
                "wrong sha256",
                f"{table.place(number)} is not the file the manifest's sha256 speaks of; restore "
                "it, or import the data set again",
            )


def _mend(table: Table) -> str:
    command = "clean" if len(table.manifests) == 1 else "merge"
    files = " ".join(str(manifest.file) for manifest in table.manifests)
    return f"mend with: fer-trainer data {command} {files} --out FOLDER"


def _compare(
    table: Table, present: Sequence[int], opened: Opened, near: bool, faults: Findings
) -> Findings:
    rows, mend, warnings = table.rows, _mend(table), Findings()
    leaks: dict[int, Pair] = {}
    copies: dict[int, Pair] = {}
    for key in opened.keys:
        found = shared(rows, present, key)
        leaks |= {pair.yields: pair for pair in found.leaks}
        copies |= {pair.yields: pair for pair in found.copies}
    for pair in (leaks[number] for number in sorted(leaks)):
        faults.add(
            "same picture in two splits",
            f"{table.place(pair.yields)} is the same picture as {table.place(pair.stays)}: what is "
            f"measured on must not be in another split; {mend}",
        )
    for pair in shared(rows, present, lambda number: group_key(rows[number])).leaks:
        faults.add(
            "same group in two splits",
            f"{table.place(pair.yields)} is of the same group '{rows[pair.yields].group}' as "
            f"{table.place(pair.stays)}: a person or series must be in one split; {mend}",
        )
    if near:
        pictures = {
            number: (content.pixels, content.near)
            for number, content in opened.looked.items()
            if content.pixels is not None
        }
        for pair in near_leaks(rows, present, pictures):
            if pair.yields not in leaks:
                faults.add(
                    "near duplicate in two splits",
                    f"{table.place(pair.yields)} is nearly the same picture as "
                    f"{table.place(pair.stays)}; {mend} --near",
                )
    for pair in (copies[number] for number in sorted(copies)):
        same = rows[pair.yields].label == rows[pair.stays].label
        kind = "same picture twice" if same else "same picture under two labels"
        warnings.add(
            kind, f"{table.place(pair.yields)} is the same picture as {table.place(pair.stays)}"
        )
    return warnings


def validate(
    files: Sequence[Path], *, decode: int | None, near: bool = False, seed: int = 1337
) -> dict[str, Any]:
    """Check manifests, and their rows against each other's; returns the report.

    `decode` is how many images are opened, a sample drawn by `seed` (None: all, 0: none). Report:
    `valid`, `manifests`, `rows`, `counts` by source, split and label, `checked` (what was looked
    at), `faults` and `warnings` (each with `counts` by kind and the first `LISTED` in words).
    Raises `UserError` for a file that is no manifest at all.
    """
    faults = Findings()
    table = Table([_read(file, faults) for file in files])
    present = _present(table, faults)
    opened = open_images(table, present, decode, near, seed)
    _check_contents(table, opened, faults)
    warnings = _compare(table, present, opened, near, faults)
    decoded = len(opened.looked)
    return {
        "valid": not faults.counts,
        "manifests": [
            {"path": str(m.file), "sha256": m.sha256, "rows": len(m.rows)} for m in table.manifests
        ],
        "rows": len(table.rows),
        "counts": count_rows(table.rows),
        "checked": {
            "decoded": decoded,
            "seed": seed,
            "compared_by_pixels": decoded,
            "compared_by_sha256": len(opened.files) if decoded < len(present) else 0,
            "not_compared": sum(
                number not in opened.looked and number not in opened.files for number in present
            ),
            "grouped": sum(bool(row.group) for row in table.rows),
            "near_bits": NEAR_BITS if near else None,
        },
        "faults": {"counts": dict(faults.counts), "listed": faults.listed},
        "warnings": {"counts": dict(warnings.counts), "listed": warnings.listed},
    }
