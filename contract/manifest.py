"""A manifest: one CSV of labelled images, the only way data crosses between stages.

Columns `path,label,split,source`, optionally `votes_<expression>` (all seven or none), `group` and
`sha256`. Paths are relative to the manifest's folder. Reading is a hard gate: the first fault is
named with its line, before any stage spends a second.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

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


def _votes(record: dict[str, str], place: str) -> tuple[float, ...] | None:
    if VOTES[0] not in record:
        return None
    values: list[float] = []
    for name in VOTES:
        try:
            value = float(record[name])
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise UserError(f"{place}: {name} '{record[name]}' is not a count of votes (0 or more)")
        values.append(value)
    return tuple(values)


def _row(record: dict[str, str], place: str, line: int) -> Row:
    if None in record or None in record.values():
        raise UserError(f"{place}: the number of fields differs from the header's")
    if record["label"] not in INDEX:
        raise UserError(
            f"{place}: unknown label '{record['label']}'{nearest(record['label'], EXPRESSIONS)} "
            f"(one of {' '.join(EXPRESSIONS)})"
        )
    if record["split"] not in SPLITS:
        raise UserError(
            f"{place}: unknown split '{record['split']}'{nearest(record['split'], SPLITS)} "
            f"(one of {' '.join(SPLITS)})"
        )
    if not record["path"]:
        raise UserError(f"{place}: the path is empty")
    return Row(
        path=record["path"],
        label=record["label"],
        split=record["split"],
        source=record["source"],
        votes=_votes(record, place),
        group=record.get("group", ""),
        sha256=record.get("sha256", ""),
        line=line,
    )


def read_manifest(file: Path, check_files: bool = True) -> Manifest:
    """Read and validate a manifest.

    Raises `UserError` naming the line for a missing column, an unknown label or split, a wrong
    vote, a missing image (unless `check_files` is off), or a manifest without rows.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            _columns(reader.fieldnames or (), file)
            rows: list[Row] = []
            for record in reader:
                place = f"{file}: line {reader.line_num}"
                row = _row(record, place, reader.line_num)
                if check_files and not (file.parent / row.path).is_file():
                    raise UserError(
                        f"{place}: no image at {file.parent / row.path}; "
                        "paths are relative to the manifest"
                    )
                rows.append(row)
    except FileNotFoundError:
        raise UserError(f"no manifest at {file}; make one with fer-trainer data import") from None
    except IsADirectoryError:
        raise UserError(f"{file} is a folder; name the manifest's CSV file in it") from None
    except PermissionError:
        raise UserError(f"{file} cannot be read: permission denied; mend with chmod +r") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a CSV text file ({error})") from None
    if not rows:
        raise UserError(f"{file}: no rows under the header; a manifest needs at least one image")
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
