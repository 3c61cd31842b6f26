"""Labelled test sessions made of labelled faces: the plan of one, and the camera that shows it.

A session is a sequence of segments, each one face image of a known expression, held for some
seconds before a wandering webcam. As the data sets have no sequences of one person, the person
changes with the expression: a session tests how labels hold and switch, not how a face moves from
one expression to another. A plan names images of a manifest; frames are made when they are read,
and no image is stored.
"""

import json
import math
import tomllib
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.faces import Image, read_image
from contract.files import write_text_atomic
from contract.manifest import Manifest, Row, read_manifest
from contract.validation import explain
from edge.detect import Detector
from edge.offline.degrade import Degradation, Lens, Strengths, Wander
from edge.offline.score_labels import LABELS_FILE, Segment, write_labels
from edge.offline.sessions_scene import MARGIN, Pose, face_patch, paste, room

VERSION = 1
PLAN_FILE = "session.toml"
HOLD_S = (2.0, 6.0)
SIDE_PX = (80, 200)
WIDTH, HEIGHT = 640, 480
DRAWS = 50
"""Images that are looked at before an expression is given up."""
FADE_S = 0.2
"""Of a cross-fade; half the changes are cuts. A segment begins where its fade begins."""


class PlannedSegment(BaseModel):
    """One face image, held."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start_s: float = Field(ge=0, description="When it begins, seconds.")
    end_s: float = Field(gt=0, description="When the next begins, seconds.")
    label: str = Field(description="Its expression.")
    image: str = Field(description="Its path in the manifest.")
    fade_s: float = Field(ge=0, description="Length of the cross-fade at its begin; 0: a cut.")


class SessionPlan(BaseModel):
    """The content of `session.toml`: everything the frames are made from, but the images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(VERSION, description="Version of this form.")
    seed: int = Field(ge=0, description="Seed of everything random.")
    fps: float = Field(gt=0, le=240, description="Frames per second.")
    width: int = Field(ge=320, description="Width of a frame, pixels.")
    height: int = Field(ge=240, description="Height of a frame, pixels.")
    side_px: float = Field(gt=0, description="Side of the face image in the frame, pixels.")
    manifest: str = Field(description="Where the manifest lay.")
    manifest_sha256: str = Field(description="Its hash.")
    split: str = Field(description="The split all images are of.")
    found_by: str = Field(description="The detector that sees every face; empty: not looked at.")
    strengths_sha256: str = Field(description="Hash of the fitted strengths' file.")
    degradation: Degradation = Field(description="Those strengths.")
    segments: list[PlannedSegment] = Field(min_length=1, description="In order, without gaps.")


def _labels(rng: np.random.Generator, known: list[str], count: int) -> list[str]:
    """`count` labels, each about equally often, never the same twice in a row."""
    labels: list[str] = []
    while len(labels) < count:
        shuffled = [known[i] for i in rng.permutation(len(known))]
        if labels and shuffled[0] == labels[-1]:
            shuffled.reverse()
        labels += shuffled
    return labels[:count]


def _is_found(file: Path, side_px: float, detector: Detector, background: Image) -> bool:
    """Whether a detector sees a face image in a still, clean frame, smaller and larger too."""
    image = read_image(file)
    if image is None:
        raise UserError(f"{file} cannot be decoded; restore it")
    patch = face_patch(image)
    for scale in (0.9, 1.0, 1.1):
        frame = background.copy()
        paste(frame, patch, Pose(frame.shape[1] / 2, frame.shape[0] / 2, scale * side_px))
        if not detector.detect(frame):
            return False
    return True


def plan_session(
    manifest: Manifest, *, split: str, seed: int, seconds: float, fps: float, strengths: Strengths,
    detector: Detector | None,
) -> SessionPlan:  # fmt: skip
    """A session of `seconds` from the rows of one split; the same seed gives the same session.

    Images are drawn among those whose face `detector` finds, as many training images are cropped
    too tightly for one to see a face in them, and a session is about labels, not about detection;
    None takes any. Raises `UserError` if the split has rows of fewer than two expressions, or no
    face is found in many of one.
    """
    rows: dict[str, list[Row]] = {name: [] for name in EXPRESSIONS}
    for row in manifest.select(split).rows:
        rows[row.label].append(row)
    known = [name for name, those in rows.items() if those]
    if len(known) < 2:
        raise UserError(
            f"{manifest.file}: split '{split}' has rows of {len(known)} expressions, and a session "
            "needs at least two; name another split or manifest"
        )
    rng = np.random.default_rng(seed)
    side_px = round(float(rng.uniform(*SIDE_PX)), 1)
    background = room(np.random.default_rng((seed, 1)), WIDTH, HEIGHT)

    def draw(label: str) -> Row:
        for _ in range(DRAWS):
            row = rows[label][int(rng.integers(len(rows[label])))]
            place = manifest.path(row)
            if detector is None or _is_found(place, side_px, detector, background):
                return row
        raise UserError(
            f"{manifest.file}: {detector.name if detector else ''} found no face in {DRAWS} images "
            f"of '{label}'; take any with --any-face"
        )

    segments: list[PlannedSegment] = []
    start = 0.0
    for label in _labels(rng, known, math.ceil(seconds / HOLD_S[0]) + 1):
        end = round(start + rng.uniform(*HOLD_S), 3)
        # What would be left is too short to hold anything: this one takes it.
        end = seconds if seconds - end < HOLD_S[0] else end
        row = draw(label)
        fade = FADE_S if start > 0 and rng.random() < 0.5 else 0.0
        segments.append(
            PlannedSegment(start_s=start, end_s=end, label=label, image=row.path, fade_s=fade)
        )
        start = end
        if end >= seconds:
            break
    return SessionPlan(
        seed=seed,
        fps=fps,
        width=WIDTH,
        height=HEIGHT,
        side_px=side_px,
        manifest=str(manifest.file.absolute()),
        manifest_sha256=manifest.sha256,
        split=split,
        found_by=detector.name if detector else "",
        strengths_sha256=strengths.sha256,
        degradation=strengths.degradation,
        segments=segments,
    )


