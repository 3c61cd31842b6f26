"""Finished runs of a study, made up so that their figures can be worked out by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contract.expressions import EXPRESSIONS
from contract.files import write_json_atomic, write_text_atomic
from trainer.predictions import Predictions, save_predictions

CLASSES = len(EXPRESSIONS)
PER_CLASS = 200
BASE: Mapping[str, Any] = {"baseline": "study_kd"}


def sure(
    confidence: float, wrong: int = 40, per_class: int = PER_CLASS, temperature: float = 1.0
) -> Predictions:
    """So many rows of each class, `wrong` of each taken for the next class, all with the same
    confidence at the temperature.

    Accuracy, every F1 and macro-F1 are 1 − wrong / per_class; ECE is the distance of the
    confidence from that.
    """
    labels = np.repeat(np.arange(CLASSES), per_class)
    guess = np.where(np.tile(np.arange(per_class), CLASSES) < wrong, (labels + 1) % CLASSES, labels)
    height = temperature * np.log((CLASSES - 1) * confidence / (1 - confidence))
    count = len(labels)
    return Predictions(
        paths=[f"{number:05d}.png" for number in range(count)],
        sources=["made up"] * count,
        splits=["val"] * count,
        labels=labels.astype(np.int64),
        logits=(height * np.eye(CLASSES)[guess]).astype(np.float32),
        temperature=temperature,
        manifest_sha256="cd" * 32,
        protocol="made up",
        name="made up",
    )


def epochs(**last: float) -> list[dict[str, float]]:
    """A history of three epochs; what is given, in the last."""
    plain = {
        "loss": 1.0, "grad_norm_max": 4.0, "calib_nll": 0.9, "calib_minority_f1": 0.4,
        "calib_macro_f1": 0.6, "calib_accuracy": 0.7, "calib_ece": 0.05, "seconds": 60.0,
    }  # fmt: skip
    lines = [{"epoch": float(number), **plain} for number in range(3)]
    lines[-1] |= last
    return lines


def make_run(
    folder: Path, phase: str, predictions: Predictions, *, seed: int = 1337,
    study: Mapping[str, Any] | None = None, history: Sequence[Mapping[str, float]] | None = None,
    name: str = "", **config: Any,
) -> Path:  # fmt: skip
    """A run folder without weights, as it may be kept for a report."""
    run = folder / (name or f"{phase}-seed{seed}")
    said = {"phase": phase, "seed": seed, "study": dict(study or {}), **config}
    write_json_atomic(run / "config.json", said)
    write_json_atomic(run / "environment.json", {"commit": "0123456789abcdef"})
    lines = epochs() if history is None else history
    write_text_atomic(run / "history.jsonl", "".join(json.dumps(each) + "\n" for each in lines))
    save_predictions(run / "predictions.npz", predictions)
    return run
