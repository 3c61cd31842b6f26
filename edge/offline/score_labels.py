"""`labels.csv`: which expression was shown from when to when, in seconds from the first frame."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.errors import UserError, nearest
from contract.expressions import EXPRESSIONS
from contract.files import write_text_atomic

LABELS_FILE = "labels.csv"
COLUMNS = ("start_s", "end_s", "label")


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one expression: from `start_s` up to, not including, `end_s`."""

    start_s: float
    end_s: float
    label: str


def _segment(record: Sequence[str], previous: Segment | None) -> Segment:
    if len(record) != len(COLUMNS):
        raise UserError(f"{len(record)} fields, and a row has {len(COLUMNS)}: {','.join(COLUMNS)}")
    times = []
    for name, text in zip(COLUMNS[:2], record[:2], strict=True):
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise UserError(f"{name} '{text}' is not a time in seconds (0 or more)")
        times.append(value)
    label = record[2]
    if label not in EXPRESSIONS:
        raise UserError(
            f"unknown label '{label}'{nearest(label, EXPRESSIONS)} (one of {' '.join(EXPRESSIONS)})"
        )
    if times[1] <= times[0]:
        raise UserError(f"end_s {times[1]:g} is not after start_s {times[0]:g}")
    if previous is not None and times[0] < previous.end_s:
        raise UserError(
            f"start_s {times[0]:g} is before the end of the row above, {previous.end_s:g}; "
            "rows come in order and do not overlap"
        )
    return Segment(times[0], times[1], label)


def read_labels(file: Path) -> tuple[Segment, ...]:
    """The labelled segments of a recording, in order; there may be gaps between them.

    Raises `UserError` naming the line of a row that is none.
    """
    found: list[Segment] = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            header = tuple(next(reader, ()))
            if header != COLUMNS:
                raise UserError(
                    f"{file}: line 1: columns '{','.join(header)}', and labels start with "
                    f"{','.join(COLUMNS)}"
                )
            for record in reader:
                if not record:
                    continue
                try:
                    found.append(_segment(record, found[-1] if found else None))
                except UserError as fault:
                    raise UserError(f"{file}: line {reader.line_num}: {fault}") from None
    except FileNotFoundError:
        raise UserError(f"no labels at {file}; mark them with fer-edge label") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not readable as a CSV text file ({error})") from None
    if not found:
        raise UserError(f"{file}: no rows under the header; label at least one segment")
    return tuple(found)


def write_labels(file: Path, segments: Iterable[Segment]) -> None:
    """Write segments in the form `read_labels` reads, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((s.start_s, s.end_s, s.label) for s in segments)
    write_text_atomic(file, text.getvalue())
