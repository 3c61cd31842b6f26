"""`fer-trainer ensemble`: teachers weighed against each other on calib, measured on val."""

import argparse
from pathlib import Path

from contract.command import Parser
from contract.errors import UserError
from contract.manifest import read_manifest
from trainer.checkpoint import open_trained
from trainer.device import device_to_ask_on
from trainer.distributed import is_main, process_group
from trainer.ensemble import Choices, make_ensemble, summary


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-trainer ensemble",
        description="Fuse trained networks into one. Temperatures and weights are fitted on the "
        "manifest's calib rows; val rows only report.",
        epilog="fer-trainer ensemble runs/teacher_rn18-seed1337 runs/teacher_b3-seed1337 "
        "--manifest data/ferplus/argmax/manifest.csv --out ensembles/two",
    )
    add = parser.add_argument
    add(
        "teachers", nargs="+", type=Path, metavar="TEACHER",
        help="a run folder (its best checkpoint) or a checkpoint file",
    )  # fmt: skip
    add("--manifest", type=Path, required=True, help="rows with split calib, and val to report on")
    add("--out", type=Path, required=True, help="folder to write the ensemble to")
    add(
        "--fusion", choices=("logit", "probability"), default="logit",
        help="average logits (default) or probabilities",
    )  # fmt: skip
    add(
        "--temperatures", choices=("fitted", "none"), default="fitted",
        help="divide each teacher's logits by its own temperature, fitted on calib, first "
        "(default), or not",
    )  # fmt: skip
    add(
        "--weights", default="searched", metavar="searched|equal|W1,W2,…",
        help="least NLL on calib (default), all the same, or one number for each teacher",
    )  # fmt: skip
    add("--protocol", default="", help="how the labels were made (default: as the teachers say)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return parser


def _choices(given: argparse.Namespace) -> Choices:
    weights = given.weights
    if weights not in ("searched", "equal"):
        try:
            weights = tuple(float(part) for part in weights.split(","))
        except ValueError:
            raise UserError(
                f"--weights {given.weights}: use searched, equal, or numbers such as 0.5,0.3,0.2"
            ) from None
    return Choices(given.fusion, given.temperatures, weights, given.protocol)


def main(arguments: list[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    choices = _choices(given)
    manifest = read_manifest(given.manifest)
    teachers = [open_trained(path) for path in given.teachers]
    device = device_to_ask_on(teachers[0].config, given.device)
    with process_group(device.kind):
        info, figures = make_ensemble(teachers, manifest, given.out, choices, device.name)
        if is_main():
            print(summary(info, figures))
            for teacher in info.teachers:
                if teacher.manifest_sha256 != manifest.sha256:
                    print(
                        f"note: {teacher.name} was trained on another manifest; if rows of this "
                        "one's calib or val were among its training rows, these figures flatter it"
                    )
            print(f"ensemble: {given.out}")
    return 0
