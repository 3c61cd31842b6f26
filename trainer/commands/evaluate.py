"""`fer-trainer evaluate`: checkpoints and bundles on labelled images, source by source."""

import argparse
import re
from pathlib import Path

from contract.command import Parser
from contract.files import write_json_atomic
from contract.manifest import SPLITS, read_manifest
from trainer.evaluate import (
    Evaluation,
    Settings,
    corrected_predictions,
    evaluate,
    result,
    table,
)
from trainer.predictions import save_predictions
from trainer.record import run_record
from trainer.targets import kind_of, open_target


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-trainer evaluate",
        description="Measure trained models on labelled face images, source by source, with 95 %% "
        "bootstrap intervals. What is fitted, is fitted on one split and measured on another.",
        epilog="fer-trainer evaluate runs/student_kd-seed1337 --manifest "
        "data/ferplus/argmax/manifest.csv",
    )
    add = parser.add_argument
    add(
        "targets", nargs="+", type=Path, metavar="TARGET",
        help="a run folder (its best checkpoint), a checkpoint file, or a bundle folder",
    )  # fmt: skip
    add(
        "--manifest", type=Path, action="append", required=True, metavar="CSV",
        help="labelled images; may be given several times",
    )  # fmt: skip
    add("--split", choices=SPLITS, default="val", help="rows to measure on (default: val)")
    add("--fit-on", choices=SPLITS, default="calib", help="rows to fit on (default: calib)")
    add(
        "--temperature", choices=("single", "per_class", "stored", "none"), default="single",
        help="fit one temperature (default) or one per class, use the one stored with the model, "
        "or none",
    )  # fmt: skip
    add(
        "--logit-adjustment", action="store_true",
        help="subtract tau times the log of each class's share of the training rows; tau has the "
        "best macro-F1 on --fit-on. Helps rare classes, worsens calibration",
    )  # fmt: skip
    add(
        "--protocol",
        default="",
        help="how the labels were made; recorded only (default: the model's, on its own manifest)",
    )
    add("--device", default="auto", help="where checkpoints run: auto, cpu, cuda or cuda:N")
    add("--seed", type=int, default=1337, help="seed of the bootstrap (default: 1337)")
    add("--json", type=Path, metavar="FILE", help="write every figure there")
    add(
        "--save-predictions", type=Path, metavar="DIR",
        help="write predictions there, for fer-trainer compare; after --temperature per_class or "
        "--logit-adjustment their logits are the corrected ones",
    )  # fmt: skip
    return parser


def _predictions_file(folder: Path, done: Evaluation) -> Path:
    name = re.sub(r"[^\w.-]+", "_", done.target.name).strip("_.")
    return folder / f"{name}-{done.manifest.sha256[:8]}.npz"


def main(arguments: list[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    settings = Settings(
        given.split, given.fit_on, given.temperature, given.logit_adjustment, given.protocol,
        given.seed,
    )  # fmt: skip
    for path in given.targets:
        kind_of(path)  # a wrong path shows before the first model has run
    manifests = [read_manifest(file) for file in given.manifest]
    results = []
    for path in given.targets:
        with open_target(path, given.device) as target:
            for manifest in manifests:
                done = evaluate(target, manifest, settings)
                made = result(done)
                results.append(made)
                print(table(made), end="\n\n")
                if given.save_predictions:
                    file = _predictions_file(given.save_predictions, done)
                    save_predictions(file, corrected_predictions(done))
                    print(f"  predictions: {file}\n")
    if given.json:
        record = run_record("fer-trainer evaluate", arguments)
        write_json_atomic(given.json, {"results": results, "run": record})
    return 0
