"""Verdicts as people read them, and as JSON."""

import math
import shlex
from collections.abc import Sequence
from typing import Any

from contract.expressions import EXPRESSIONS
from trainer.config_criteria import Criterion
from trainer.gates import PhaseVerdict, Verdict

LABELS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "minority_f1": "minority F1",
    "ece_scaled": "ECE",
    "ece_raw": "ECE raw",
    "brier": "Brier",
    "nll": "NLL",
    "share_over_095": "confidence > 0.95",
    "pair_confusion": "confused pairs",
    "grad_norm_max": "gradient norm",
    "nonfinite_epochs": "epochs with NaN",
    "minority_f1_change": "minority F1, last − first epoch",
    "peak_memory_mb": "peak memory, MB",
    **{f"f1_{name}": f"{name} F1" for name in EXPRESSIONS},
    **{f"precision_{name}": f"{name} precision" for name in EXPRESSIONS},
}
_PLAIN = ("brier", "nll", "grad_norm_max", "nonfinite_epochs", "peak_memory_mb", "file")

HEADER = (
    "criterion", "measured", "95 % interval", "bound", "verdict", "raw ECE", "against", "the plan's"
)  # fmt: skip


def label(criterion: Criterion) -> str:
    """What is measured, in words."""
    return criterion.key if criterion.measure == "file" else LABELS[criterion.measure]


def amount(criterion: Criterion, value: float, digits: int = 2) -> str:
    """A value of a criterion with its unit: points of a share, per cent of the other's value, or
    the plain number."""
    if criterion.change == "relative" and criterion.versus:
        text = f"{100 * value:+.1f} %"
    elif criterion.measure not in _PLAIN and (criterion.versus or "change" in criterion.measure):
        text = f"{100 * value:+.{digits}f} pp"
    elif criterion.versus:
        text = f"{value:+.4f}"
    else:
        text = f"{value:.4g}"
    return text.replace("-", "−")


def bound(criterion: Criterion) -> str:
    """`≥ …` or `≤ …`."""
    sign, value = "≥", criterion.at_least
    if value is None:
        sign, value = "≤", criterion.at_most or 0.0
    return f"{sign} {amount(criterion, value)}"


def _interval(each: Verdict) -> str:
    if each.interval is None:
        return "–"
    low, high = (amount(each.criterion, end) for end in each.interval)
    return f"[{low}, {high}]"


def row(each: Verdict, indicator: bool) -> list[str]:
    """The cells of a verdict, under `HEADER`."""
    criterion = each.criterion
    measured = "–" if each.measured is None else amount(criterion, each.measured)
    status: str = each.status
    if indicator:  # neither good nor bad in itself
        status = {True: "there", False: "not there", None: "unknown"}[each.met]
        status += " (unsure)" if each.status == "undecided" and each.met is not None else ""
    if each.missing:
        status += f" (needs {', '.join(each.missing)})"
    raw = "" if each.raw is None else amount(criterion, each.raw)
    original = criterion.original + (f" ({criterion.note})" if criterion.note else "")
    return [
        f"{each.name}: {label(criterion)}", measured, _interval(each), bound(criterion), status,
        raw, each.versus, original,
    ]  # fmt: skip


def rows(found: PhaseVerdict) -> list[list[str]]:
    """The table of a phase, header first: criteria, then indicators."""
    body = [row(each, False) for each in found.criteria]
    return [list(HEADER), *body, *(row(each, True) for each in found.indicators)]


def heading(found: PhaseVerdict, split: str) -> str:
    """Which runs, on which rows, made by which commit."""
    if not found.runs:
        return found.phase
    p = found.runs[0].predictions
    seeds = " ".join(str(run.seed) for run in found.runs)
    commits = " ".join(sorted({run.commit[:12] for run in found.runs}))
    return (
        f"{found.phase} against {found.baseline or 'no baseline'}: seeds {seeds}; split {split}, "
        f"protocol {p.protocol}, n = {len(p)}, manifest {p.manifest_sha256[:12]}, commit {commits}"
    )


def _retry_commands(found: PhaseVerdict) -> list[str]:
    commands = []
    for settings in found.decision.retry if found.decision else ():
        sets = settings.split()
        pairs = [each.split("=", 1) for each in sets if not each.endswith("=[]")]
        slug = "-".join(key.rsplit(".", 1)[-1] + value for key, value in pairs)
        for run in found.runs:
            name = f"{found.phase}-{slug}-seed{run.seed}"
            words = ["--phase", found.phase, "--seed", str(run.seed), "--name", name]
            words += [word for each in sets for word in ("--set", each)]
            commands.append(f"fer-trainer {shlex.join(words)}")
    return commands


def decision_line(found: PhaseVerdict) -> str:
    """Criteria and what follows, in one line."""
    parts = [
        f"{label(each.criterion)} "
        f"{'not measured' if each.measured is None else amount(each.criterion, each.measured)} "
        f"{bound(each.criterion)}: {each.status}"
        for each in found.criteria
    ]
    if found.decision is None:
        return "; ".join([*parts, "no rule of the phase applies"])
    every = [*found.criteria, *found.indicators]
    unsure = [each.name for each in every if each.status == "undecided"]
    asked = [name for name in found.decision.when if name in unsure]
    sure = f"by the values measured, with {', '.join(asked)} undecided: " if asked else ""
    then = sure + found.decision.then
    if found.decision.next:
        then += f"; next: {found.decision.next}"
    return "; ".join([*parts, f"so {then}"])


def closing(found: PhaseVerdict) -> list[str]:
    """What follows the table: the decision, commands, remedies, notes."""
    lines = [f"decision: {decision_line(found)}"]
    lines += [f"retry: {command}" for command in _retry_commands(found)]
    lines += [f"remedy: {each}" for each in found.remedies]
    return lines + [f"note: {each}" for each in found.notes]


def as_text(found: PhaseVerdict, split: str) -> str:
    """For a terminal."""
    table = rows(found)
    columns = list(zip(*table, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in table
    ]
    return "\n".join([heading(found, split), "", *lines, "", *closing(found)])


def markdown_table(table: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells, header first, as lines of Markdown."""
    header, *body = ([cell.replace("|", "\\|") for cell in cells] for cells in table)
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return lines + ["| " + " | ".join(cells) + " |" for cells in body]


def as_json(found: PhaseVerdict) -> dict[str, Any]:
    """Every figure, as JSON values."""

    def number(value: float | None) -> float | None:
        return None if value is None or math.isnan(value) else value

    def one(each: Verdict) -> dict[str, Any]:
        return {
            "name": each.name,
            **each.criterion.model_dump(mode="json", exclude_defaults=True),
            "measured": number(each.measured),
            "interval": each.interval,
            "status": each.status,
            "met": each.met,
            "raw": each.raw,
            "compared_with": each.versus,
            "by_seed": {str(seed): number(value) for seed, value in each.values},
            "missing": list(each.missing),
        }

    return {
        "phase": found.phase,
        "status": found.status,
        "baseline": found.baseline,
        "runs": [
            {"folder": str(run.folder), "seed": run.seed, "commit": run.commit}
            for run in found.runs
        ],
        "criteria": [one(each) for each in found.criteria],
        "indicators": [one(each) for each in found.indicators],
        "decision": found.decision.model_dump(mode="json") if found.decision else None,
        "remedies": list(found.remedies),
        "notes": list(found.notes),
    }
