"""Finished runs as the study reads them: what was declared, what was answered, how it went.

A folder needs config.json, history.jsonl and predictions.npz; weights and bundle are not read, so
the small files of a run can be kept, and judged again, without them.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contract import metrics
from contract.errors import UserError
from contract.expressions import EXPRESSIONS, INDEX
from contract.metrics import PerClass, softmax
from contract.validation import explain
from trainer.config_criteria import StudyConfig
from trainer.figures import MINORITY, Answers
from trainer.predictions import Predictions, check_same_rows, load_predictions

PAIRS = (("fear", "surprise"), ("neutral", "sad"))
PREDICTIONS = "predictions.npz"

# What the study compares, and what does not change a result: everything else should be alike.
_MAY_DIFFER = {
    "phase", "description", "study", "distill", "negative", "nested", "seed", "out", "device",
    "threads", "compile", "checkpoint_every_s", "deterministic", "inputs",
}  # fmt: skip


@dataclass(frozen=True)
class StudyRun:
    """One finished run: its resolved config, the rows of one split, its history."""

    folder: Path
    phase: str
    seed: int
    config: dict[str, Any]
    study: StudyConfig
    commit: str
    predictions: Predictions
    history: list[dict[str, float]]

    @cached_property
    def answers(self) -> Answers:
        """Probabilities of the rows before and after the temperature."""
        p = self.predictions
        return Answers(p.labels, softmax(p.logits), p.probabilities())


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no {file.name} in {file.parent}; name a run folder") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not readable as JSON ({error})") from None


def _history(file: Path) -> list[dict[str, float]]:
    if not file.is_file():
        return []
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise UserError(f"{file}: not readable as lines of JSON ({error})") from None


def is_finished(folder: Path) -> bool:
    """Whether a run folder holds results."""
    return (folder / "config.json").is_file() and (folder / PREDICTIONS).is_file()


def open_study_run(folder: Path, split: str) -> StudyRun:
    """The run in a folder, with its rows of `split`.

    Raises `UserError` where there is none, it is not finished, or it has no such rows.
    """
    file = folder / "config.json"
    config = _read_json(file)
    if not isinstance(config, dict) or not {"phase", "seed"} <= config.keys():
        raise UserError(f"{file}: not the config of a run")
    try:
        study = StudyConfig.model_validate(config.get("study", {}))
    except ValidationError as error:
        raise explain(error, StudyConfig, f"{file}: study") from None
    predictions = load_predictions(folder / PREDICTIONS).select(split)
    if not len(predictions):
        raise UserError(f"{folder}: no rows of split '{split}'; name another with --split")
    environment = folder / "environment.json"
    commit = _read_json(environment).get("commit", "") if environment.is_file() else ""
    return StudyRun(
        folder=folder, phase=str(config["phase"]), seed=int(config["seed"]), config=config,
        study=study, commit=commit or "unknown", predictions=predictions,
        history=_history(folder / "history.jsonl"),
    )  # fmt: skip


def same_rows(runs: Iterable[StudyRun]) -> None:
    """Raises `UserError` unless all runs answered the same rows with the same labels."""
    first: StudyRun | None = None
    for run in runs:
        first = first or run
        check_same_rows(
            first.predictions, run.predictions, name=str(first.folder),
            other_name=str(run.folder), mend="train both on one manifest",
        )  # fmt: skip


def by_phase(runs: Iterable[StudyRun]) -> dict[str, dict[int, StudyRun]]:
    """Runs by phase and seed, in the order given; the same run twice counts once.

    Raises `UserError` for two runs of one phase with one seed.
    """
    found: dict[str, dict[int, StudyRun]] = {}
    for run in runs:
        other = found.setdefault(run.phase, {}).setdefault(run.seed, run)
        if other.folder.resolve() != run.folder.resolve():
            raise UserError(
                f"{other.folder} and {run.folder} are both of phase {run.phase} with seed "
                f"{run.seed}; give one of them"
            )
    return found


def with_compared(runs: Sequence[StudyRun], split: str) -> dict[str, dict[int, StudyRun]]:
    """Runs by phase and seed, and those beside their folders that their criteria compare with."""
    pool = by_phase(runs)
    for run in runs:
        for phase in run.study.needed():
            beside = run.folder.parent / f"{phase}-seed{run.seed}"
            if run.seed not in pool.get(phase, {}) and is_finished(beside):
                pool.setdefault(phase, {})[run.seed] = open_study_run(beside, split)
    return pool


def differing(one: StudyRun, other: StudyRun) -> list[str]:
    """Dotted keys in which two runs differ beyond what the study compares: settings, the rows and
    softlabels they had, and for two runs of one seed the weights they started from."""

    def flat(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {path: value}
        parts = [flat(each, f"{path}.{key}" if path else key) for key, each in value.items()]
        return {key: each for part in parts for key, each in part.items()}

    def compared(run: StudyRun) -> dict[str, Any]:
        had = run.config.get("inputs", {})
        inputs = {key: had.get(key) for key in ("manifest_sha256", "softlabels_sha256")}
        if one.seed == other.seed:
            inputs["start_sha256"] = had.get("start_sha256")
        settings = {key: each for key, each in run.config.items() if key not in _MAY_DIFFER}
        return flat({**settings, "inputs": inputs}, "")

    first, second = compared(one), compared(other)
    return sorted(key for key in first | second if first.get(key) != second.get(key))


def _by_class(answers: Answers) -> PerClass:
    guess = answers.scaled.argmax(axis=1)
    return metrics.per_class(answers.labels, guess, len(EXPRESSIONS))


def _pair_confusion(answers: Answers) -> float:
    guess = answers.scaled.argmax(axis=1)
    matrix = metrics.confusion_matrix(answers.labels, guess, len(EXPRESSIONS))
    pairs = [(INDEX[one], INDEX[two]) for one, two in PAIRS]
    taken = sum(int(matrix[a, b] + matrix[b, a]) for a, b in pairs)
    rows = sum(int(matrix[a].sum() + matrix[b].sum()) for a, b in pairs)
    return taken / rows if rows else 0.0


_MINORITY = [INDEX[name] for name in MINORITY]
_MEASURES: dict[str, Callable[[Answers], float]] = {
    "accuracy": lambda a: metrics.accuracy(a.labels, a.scaled.argmax(axis=1)),
    "macro_f1": lambda a: float(_by_class(a).f1.mean()),
    "minority_f1": lambda a: float(_by_class(a).f1[_MINORITY].mean()),
    "ece_scaled": lambda a: metrics.ece(a.labels, a.scaled),
    "ece_raw": lambda a: metrics.ece(a.labels, a.raw),
    "brier": lambda a: metrics.brier(a.labels, a.scaled),
    "nll": lambda a: metrics.nll(a.labels, a.scaled),
    "share_over_095": lambda a: float((a.scaled.max(axis=1) > 0.95).mean()),
    "pair_confusion": _pair_confusion,
}


def of_rows(measure: str, answers: Answers) -> float:
    """One of `ROW_MEASURES` of some rows; as in `figures`, one at a time, for resamples."""
    if measure in _MEASURES:
        return _MEASURES[measure](answers)
    kind, name = measure.split("_")
    by_class = _by_class(answers)
    return float((by_class.f1 if kind == "f1" else by_class.precision)[INDEX[name]])


def of_history(measure: str, history: list[dict[str, float]]) -> float | None:
    """One of `RUN_MEASURES` of a run's epochs, NaN where an epoch has one, or None where the
    history does not say."""
    if not history:
        return None
    if measure == "nonfinite_epochs":
        watched = ("loss", "calib_nll")
        return float(sum(any(not math.isfinite(e[k]) for k in watched if k in e) for e in history))
    key = "calib_minority_f1" if measure == "minority_f1_change" else measure
    values = [line[key] for line in history if key in line]
    if not values:
        return None
    if any(math.isnan(value) for value in values):
        return math.nan
    return values[-1] - values[0] if measure == "minority_f1_change" else max(values)
