"""`fer-edge replay`: what a logged session showed, computed again from its probabilities.

The smoothed columns of the log are not read, so a replay with the logged settings is a check of
them, and one with other settings shows what would have been.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from contract.command import Parser
from contract.errors import UserError
from contract.telemetry import FaceResult, FrameResult
from contract.validation import explain
from edge.cli import result_file
from edge.kpi import KpiTotals, percentiles
from edge.labels import FaceEvidence, Labels, settings_from
from edge.offline.session_log import LoggedFace, Session, SessionFrame, read_parts
from edge.sinks.session_csv import PART_KEYS, SessionLog
from edge.smooth import Shown, SmoothingSettings
from firmware_config.profile import SmoothingConfig, load_profile

SHOWN = ("label", "top", "confidence", "held_s")
"""The columns that a replay gives again."""

_FLAGS = (
    "tau_s", "hysteresis", "evidence_s", "dwell_s", "vote_s", "quality_grace_s",
    "abstain_threshold",
)  # fmt: skip


def _result(frame: SessionFrame, labels: Sequence[Shown]) -> FrameResult:
    def result_of(face: LoggedFace, shown: Shown) -> FaceResult:
        p = face.probabilities
        return FaceResult(
            track=face.track,
            box=face.box,
            detector_score=face.detector_score,
            probabilities=() if p is None else tuple(p.tolist()),
            smoothed=shown.smoothed,
            top=shown.top,
            label=shown.label,
            confidence=shown.confidence,
            held_s=shown.held_s,
            quality=face.quality,
        )

    return FrameResult(
        sequence=frame.sequence,
        mono_ns=frame.mono_ns,
        utc_ns=frame.utc_ns,
        width=frame.width,
        height=frame.height,
        faces=tuple(map(result_of, frame.faces, labels)),
        stages_ms=frame.stages_ms,
        e2e_ms=frame.e2e_ms,
        detected=frame.detected,
    )


def replay(
    frames: Sequence[SessionFrame],
    settings: SmoothingSettings,
    changes: Sequence[tuple[int, SmoothingSettings]] = (),
) -> Iterator[tuple[FrameResult, int]]:
    """Every frame's result with these settings, and the labels that changed in it.

    `changes` are settings that take over, each with the index of the first frame under it.
    Ids of tracks are never used again, so a track is alive until its last row.
    """
    last = {face.track: k for k, frame in enumerate(frames) for face in frame.faces}
    labels, alive = Labels(settings), set[int]()
    for k, frame in enumerate(frames):
        for _, changed in (change for change in changes if change[0] == k):
            labels.change(changed)
        alive = {track for track in alive if last[track] >= k} | {f.track for f in frame.faces}
        evidence = [FaceEvidence(f.track, f.probabilities, f.quality) for f in frame.faces]
        shown = labels.update(evidence, alive, frame.mono_ns)
        yield _result(frame, shown), labels.flips


def difference(frame: SessionFrame, result: FrameResult) -> str | None:
    """The first value of a frame that the log and its replay do not share to the last bit.

    Faces whose beginning is not in the log are passed over. None where all is the same.
    """
    for logged, again in zip(frame.faces, result.faces, strict=True):
        for name in SHOWN if logged.whole else ():
            was, now = getattr(logged, name), getattr(again, name)
            if was != now:
                return (
                    f"frame {frame.sequence}, face {logged.track}: {name} is {was!r} in the log "
                    f"and {now!r} in the replay"
                )
    return None


def _smoothing(given: argparse.Namespace, session: Session) -> SmoothingSettings:
    """The logged settings, or those of a profile or preset, with the flags over them."""
    logged = session.settings()
    values = {name: value for name in _FLAGS if (value := getattr(given, name)) is not None}
    if given.smoothing is not None:
        values["preset"] = given.smoothing
    if given.profile is not None:
        keys = {f"smoothing.{name}": value for name, value in values.items()}
        config = load_profile(given.profile, keys).smoothing
    else:
        base: dict[str, Any] = {} if given.smoothing else asdict(logged)
        base.pop("thresholds", None)
        try:
            config = SmoothingConfig.model_validate({**base, **values})
        except ValidationError as error:
            raise explain(error, SmoothingConfig, "flags") from None
    if config.abstain_threshold is None:
        return replace(settings_from(config, 0.0, {}), thresholds=logged.thresholds)
    bundle = session.header.get("bundle")
    if not isinstance(bundle, dict) or "class_thresholds" not in bundle:
        raise UserError(
            "abstain_threshold: the session's header does not hold the thresholds of its bundle; "
            "leave it out, and those of the session are used"
        )
    return settings_from(config, 0.0, bundle["class_thresholds"])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fer-edge replay", description=__doc__)
    add = parser.add_argument
    add("session", type=Path, metavar="SESSION.csv", help="a session log; its parts are found")
    add("--check", action="store_true", help="exit with 1 if the log says anything else")
    add("--out", type=result_file, metavar="FILE.csv", help="write the replay as a session log")
    add("--profile", metavar="NAME", help="smooth with this profile's settings")
    presets = get_args(SmoothingConfig.model_fields["preset"].annotation)
    add("--smoothing", choices=presets, help="smooth with this preset")
    for name in _FLAGS:
        about = SmoothingConfig.model_fields[name].description
        add(f"--{name.replace('_', '-')}", type=float, metavar="X", help=about)
    return parser


def _summary(session: Session, totals: KpiTotals) -> str:
    frames = session.frames
    seconds = (frames[-1].mono_ns - frames[0].mono_ns) / 1e9
    e2e = percentiles(frame.e2e_ms for frame in frames)
    return (
        f"{totals.frames} frames in {seconds:.1f} s, a face in {totals.face_rate:.1%} of them; "
        f"{totals.flips} label changes, {totals.flips_per_minute:.2f} per minute of a face in "
        f"view, in {totals.flip_frame_share:.2%} of the frames with a face; end to end "
        f"p50 {e2e['p50']:.2f}  p95 {e2e['p95']:.2f}  p99 {e2e['p99']:.2f} ms"
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command; 1 if `--check` found a difference. Raises `UserError`."""
    given = _parser().parse_args(arguments)
    session = read_parts(given.session)
    if not session.frames:
        raise UserError(f"{given.session}: no frame was logged; take another session")
    settings = _smoothing(given, session)
    if given.check and settings != session.settings():
        raise UserError("--check compares with the log: leave out --profile, --smoothing and such")
    if given.out is not None and given.out.resolve() == given.session.resolve():
        raise UserError(f"--out {given.out}: that is the session itself; name another file")
    out = None
    if given.out is not None:
        taken = {k: v for k, v in session.header.items() if k not in PART_KEYS}
        out = SessionLog(given.out, {**taken, "smoothing": asdict(settings)})
    # Asked what would have been with other settings, those hold all the time.
    changes = session.changes if settings == session.settings() else ()
    replayed = replay(session.frames, settings, changes)
    totals, first = KpiTotals(), None
    for k, (frame, (result, flips)) in enumerate(zip(session.frames, replayed, strict=True)):
        totals.add(result, flips)
        first = first or difference(frame, result)
        if out is not None:
            for _, changed in (change for change in changes if change[0] == k):
                out.change({"smoothing": asdict(changed)})
            out.write(result)
    if out is not None:
        out.close()
        if out.problem:
            raise UserError(out.problem)
    print(_summary(session, totals))
    if not given.check:
        return 0
    cut = sum(not face.whole for frame in session.frames for face in frame.faces)
    if cut:
        print(f"{cut} rows of faces whose beginning is not in the log were not compared")
    if first is not None:
        print(f"not the same: {first}")
        return 1
    print("the log and its replay are the same to the last bit")
    return 0
