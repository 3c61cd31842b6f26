"""What the smoothing is worth: flips against lag, tuned on some sessions, reported on others.

    fer-edge sessions build --manifest M.csv --split calib --count 8 --out data/sessions
    fer-edge sessions build --manifest M.csv --split val --count 8 --out data/sessions
    PYTHONPATH=. python benchmarks/smoothing.py --tune data/sessions/calib-* \
        --report data/sessions/val-* --clips DIR --logs data/logs --json FILE

Every session and clip goes through the box's own pipeline once; the log stays under `--logs`, and a
run that is started again goes on with those that are whole. Then the settings of `fer-edge tune`
are tried on the sessions of `--tune`, and what it chooses, the program's default and its presets
are scored on those of `--report`. Clips have no labels: of them there are flips only. `before` is
an average of 0.25 s with a lead of 0.1, no evidence, dwell or vote.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contract.bundle import Bundle
from contract.errors import UserError
from contract.files import write_json_atomic
from edge.cameras.factory import VIDEO_SUFFIXES
from edge.offline.record import run_record
from edge.offline.score_figures import SETTLE_S, Score, count, pool, score
from edge.offline.score_labels import Segment
from edge.offline.score_run import Labelled, Player, need_labels, open_labelled
from edge.offline.session_log import Session, read_session
from edge.offline.tune import Trial, check_tunable, choose, relabel, run_trials
from edge.pipeline import smoothing_settings
from edge.setup import start_engine
from firmware_config.profile import SMOOTHING_PRESETS, SmoothingConfig, load_profile

BEFORE = SmoothingConfig(tau_s=0.25, hysteresis=0.1, evidence_s=0.0, dwell_s=0.0, vote_s=0.0)
COMMAND = "python benchmarks/smoothing.py"


@dataclass(frozen=True)
class Played:
    """A session or clip that went through the pipeline, and its labels, if any."""

    place: Labelled
    session: Session

    @property
    def scored(self) -> tuple[Session, Sequence[Segment]]:
        """As `run_trials` takes it."""
        return self.session, self.place.segments


def finished(log: Path, place: Labelled, bundle: Bundle) -> Session | None:
    """A log of this very session and bundle, run to its end, if there is one."""
    if not log.exists():
        return None
    session = read_session(log)
    same = session.header["session"]["sha256"] == place.sha256
    same &= session.header["bundle"]["sha256"] == bundle.sha256
    return session if same and log.with_suffix(".whole").exists() else None


def play(places: Sequence[Labelled], player: Player, bundle: Bundle, logs: Path) -> list[Played]:
    """Run what has no log yet."""
    played = []
    for place in places:
        log = logs / f"{place.place.stem}.csv"
        session = finished(log, place, bundle)
        if session is None:
            session = player.play(place, log)
            log.with_suffix(".whole").touch()
        print(f"{place.place.name}: {len(session.frames)} frames", flush=True)
        played.append(Played(place, session))
    return played


def score_of(played: Sequence[Played], config: SmoothingConfig, bundle: Bundle) -> Score:
    """The figures of all of them together with a setting."""
    settings = smoothing_settings(config, bundle)
    return score(pool([count(relabel(p.session, settings), p.place.segments) for p in played]))


def figures(found: Score) -> dict[str, Any]:
    """The figures of a score that a claim rests on; raw ones have no coverage."""
    return {
        "raw": asdict(found.raw),
        "smoothed": asdict(found.smoothed),
        "coverage": found.coverage,
        "right_when_shown": found.right_when_shown,
        "face_s": found.face_s,
    }


def by_setting(
    played: Sequence[Played], configs: Mapping[str, SmoothingConfig], bundle: Bundle
) -> dict[str, Any]:
    """The figures with every setting."""
    return {name: figures(score_of(played, config, bundle)) for name, config in configs.items()}


def settings_to_report(
    chosen: Trial | None, default: SmoothingConfig
) -> dict[str, SmoothingConfig]:
    """By name; `chosen` is missing where no setting kept the bounds."""
    presets = {name: SmoothingConfig(preset=name) for name in SMOOTHING_PRESETS if name != "custom"}
    found = {"before": BEFORE, "default": default, **presets}
    return found if chosen is None else {"chosen": chosen.config, **found}


def main() -> None:
    """Run and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--tune", nargs="+", type=Path, required=True, metavar="SESSION")
    add("--report", nargs="+", type=Path, required=True, metavar="SESSION")
    add("--clips", type=Path, metavar="DIR", help="a folder of videos")
    add("--logs", type=Path, required=True, metavar="DIR")
    add("--json", type=Path, required=True)
    given = parser.parse_args()
    tune, report = ([open_labelled(place) for place in each] for each in (given.tune, given.report))
    need_labels([*tune, *report])
    check_tunable(tune)
    videos = sorted(given.clips.iterdir()) if given.clips else []
    clips = [open_labelled(file) for file in videos if file.suffix.lower() in VIDEO_SUFFIXES]
    given.logs.mkdir(parents=True, exist_ok=True)
    engine = start_engine(load_profile("default", {}))
    bundle, player = engine.bundle, Player(engine)
    tuned, reported, real = (play(p, player, bundle, given.logs) for p in (tune, report, clips))
    default = SmoothingConfig()
    trials = run_trials([p.scored for p in tuned], default, bundle, SETTLE_S)
    configs = settings_to_report(choose(trials, SETTLE_S), default)
    result: dict[str, Any] = {
        "settings": {
            name: config.model_dump(exclude={"preset"}) for name, config in configs.items()
        },
        "tried": len(trials),
        "max_lag_s": SETTLE_S,
        "tune": by_setting(tuned, configs, bundle),
        "report": by_setting(reported, configs, bundle),
        "clips": {
            name: {
                clip.place.place.name: figures(score_of([clip], config, bundle)) for clip in real
            }
            for name, config in configs.items()
        },
        "sessions": {p.place.place.name: p.place.sha256 for p in (*tuned, *reported)},
        "bundle": {"name": bundle.info.name, "sha256": bundle.sha256},
        "detector": engine.detector.name,
        "run": run_record(COMMAND, sys.argv[1:], 1),
    }
    for name in configs:
        for part in ("tune", "report"):
            raw, smooth = result[part][name]["raw"], result[part][name]["smoothed"]
            print(
                f"{part:7} {name:10} held flips/min {raw['held_flips_per_minute']:7.2f} -> "
                f"{smooth['held_flips_per_minute']:5.2f}, lag {smooth['lag_median_s']:.3f} s, "
                f"macro-F1 {raw['macro_f1']:.4f} -> {smooth['macro_f1']:.4f}"
            )
    write_json_atomic(given.json, result)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
