"""The session log: every result as a CSV row, never a pixel.

Line 1 is `# fer-edge session` and a JSON header (version, profile, bundle hash, clock state), line
2 the column names, then a row per face per frame, and one with empty face columns for a frame
without a face. Floats are written so that reading them back gives the same bits, so smoothing can
be replayed exactly.
"""

import csv
import json
import logging
import time
from pathlib import Path
from typing import IO, Any

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.telemetry import FaceResult, FrameResult

VERSION = 1
HEADER = "# fer-edge session "
STAGES = ("detect", "track", "classify", "smooth")
COLUMNS = (
    "sequence", "mono_ns", "utc_ns", "width", "height", "detected",
    "track", "x", "y", "w", "h", "detector_score",
    *(f"p_{name}" for name in EXPRESSIONS),
    "label", "top", "confidence", "held_s",
    *(f"{stage}_ms" for stage in STAGES), "e2e_ms",
)  # fmt: skip
FLUSH_S = 1.0

log = logging.getLogger(__name__)


def _face_columns(face: FaceResult) -> list[Any]:
    return [
        face.track, *face.box, face.detector_score, *face.probabilities,
        face.label, face.top, face.confidence, face.held_s,
    ]  # fmt: skip


_NO_FACE = [""] * (1 + 4 + 1 + len(EXPRESSIONS) + 4)


class SessionLog:
    """Writes a session. A full or failing disk ends the log with a reason, never the program."""

    def __init__(self, file: Path, header: dict[str, Any]) -> None:
        """Create the file. Raises `UserError` if it cannot be written at the start."""
        self.file = file
        self.problem: str | None = None
        self._flushed = 0.0
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._stream: IO[str] | None = file.open("w", newline="", encoding="utf-8")
            self._writer = csv.writer(self._stream, lineterminator="\n")
            self._stream.write(HEADER + json.dumps({"version": VERSION, **header}) + "\n")
            self._writer.writerow(COLUMNS)
            self._stream.flush()
        except OSError as error:
            raise UserError(
                f"session log {file} cannot be written ({error.strerror}); "
                "name another folder with --session-dir, or use --no-session"
            ) from None

    def write(self, result: FrameResult) -> None:
        """Append the rows of a frame."""
        if self._stream is None:
            return
        frame = [
            result.sequence, result.mono_ns, result.utc_ns, result.width, result.height,
            int(result.detected),
        ]  # fmt: skip
        times = [result.stages_ms.get(stage, "") for stage in STAGES] + [result.e2e_ms]
        faces = [_face_columns(face) for face in result.faces] or [_NO_FACE]
        try:
            self._writer.writerows([*frame, *face, *times] for face in faces)
            if time.monotonic() - self._flushed > FLUSH_S:
                self._stream.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.problem = f"session log stopped: {error.strerror} ({self.file})"
        log.error(self.problem)
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except OSError:
                return  # the same fault again; it is already reported

    def close(self) -> None:
        """Flush and close."""
        if self._stream is None:
            return
        try:
            self._stream.close()
            self._stream = None
        except OSError as error:
            self._fail(error)
