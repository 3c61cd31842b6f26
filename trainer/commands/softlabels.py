"""`fer-trainer softlabels`: what an ensemble says about the training rows, for students."""

import argparse
from pathlib import Path

from contract.command import Parser
from contract.errors import UserError
from contract.manifest import read_manifest
from trainer.device import device_to_ask_on
from trainer.distributed import is_main, process_group
from trainer.ensemble import open_ensemble
from trainer.phase_files import load_phase
from trainer.softlabels import Views, export_softlabels


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-trainer softlabels",
        description="Write what an ensemble says about every training row, and about augmented "
        "views of it that the student will see as well.",
        epilog="fer-trainer softlabels --ensemble ensembles/two "
        "--manifest data/ferplus/argmax/manifest.csv --out softlabels/two",
    )
    add = parser.add_argument
    add("--ensemble", type=Path, required=True, help="an ensemble's folder or its ensemble.json")
    add("--manifest", type=Path, required=True, help="rows with split train")
    add("--out", type=Path, required=True, help="folder to write the softlabels to")
    add("--views", type=int, default=4, metavar="K", help="augmented views a row (default: 4)")
    add("--seed", type=int, default=1337, help="seed of the views (default: 1337)")
    add(
        "--student", default="student_kd", metavar="PHASE",
        help="the phase, by name or TOML file, whose [augment] makes the views "
        "(default: student_kd)",
    )  # fmt: skip
    add(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="override a key of that phase, such as augment.flip=0",
    )  # fmt: skip
    add(
        "--features", action="store_true",
        help="also the teachers' attention maps and embeddings of each view; they take far more "
        "room than the logits",
    )  # fmt: skip
    add(
        "--attention-grid", type=int, default=4, metavar="G",
        help="pool attention maps to G×G (default: 4)",
    )  # fmt: skip
    add(
        "--amp", action="store_true",
        help="each teacher answers in the precision it was trained in (bf16, fp16), which is "
        "faster where the device has units for it (default: float32)",
    )  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return parser


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise UserError(f"--{name} {value}: use {least} or more")
    return value


def main(arguments: list[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    views = Views(
        count=_at_least("views", given.views, 0),
        seed=_at_least("seed", given.seed, 0),
        augment=load_phase(given.student, given.set).augment,
        features=given.features,
        attention_grid=_at_least("attention-grid", given.attention_grid, 1),
        amp=given.amp,
    )
    manifest = read_manifest(given.manifest)
    ensemble = open_ensemble(given.ensemble)
    device = device_to_ask_on(ensemble.teachers[0].config, given.device)
    with process_group(device.kind):
        report = export_softlabels(ensemble, manifest, given.out, views, device.name)
        if is_main():
            whole = report["all"]
            print(
                f"{whole['n']} training rows, {views.count} views each: the ensemble agrees with "
                f"{whole['agreement']:.1%} of the labels and gives them "
                f"{whole['mean_p_of_label']:.3f} on average"
            )
            if ensemble.info.manifest_sha256 != manifest.sha256:
                print(
                    "note: the ensemble was weighed on another manifest; if its calib or val rows "
                    "are training rows here, the student learns what the weights were fitted on"
                )
            print(f"softlabels: {given.out}")
    return 0
