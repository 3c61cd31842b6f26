"""Runs side by side on the same rows: figures, differences from the first, and what chance can do.

Differences have 95 % intervals from a paired bootstrap over rows; right-or-wrong is also compared
by McNemar's exact test, with Holm's correction for comparing several runs with the first. Both say
what other test images could have given, not what another training seed could have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import UserError
from contract.intervals import RESAMPLES, Interval, bootstrap, within
from contract.metrics import Ints, softmax
from trainer.figures import BIASED, Answers, figures
from trainer.predictions import Predictions, check_same_rows, load_predictions

PREDICTIONS_FILE = "predictions.npz"
SHOWN = ("accuracy", "macro_f1", "minority_f1", "ece_raw", "ece_scaled", "brier", "nll")


@dataclass(frozen=True)
class Run:
    """A run's predictions for the rows compared, under the name it was given by."""

    name: str
    predictions: Predictions

    def answers(self) -> Answers:
        """Probabilities before and after the temperature."""
        p = self.predictions
        return Answers(p.labels, softmax(p.logits), p.probabilities())


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided p of McNemar's test, from the counts of rows only one of two got right.

    Twice the smaller tail of Binomial(n, ½), at most 1 (McNemar 1947; exact form as in Agresti,
    2002, §10.1). In integers, so no count is too large for it.
    """
    n, least = first_only + second_only, min(first_only, second_only)
    ways = tail = 1  # of k heads in n tosses, and of up to k
    for k in range(least):
        ways = ways * (n - k) // (k + 1)
        tail += ways
    outcomes: int = 2**n
    return min(1.0, 2 * tail / outcomes)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=lambda n: p_values[n])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = largest
    return adjusted


def open_run(path: Path, split: str) -> Run:
    """The predictions of a run folder, or of a predictions file, for one split.

    Raises `UserError` where there are none.
    """
    file = path if path.is_file() else path / PREDICTIONS_FILE
    predictions = load_predictions(file).select(split)
    if not len(predictions):
        raise UserError(f"{file}: no rows of split '{split}'; name another with --split")
    return Run(str(path), predictions)


def _same_rows(first: Run, other: Run) -> None:
    check_same_rows(
        first.predictions, other.predictions, name=first.name, other_name=other.name,
        mend="evaluate both on one manifest with fer-trainer evaluate --save-predictions",
    )  # fmt: skip


def _intervals(answers: Sequence[Answers], seed: int) -> list[dict[str, Interval]]:
    """For each run its figures' intervals by name, and by `-name` those of their differences from
    the first run; all from the same resamples."""

    def statistic(rows: Ints) -> dict[str, float]:
        values = [figures(each[rows]) for each in answers]
        return {
            f"{run} {sign}{name}": value - (values[0][name] if sign else 0.0)
            for run, own in enumerate(values)
            for name, value in own.items()
            for sign in ("", "-")
        }

    biased = {
        f"{run} {s}{name}" for run in range(len(answers)) for name in BIASED for s in ("", "-")
    }
    found = bootstrap(statistic, len(answers[0].labels), seed, RESAMPLES, biased)
    by_run: list[dict[str, Interval]] = [{} for _ in answers]
    for key, interval in found.items():
        run, name = key.split(" ")
        by_run[int(run)][name] = interval if name.startswith("-") else within(interval)
    return by_run


def _against(first: Answers, other: Answers) -> dict[str, Any]:
    """Who is right where only one of two runs is, and how likely chance alone is to do that."""
    right, own = (each.scaled.argmax(axis=1) == each.labels for each in (first, other))
    first_only, own_only = int((right & ~own).sum()), int((own & ~right).sum())
    return {
        "only_first_right": first_only,
        "only_this_right": own_only,
        "mcnemar_p": mcnemar(first_only, own_only),
    }


def compare(runs: Sequence[Run], split: str, seed: int) -> dict[str, Any]:
    """Every run's figures, and how each differs from the first.

    Raises `UserError` for runs that were evaluated on different rows.
    """
    first = runs[0]
    for other in runs[1:]:
        _same_rows(first, other)
    answers = [run.answers() for run in runs]
    values, found = [figures(each) for each in answers], _intervals(answers, seed)
    table: list[dict[str, Any]] = []
    against_first: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        own, sure = values[number], found[number]
        about = {"name": run.predictions.name, "temperature": run.predictions.temperature}
        shown = {name: {"value": own[name], "interval": sure[name]} for name in own}
        table.append({"run": run.name, **about, "figures": shown})
        if number:
            differences = {
                name: {"difference": own[name] - values[0][name], "interval": sure[f"-{name}"]}
                for name in own
            }
            tests = _against(answers[0], answers[number])
            against_first.append({"run": run.name, "differences": differences, **tests})
    for each, p in zip(against_first, holm([d["mcnemar_p"] for d in against_first]), strict=True):
        each["holm_p"] = p
    return {
        "split": split,
        "n": len(first.predictions),
        "protocol": first.predictions.protocol,
        "manifest_sha256": first.predictions.manifest_sha256,
        "bootstrap": {"seed": seed, "resamples": RESAMPLES},
        "runs": table,
        "against_first": against_first,
    }


def _cell(value: float, interval: Interval, sign: str = "") -> str:
    low, high = interval
    return f"{value:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.1e}"


def tables(made: dict[str, Any]) -> tuple[str, list[list[str]], list[list[str]]]:
    """A heading, the table of figures and that of differences (rows of cells, header first)."""
    heading = (
        f"split {made['split']}, protocol {made['protocol']}, n = {made['n']}, manifest "
        f"{made['manifest_sha256'][:12]}; in brackets 95 % intervals, paired bootstrap of "
        f"{made['bootstrap']['resamples']} resamples, seed {made['bootstrap']['seed']}"
    )
    absolute = [["run", *SHOWN, "T"]]
    for row in made["runs"]:
        cells = [row["figures"][name] for name in SHOWN]
        shown = [_cell(cell["value"], cell["interval"]) for cell in cells]
        absolute.append([row["run"], *shown, f"{row['temperature']:.3f}"])
    relative = [[f"minus {made['runs'][0]['run']}", *SHOWN, "right: first, this", "p", "p (Holm)"]]
    for row in made["against_first"]:
        cells = [row["differences"][name] for name in SHOWN]
        shown = [_cell(cell["difference"], cell["interval"], "+") for cell in cells]
        counts = f"{row['only_first_right']}, {row['only_this_right']}"
        tests = [_p(row["mcnemar_p"]), _p(row["holm_p"])]
        relative.append([row["run"], *shown, counts, *tests])
    return heading, absolute, relative


def as_text(made: dict[str, Any]) -> str:
    """For a terminal: a column per run, as the figures are many and the runs are few."""
    heading, *both = tables(made)
    parts = [heading]
    for rows in both:
        columns = list(zip(*rows, strict=True))
        widths = [max(len(line) for line in row) for row in rows]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(column, widths, strict=True))
            for column in columns
        ]
        parts.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join(parts)


def as_markdown(made: dict[str, Any]) -> str:
    """The same as Markdown, a row per run."""
    heading, *both = tables(made)
    lines = [heading[0].upper() + heading[1:] + "."]
    for rows in both:
        header, *body = rows
        lines += ["", "| " + " | ".join(header) + " |"]
        lines.append("| --- |" + " ---: |" * (len(header) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in body]
    lines += [
        "",
        "p: McNemar's exact test of who is right where only one of the two is; Holm's correction "
        "over the comparisons. T: the temperature all figures but ece_raw are at.",
    ]
    return "\n".join(lines) + "\n"
