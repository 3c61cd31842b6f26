"""`fer-edge tune`: choose the smoothing on labelled sessions.

Every session is run once; then its probabilities are replayed through the very smoothing the box
runs, for every average, lead and evidence of a declared grid, and for every dwell and vote with the
best of them. Of the settings that keep the median switch lag within bounds and the smoothed
macro-F1 at raw's, or hardly below, the one with the fewest flips on held expressions is chosen; of
equals the one with the higher macro-F1, then the one with the lower lag.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from contract.bundle import Bundle
from contract.command import Parser
from contract.errors import UserError
from contract.files import write_text_atomic
from edge.cli import add_engine_flags, engine_overrides, result_file
from edge.labels import FaceEvidence, Labels
from edge.offline.score_figures import SETTLE_S, Score, Seen, count, pool, score
from edge.offline.score_labels import Segment
from edge.offline.score_run import (
    LOG_FILE,
    Labelled,
    Player,
    largest,
    need_labels,
    open_labelled,
    raw_top,
)
from edge.offline.session_log import Session
from edge.pipeline import smoothing_settings
from edge.setup import start_engine
from edge.smooth import SmoothingSettings
from firmware_config.profile import SmoothingConfig, load_profile

TUNABLE = ("train", "calib")
TAU_S = (0.0, 0.05, 0.1, 0.15, 0.25)
HYSTERESIS = (0.05, 0.1, 0.2, 0.3)
EVIDENCE_S = (0.0, 0.04, 0.06, 0.08, 0.1)
DWELL_S = (0.0, 0.1, 0.2, 0.4)
VOTE_S = (0.0, 0.1, 0.17, 0.25)
MAX_F1_DROP = 0.01
"""Answers that waver between two expressions are right now and then by chance; a label that holds
is right all the time or never, so a few sessions more or less move its macro-F1 by this much."""
SHOWN_SETTINGS = 12


@dataclass(frozen=True)
class Trial:
    """A setting and what it gives on all sessions."""

    config: SmoothingConfig
    score: Score

    @property
    def flips(self) -> float:
        """Per minute, on held expressions."""
        return self.score.smoothed.held_flips_per_minute or 0.0

    @property
    def lag_s(self) -> float:
        """Median switch lag; endless where no switch was ever shown."""
        lag = self.score.smoothed.lag_median_s
        return float("inf") if lag is None else lag

    @property
    def macro_f1(self) -> float:
        """Smoothed."""
        return self.score.smoothed.macro_f1 or 0.0


def relabel(session: Session, settings: SmoothingSettings) -> list[Seen]:
    """What would have been shown of a logged session with other smoothing."""
    labels = Labels(settings)
    alive: set[int] = set()
    seen = []
    start_ns = session.frames[0].mono_ns
    for frame in session.frames:
        # An id never comes back for another face, so a track may be kept after its end.
        alive |= {face.track for face in frame.faces}
        shown = labels.update(
            [FaceEvidence(f.track, f.probabilities, f.quality) for f in frame.faces],
            alive,
            frame.mono_ns,
        )
        t_s, at = (frame.mono_ns - start_ns) / 1e9, largest(frame.faces)
        if at is None:
            seen.append(Seen(t_s))
        else:
            seen.append(Seen(t_s, raw_top(frame.faces[at]), shown[at].label, shown[at].top))
    return seen


def coarse_grid(base: SmoothingConfig) -> Iterator[SmoothingConfig]:
    """Every average, lead and evidence, without dwell and vote; the rest stays as in `base`."""
    for tau_s, hysteresis, evidence_s in product(TAU_S, HYSTERESIS, EVIDENCE_S):
        yield base.model_copy(
            update={
                "tau_s": tau_s, "hysteresis": hysteresis, "evidence_s": evidence_s,
                "dwell_s": 0.0, "vote_s": 0.0,
            }
        )  # fmt: skip


def fine_grid(best: SmoothingConfig) -> Iterator[SmoothingConfig]:
    """Every dwell and vote with the best of the coarse grid, but for none of both: it was there."""
    for dwell_s, vote_s in product(DWELL_S, VOTE_S):
        if dwell_s or vote_s:
            yield best.model_copy(update={"dwell_s": dwell_s, "vote_s": vote_s})


def run_trials(
    sessions: Sequence[tuple[Session, Sequence[Segment]]],
    base: SmoothingConfig,
    bundle: Bundle,
    max_lag_s: float,
) -> list[Trial]:
    """The score of every setting that is tried, pooled over the sessions."""

    def run(configs: Iterator[SmoothingConfig]) -> list[Trial]:
        trials = []
        for config in configs:
            settings = smoothing_settings(config, bundle)
            counted = [count(relabel(session, settings), truth) for session, truth in sessions]
            trials.append(Trial(config, score(pool(counted))))
        return trials

    trials = run(coarse_grid(base))
    best = choose(trials, max_lag_s)
    return trials if best is None else trials + run(fine_grid(best.config))


def choose(trials: Sequence[Trial], max_lag_s: float) -> Trial | None:
    """The best setting that keeps the bounds, or None where none does."""
    within = [
        t for t in trials
        if t.lag_s <= max_lag_s and t.macro_f1 >= (t.score.raw.macro_f1 or 0.0) - MAX_F1_DROP
    ]  # fmt: skip
    return min(within, key=lambda t: (t.flips, -t.macro_f1, t.lag_s), default=None)


def pareto(trials: Sequence[Trial]) -> list[Trial]:
    """The settings no other one beats in flips, lag and macro-F1 at once, fewest flips first."""

    def beats(a: Trial, b: Trial) -> bool:
        mine, other = (a.flips, a.lag_s, -a.macro_f1), (b.flips, b.lag_s, -b.macro_f1)
        return mine != other and all(x <= y for x, y in zip(mine, other, strict=True))

    best: dict[tuple[float, float, float], Trial] = {}
    for trial in trials:
        if not any(beats(other, trial) for other in trials):
            best.setdefault((trial.flips, trial.lag_s, -trial.macro_f1), trial)
    return [best[key] for key in sorted(best)]


def _line(trial: Trial) -> str:
    config = trial.config
    return (
        f"{config.tau_s:8g} {config.hysteresis:11g} {config.evidence_s:11g} {config.dwell_s:8g} "
        f"{config.vote_s:7g} {trial.flips:15.2f} "
        f"{trial.score.smoothed.flips_per_minute:13.2f} {trial.lag_s:8.3f} {trial.macro_f1:9.4f}"
    )


def table(trials: Sequence[Trial]) -> str:
    """The settings worth a choice, for people."""
    front = pareto(trials)
    lines = [
        "   tau_s  hysteresis  evidence_s  dwell_s  vote_s  held flips/min  all flips/min  lag (s)"
        "  macro-F1"
    ]
    lines += [_line(trial) for trial in front[:SHOWN_SETTINGS]]
    if len(front) > SHOWN_SETTINGS:
        lines.append(f"… and {len(front) - SHOWN_SETTINGS} more with more flips")
    raw = trials[0].score.raw
    lines.append(
        f"raw: {raw.held_flips_per_minute or 0:.2f} held flips per minute, "
        f"macro-F1 {raw.macro_f1 or 0:.4f}"
    )
    return "\n".join(lines)


def profile_text(chosen: Trial, sessions: Sequence[Labelled], bundle: Bundle) -> str:
    """A profile that holds the chosen smoothing, and where it comes from."""
    figures, raw = chosen.score.smoothed, chosen.score.raw
    lines = [
        "# Smoothing chosen by fer-edge tune on the sessions"
        if len(sessions) > 1
        else "# Smoothing chosen by fer-edge tune on the session",
        *(f"#   {s.sha256[:16]}  {s.place.name}  {s.split or 'recording'}" for s in sessions),
        f"# run with bundle {bundle.info.name} ({bundle.sha256[:12]}).",
        f"# On held expressions {chosen.flips:.2f} flips per minute (raw "
        f"{raw.held_flips_per_minute or 0:.2f}), switch lag {chosen.lag_s:.3f} s in the median, "
        f"macro-F1 {chosen.macro_f1:.4f}",
        f"# (raw {raw.macro_f1 or 0:.4f}) over {figures.switches} switches in "
        f"{chosen.score.face_s:.0f} s of a face in view.",
        "[smoothing]",
    ]
    # The whole setting, what the profile tuned from said included: it was tuned with that.
    smoothing = chosen.config.model_dump(exclude={"preset"}, exclude_none=True)
    lines += [f"{key} = {value}" for key, value in smoothing.items()]
    return "\n".join(lines) + "\n"


def check_tunable(sessions: Sequence[Labelled]) -> None:
    """Raises `UserError` for a session built from rows that figures are reported on."""
    for each in sessions:
        if each.split and each.split not in TUNABLE:
            raise UserError(
                f"{each.place} was built from {each.split} rows, on which figures are reported; "
                f"tune on sessions of {' or '.join(TUNABLE)} rows"
            )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fer-edge tune", description=__doc__)
    add = parser.add_argument
    add("sessions", nargs="+", type=Path, metavar="SESSION", help="labelled, built or recorded")
    add("--out", type=result_file, required=True, metavar="PROFILE.toml", help="a new profile")
    add(
        "--max-lag", type=float, default=SETTLE_S, metavar="S",
        help=f"largest median switch lag, seconds (default {SETTLE_S:g})",
    )  # fmt: skip
    add_engine_flags(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; 1 where no setting keeps the bounds. Raises `UserError`."""
    given = _parser().parse_args(arguments)
    if given.out.suffix != ".toml":
        raise UserError(f"--out {given.out}: a profile's name ends in .toml")
    if given.out.exists():
        raise UserError(f"--out {given.out} exists; name a new file, nothing is overwritten")
    if not 0 < given.max_lag < float("inf"):
        raise UserError(f"--max-lag {given.max_lag:g}: give more than 0 seconds")
    labelled = [open_labelled(place) for place in given.sessions]
    need_labels(labelled)
    check_tunable(labelled)
    profile = load_profile(given.profile, engine_overrides(given))
    engine = start_engine(profile)
    try:
        player = Player(engine)
        logged = [(player.play(each, each.folder / LOG_FILE), each.segments) for each in labelled]
    finally:
        engine.session.close()
    trials = run_trials(logged, profile.smoothing, engine.bundle, given.max_lag)
    print(table(trials))
    chosen = choose(trials, given.max_lag)
    if chosen is None:
        print(
            f"no setting keeps the lag within {given.max_lag:g} s and macro-F1 within "
            f"{MAX_F1_DROP:g} of raw's"
        )
        return 1
    write_text_atomic(given.out, profile_text(chosen, labelled, engine.bundle))
    print(f"chosen:\n{_line(chosen)}\nwritten: {given.out}")
    return 0
