"""The session log: every result as a CSV row, never a pixel.

Line 1 is `# fer-edge session` and a JSON header (version, part, profile, bundle hash, smoothing,
clock state), line 2 the column names, then a row per face per frame, and one with empty face
columns for a frame without a face. Floats are written so that reading them back gives the same
bits, and the header holds every setting of the smoothing, so it can be replayed exactly; when they
change while the program runs, the session goes on in another part.

A face that was too poor to judge has the reason in `quality` and no probabilities. Ids of tracks
are never used again, so a track ended after its last row. `whole` is 1 while every frame of the
track so far is in the log; after a gap (a full disk, a disk that is too slow) it is 0 for the
tracks that were there before. A long session goes on in `NAME.part2.csv` and so on;
`earlier_tracks` in such a part's header is the highest id given before it.

Rows are written whole or not at all: what a full disk cuts off is taken back. Only a loss of power
or a kill can leave half a line at the end, and readers drop that.
"""

import csv
import errno
import io
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.telemetry import FaceResult, FrameResult
from edge.sinks.session_files import part_file, prune
from firmware_config.profile import OutputConfig

VERSION = 2
HEADER = "# fer-edge session "
STAGES = ("detect", "track", "quality", "classify", "smooth")
FRAME_COLUMNS = ("sequence", "mono_ns", "utc_ns", "width", "height", "detected")
FACE_COLUMNS = (
    "track", "x", "y", "w", "h", "detector_score", "quality",
    *(f"p_{name}" for name in EXPRESSIONS),
    "label", "top", "confidence", "held_s", "whole",
)  # fmt: skip
COLUMNS = (*FRAME_COLUMNS, *FACE_COLUMNS, *(f"{stage}_ms" for stage in STAGES), "e2e_ms")
PART_KEYS = ("version", "part", "earlier_tracks")
"""What the log itself puts in the header."""
RETRY_S = 5.0
PRUNE_S = 600.0
_FULL = (errno.ENOSPC, errno.EDQUOT)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a session may take of the disk: bytes a file, bytes in all, seconds of age.

    `fsync_s` is how many seconds of it a loss of power may cost.
    """

    file_bytes: int
    total_bytes: int
    age_s: float
    fsync_s: float

    @staticmethod
    def of(config: OutputConfig) -> "Limits":
        """The limits of a profile."""
        return Limits(
            file_bytes=round(config.session_max_mb * 1e6),
            total_bytes=round(config.session_total_mb * 1e6),
            age_s=config.session_max_age_days * 86_400,
            fsync_s=config.session_fsync_s,
        )


def _lines(*rows: tuple[Any, ...] | list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _face_columns(face: FaceResult, whole: bool) -> list[Any]:
    probabilities = face.probabilities or [""] * len(EXPRESSIONS)
    return [
        face.track, *face.box, face.detector_score, " ".join(face.quality.split()), *probabilities,
        face.label, face.top, face.confidence, face.held_s, int(whole),
    ]  # fmt: skip


class SessionLog:
    """Writes a session; a caller who cannot wait for a disk takes `session_thread` in between.

    A disk that is full or fails turns the log off with a reason in `problem`, never the program;
    it is tried again every few seconds, and goes on in the same file.
    """

    def __init__(
        self, file: Path, header: dict[str, Any], limits: Limits | None = None, *,
        monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """Create the file. Without `limits` it grows as it needs, and nothing is deleted.

        Raises `UserError` if it cannot be made where it should; a full disk is waited for.
        """
        self.file = self._first = file
        self.problem: str | None = None
        self.lost = 0
        """Frames that were not logged."""
        self._header, self._limits = header, limits
        self._monotonic, self._wall = monotonic, wall
        self._stream: io.FileIO | None = None
        self._part = 1
        self._size = self._synced = 0  # bytes that are whole; those that are on the disk itself
        self._earlier = self._highest = self._doubtful = 0  # ids of tracks
        self._again_at = self._synced_at = self._pruned_at = monotonic()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._prune()
            file.open("wb").close()
            self._open()
        except OSError as error:
            if error.errno not in _FULL:
                raise UserError(
                    f"session log {file} cannot be written ({error.strerror}); "
                    "name another folder with --session-dir, or use --no-session"
                ) from None
            self._fail(error)

    def write(self, result: FrameResult) -> None:
        """Append the rows of a frame; they are with the operating system on return."""
        now = self._monotonic()
        if self._stream is None and now < self._again_at:
            self.lose(1, result)
            return
        try:
            if self._stream is None:
                self._open()
            rows = self._rows(result)
            if self._limits and self._size + len(rows) > self._limits.file_bytes:
                self._next_part()
            self._append(rows)
        except OSError as error:
            self._fail(error)
            self.lose(1, result)
            return
        self._highest = max([self._highest, *(face.track for face in result.faces)])
        if self.problem:
            self.problem = None
            log.info("session log goes on (%s); frames not logged: %d", self.file, self.lost)

    def change(self, header: dict[str, Any]) -> None:
        """Go on in another part, as values of the header have changed: from now on, these."""
        self._header = {**self._header, **header}
        if self._size == 0:
            return  # nothing is written yet under the old one, as the disk is full
        try:
            self._next_part()
        except OSError as error:
            self._fail(error)

    def lose(self, frames: int, last: FrameResult) -> None:
        """Count frames that are not logged; `last` is one of them, with the highest track."""
        self.lost += frames
        self._highest = max([self._highest, *(face.track for face in last.faces)])
        self._doubtful = self._highest

    def upkeep(self) -> None:
        """What is due by the limits: rows to the disk itself, old sessions deleted."""
        now = self._monotonic()
        if self._stream is None or self._limits is None:
            return
        try:
            if now - self._synced_at >= self._limits.fsync_s and self._size > self._synced:
                os.fsync(self._stream.fileno())
                self._synced_at, self._synced = now, self._size
                self.file.stat()  # raises if somebody deleted it; it is begun anew then
            if now - self._pruned_at >= PRUNE_S:
                self._prune()
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Everything to the disk, and close."""
        if self._stream is None:
            return
        try:
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._stream = None
        except OSError as error:
            self._fail(error)

    def _rows(self, result: FrameResult) -> bytes:
        frame = [
            result.sequence, result.mono_ns, result.utc_ns, result.width, result.height,
            int(result.detected),
        ]  # fmt: skip
        times = [result.stages_ms.get(stage, "") for stage in STAGES] + [result.e2e_ms]
        faces = [_face_columns(face, face.track > self._doubtful) for face in result.faces]
        return _lines(*([*frame, *face, *times] for face in faces or [[""] * len(FACE_COLUMNS)]))

    def _open(self) -> None:
        """Go on after the last whole row, or begin the file if there is nothing of it."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._stream = io.FileIO(self.file, "a")
        found = os.fstat(self._stream.fileno()).st_size
        if found < self._size:  # somebody deleted it meanwhile
            self._size, self._doubtful = 0, self._highest
        if found > self._size:
            self._stream.truncate(self._size)
        if self._size == 0:
            place: dict[str, Any] = {"version": VERSION, "part": self._part}
            if self._part > 1:
                place["earlier_tracks"] = self._earlier
            first = HEADER + json.dumps({**place, **self._header}, allow_nan=False) + "\n"
            self._append(first.encode() + _lines(COLUMNS))

    def _next_part(self) -> None:
        stream, self._stream = self._stream, None
        # First of all: a disk that fails now must not have later rows under the old header.
        self._part += 1
        self._size, self._synced, self._earlier = 0, 0, self._highest
        self.file = part_file(self._first, self._part)
        if stream is not None:
            with stream:
                os.fsync(stream.fileno())
        self._prune()
        self._open()

    def _append(self, data: bytes) -> None:
        assert self._stream is not None
        left = memoryview(data)
        while left:  # a disk that fills up takes a part before it refuses the rest
            left = left[self._stream.write(left) :]
        self._size += len(data)

    def _prune(self) -> None:
        self._pruned_at = self._monotonic()
        if self._limits is not None:
            total = self._limits.total_bytes - self._limits.file_bytes
            prune(self.file, total, self._limits.age_s, self._wall())

    def _fail(self, error: OSError) -> None:
        if not self.problem:
            self.problem = f"session log stopped: {error.strerror} ({self.file})"
            log.error(self.problem)
        self._again_at = self._monotonic() + RETRY_S
        stream, self._stream = self._stream, None
        if stream is not None:
            # Faults here are the one just reported; what stays half is cut off on reopening.
            with suppress(OSError):
                stream.truncate(self._size)
            with suppress(OSError):
                stream.close()


def session_file(folder: Path, utc_ns: int) -> Path:
    """Where a session that begins at `utc_ns` is logged."""
    stamp = datetime.fromtimestamp(utc_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%S_%fZ")
    return folder / f"{stamp}.csv"
