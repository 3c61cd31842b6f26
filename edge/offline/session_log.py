"""Reads session logs (`edge/sinks/session_csv.py` says what is in them)."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from edge.sinks.session_csv import COLUMNS, HEADER, STAGES, VERSION
from edge.sinks.session_files import part_file, split_part
from edge.smooth import SmoothingSettings


@dataclass(frozen=True, slots=True)
class LoggedFace:
    """One face of one frame as it was logged.

    `box` is left, top, width, height in pixels; `probabilities` are calibrated and unsmoothed,
    seven in the order of the expressions, None for a face that `quality` says could not be judged.
    `whole` is False where frames of the track before this one are not in the log.
    """

    track: int
    box: tuple[float, float, float, float]
    detector_score: float
    quality: str
    probabilities: NDArray[np.float64] | None
    label: str
    top: str
    confidence: float
    held_s: float
    whole: bool = True


@dataclass(frozen=True, slots=True)
class SessionFrame:
    """One frame as it was logged; times as in `contract.telemetry.FrameResult`."""

    sequence: int
    mono_ns: int
    utc_ns: int
    width: int
    height: int
    detected: bool
    faces: tuple[LoggedFace, ...]
    stages_ms: dict[str, float]
    e2e_ms: float


@dataclass(frozen=True)
class Session:
    """A log: its header, and its frames in order.

    `changes` are the settings of the smoothing that took over while it ran, each with the index of
    the first frame under it, in order.
    """

    header: dict[str, Any]
    frames: list[SessionFrame]
    changes: tuple[tuple[int, SmoothingSettings], ...] = ()

    def settings(self) -> SmoothingSettings:
        """What it was smoothed with at first. Raises `UserError` if the header does not say."""
        found = self.header.get("smoothing")
        try:
            values = dict(found or {})
            return SmoothingSettings(**{**values, "thresholds": tuple(values["thresholds"])})
        except (TypeError, KeyError, ValueError):
            raise UserError(
                "the session's header does not hold the settings of the smoothing; "
                "only logs of fer-edge can be replayed"
            ) from None


def _header(line: str, file: Path) -> dict[str, Any]:
    if not line.startswith(HEADER):
        raise UserError(f"{file}: no session log; name a .csv that fer-edge wrote")
    try:
        header = json.loads(line.removeprefix(HEADER))
        version = header["version"]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{file}, line 1: the header is damaged; take another session") from None
    if version != VERSION:
        raise UserError(
            f"{file}: session log of version {version}, and this program reads {VERSION}; "
            "record it again, or use the program that wrote it"
        )
    return dict(header)


def _face(row: dict[str, str]) -> LoggedFace:
    quality = row["quality"]
    given = [row[f"p_{name}"] for name in EXPRESSIONS]
    if not any(given) and not quality:
        raise ValueError("a face without probabilities needs a reason in quality")
    x, y, w, h = (float(row[key]) for key in "xywh")
    return LoggedFace(
        track=int(row["track"]),
        box=(x, y, w, h),
        detector_score=float(row["detector_score"]),
        quality=quality,
        probabilities=np.array([float(v) for v in given]) if any(given) else None,
        label=row["label"],
        top=row["top"],
        confidence=float(row["confidence"]),
        held_s=float(row["held_s"]),
        whole=row["whole"] == "1",
    )


def _frame(row: dict[str, str], faces: tuple[LoggedFace, ...]) -> SessionFrame:
    return SessionFrame(
        sequence=int(row["sequence"]),
        mono_ns=int(row["mono_ns"]),
        utc_ns=int(row["utc_ns"]),
        width=int(row["width"]),
        height=int(row["height"]),
        detected=row["detected"] == "1",
        faces=faces,
        stages_ms={stage: float(ms) for stage in STAGES if (ms := row[f"{stage}_ms"])},
        e2e_ms=float(row["e2e_ms"]),
    )


def _rows(lines: Sequence[str], file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for number, values in enumerate(csv.reader(lines), start=3):
        if len(values) != len(COLUMNS):
            raise UserError(
                f"{file}, line {number}: {len(values)} columns instead of {len(COLUMNS)}; "
                "delete the line"
            )
        yield number, dict(zip(COLUMNS, values, strict=True))


def read_session(file: Path) -> Session:
    """A session log, as far as it is whole: half a line at the end is left out.

    Raises `UserError` for a file that is no session log, of another version, or damaged, naming
    the line.
    """
    try:
        content = file.read_bytes()
        lines = content[: content.rfind(b"\n") + 1].decode().split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"{file}: cannot be read as a session log ({reason})") from None
    header = _header(lines[0] if lines else "", file)
    if len(lines) > 1 and lines[1] != ",".join(COLUMNS):
        raise UserError(f"{file}, line 2: not the columns of version {VERSION}; restore them")
    frames: list[SessionFrame] = []
    for number, row in _rows(lines[2:], file):
        try:
            faces = (_face(row),) if row["track"] else ()
            frame = _frame(row, faces)
        except ValueError as error:
            raise UserError(f"{file}, line {number}: {error}; delete the line") from None
        last = (frames[-1].sequence, frames[-1].mono_ns) if frames else None
        if faces and last == (frame.sequence, frame.mono_ns):
            frames[-1] = replace(frames[-1], faces=frames[-1].faces + faces)
        else:
            frames.append(frame)
    return Session(header, frames)


def read_parts(file: Path) -> Session:
    """A session with the parts it goes on in, whichever of them is named, as one.

    If its beginning was deleted, the tracks of that time are not `whole`. Raises as `read_session`.
    """
    first, number = split_part(file)
    while number > 1 and part_file(first, number - 1).is_file():
        number -= 1
    session = read_session(part_file(first, number))
    frames, smoothing = session.frames, session.header.get("smoothing")
    changes: list[tuple[int, SmoothingSettings]] = []
    while (following := part_file(first, number + 1)).is_file():
        part = read_session(following)
        if part.header.get("smoothing") != smoothing:
            smoothing = part.header.get("smoothing")
            changes.append((len(frames), part.settings()))
        frames += part.frames
        number += 1
    earlier = session.header.get("earlier_tracks", 0)
    if not earlier:
        return replace(session, changes=tuple(changes))
    return Session(
        session.header,
        [
            replace(
                frame,
                faces=tuple(replace(f, whole=f.whole and f.track > earlier) for f in frame.faces),
            )
            for frame in frames
        ],
        tuple(changes),
    )
