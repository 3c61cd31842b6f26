"""The figures of a set of rows, in all and by source, and how sure they are.

`contract/intervals.py` says what intervals cover.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from contract import metrics
from contract.expressions import EXPRESSIONS, INDEX
from contract.intervals import RESAMPLES, Interval, bootstrap, within
from contract.metrics import Floats, Ints
from trainer.predictions import Predictions

MINORITY = ("angry", "disgust", "fear")
BIASED = ("ece_raw", "ece_scaled")


@dataclass(frozen=True)
class Answers:
    """Labels `N` and probabilities `N×7` of the same rows, before and after the correction."""

    labels: Ints
    raw: Floats
    scaled: Floats

    def __getitem__(self, rows: Ints) -> "Answers":
        return Answers(self.labels[rows], self.raw[rows], self.scaled[rows])


def figures(answers: Answers) -> dict[str, float]:
    """Accuracy, macro-F1, F1 of the minority classes and of each class, ECE raw and scaled, NLL and
    Brier, by name. All but `ece_raw` are after the correction. `minority_f1` is the mean F1 of
    angry, disgust and fear."""
    p = answers.scaled
    guess = p.argmax(axis=1)
    f1 = metrics.per_class(answers.labels, guess, len(EXPRESSIONS)).f1
    return {
        "accuracy": metrics.accuracy(answers.labels, guess),
        "macro_f1": float(f1.mean()),
        "minority_f1": float(f1[[INDEX[name] for name in MINORITY]].mean()),
        "ece_raw": metrics.ece(answers.labels, answers.raw),
        "ece_scaled": metrics.ece(answers.labels, p),
        "brier": metrics.brier(answers.labels, p),
        "nll": metrics.nll(answers.labels, p),
        **{f"f1_{name}": float(value) for name, value in zip(EXPRESSIONS, f1, strict=True)},
    }


def intervals(answers: Answers, seed: int) -> dict[str, Interval]:
    """95 % bootstrap intervals of all `figures`."""
    found = bootstrap(
        lambda rows: figures(answers[rows]), len(answers.labels), seed, RESAMPLES, BIASED
    )
    return {name: within(interval) for name, interval in found.items()}


def _measured(labels: Ints, p: Floats) -> dict[str, Any]:
    return metrics.compute(labels, p, p.argmax(axis=1)).to_json()


def by_source(p: Predictions, scaled: Floats, seed: int | None = None) -> dict[str, Any]:
    """All metrics of the rows, and under `by_source` those of each source, as JSON values.

    `raw` are of the plain softmax and `scaled` of the probabilities given (`N×7`); both have the
    fields of `contract.metrics.Metrics`. With a seed, `intervals` has those of all `figures`.
    """
    whole = Answers(p.labels, metrics.softmax(p.logits), scaled)

    def block(answers: Answers) -> dict[str, Any]:
        made = {
            "n": len(answers.labels),
            "protocol": p.protocol,
            "raw": _measured(answers.labels, answers.raw),
            "scaled": _measured(answers.labels, answers.scaled),
        }
        return made if seed is None else {**made, "intervals": intervals(answers, seed)}

    sources = np.array(p.sources)
    parts = {name: block(whole[np.flatnonzero(sources == name)]) for name in sorted(set(p.sources))}
    # With one source the total is that source: the bootstrap would only take its time again.
    total = next(iter(parts.values())) if len(parts) == 1 else block(whole)
    return {**total, "by_source": parts}


def run_metrics(predictions: Predictions) -> dict[str, Any]:
    """What a run's metrics.json holds: the figures of each split, in all and by source.

    `scaled` are at the predictions' temperature.
    """
    found = {}
    for split in dict.fromkeys(predictions.splits):
        rows = predictions.select(split)
        found[split] = {
            "manifest_sha256": rows.manifest_sha256,
            "temperature": rows.temperature,
            **by_source(rows, rows.probabilities()),
        }
    return found
