"""`fer-trainer soup`: the mean of several checkpoints' weights as a run of its own."""

import argparse
from pathlib import Path

import torch

from contract.command import Parser
from contract.errors import UserError
from contract.manifest import read_manifest
from trainer.checkpoint import open_trained
from trainer.data.cache import packed_faces
from trainer.soup import make_soup


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-trainer soup",
        description="Average the weights of checkpoints that share a stretch of training (one "
        "started from the other, or both from a third) into one network. Shares are chosen on the "
        "manifest's calib rows; val rows only report.",
        epilog="fer-trainer soup runs/student_ce-seed1337 runs/student_kd-seed1337 "
        "--manifest data/ferplus/argmax/manifest.csv --out runs/student_soup",
    )
    add = parser.add_argument
    add(
        "checkpoints", nargs="+", type=Path, metavar="CHECKPOINT",
        help="a run folder (its best checkpoint) or a checkpoint file",
    )  # fmt: skip
    add("--manifest", type=Path, required=True, help="rows with split calib, and val to report on")
    add("--out", type=Path, required=True, help="run folder to make")
    add(
        "--weights", default="searched", metavar="searched|equal|W1,W2,…",
        help="shares with the least NLL on calib (default), all the same, or one number for each",
    )  # fmt: skip
    add(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="prepare faces otherwise than in training, such as input.brighten_to=90",
    )  # fmt: skip
    return parser


def _weights(asked: str, count: int) -> list[float] | None:
    if asked == "searched":
        return None
    if asked == "equal":
        return [1.0] * count
    wrong = UserError(
        f"--weights {asked}: use searched, equal, or {count} numbers of 0 or more, not all 0"
    )
    try:
        weights = [float(part) for part in asked.split(",")]
    except ValueError:
        raise wrong from None
    if len(weights) != count or not all(0 <= each < float("inf") for each in weights):
        raise wrong
    if not sum(weights):
        raise wrong
    return weights


def main(arguments: list[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    weights = _weights(given.weights, len(given.checkpoints))
    manifest = read_manifest(given.manifest)
    ingredients = [open_trained(path) for path in given.checkpoints]
    names = [path.resolve().name if path.is_dir() else path.stem for path in given.checkpoints]
    soup, steps = make_soup(ingredients, names, manifest, given.out, weights, given.set)
    for step in steps:
        served = " + ".join(
            f"{count} × {name}" for name, count in zip(names, step.counts, strict=True) if count
        )
        print(f"calib nll {step.nll:.4f}  {served}")
    from trainer.results import write_results  # plots and ONNX: slow, and needed only now

    faces = torch.from_numpy(packed_faces(manifest, soup.config.input))
    write_results(soup, manifest, faces, "cpu", [], given.out)
    print(f"float bundle: {given.out / 'bundle'}")
    return 0
