"""What logit adjustment and the thresholds per class do for the expressions with few images.

    PYTHONPATH=. python benchmarks/rare_classes.py --manifest data/ferplus/argmax/manifest.csv \
        --json FILE

The bundle's answers to the `val` rows of `--manifest`, decided in three ways: the likeliest
expression; the likeliest after logit adjustment (Menon et al., ICLR 2021), with class shares of the
`train` rows and τ of the best macro-F1 on `calib`; and as the box shows them, uncertain under the
abstention threshold or the class's own (the bundle's, fitted on part of `calib`), where a row not
shown counts as missed. Differences from the first are paired, with 95 % intervals of the bootstrap
over rows.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.asked import about, parser, serving
from contract import metrics
from contract.bundle import Bundle
from contract.command import run_command
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.files import write_json_atomic
from contract.intervals import RESAMPLES, bootstrap
from contract.manifest import Manifest, read_manifest
from edge.offline.evaluate import Predictions, predict
from edge.offline.record import run_record
from runtime.session import Session
from trainer.reliability import Correction, fit

COMMAND = "benchmarks/rare_classes.py"
RARE = ("angry", "disgust", "fear")
Rows = NDArray[np.int64]


def _figures(labels: Rows, predicted: Rows) -> dict[str, float]:
    """Accuracy, macro-F1 and, of each rare class, precision, recall and F1; −1 is not shown."""
    by_class = metrics.per_class(labels, predicted, len(EXPRESSIONS))
    found = {
        "accuracy": metrics.accuracy(labels, predicted),
        "macro_f1": float(by_class.f1.mean()),
    }
    for name in RARE:
        c = EXPRESSIONS.index(name)
        found[f"f1_{name}"] = float(by_class.f1[c])
        found[f"precision_{name}"] = float(by_class.precision[c])
        found[f"recall_{name}"] = float(by_class.recall[c])
    return found


def _change(labels: Rows, after: Rows, before: Rows) -> Callable[[Rows], dict[str, float]]:
    def difference(rows: Rows) -> dict[str, float]:
        new, old = (_figures(labels[rows], each[rows]) for each in (after, before))
        return {name: new[name] - old[name] for name in new}

    return difference


def _split(manifest: Manifest, name: str) -> Manifest:
    part = manifest.select(name)
    if not part.rows:
        raise UserError(f"{manifest.file}: no rows of split '{name}'")
    return part


def _adjustment(calib: Predictions, train_labels: Rows) -> Correction:
    try:
        return fit(np.log(calib.probabilities), calib.labels, "none", train_labels)
    except ValueError as error:
        raise UserError(f"logit adjustment cannot be fitted: {error}") from None


def measure(manifest: Manifest, bundle: Bundle, session: Session, seed: int) -> dict[str, Any]:
    """The figures of each way to decide, and what it changes."""
    train, calib, val = (_split(manifest, name) for name in ("train", "calib", "val"))
    fitted, found = (predict(part, bundle, session, None) for part in (calib, val))
    correction = _adjustment(fitted, train.labels())
    adjusted = correction.probabilities(np.log(found.probabilities))
    thresholds = np.array(
        [
            max(bundle.info.abstain_threshold, bundle.info.class_thresholds.get(name, 0.0))
            for name in EXPRESSIONS
        ]
    )
    shown = found.probabilities.max(axis=1) >= thresholds[found.predicted]
    ways: dict[str, tuple[Rows, NDArray[np.float64]]] = {
        "as it answers": (found.predicted, found.probabilities),
        "logit adjustment": (adjusted.argmax(axis=1), adjusted),
        "thresholds": (np.where(shown, found.predicted, -1), found.probabilities),
    }
    plain = found.predicted
    return {
        "n": len(val.rows),
        "rows_of": {name: int((found.labels == EXPRESSIONS.index(name)).sum()) for name in RARE},
        "tau": correction.tau,
        "thresholds": dict(zip(EXPRESSIONS, thresholds.tolist(), strict=True)),
        "ways": {
            name: {
                **_figures(found.labels, predicted),
                "ece": metrics.ece(found.labels, p),
                "nll": metrics.nll(found.labels, p),
                "coverage": float((predicted >= 0).mean()),
                "change_intervals": bootstrap(
                    _change(found.labels, predicted, plain), len(plain), seed, RESAMPLES
                ),
            }
            for name, (predicted, p) in ways.items()
        },
        "seed": seed,
        **about(bundle, session),
        "manifest_sha256": manifest.sha256,
    }


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    given = parser(COMMAND, __doc__).parse_args(arguments)
    manifest = read_manifest(given.manifest)
    with serving(given) as (bundle, session):
        result = measure(manifest, bundle, session, given.seed)
    result["run"] = run_record(f"python {COMMAND}", arguments, 1)
    write_json_atomic(given.json, result)
    for name, way in result["ways"].items():
        rare = "  ".join(f"{each} F1 {way[f'f1_{each}']:.3f}" for each in RARE)
        print(
            f"{name:16}  accuracy {way['accuracy']:.4f}  macro-F1 {way['macro_f1']:.4f}  {rare}  "
            f"ECE {way['ece']:.4f}  shown {way['coverage']:.1%}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(COMMAND, lambda: main(sys.argv[1:])))
