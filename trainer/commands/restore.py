"""`fer-trainer restore`: a run to go on from, out of a bundle."""

import argparse
from pathlib import Path

import torch

from contract.bundle import open_bundle
from contract.command import Parser
from contract.manifest import read_manifest
from trainer.data.cache import packed_faces
from trainer.restore import restore

MOST_FACES = 1024
"""As many training faces as the statistics of batch norm are taken from."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-trainer restore",
        description="Turn a bundle, such as the built-in one, back into weights that training can "
        "go on from. Rows of split train show the network what faces it will see; no label is "
        "read.",
        epilog="fer-trainer restore edge/default_bundle --manifest data/mine/manifest.csv "
        "--out runs/builtin; fer-trainer --phase finetune --start-from runs/builtin "
        "--manifest data/mine/manifest.csv",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle")
    add("--manifest", type=Path, required=True, help="rows of split train, as training will see")
    add("--out", type=Path, required=True, help="run folder to make")
    return parser


def main(arguments: list[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    bundle = open_bundle(given.bundle)
    manifest = read_manifest(given.manifest)
    rows = [index for index, row in enumerate(manifest.rows) if row.split == "train"]
    # Evenly out of all of them: a manifest may be sorted by class or source.
    some = rows[:: max(1, len(rows) // MOST_FACES)][:MOST_FACES]
    faces = torch.from_numpy(packed_faces(manifest, bundle.info.input)[some])
    restored = restore(bundle, faces, given.out)
    print(f"{bundle.info.name}: weights at {restored.file}; go on with --start-from {given.out}")
    return 0
