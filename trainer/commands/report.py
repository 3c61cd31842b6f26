"""`fer-trainer report`: the study in one document, from its run folders."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from contract.command import Parser
from contract.errors import UserError
from trainer.matrix import jobs_of, load_matrix
from trainer.report import Study, write_report
from trainer.study_runs import by_phase, is_finished, open_study_run, with_compared


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-trainer report",
        description="Write the study's report in Markdown and HTML: figures of every phase over "
        "its seeds, paired tests, what NL and NegL do together, verdicts, pictures. Every figure "
        "is read from run folders.",
        epilog="fer-trainer report two_cores --out docs/study",
    )
    add = parser.add_argument
    add(
        "runs", nargs="+", metavar="MATRIX|RUN",
        help="a matrix, by its TOML file or name, or finished run folders",
    )  # fmt: skip
    add("--out", type=Path, default=Path("docs/study"), help="folder (default: docs/study)")
    add("--runs-in", type=Path, metavar="DIR", help="where a matrix's run folders are")
    add("--split", choices=("val", "calib"), default="val", help="rows (default: val)")
    add("--seed", type=int, default=1337, help="seed of the bootstrap (default: 1337)")
    return parser


def _of_matrix(name: str, runs_in: Path | None, split: str, seed: int) -> Study:
    matrix = load_matrix(name)
    if runs_in is not None:
        matrix = matrix.model_copy(update={"out": runs_in})
    jobs = jobs_of(matrix)
    done = [job for job in jobs if is_finished(job.folder)]
    if not done:
        raise UserError(f"no finished run in {matrix.out}; run fer-trainer matrix {name} first")
    runs = [open_study_run(job.folder, split) for job in done]
    unfinished = tuple(job.name for job in jobs if job not in done)
    return Study(matrix.description or name, by_phase(runs), unfinished, split, seed)


def _of_runs(folders: Sequence[Path], split: str, seed: int) -> Study:
    runs = [open_study_run(folder, split) for folder in folders]
    return Study("Study report", with_compared(runs, split), (), split, seed)


def _command(given: argparse.Namespace) -> str:
    """The call that writes the same report, without where to: it is the same anywhere."""
    words = ["fer-trainer", "report", *given.runs]
    if given.runs_in is not None:
        words += ["--runs-in", str(given.runs_in)]
    return shlex.join([*words, "--split", given.split, "--seed", str(given.seed)])


def main(arguments: list[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    paths = [Path(each) for each in given.runs]
    if len(paths) == 1 and not paths[0].is_dir():
        study = _of_matrix(given.runs[0], given.runs_in, given.split, given.seed)
    else:
        study = _of_runs(paths, given.split, given.seed)
    for each in write_report(study, given.out, _command(given)):
        print(f"{each.phase}: {each.status}")
    print(f"report: {given.out / 'report.md'}, {given.out / 'report.html'}")
    return 0
