"""`fer-trainer`: data import, and phases."""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from contract.command import Parser, run_command
from contract.errors import UserError


def _need_extra() -> None:
    for module in ("torch", "timm", "safetensors"):
        if find_spec(module) is None:
            raise UserError(
                f"'{module}' is not installed; install it with: pip install 'fer-edge[trainer]'"
            )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-trainer",
        description="Train a student by phase, or prepare data for it.",
        epilog="fer-trainer data import ferplus FOLDER --out data/ferplus",
    )
    parser.add_argument("--phase", required=True, help="a phase's name or its TOML file")
    parser.add_argument(
        "--export-best", action="store_true",
        help="do not train on: export the best epoch so far of an unfinished run",
    )  # fmt: skip
    parser.add_argument("--manifest", type=Path, help="manifest with splits train and calib")
    parser.add_argument("--out", type=Path, help="folder of run folders (default: runs)")
    parser.add_argument("--name", help="name of the run folder (default: PHASE-seedN)")
    parser.add_argument("--seed", type=int, help="seed of everything random")
    parser.add_argument("--epochs", type=int, help="passes over the training rows")
    parser.add_argument("--batch-size", type=int, help="images per forward pass")
    parser.add_argument("--accum-steps", type=int, help="forward passes per optimiser step")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="override any key of the phase, such as optim.lr=1e-3",
    )  # fmt: skip
    return parser


def _data_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fer-trainer data")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = commands.add_parser("import", help="a data set in its own layout → manifests")
    add.add_argument("data_set", choices=("ferplus", "muxspace"))
    add.add_argument("source", type=Path, help="the folder the data set came in")
    add.add_argument("--out", type=Path, help="where to write (default: data/NAME)")
    add.add_argument("--seed", type=int, default=1337, help="seed of the splits")
    return parser


def _data(arguments: list[str]) -> int:
    from trainer.data.importers import IMPORTERS

    given = _data_parser().parse_args(arguments)
    if not given.source.is_dir():
        raise UserError(f"{given.source} is not a folder; name the one that holds the data set")
    out = given.out or Path("data") / given.data_set
    reports = IMPORTERS[given.data_set](source=given.source, out=out, seed=given.seed)
    for name, report in reports.items():
        rows = "  ".join(f"{split} {count}" for split, count in report["rows"].items())
        print(f"{name}: {rows}")
        for reason, count in report["dropped"].items():
            print(f"  dropped {count}: {reason}")
    print(f"manifests under {out}")
    return 0


def _overrides(given: argparse.Namespace) -> list[str]:
    flags = {
        "manifest": given.manifest, "out": given.out, "seed": given.seed,
        "optim.epochs": given.epochs, "optim.batch_size": given.batch_size,
        "optim.accum_steps": given.accum_steps, "device": given.device,
    }  # fmt: skip
    named = [
        f"{key}={value if isinstance(value, int) else json.dumps(str(value))}"
        for key, value in flags.items()
        if value is not None
    ]
    return [*given.set, *named]


def main() -> int:
    """The command. Returns the exit code; raises `UserError`."""
    _need_extra()
    arguments = sys.argv[1:]
    if arguments[:1] == ["data"]:
        return _data(arguments[1:])
    given = _parser().parse_args(arguments)
    from trainer.config import load_phase

    config = load_phase(given.phase, _overrides(given))
    from trainer.run import train_phase  # after the config, so that its mistakes show at once

    train_phase(config, given.name, export_best=given.export_best)
    return 0


def run() -> int:
    """Entry point of `fer-trainer`."""
    return run_command("fer-trainer", main)


if __name__ == "__main__":
    sys.exit(run())
