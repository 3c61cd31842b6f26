"""`fer-edge score`: raw against smoothed labels on sessions of which the truth is known."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contract.command import Parser
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.files import write_json_atomic
from edge.cli import add_engine_flags, engine_overrides, result_file
from edge.offline.record import run_record
from edge.offline.score_figures import SETTLE_S, Counts, Score, count, pool, score
from edge.offline.score_labels import LABELS_FILE, read_labels
from edge.offline.score_run import LOG_FILE, Labelled, Player, observe, open_labelled
from edge.offline.session_log import read_parts
from edge.setup import Engine, start_engine
from firmware_config.profile import load_profile

ROWS = (
    ("accuracy", "accuracy", 100, "%"),
    ("macro_f1", "macro-F1", 1, ""),
    ("flips_per_minute", "flips per minute", 1, ""),
    ("held_flips_per_minute", "  on held expressions", 1, ""),
    ("flip_frames", "frames with a flip", 100, "%"),
    ("lag_median_s", "switch lag, median", 1, " s"),
    ("lag_p95_s", "switch lag, p95", 1, " s"),
    ("unreached", "segments never reached", 1, ""),
)


def _cell(value: float | None, factor: float = 1, unit: str = "") -> str:
    if value is None:
        return "–"
    return f"{value}" if isinstance(value, int) else f"{value * factor:.3f}{unit}"


def table(found: Score, each: Sequence[Score]) -> str:
    """Raw against smoothed, and over several sessions the smoothed figures' range."""
    lines = [f"{'':24} {'raw':>12} {'smoothed':>12}" + ("   of sessions" if len(each) > 1 else "")]
    for name, text, factor, unit in ROWS:
        cells = [_cell(getattr(part, name), factor, unit) for part in (found.raw, found.smoothed)]
        line = f"{text:24} {cells[0]:>12} {cells[1]:>12}"
        values = [v for one in each if (v := getattr(one.smoothed, name)) is not None]
        if len(each) > 1 and values:
            line += f"   {_cell(min(values), factor, unit)} … {_cell(max(values), factor, unit)}"
        lines.append(line)
    for name in EXPRESSIONS:
        if found.raw.per_class_f1 and name in found.raw.per_class_f1:
            cells = [_cell((part.per_class_f1 or {})[name]) for part in (found.raw, found.smoothed)]
            lines.append(f"{'  F1 ' + name:24} {cells[0]:>12} {cells[1]:>12}")
    if found.coverage is not None:
        lines.append(
            f"an expression is shown in {found.coverage:.1%} of labelled frames"
            + (f", right in {found.right_when_shown:.1%}" if found.right_when_shown else "")
        )
    lines.append(
        f"{found.sessions} sessions, {found.frames} frames, a face in {found.faces}; accuracy and "
        f"F1 from {SETTLE_S:g} s after a switch on, {found.smoothed.switches} switches"
    )
    return "\n".join(lines)


def _count_logs(files: Sequence[Path], labels: Path | None) -> list[Counts]:
    """Session logs as they are, each with the labels beside it or the ones named."""
    counted = []
    for file in files:
        beside = labels or file.parent / LABELS_FILE
        segments = read_labels(beside) if labels or beside.exists() else ()
        frames = observe(read_parts(file))
        if not frames:
            raise UserError(f"{file} has no frame under its header")
        counted.append(count(frames, segments))
    return counted


def _count_runs(sessions: Sequence[Labelled], engine: Engine) -> list[Counts]:
    player = Player(engine)
    counted = []
    for labelled in sessions:
        session = player.play(labelled, labelled.folder / LOG_FILE)
        counted.append(count(observe(session), labelled.segments))
    return counted


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-edge score",
        description="Raw against smoothed labels. A session is a built one's folder, a recording "
        "(a folder or a file; it is run through the pipeline, and its log written beside it as "
        f"{LOG_FILE}), or a session log. Labels are {LABELS_FILE} beside it; without any, only "
        "flips are counted.",
    )
    add = parser.add_argument
    add("sessions", nargs="+", type=Path, metavar="SESSION", help="folder, recording or log")
    add("--labels", type=Path, metavar="CSV", help="labels of a single session")
    add("--json", type=result_file, metavar="OUT", help="where the figures go")
    add_engine_flags(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    places: list[Path] = given.sessions
    if given.labels and len(places) > 1:
        raise UserError("--labels belongs to one session; name one, or put labels.csv beside each")
    for place in places:
        if not place.exists():
            raise UserError(f"no session at {place}; build one with fer-edge sessions build")
    are_logs = [place.suffix.lower() == ".csv" for place in places]
    if any(are_logs) and not all(are_logs):
        raise UserError("session logs and sessions to run do not mix; score them one by one")
    result: dict[str, Any] = {}
    if all(are_logs):
        counted = _count_logs(places, given.labels)
    else:
        sessions = [open_labelled(place, given.labels) for place in places]
        profile = load_profile(given.profile, engine_overrides(given))
        engine = start_engine(profile)
        try:
            counted = _count_runs(sessions, engine)
        finally:
            engine.session.close()
        result["bundle"] = {"name": engine.bundle.info.name, "sha256": engine.bundle.sha256}
        result["smoothing"] = profile.smoothing.model_dump(mode="json")
        result["run"] = run_record("fer-edge score", arguments, profile.runtime.threads)
    pooled, each = score(pool(counted)), [score(counts) for counts in counted]
    if given.json:
        result["settle_s"] = SETTLE_S
        result.update(asdict(pooled))
        result["each"] = [
            {"session": str(place), **asdict(one)} for place, one in zip(places, each, strict=True)
        ]
        write_json_atomic(given.json, result)
    print(table(pooled, each))
    return 0
