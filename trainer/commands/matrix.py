"""`fer-trainer matrix`: phases × seeds, resumable, spread over the GPUs there are."""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from contract.command import Parser
from contract.errors import UserError
from trainer.matrix import Matrix, load_matrix


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-trainer matrix",
        description="Run every phase of a matrix with every seed, and what they need first. What "
        "is complete is skipped, what was stopped goes on; a run that fails does not end the "
        "others. matrix_status.json beside the run folders tells how each stands.",
        epilog="fer-trainer matrix two_cores",
    )
    add = parser.add_argument
    add("matrix", metavar="MATRIX", help="a TOML file, or the name of one that is shipped")
    add("--dry-run", action="store_true", help="print what would be run, and run nothing")
    add("--out", type=Path, help="folder of run folders (default: the matrix's)")
    add("--manifest", type=Path, help="manifest of all runs (default: the matrix's)")
    add("--softlabels", type=Path, help="softlabels of all runs (default: the matrix's)")
    add(
        "--gpus", metavar="N,N", help="CUDA devices to spread runs over (default: all that there "
        "are; - for none)",
    )  # fmt: skip
    return parser


def _devices(given: str | None) -> list[str]:
    """The devices to deal out: none where one run at a time needs no choice."""
    if given == "-":
        return []
    visible = given or os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        return [each.strip() for each in visible.split(",") if each.strip()]
    import torch  # slow, and only asked how many GPUs there are

    return [str(number) for number in range(torch.cuda.device_count())]


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    """Run the command; raises `UserError`. 1 where a run failed."""
    given = _parser().parse_args(arguments)
    chosen = {
        key: value
        for key in ("out", "manifest", "softlabels")
        if (value := getattr(given, key)) is not None
    }
    config = load_matrix(given.matrix).model_copy(update=chosen)
    trainer = [sys.executable, "-m", "trainer"]
    if given.dry_run:
        for job in Matrix(config, trainer).jobs:
            told = "complete" if job.state == "complete" else f"after {' '.join(job.needs) or '-'}"
            print(f"{job.name:<32} {told:<40} fer-trainer {' '.join(job.arguments)}")
        return 0
    if any(each not in "0123456789,-" for each in given.gpus or ""):
        raise UserError(f"--gpus {given.gpus}: write numbers, such as 0,1, or - for none")
    signal.signal(signal.SIGTERM, _interrupt)  # a stopped matrix stops its runs too
    jobs = Matrix(config, trainer, _devices(given.gpus)).run()
    left = {state: [j.name for j in jobs if j.state == state] for state in ("failed", "blocked")}
    complete = sum(job.state == "complete" for job in jobs)
    print(f"{complete} of {len(jobs)} runs are complete; next: fer-trainer report {given.matrix}")
    if not any(left.values()):
        return 0
    told = "; ".join(f"{state}: {', '.join(names)}" for state, names in left.items() if names)
    print(f"fer-trainer matrix: {told}", file=sys.stderr)
    return 1
