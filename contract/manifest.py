"""A manifest: one CSV of labelled images, the only way data crosses between stages.

Columns `path,label,split,source`, optionally `votes_<expression>` (all seven or none), `group` and
`sha256`. Paths are relative to the manifest's folder. Reading is a hard gate: the first fault is
named with its line, before any stage spends a second.
"""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from sys import intern

import numpy as np
from numpy.typing import NDArray

from contract.errors import UserError, nearest
from contract.expressions import EXPRESSIONS, INDEX
from contract.files import sha256_file, write_text_atomic

SPLITS = ("train", "calib", "val", "test")
REQUIRED = ("path", "label", "split", "source")
VOTES = tuple(f"votes_{name}" for name in EXPRESSIONS)
OPTIONAL = (*VOTES, "group", "sha256")


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled image. `votes` are seven counts or shares in the order of the expressions.

    `line` is where it stands in the file it was read from, for messages.
    """

    path: str
    label: str
    split: str
    source: str
    votes: tuple[float, ...] | None = None
    group: str = ""
    sha256: str = ""
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, the folder its paths start from, and the hash of its bytes."""

    file: Path
    sha256: str
    rows: tuple[Row, ...]

    def path(self, row: Row) -> Path:
        """Where a row's image lies."""
        return self.file.parent / row.path

    def place(self, row: Row) -> str:
        """File, line and image of a row, to begin a message with."""
        return f"{self.file}: line {row.line}: {self.path(row)}"

    def labels(self) -> NDArray[np.int64]:
        """`N` class numbers."""
        return np.array([INDEX[row.label] for row in self.rows], np.int64)

    def select(self, split: str) -> "Manifest":
        """The rows of one split; the hash stays that of the whole file."""
        return Manifest(self.file, self.sha256, tuple(r for r in self.rows if r.split == split))


def _columns(header: Sequence[str], file: Path) -> None:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise UserError(
            f"{file}: line 1: column '{missing[0]}' is missing; "
            f"a manifest starts with {','.join(REQUIRED)}"
        )
    for name in header:
        if name not in REQUIRED + OPTIONAL:
            raise UserError(
                f"{file}: line 1: unknown column '{name}'{nearest(name, REQUIRED + OPTIONAL)}"
            )
    if 0 < sum(name in header for name in VOTES) < len(VOTES):
        absent = next(name for name in VOTES if name not in header)
        raise UserError(f"{file}: line 1: column '{absent}' is missing; votes come all or none")


def _votes(texts: Sequence[str], known: dict[str, float]) -> tuple[float, ...]:
    """Seven votes. `known` holds some values met so far: counts are the same few in every row."""
    try:
        return tuple(map(known.__getitem__, texts))
    except KeyError:
        pass
    for name, text in zip(VOTES, texts, strict=True):
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise UserError(f"{name} '{text}' is not a count of votes (0 or more)")
        if len(known) < 1000:
            known[text] = value
    return tuple(map(float, texts))


def _fault(label: str, split: str) -> UserError:
    if label not in INDEX:
        return UserError(
            f"unknown label '{label}'{nearest(label, EXPRESSIONS)} (one of {' '.join(EXPRESSIONS)})"
        )
    if split not in SPLITS:
        return UserError(
            f"unknown split '{split}'{nearest(split, SPLITS)} (one of {' '.join(SPLITS)})"
        )
    return UserError("the path is empty")


def _parse(stream: Iterable[str], file: Path) -> Iterator[Row | UserError]:
    reader = csv.reader(stream)
    header = next(reader, [])
    _columns(header, file)
    at = {name: header.index(name) for name in header}
    path_at, label_at, split_at, source_at = (at[name] for name in REQUIRED)
    group_at, sha256_at = at.get("group"), at.get("sha256")
    votes_of = itemgetter(*(at[name] for name in VOTES)) if VOTES[0] in at else None
    known: dict[str, float] = {}
    for record in reader:
        if not record:  # a blank line
            continue
        line, votes = reader.line_num, None
        try:
            if len(record) != len(header):
                raise UserError("the number of fields differs from the header's")
            label, split, path = record[label_at], record[split_at], record[path_at]
            if label not in INDEX or split not in SPLITS or not path:
                raise _fault(label, split)
            if votes_of is not None:
                votes = _votes(votes_of(record), known)
        except UserError as fault:
            yield UserError(f"{file}: line {line}: {fault}")
            continue
        yield Row(
            path,
            # The same few words in every row: kept once each, or they outweigh the rest.
            intern(label),
            intern(split),
            intern(record[source_at]),
            votes,
            "" if group_at is None else record[group_at],
            "" if sha256_at is None else record[sha256_at],
            line,
        )


def scan_rows(file: Path) -> Iterator[Row | UserError]:
    """The rows of a manifest one by one, and in the place of a faulty row its fault.

    Images are not looked for. Raises `UserError` for what makes the whole file unreadable: no such
    file, no CSV text, a header that is no manifest's.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            yield from _parse(stream, file)
    except FileNotFoundError:
        raise UserError(f"no manifest at {file}; make one with fer-trainer data import") from None
    except IsADirectoryError:
        raise UserError(f"{file} is a folder; name the manifest's CSV file in it") from None
    except PermissionError:
        raise UserError(f"{file} cannot be read: permission denied; mend with chmod +r") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a CSV text file ({error})") from None


def no_rows(file: Path) -> UserError:
    """The fault of a manifest that holds a header alone."""
    return UserError(f"{file}: no rows under the header; a manifest needs at least one image")


def missing_image(manifest: Path, row: Row) -> UserError | None:
    """The fault of a row whose image is not there, or None where it is."""
    path = os.path.join(manifest.parent, row.path)  # noqa: PTH118  # pathlib takes ten times as long
    if os.path.isfile(path):  # noqa: PTH113
        return None
    return UserError(
        f"{manifest}: line {row.line}: no image at {Path(path)}; paths are relative to the manifest"
    )


def read_manifest(file: Path, check_files: bool = True) -> Manifest:
    """Read and validate a manifest.

    Raises `UserError` naming the line for a missing column, an unknown label or split, a wrong
    vote, a missing image (unless `check_files` is off), or a manifest without rows.
    """
    rows: list[Row] = []
    for row in scan_rows(file):
        if isinstance(row, UserError):
            raise row
        fault = missing_image(file, row) if check_files else None
        if fault:
            raise fault
        rows.append(row)
    if not rows:
        raise no_rows(file)
    return Manifest(file, sha256_file(file), tuple(rows))


def write_manifest(file: Path, rows: Sequence[Row]) -> None:
    """Write rows as a manifest, atomically; optional columns appear where any row has them."""
    with_votes = any(row.votes is not None for row in rows)
    extra = [name for name in ("group", "sha256") if any(getattr(row, name) for row in rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*REQUIRED, *(VOTES if with_votes else ()), *extra])
    for row in rows:
        votes = [f"{v:g}" for v in row.votes or (0.0,) * len(VOTES)] if with_votes else []
        fields = [row.path, row.label, row.split, row.source]
        writer.writerow([*fields, *votes, *(getattr(row, name) for name in extra)])
    write_text_atomic(file, text.getvalue())
