"""A session through the pipeline: every frame, with time from its frame rate, into a session log.

As time does not come from this machine's clock, the result does not depend on its speed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.files import sha256_file
from contract.telemetry import FrameResult
from edge.cameras.base import CameraError, Frame, Recording
from edge.cameras.factory import open_camera
from edge.offline.score_figures import Seen
from edge.offline.score_labels import LABELS_FILE, Segment, read_labels
from edge.offline.session_log import LoggedFace, Session, read_session
from edge.offline.sessions import PLAN_FILE, SessionCamera, read_plan
from edge.setup import Engine
from edge.sinks.session_csv import SessionLog

LOG_FILE = "session.csv"
SECOND_NS = 1_000_000_000
GAP_S = 10
"""Between sessions that share an engine: no track outlives it."""


@dataclass(frozen=True)
class Labelled:
    """A session that can be played: a built one or a recording, with its labels, if any.

    `split` is that of the manifest a built one was made from, empty for a recording; `sha256` is
    the hash of its plan or its labels.
    """

    place: Path
    camera: Recording
    segments: tuple[Segment, ...]
    split: str
    sha256: str

    @property
    def folder(self) -> Path:
        """Where its labels are and its log goes."""
        return self.place if self.place.is_dir() else self.place.parent


def open_labelled(place: Path, labels: Path | None = None) -> Labelled:
    """A session's folder, or a recording's file, with `labels.csv` beside its frames.

    `labels` names other ones. Where there are none, the segments are empty. Raises `UserError`.
    """
    folder = place if place.is_dir() else place.parent
    file = labels or folder / LABELS_FILE
    segments = read_labels(file) if labels or file.exists() else ()
    hashed = sha256_file(file) if segments else ""
    if (place / PLAN_FILE).exists():
        plan = read_plan(place)
        camera = SessionCamera(str(place), plan)
        return Labelled(place, camera, segments, plan.split, sha256_file(place / PLAN_FILE))
    found = open_camera(str(place), width=640, height=480, fps=30.0, seed=0, paced=False)
    if found.live or not place.exists():
        raise UserError(f"{place} is no session and no recording; name a folder or a file")
    return Labelled(place, found, segments, "", hashed)  # type: ignore[arg-type]  # it is not live


def _header(labelled: Labelled, engine: Engine) -> dict[str, Any]:
    return {
        "camera": labelled.place.name,
        "session": {"split": labelled.split, "sha256": labelled.sha256},
        "bundle": {"name": engine.bundle.info.name, "sha256": engine.bundle.sha256},
        "backend": engine.session.backend,
        "precision": engine.session.artifact.precision,
        "detector": engine.detector.name,
        "smoothing": asdict(engine.pipeline.smoothing),
        "clock": "time from the frame rate",
    }


class Player:
    """Plays sessions through one engine, one after the other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # The engine's warm-up was at time 0.
        self._next_ns = GAP_S * SECOND_NS

    def play(self, labelled: Labelled, log: Path) -> Session:
        """Run every frame of a session and write its log; returns what the log holds.

        Raises `UserError` for a recording that fails or has no frame, or a log that cannot be
        written.
        """
        camera, out = labelled.camera, SessionLog(log, _header(labelled, self._engine))
        sequence, at_ns = 0, self._next_ns
        try:
            camera.open()
            while (image := camera.read()) is not None:
                frame = Frame(image, at_ns, at_ns, sequence)
                out.write(self._process(frame))
                sequence += 1
                at_ns += round(camera.interval_s * 1e9)
        except CameraError as error:
            raise UserError(str(error)) from None
        finally:
            camera.close()
            out.close()
        if out.problem:
            raise UserError(out.problem)
        if not sequence:
            raise UserError(f"{labelled.place} has no frame; record it again")
        # On a whole second, so that smoothing's clock stands alike for every session.
        self._next_ns = (at_ns // SECOND_NS + 1 + GAP_S) * SECOND_NS
        return read_session(log)

    def _process(self, frame: Frame) -> FrameResult:
        result = self._engine.pipeline.process(frame)
        # Measured against the machine's clock it would say nothing.
        return replace(result, e2e_ms=sum(result.stages_ms.values()))


def largest(faces: Sequence[LoggedFace]) -> int | None:
    """The place of the face that is scored: the largest of a frame."""
    areas = [face.box[2] * face.box[3] for face in faces]
    return areas.index(max(areas)) if areas else None


def raw_top(face: LoggedFace) -> str:
    """The likeliest expression of a face in one frame alone; empty where it was not judged."""
    p = face.probabilities
    return "" if p is None else EXPRESSIONS[int(np.argmax(p))]


def observe(session: Session) -> list[Seen]:
    """The largest face of every frame, with time from the first frame on."""
    seen = []
    for frame in session.frames:
        t_s = (frame.mono_ns - session.frames[0].mono_ns) / 1e9
        at = largest(frame.faces)
        if at is None:
            seen.append(Seen(t_s))
            continue
        face = frame.faces[at]
        seen.append(Seen(t_s, raw_top(face), face.label, face.top))
    return seen


def need_labels(sessions: Sequence[Labelled]) -> None:
    """Raises `UserError` for a session without labels."""
    for each in sessions:
        if not each.segments:
            raise UserError(f"{each.place} has no {LABELS_FILE}; mark it with fer-edge label")
