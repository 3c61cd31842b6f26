"""`fer-trainer gates`: what the study's criteria say of finished runs, and what to do next."""

import argparse
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

from contract.command import Parser
from contract.errors import UserError
from contract.files import write_json_atomic
from contract.manifest import SPLITS
from trainer.config_criteria import StudyConfig
from trainer.gates import PhaseVerdict, Seeds, judge_files, judge_phase
from trainer.record import run_record
from trainer.study_runs import by_phase, open_study_run, with_compared
from trainer.verdict_text import as_json, as_text

DEPLOYMENT = Path(__file__).parent.parent / "deployment.toml"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-trainer gates",
        description="Read the criteria that phases declare, measure finished runs against their "
        "baseline, and print verdicts and the next step. Several seeds of a phase are taken "
        "together. The other runs that criteria compare with are looked for beside each run, as "
        "PHASE-seedN.",
        epilog="fer-trainer gates runs/negl_tier1-seed1337 runs/negl_tier1-seed2025",
    )
    add = parser.add_argument
    add("runs", nargs="*", type=Path, metavar="RUN", help="finished run folders")
    add(
        "--baseline", nargs="+", type=Path, default=[], metavar="RUN",
        help="runs to take for the baseline, a seed each (default: those of the phase it declares)",
    )  # fmt: skip
    add(
        "--deployment", nargs="+", type=Path, default=[], metavar="FILE",
        help="JSON of fer-edge score and fer-edge bench: judge the deployment by it",
    )  # fmt: skip
    add("--split", choices=SPLITS, default="val", help="rows to measure on (default: val)")
    add("--seed", type=int, default=1337, help="seed of the bootstrap (default: 1337)")
    add("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser


def judge(
    folders: Sequence[Path], baseline: Sequence[Path], split: str, seed: int
) -> list[PhaseVerdict]:
    """The verdicts of every phase among the folders that declares criteria.

    Raises `UserError` where none does, or the runs do not go together.
    """
    runs = [open_study_run(folder, split) for folder in folders]
    wanted = dict.fromkeys(run.phase for run in runs)
    pool: dict[str, Seeds] = {**with_compared(runs, split)}
    name = ""
    if baseline:
        others = by_phase(open_study_run(folder, split) for folder in baseline)
        if len(others) > 1:
            raise UserError(f"--baseline: runs of {' and '.join(others)}; name runs of one phase")
        phase, seeds = next(iter(others.items()))
        name = f"{phase}, as given"
        pool[name] = seeds
    made = []
    for phase in wanted:
        study = next(iter(pool[phase].values())).study
        if study.criteria or study.indicators:
            made.append(judge_phase(phase, pool, seed, name))
    if not made:
        raise UserError(
            f"no criteria in {', '.join(wanted)}: name runs of a phase of the study, such as "
            "negl_tier1"
        )
    return made


def judge_deployment(files: Sequence[Path]) -> PhaseVerdict:
    """The verdict on result files of the edge. Raises `UserError` where one cannot be read."""
    content = {}
    for file in files:
        try:
            content[file] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: not readable as JSON ({error})") from None
    study = StudyConfig.model_validate(tomllib.loads(DEPLOYMENT.read_text(encoding="utf-8")))
    return judge_files(study, content)


def main(arguments: list[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    if not given.runs and not given.deployment:
        raise UserError("name run folders, or --deployment with result files")
    made = judge(given.runs, given.baseline, given.split, given.seed) if given.runs else []
    if given.deployment:
        made.append(judge_deployment(given.deployment))
    print("\n\n".join(as_text(each, given.split) for each in made))
    if given.json:
        record = run_record("fer-trainer gates", arguments)
        verdicts = [as_json(each) for each in made]
        write_json_atomic(given.json, {"split": given.split, "verdicts": verdicts, "run": record})
    return 0
