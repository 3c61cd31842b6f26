"""`fer-trainer compare`: runs side by side on the same rows, with intervals and tests."""

import argparse
import json
from pathlib import Path

from contract.command import Parser
from contract.errors import UserError
from contract.files import write_text_atomic
from contract.manifest import SPLITS
from trainer.compare import as_markdown, as_text, compare, open_run
from trainer.record import run_record


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-trainer compare",
        description="Compare runs on the same rows: one table, differences from the first run with "
        "paired bootstrap intervals, McNemar's exact test with Holm's correction.",
    )
    add = parser.add_argument
    add(
        "runs", nargs="+", type=Path, metavar="RUN",
        help="a finished run folder, or a file of fer-trainer evaluate --save-predictions",
    )  # fmt: skip
    add("--split", choices=SPLITS, default="val", help="rows to compare on (default: val)")
    add("--seed", type=int, default=1337, help="seed of the bootstrap (default: 1337)")
    add("--json", action="store_true", help="print JSON with every figure instead of the table")
    add("--markdown", type=Path, metavar="FILE", help="write the tables there as Markdown")
    return parser


def main(arguments: list[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    if len(given.runs) < 2:
        raise UserError("name at least two runs; the others are compared with the first")
    made = compare([open_run(path, given.split) for path in given.runs], given.split, given.seed)
    if given.json:
        record = run_record("fer-trainer compare", arguments)
        print(json.dumps({**made, "run": record}, indent=2, allow_nan=False))
    else:
        print(as_text(made))
    if given.markdown:
        write_text_atomic(given.markdown, as_markdown(made))
    return 0
