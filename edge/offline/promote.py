"""`fer-edge promote`: a candidate takes the current bundle's place only if it is no worse.

Two gates, and both must hold: on labelled images macro-F1 and the three weakest expressions lose
next to nothing, and on the same sessions, replayed through the whole pipeline, the smoothed labels
are as good and as steady. The verdict is written with every figure; only then is it installed.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from contract import metrics
from contract.bundle import Bundle, open_bundle
from contract.command import Parser
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.files import write_json_atomic, write_text_atomic
from contract.manifest import Manifest, read_manifest
from contract.store import BundleStore
from edge.bundles import bundle_to_run, store_folder
from edge.cli import add_engine_flags, engine_overrides
from edge.offline.evaluate import predict
from edge.offline.record import run_record
from edge.offline.score_figures import Score, count, pool, score
from edge.offline.score_run import Labelled, Player, need_labels, observe, open_labelled
from edge.setup import start_engine
from firmware_config.profile import Profile, load_profile
from runtime.session import Session

MACRO_F1_DROP = 0.01
WEAKEST_DROP = 0.02
WEAKEST = 3
SESSION_F1_DROP = 0.005
FLIPS_SHARE, FLIPS_ADDED = 0.10, 0.2


@dataclass(frozen=True)
class Check:
    """One figure of both bundles and the bound the candidate's is held to."""

    name: str
    current: float
    candidate: float
    bound: float
    passed: bool


@dataclass(frozen=True)
class BundleFigures:
    """What one bundle does: F1 by expression for every manifest, and the sessions' score."""

    manifests: tuple[dict[str, float], ...]
    sessions: Score


def _at_least(name: str, current: float, candidate: float, drop: float) -> Check:
    bound = current - drop
    return Check(name, current, candidate, bound, candidate >= bound - 1e-9)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def judge(
    current: BundleFigures, candidate: BundleFigures, manifests: Sequence[str]
) -> list[Check]:
    """Every check of both gates. F1 is over the expressions that occur in a manifest.

    The weakest expressions are the current bundle's, the same ones for both.
    """
    checks = []
    for name, now, new in zip(manifests, current.manifests, candidate.manifests, strict=True):
        checks.append(
            _at_least(
                f"{name}: macro-F1", _mean([*now.values()]), _mean([*new.values()]), MACRO_F1_DROP
            )
        )
        weakest = sorted(now, key=lambda label: now[label])[:WEAKEST]
        checks.append(
            _at_least(
                f"{name}: F1 of {', '.join(weakest)}",
                _mean([now[label] for label in weakest]),
                _mean([new[label] for label in weakest]),
                WEAKEST_DROP,
            )
        )
    now_on, new_on = current.sessions.smoothed, candidate.sessions.smoothed
    checks.append(
        _at_least(
            "sessions: smoothed macro-F1", now_on.macro_f1 or 0.0, new_on.macro_f1 or 0.0,
            SESSION_F1_DROP,
        )
    )  # fmt: skip
    flips, new_flips = now_on.held_flips_per_minute or 0.0, new_on.held_flips_per_minute or 0.0
    most = flips + max(FLIPS_SHARE * flips, FLIPS_ADDED)
    checks.append(
        Check(
            "sessions: flips per minute on held expressions", flips, new_flips, most,
            new_flips <= most + 1e-9,
        )
    )  # fmt: skip
    return checks


def _by_class(manifest: Manifest, bundle: Bundle, session: Session) -> dict[str, float]:
    found = predict(manifest, bundle, session, None)
    f1 = metrics.per_class(found.labels, found.predicted, len(EXPRESSIONS)).f1
    return {EXPRESSIONS[i]: float(f1[i]) for i in sorted(set(found.labels.tolist()))}


def run_bundle(
    profile: Profile, folder: Path, manifests: Sequence[Manifest], sessions: Sequence[Labelled],
    logs: Path,
) -> BundleFigures:  # fmt: skip
    """Everything one bundle is judged by; the logs of its sessions go to `logs`.

    Raises `UserError` for a bundle, an image or a session that does not work.
    """
    runtime = profile.runtime.model_copy(update={"bundle": folder})
    engine = start_engine(profile.model_copy(update={"runtime": runtime}))
    try:
        on_images = tuple(_by_class(m, engine.bundle, engine.session) for m in manifests)
        player = Player(engine)
        counted = [
            count(observe(player.play(each, logs / f"{number}.csv")), each.segments)
            for number, each in enumerate(sessions, 1)
        ]
    finally:
        engine.session.close()
    return BundleFigures(on_images, score(pool(counted)))


def _named(bundle: Bundle) -> str:
    return f"{bundle.info.name} ({bundle.sha256[:12]})"


