"""`fer-edge corrections`: what was corrected on the dashboard, as labels for `score` and `tune`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from contract.command import Parser
from contract.errors import UserError
from contract.session_names import CORRECTIONS_NAME
from edge.cli import result_file
from edge.corrections import CorrectionRow, read_corrections
from edge.offline.score_labels import Segment, write_labels
from edge.offline.score_run import largest
from edge.offline.session_log import SessionFrame, read_parts
from edge.sinks.session_files import split_part

FRAME_S = 1 / 30
"""How long the last frame of a session stands for."""


def segments_of(
    frames: Sequence[SessionFrame], rows: Sequence[CorrectionRow]
) -> tuple[Segment, ...]:
    """The corrected stretches of a session, in order and apart, in seconds from its first frame.

    A frame counts only while the corrected face is its largest, which is the one that is scored;
    of two corrections of a frame the later counts.
    """
    answers: dict[int, str] = {}
    for at, frame in enumerate(frames):
        place = largest(frame.faces)
        for row in rows:
            inside = row.start_mono_ns <= frame.mono_ns <= row.end_mono_ns
            if inside and place is not None and frame.faces[place].track == row.track:
                answers[at] = row.expression

    def begin_s(at: int) -> float:
        beyond = FRAME_S if at == len(frames) else 0.0
        return (frames[min(at, len(frames) - 1)].mono_ns - frames[0].mono_ns) / 1e9 + beyond

    found: list[Segment] = []
    previous = None
    for at, expression in answers.items():
        start_s, end_s = begin_s(at), begin_s(at + 1)
        if previous == at - 1 and found[-1].label == expression:
            found[-1] = Segment(found[-1].start_s, end_s, expression)
        else:
            found.append(Segment(start_s, end_s, expression))
        previous = at
    return tuple(found)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-edge corrections",
        description=f"Turn the rows of {CORRECTIONS_NAME} that belong to a session into labels for "
        "fer-edge score. They cover only what was wrong: on them alone every smoothing looks bad.",
    )
    add = parser.add_argument
    add("session", type=Path, metavar="SESSION.csv", help="session log; corrections are beside it")
    add("--out", type=result_file, required=True, metavar="LABELS.csv", help="where the labels go")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    session, _ = split_part(given.session)
    frames = read_parts(given.session).frames
    place = session.with_name(CORRECTIONS_NAME)
    rows = [row for row in read_corrections(place) if row.session == session.name]
    if not rows:
        raise UserError(f"{place} has no correction of {session.name}; name another session")
    segments = segments_of(frames, rows)
    if not segments:
        raise UserError(
            f"{place}: no corrected face of {session.name} was the largest of its frame, and only "
            "that one is scored; name another session"
        )
    write_labels(given.out, segments)
    print(f"{given.out}: {len(segments)} stretches from {len(rows)} corrections")
    print(f"fer-edge score {given.session} --labels {given.out}")
    return 0
