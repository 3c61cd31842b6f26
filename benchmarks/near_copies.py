"""How much of the figures on `val` is owed to images that training has seen nearly the same.

    PYTHONPATH=. python benchmarks/near_copies.py --manifest data/ferplus/argmax/manifest.csv \
        --json FILE

FER+ holds near duplicates (a watermark more, another crop) that no comparison of pixels finds. The
bundle's answers to the `val` rows of `--manifest` are measured on all of them, on those that are a
near duplicate of a `train` or `calib` row (`trainer/data/content.py` says how that is told), and on
the rest.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.asked import about, parser, serving
from contract.bundle import Bundle
from contract.command import run_command
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.files import write_json_atomic
from contract.manifest import Manifest, read_manifest
from contract.measured import measured
from edge.offline.evaluate import predict
from edge.offline.record import run_record
from runtime.session import Session
from trainer.data.content import contents, near_pairs

COMMAND = "benchmarks/near_copies.py"
FITTED = ("train", "calib")


def seen_nearly(manifest: Manifest) -> NDArray[np.bool_]:
    """Which of the `val` rows, in their order, are near duplicates of a `train` or `calib` row.

    Raises `UserError` where there are no `val` rows, or an image cannot be decoded.
    """
    rows = [row for row in manifest.rows if row.split in (*FITTED, "val")]
    if not any(row.split == "val" for row in rows):
        raise UserError(f"{manifest.file}: no rows of split 'val'")
    pictures = contents([manifest.path(row) for row in rows], near=True)
    for row, picture in zip(rows, pictures, strict=True):
        if picture.pixels is None:
            raise UserError(f"{manifest.place(row)} cannot be decoded as an image; restore it")
    found = {
        number
        for pair in near_pairs([picture.near for picture in pictures])
        for number, other in (pair, pair[::-1])
        if rows[number].split == "val" and rows[other].split in FITTED
    }
    return np.array([n in found for n, row in enumerate(rows) if row.split == "val"])


def measure(manifest: Manifest, bundle: Bundle, session: Session) -> dict[str, Any]:
    """The figures of all `val` rows, of those seen nearly, and of the rest."""
    near = seen_nearly(manifest)
    found = predict(manifest.select("val"), bundle, session, None)

    def figures(chosen: NDArray[np.bool_]) -> dict[str, Any]:
        sources = [source for source, one in zip(found.sources, chosen, strict=True) if one]
        whole = measured(
            found.labels[chosen], found.probabilities[chosen], found.predicted[chosen], sources
        )
        return {key: whole[key] for key in ("n", "accuracy", "macro_f1", "ece", "brier", "nll",
                                            "intervals")}  # fmt: skip

    labels = [EXPRESSIONS[label] for label in found.labels[near]]
    return {
        "seen_nearly_rows": {name: labels.count(name) for name in EXPRESSIONS},
        "all": figures(np.ones_like(near)),
        "seen_nearly": figures(near),
        "rest": figures(~near),
        **about(bundle, session),
        "manifest_sha256": manifest.sha256,
    }


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    given = parser(COMMAND, __doc__).parse_args(arguments)
    manifest = read_manifest(given.manifest)
    with serving(given) as (bundle, session):
        result = measure(manifest, bundle, session)
    result["run"] = run_record(f"python {COMMAND}", arguments, 1)
    write_json_atomic(given.json, result)
    for name in ("all", "seen_nearly", "rest"):
        one = result[name]
        print(
            f"{name:12}  n {one['n']:5}  accuracy {one['accuracy']:.4f}  "
            f"macro-F1 {one['macro_f1']:.4f}  ECE {one['ece']:.4f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(COMMAND, lambda: main(sys.argv[1:])))
