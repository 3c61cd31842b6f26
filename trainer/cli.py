"""`fer-trainer`: phases, and the commands around them."""

import argparse
import json
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.command import Parser, run_command
from contract.errors import UserError, nearest

if TYPE_CHECKING:
    from trainer.config import TrainConfig

COMMANDS = {
    "data": "import, clean, validate, split, merge or count data",
    "ensemble": "weigh teachers against each other",
    "soup": "average the weights of related checkpoints into one network",
    "restore": "weights to go on from, out of a bundle",
    "softlabels": "write down what an ensemble says of every training face",
    "evaluate": "measure checkpoints and bundles on manifests",
    "compare": "runs side by side, with paired tests",
    "inspect": "where a checkpoint, a run or a bundle comes from",
    "gates": "verdicts on finished runs by the criteria their phases declare",
    "matrix": "run phases × seeds, only what is left of them",
    "report": "write the study's report from run folders",
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
    parser.add_argument(
        "--amp", nargs="?", const="auto", choices=("auto", "off", "bf16", "fp16"),
        help="mixed precision (alone: where it pays)",
    )  # fmt: skip
    parser.add_argument("--negl-ratio", type=float, help="share with complementary labels")
    parser.add_argument("--negl-method", choices=("uniform", "targeted"), help="which labels")
    parser.add_argument(
        "--negl-gate-threshold", type=float, help="entropy above which they apply, in nats"
    )
    parser.add_argument("--memory-hidden-dim", type=int, help="width of nested learning's gate")
    parser.add_argument("--memory-layers", type=int, help="hidden layers of that gate")
    parser.add_argument("--meta-interval", type=int, help="steps between updates of that gate")
    parser.add_argument(
        "--with-prerequisites", action="store_true",
        help="first make what the phase needs: teachers, softlabels, the runs it starts from",
    )  # fmt: skip
    parser.add_argument(
        "--smoke", action="store_true", help="three epochs of it, in a folder smoke/ of its own"
    )
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="override any key of the phase, such as optim.lr=1e-3",
    )  # fmt: skip
    return parser


# Flags that hold for a phase and for all that it needs.
_COMMON = {
    "--manifest": "manifest", "--out": "out", "--seed": "seed", "--image-size": "input.size",
    "--softlabels": "distill.softlabels", "--amp": "optim.amp", "--device": "device",
}  # fmt: skip
_OWN = {
    "--epochs": "optim.epochs", "--batch-size": "optim.batch_size",
    "--accum-steps": "optim.accum_steps", "--start-from": "start.checkpoint",
    "--negl-ratio": "negative.ratio", "--negl-method": "negative.method",
    "--negl-gate-threshold": "negative.entropy_threshold",
    "--memory-hidden-dim": "nested.hidden_dim", "--memory-layers": "nested.layers",
    "--meta-interval": "nested.meta_interval",
}  # fmt: skip


def _value(given: argparse.Namespace, flag: str) -> Any:
    return getattr(given, flag.removeprefix("--").replace("-", "_"))


def _overrides(given: argparse.Namespace) -> list[str]:
    found = list(given.set)
    for flag, key in {**_COMMON, **_OWN}.items():
        value = _value(given, flag)
        if value is not None:
            text = value if isinstance(value, int | float) else json.dumps(str(value))
            found.append(f"{key}={text}")
    return found


def _common(given: argparse.Namespace) -> list[str]:
    pairs = [(flag, _value(given, flag)) for flag in _COMMON]
    words = [word for flag, value in pairs if value is not None for word in (flag, str(value))]
    return [*words, "--smoke"] if given.smoke else words


def _prepare(config: "TrainConfig", given: argparse.Namespace) -> None:
    """Make what the phase needs, or say what is missing."""
    from trainer.distributed import launched
    from trainer.prerequisites import as_shell, missing_commands

    missing = missing_commands(config, _common(given))
    if not missing:
        return
    if launched() or not given.with_prerequisites:
        print("\n".join(as_shell(command) for command in missing), flush=True)
        raise UserError(
            f"phase {config.phase} needs what is not there yet; run the {len(missing)} command(s) "
            "above first, or add --with-prerequisites"
        )
    for command in missing:
        print(f"— {as_shell(command)}", flush=True)
        dispatch(command)


def _print_verdict(config: "TrainConfig", run: Path) -> None:
    """What the phase's own criteria say of the finished run."""
    from trainer.commands import gates
    from trainer.distributed import is_main

    if config.study.criteria and is_main():
        gates.main([str(run)])


def _run_phase(arguments: list[str]) -> int:
    given = _parser().parse_args(arguments)
    from trainer.phase_files import load_phase
    from trainer.smoke import smoke_overrides

    overrides = _overrides(given)
    if given.smoke:
        overrides += smoke_overrides(load_phase(given.phase, overrides))
    config = load_phase(given.phase, overrides)
    if config.phase == "finetune" and config.start.checkpoint is None:
        raise UserError(
            "phase finetune needs weights to start from: --start-from RUN_OR_CHECKPOINT"
        )
    if not given.export_best:
        _prepare(config, given)
    from trainer.run import train_phase  # after the config, so that its mistakes show at once

    asked = [assignment.partition("=")[0].strip() for assignment in _overrides(given)]
    bundle = train_phase(config, given.name, asked=asked, export_best=given.export_best)
    if not given.export_best:
        _print_verdict(config, bundle.parent)
    return 0


def dispatch(arguments: list[str]) -> int:
    """Run a command or a phase. Returns the exit code; raises `UserError`."""
    if arguments and arguments[0] in COMMANDS:
        command = import_module(f"trainer.commands.{arguments[0]}")
        code: int = command.main(arguments[1:])
        return code
    if arguments and not arguments[0].startswith("-"):
        raise UserError(
            f"fer-trainer {arguments[0]}: no such command{nearest(arguments[0], COMMANDS)} "
            f"(one of {' '.join(COMMANDS)}, or --phase NAME)"
        )
    return _run_phase(arguments)


def main() -> int:
    """The command. Returns the exit code; raises `UserError`."""
    _need_extra()
    return dispatch(sys.argv[1:])


def run() -> int:
    """Entry point of `fer-trainer`."""
    return run_command("fer-trainer", main)


if __name__ == "__main__":
    sys.exit(run())
