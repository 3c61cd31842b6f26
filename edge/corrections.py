"""What people at the dashboard say a shown label should have been: rows beside the session log.

`corrections.csv` holds a row per correction and no pixel: the session, the track, from when to when
the wrong label was on show (monotonic ns, as in the session log), that label and its confidence,
and the expression it should have been. `fer-edge corrections` turns the rows of a session into
labels that `fer-edge score` and `fer-edge tune` read.
"""

import csv
import io
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from contract.errors import UserError, nearest
from contract.expressions import EXPRESSIONS
from contract.files import write_text_atomic
from contract.telemetry import FaceResult, FrameResult
from contract.validation import explain

KEPT_S = 60.0
"""How long ago a label may have been shown that is corrected now: somebody has to choose first."""
MOST_S = 5.0
"""A label held for minutes was judged by what was seen at the click, not by all of it."""
MOST_BYTES = 1_000_000
"""Some ten thousand corrections; each is written with all before it, so that none is half there."""
_SWEEP_S = 5.0


@dataclass(frozen=True, slots=True)
class CorrectionRow:
    """One correction: `shown`, from `start_mono_ns` to `end_mono_ns`, should be `expression`."""

    session: str
    utc_ns: int
    track: int
    start_mono_ns: int
    end_mono_ns: int
    shown: str
    confidence: float
    expression: str


COLUMNS = tuple(field.name for field in fields(CorrectionRow))


def _row(record: list[str]) -> CorrectionRow:
    if len(record) != len(COLUMNS):
        raise UserError(f"{len(record)} fields, and a row has {len(COLUMNS)}; delete the line")
    session, utc, track, start, end, shown, confidence, expression = record
    if expression not in EXPRESSIONS:
        raise UserError(
            f"unknown expression '{expression}'{nearest(expression, EXPRESSIONS)}; "
            f"write one of {' '.join(EXPRESSIONS)}"
        )
    try:
        times = int(utc), int(track), int(start), int(end)
        return CorrectionRow(session, *times, shown, float(confidence), expression)
    except ValueError as error:
        raise UserError(f"{error}; delete the line") from None


def read_corrections(file: Path) -> list[CorrectionRow]:
    """The rows of a file of corrections, in order. Raises `UserError`, naming a line if it can."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            reader = csv.reader(stream)
            if tuple(next(reader, ())) != COLUMNS:
                raise UserError(
                    f"{file}: not the columns of corrections in line 1; move the file away"
                )
            found = []
            for record in reader:
                try:
                    found.append(_row(record))
                except UserError as fault:
                    raise UserError(f"{file}: line {reader.line_num}: {fault}") from None
    except FileNotFoundError:
        raise UserError(
            f"no corrections at {file}; they are made on the dashboard, under 'That is wrong'"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not readable as a CSV text file ({error})") from None
    return found


class _Wanted(BaseModel):
    """A correction as it is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    track: int = Field(ge=0, description="Id of the face.")
    expression: str = Field(description="What should have been shown.")
    age_s: float = Field(0.0, ge=0, le=KEPT_S, description="How long ago it was seen, seconds.")

    @field_validator("expression")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in EXPRESSIONS:
            raise ValueError(f"not an expression{nearest(name, EXPRESSIONS)}")
        return name


@dataclass(slots=True)
class _Stretch:
    """A time in which one track showed one label."""

    label: str
    confidence: float
    start_ns: int
    end_ns: int


class Corrections:
    """Remembers for a minute what was shown, and writes down which of it was wrong."""

    def __init__(
        self, file: Path, session: str, *,
        mono_ns: Callable[[], int] = time.monotonic_ns, utc_ns: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        """Corrections go to `file`; `session` is the name of the session log beside it."""
        self._file, self._session = file, session
        self._mono_ns, self._utc_ns = mono_ns, utc_ns
        self._lock = threading.Lock()
        self._shown: dict[int, deque[_Stretch]] = {}
        self._swept_ns = 0

    def note(self, frame: FrameResult) -> None:
        """Remember what a frame shows. Called for every frame, by the pipeline."""
        with self._lock:
            for face in frame.faces:
                self._note(face, frame.mono_ns)
            if frame.mono_ns - self._swept_ns > _SWEEP_S * 1e9:
                self._swept_ns = frame.mono_ns
                oldest = frame.mono_ns - round(KEPT_S * 1e9)
                self._shown = {t: s for t, s in self._shown.items() if s[-1].end_ns >= oldest}

    def _note(self, face: FaceResult, mono_ns: int) -> None:
        stretches = self._shown.setdefault(face.track, deque(maxlen=100))
        if stretches and stretches[-1].label == face.label:
            last = stretches[-1]
            last.end_ns, last.confidence = mono_ns, face.confidence
        else:
            stretches.append(_Stretch(face.label, face.confidence, mono_ns, mono_ns))

    def answer(self, request: Any) -> dict[str, Any]:
        """Write one down: `{"track", "expression", "age_s"}` → `{"corrected": {…}}`.

        `age_s` says how long ago the label was seen, 0 if left out. Gives `{"error": …}` for
        another form, a track that was not in view then, or a disk that does not take it.
        """
        try:
            wanted = _Wanted.model_validate(request)
            row = self._made(wanted)
            self._append(row)
        except ValidationError as error:
            return {"error": str(explain(error, _Wanted, "correction"))}
        except UserError as error:
            return {"error": str(error)}
        except OSError as error:
            return {"error": f"the correction could not be written: {error.strerror}"}
        seconds = (row.end_mono_ns - row.start_mono_ns) / 1e9
        found = {"track": row.track, "shown": row.shown, "expression": row.expression}
        return {"corrected": {**found, "seconds": round(seconds, 3)}}

    def _made(self, wanted: _Wanted) -> CorrectionRow:
        seen_ns = self._mono_ns() - round(wanted.age_s * 1e9)
        with self._lock:
            stretches = self._shown.get(wanted.track, ())
            found = next((s for s in reversed(stretches) if s.start_ns <= seen_ns), None)
            if found is None:
                raise UserError(f"person {wanted.track} was not in view then; correct it sooner")
            label, confidence = found.label, found.confidence
            end_ns = min(found.end_ns, seen_ns)
            start_ns = max(found.start_ns, end_ns - round(MOST_S * 1e9))
        if label == wanted.expression:
            raise UserError(f"person {wanted.track} was shown as {label} then; nothing to correct")
        return CorrectionRow(
            self._session, self._utc_ns(), wanted.track, start_ns, end_ns, label, confidence,
            wanted.expression,
        )  # fmt: skip

    def _append(self, row: CorrectionRow) -> None:
        earlier = ",".join(COLUMNS)
        if self._file.exists():
            read_corrections(self._file)  # what is wrong in it is said now, not when it is used
            # Not written from its rows again: with many, the feed would stand still meanwhile.
            earlier = self._file.read_text(encoding="utf-8").rstrip("\n")
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(astuple(row))
        text = f"{earlier}\n{line.getvalue()}"
        if len(text) > MOST_BYTES:
            raise UserError(f"{self._file.name} is full; carry it off and delete it on the box")
        write_text_atomic(self._file, text)
