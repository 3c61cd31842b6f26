"""`fer-trainer`: phases, and the commands around them."""

import argparse
import json
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from contract.command import Parser, run_command
from contract.errors import UserError, nearest

COMMANDS = {
    "data": "import, clean, validate, split, merge or count data",
    "ensemble": "weigh teachers against each other",
    "softlabels": "write down what an ensemble says of every training face",
    "evaluate": "measure checkpoints and bundles on manifests",
    "compare": "runs side by side, with paired tests",
    "inspect": "where a checkpoint, a run or a bundle comes from",
}
"""Sub-commands, each `main(arguments)` of `trainer/commands/<name>.py`, and what they are for."""


def _need_extra() -> None:
    for module in ("torch", "timm", "safetensors"):
        if find_spec(module) is None:
            raise UserError(
                f"'{module}' is not installed; install it with: pip install 'fer-edge[trainer]'"
            )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-trainer",
        description="Train a teacher or a student by phase. The first word may be a command "
        "instead, with a --help of its own:\n"
        + "\n".join(f"  {name:<11} {what}" for name, what in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    parser.add_argument("--image-size", type=int, help="side of the network's input in pixels")
    parser.add_argument("--softlabels", type=Path, help="folder made by fer-trainer softlabels")
    parser.add_argument("--start-from", type=Path, help="a run folder or weights to start from")
    parser.add_argument("--amp", choices=("auto", "off", "bf16", "fp16"), help="mixed precision")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="override any key of the phase, such as optim.lr=1e-3",
    )  # fmt: skip
    return parser


def _overrides(given: argparse.Namespace) -> list[str]:
    flags = {
        "manifest": given.manifest, "out": given.out, "seed": given.seed,
        "optim.epochs": given.epochs, "optim.batch_size": given.batch_size,
        "optim.accum_steps": given.accum_steps, "optim.amp": given.amp,
        "input.size": given.image_size, "distill.softlabels": given.softlabels,
        "start.checkpoint": given.start_from, "device": given.device,
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
    if arguments and arguments[0] in COMMANDS:
        command = import_module(f"trainer.commands.{arguments[0]}")
        code: int = command.main(arguments[1:])
        return code
    if arguments and not arguments[0].startswith("-"):
        raise UserError(
            f"fer-trainer {arguments[0]}: no such command{nearest(arguments[0], COMMANDS)} "
            f"(one of {' '.join(COMMANDS)}, or --phase NAME)"
        )
    given = _parser().parse_args(arguments)
    from trainer.phase_files import load_phase

    config = load_phase(given.phase, _overrides(given))
    from trainer.run import train_phase  # after the config, so that its mistakes show at once

    if given.phase == "finetune" and config.start.checkpoint is None:
        raise UserError(
            "phase finetune needs weights to start from: --start-from RUN_OR_CHECKPOINT"
        )
    train_phase(config, given.name, export_best=given.export_best)
    return 0


def run() -> int:
    """Entry point of `fer-trainer`."""
    return run_command("fer-trainer", main)


if __name__ == "__main__":
    sys.exit(run())