def verdict_text(
    current: Bundle, candidate: Bundle, checks: Sequence[Check], figures: Sequence[BundleFigures]
) -> str:
    """The verdict for people, in Markdown."""
    passed = all(check.passed for check in checks)
    lines = [
        f"# {_named(candidate)} against {_named(current)}: {'promoted' if passed else 'refused'}",
        "",
        "| check | current | candidate | bound | |",
        "|---|---:|---:|---:|---|",
    ]
    lines += [
        f"| {c.name} | {c.current:.4f} | {c.candidate:.4f} | {c.bound:.4f} | "
        f"{'passed' if c.passed else '**failed**'} |"
        for c in checks
    ]
    lines += ["", "On the sessions:", "", "| | current | candidate |", "|---|---:|---:|"]
    both = [one.sessions for one in figures]
    rows: dict[str, list[float | None]] = {
        "raw macro-F1": [s.raw.macro_f1 for s in both],
        "smoothed macro-F1": [s.smoothed.macro_f1 for s in both],
        "flips per minute, all": [s.smoothed.flips_per_minute for s in both],
        "switch lag, median (s)": [s.smoothed.lag_median_s for s in both],
        "switch lag, p95 (s)": [s.smoothed.lag_p95_s for s in both],
        "an expression is shown in (share)": [s.coverage for s in both],
    }
    for name, values in rows.items():
        cells = ["–" if value is None else f"{value:.4f}" for value in values]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fer-edge promote", description=__doc__)
    add = parser.add_argument
    add("candidate", type=Path, metavar="CANDIDATE", help="bundle folder")
    add(
        "--against", type=Path, metavar="BUNDLE",
        help="bundle to compare with (default: the installed one, else the built-in)",
    )  # fmt: skip
    add(
        "--manifest", type=Path, nargs="+", required=True, metavar="CSV",
        help="labelled images neither was trained on",
    )  # fmt: skip
    add("--split", default="val", help="their rows to take (default val)")
    add(
        "--sessions", type=Path, nargs="+", required=True, metavar="SESSION",
        help="labelled sessions, built or recorded",
    )  # fmt: skip
    add("--out", type=Path, metavar="DIR", help="where verdict and logs go (default promotion-…)")
    add("--dry-run", action="store_true", help="judge only, install nothing")
    add("--store", type=Path, metavar="DIR", help="where bundles are installed")
    add_engine_flags(parser)
    return parser


def _read(given: argparse.Namespace) -> tuple[list[Manifest], list[Labelled]]:
    manifests = []
    for file in given.manifest:
        manifest = read_manifest(file).select(given.split)
        if not manifest.rows:
            raise UserError(f"{file}: no rows of split '{given.split}'; name another with --split")
        manifests.append(manifest)
    sessions = [open_labelled(place) for place in given.sessions]
    need_labels(sessions)
    return manifests, sessions


def main(arguments: Sequence[str]) -> int:
    """Run the command; 1 for a candidate that is refused. Raises `UserError`."""
    given = _parser().parse_args(arguments)
    if given.model is not None:
        raise UserError("--model does not belong here; name the bundle to compare with --against")
    candidate = open_bundle(given.candidate)
    current = bundle_to_run(given.against)
    manifests, sessions = _read(given)
    profile = load_profile(given.profile, engine_overrides(given))
    out = given.out or Path(f"promotion-{candidate.sha256[:12]}")
    names = ("current", "candidate")
    both = [
        run_bundle(profile, bundle.folder, manifests, sessions, out / name)
        for bundle, name in zip((current, candidate), names, strict=True)
    ]
    checks = judge(both[0], both[1], [f"{m.file.name} ({given.split})" for m in manifests])
    passed = all(check.passed for check in checks)
    text = verdict_text(current, candidate, checks, both)
    result = {
        "passed": passed,
        "checks": [asdict(check) for check in checks],
        "bundles": {
            name: {"name": bundle.info.name, "sha256": bundle.sha256, **asdict(figures)}
            for name, bundle, figures in zip(names, (current, candidate), both, strict=True)
        },
        "manifests": [{"file": m.file.name, "sha256": m.sha256} for m in manifests],
        "sessions": [{"name": s.place.name, "sha256": s.sha256} for s in sessions],
        "run": run_record("fer-edge promote", arguments, profile.runtime.threads),
    }
    write_json_atomic(out / "verdict.json", result)
    write_text_atomic(out / "verdict.md", text)
    print(text, end="")
    if not passed:
        print(f"refused: {_named(current)} stays; the verdict is in {out}")
        return 1
    if given.dry_run:
        print(f"would be installed; the verdict is in {out}")
        return 0
    installed = BundleStore(given.store or store_folder()).install(given.candidate)
    print(f"installed: {_named(installed)} in {installed.folder}; the verdict is in {out}")
    return 0