def write_plan(folder: Path, plan: SessionPlan) -> None:
    """`session.toml` and `labels.csv` in a folder, atomically."""
    content = plan.model_dump()
    segments, degradation = content.pop("segments"), content.pop("degradation")

    # JSON's strings and numbers are TOML's too.
    def lines(table: dict[str, object]) -> list[str]:
        return [f"{key} = {json.dumps(value)}" for key, value in table.items()]

    text = [*lines(content), "", "[degradation]", *lines(degradation)]
    for segment in segments:
        text += ["", "[[segments]]", *lines(segment)]
    write_text_atomic(folder / PLAN_FILE, "\n".join(text) + "\n")
    write_labels(
        folder / LABELS_FILE, (Segment(s.start_s, s.end_s, s.label) for s in plan.segments)
    )


def read_plan(folder: Path) -> SessionPlan:
    """The plan in a session's folder. Raises `UserError` naming file and key."""
    file = folder / PLAN_FILE
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(
            f"{file}: not readable as TOML ({error}); build it with fer-edge sessions build"
        ) from None
    try:
        plan = SessionPlan.model_validate(content)
    except ValidationError as error:
        raise explain(error, SessionPlan, file) from None
    if plan.version != VERSION:
        raise UserError(
            f"{file}: version {plan.version}, this program reads {VERSION}; build the session again"
        )
    return plan


class SessionCamera:
    """A camera before which a planned session happens. The same plan gives the same frames.

    Raises `UserError` on `open` if the manifest is gone or another than the session was built from,
    or an image cannot be decoded.
    """

    live = False

    def __init__(self, name: str, plan: SessionPlan) -> None:
        self.name = name
        self.plan = plan
        self.interval_s = 1 / plan.fps
        self._next = 0
        self._patches: list[Image] = []
        rng = np.random.default_rng((plan.seed, 1))
        strength = plan.degradation
        self._room = room(rng, plan.width, plan.height)
        self._x, self._y = (Wander(rng, strength.shift_speed) for _ in range(2))
        self._scale = Wander(rng, strength.scale_speed)
        self._tilt = Wander(rng, strength.rotation_speed)
        self._light = Wander(rng, strength.light_speed)
        self._lens = Lens(strength, plan.seed)

    @property
    def frames(self) -> int:
        """How many frames the session has."""
        return math.ceil(self.plan.segments[-1].end_s * self.plan.fps - 1e-9)

    def open(self) -> None:
        """Check the manifest, load the images, start with the first frame."""
        self._next = 0
        if self._patches:
            return
        file = Path(self.plan.manifest)
        manifest = read_manifest(file, check_files=False)
        if manifest.sha256 != self.plan.manifest_sha256:
            raise UserError(
                f"{file} has changed since session {self.name} was built from it; "
                "build the session again"
            )
        for segment in self.plan.segments:
            image = read_image(file.parent / segment.image)
            if image is None:
                raise UserError(f"{file.parent / segment.image} cannot be decoded; restore it")
            self._patches.append(face_patch(image))

    def read(self) -> Image | None:
        """The next frame, or None after the last."""
        if self._next >= self.frames:
            return None
        self._next += 1
        return self.frame(self._next - 1)

    def close(self) -> None:
        """Nothing is held open between reads."""

    def _patch(self, t_s: float) -> Image:
        """The face at a time; between two while they are cross-faded."""
        segments = self.plan.segments
        at = max(i for i, segment in enumerate(segments) if segment.start_s <= t_s or i == 0)
        patch, passed = self._patches[at], t_s - segments[at].start_s
        if at == 0 or passed >= segments[at].fade_s:
            return patch
        share = np.float32(passed / segments[at].fade_s)
        mixed = self._patches[at - 1] * (1 - share) + patch * share
        return np.asarray(mixed + 0.5, np.uint8)

    def _pose(self, t_s: float) -> Pose:
        plan = self.plan
        side = plan.side_px * math.exp(self._scale.at(t_s))
        # A face stays in view: sessions are about expressions, not about losing sight of it.
        room_x, room_y = (size / 2 - side * (0.5 + MARGIN) for size in (plan.width, plan.height))
        x = min(max(self._x.at(t_s) * plan.side_px, -room_x), room_x)
        y = min(max(self._y.at(t_s) * plan.side_px, -room_y), room_y)
        return Pose(plan.width / 2 + x, plan.height / 2 + y, side, self._tilt.at(t_s))

    def frame(self, number: int) -> Image:
        """Frame `number`, from 0, of an opened session: uint8 `H×W×3` BGR."""
        t_s = number / self.plan.fps
        image = self._room.copy()
        paste(image, self._patch(t_s), self._pose(t_s))
        lit = np.arange(256) * math.exp(self._light.at(t_s))
        image = np.clip(lit + 0.5, 0, 255).astype(np.uint8)[image]
        return self._lens.apply(image, number)
