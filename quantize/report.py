"""What a quantization did and measured: one record, and from it report.json and report.md.

Nothing is worked out here, so the two and the picture cannot disagree.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from contract.expressions import EXPRESSIONS
from quantize.confidences import Confidences, Shown
from quantize.gate import Bounds, Gate

JSON_FILE = "report.json"
MARKDOWN_FILE = "report.md"
PICTURE_FILE = "report.png"


@dataclass(frozen=True)
class Rows:
    """One part of the rows of `--calib`, with the hash of its list of paths and labels."""

    n: int
    splits: tuple[str, ...]
    rows_sha256: str


@dataclass(frozen=True)
class Reference:
    """The float model on one runtime: what that runtime's candidates are compared with."""

    backend: str
    precision: str
    accuracy: float
    size_mb: float
    latency_ms: float | None


@dataclass(frozen=True)
class Candidate:
    """One configuration that was tried. Figures are None where it did not come to be measured.

    `reason` says why it was kept or was not; `agreement` is in percent, `speed_up` over the same
    runtime's reference.
    """

    backend: str
    name: str
    settings: dict[str, Any]
    kept: bool
    reason: str
    accuracy: float | None = None
    agreement: float | None = None
    size_mb: float | None = None
    latency_ms: float | None = None
    speed_up: float | None = None


@dataclass(frozen=True)
class Judged:
    """An INT8 artifact by the file a runtime opens, and its gate."""

    file: str
    backend: str
    gate: Gate


@dataclass(frozen=True)
class Portability:
    """An artifact on another kind of CPU than this one, on the golden inputs.

    `same_top` is the share of them with the same top expression, `dp_max` the largest |Δp|; both
    are None where it was skipped, and `detail` says why.
    """

    artifact: str
    machine: str
    status: Literal["pass", "fail", "skipped"]
    same_top: float | None
    dp_max: float | None
    detail: str


@dataclass(frozen=True)
class Report:
    """Everything. `source` is the float bundle's name and hash.

    `confidences` are served, fitted on all rows; `shown` is what those fitted on the rows for
    ranges alone do on the gate's.
    """

    source: dict[str, str]
    manifest_sha256: str
    division_seed: int
    ranges: Rows
    gate: Rows
    bounds: Bounds
    references: tuple[Reference, ...]
    candidates: tuple[Candidate, ...]
    artifacts: tuple[Judged, ...]
    confidences: Confidences
    shown: Shown
    golden_errors: dict[str, float]
    portability: tuple[Portability, ...]
    machine: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        body = asdict(self)
        body["confidences"]["class_thresholds"] = self.confidences.class_thresholds
        body["artifacts"] = [
            {"file": each.file, "backend": each.backend, "gate": each.gate.to_json()}
            for each in self.artifacts
        ]
        return body


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Markdown lines; a column is set right where its header starts with `>`."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in cells) + " |"

    rules = ["---:" if name.startswith(">") else "---" for name in header]
    return [
        line([name.removeprefix(">") for name in header]),
        line(rules),
        *(line(cells) for cells in rows),
    ]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _candidates(report: Report) -> list[str]:
    header = (
        "backend", "candidate", ">accuracy", ">agreement, %", ">size, MB", ">latency, ms",
        ">speed-up", "kept", "why",
    )  # fmt: skip
    rows: list[Sequence[str]] = []
    for r in report.references:
        latency = _number(r.latency_ms, 3)
        figures = (f"{r.accuracy:.4f}", "", f"{r.size_mb:.2f}", latency, "")
        rows.append((r.backend, r.precision, *figures, "", "the float model"))
    for c in report.candidates:
        figures = (
            _number(c.accuracy, 4), _number(c.agreement, 2), _number(c.size_mb, 2),
            _number(c.latency_ms, 3), _number(c.speed_up, 2),
        )  # fmt: skip
        rows.append((c.backend, c.name, *figures, "yes" if c.kept else "no", c.reason))
    return [
        "## Candidates",
        "",
        f"Accuracy and agreement on the {report.gate.n} rows of the gate, latency at batch 1 "
        "interleaved with the float model of the same runtime.",
        "",
        *_table(header, rows),
        "",
    ]


def _gate(judged: Judged) -> list[str]:
    gate = judged.gate
    before, after = gate.original, gate.int8
    verdicts = [(*v.texts(), v.status, v.note) for v in gate.verdicts]
    outcome = "passed" if gate.passed else "not passed"
    waived = f", with {', '.join(gate.waived)} waived" if gate.waived else ""
    return [
        f"### `{judged.file}`, {judged.backend}: {outcome}{waived}",
        "",
        f"On {gate.n} rows: accuracy {before.accuracy:.4f} → {after.accuracy:.4f}, "
        f"macro-F1 {before.macro_f1:.4f} → {after.macro_f1:.4f}, "
        f"ECE {before.ece:.4f} → {after.ece:.4f}, NLL {before.nll:.4f} → {after.nll:.4f}, "
        f"temperature {before.temperature:.3f} → {after.temperature:.3f}.",
        "",
        *_table(("bound", ">measured", ">limit", ">margin", "verdict", "note"), verdicts),
        "",
    ]


def _confidences(report: Report) -> list[str]:
    fitted, shown = report.confidences, report.shown
    options = fitted.options
    reached = "reached" if fitted.abstain_reached else "not reached"
    header = (
        "expression", ">threshold", ">precision", ">recall", ">shown", "floor",
        ">precision, gate", ">recall, gate", ">shown, gate",
    )  # fmt: skip
    rows = []
    for name in EXPRESSIONS:
        of = fitted.classes[name]
        floor = ("reached" if of.reached else "not reached") if of.fitted else "too few rows"
        rows.append(
            (
                name, f"{of.threshold:.3f}", f"{of.precision:.3f}", f"{of.recall:.3f}",
                str(of.shown), floor, f"{shown.precision[name]:.3f}", f"{shown.recall[name]:.3f}",
                str(shown.count[name]),
            )
        )  # fmt: skip
    curve = [(f"{p.coverage:.3f}", f"{p.accuracy:.4f}", f"{p.threshold:.4f}") for p in shown.curve]
    return [
        "## Confidences",
        "",
        f"Fitted on {fitted.n} rows, those for ranges and the gate's together, since the gate had "
        f"passed with what the rows for ranges alone give. Columns and figures of the gate's "
        f"{shown.n} rows are of that. Single images, without the averaging over time. "
        f"Temperature {fitted.temperature:.3f}, {fitted.temperature_from}. Abstention threshold "
        f"{fitted.abstain_threshold:.3f}: the target, an accuracy of {options.accuracy_target:g} "
        f"of what is answered, is {reached} on the rows it was fitted on. Class thresholds "
        f"maximise macro-F1 with a precision of at least {options.precision_floor:g} and at least "
        f"{options.least_shown} rows shown.",
        "",
        f"On the gate's rows {shown.coverage:.1%} are shown, with an accuracy of "
        f"{_number(shown.accuracy, 4)} (all rows: {shown.all_accuracy:.4f}) and a macro-F1, rows "
        f"not shown counted as missed, of {shown.macro_f1:.4f} (all: {shown.all_macro_f1:.4f}). "
        f"ECE {shown.ece:.4f}, area under the risk–coverage curve {shown.aurc:.4f}.",
        "",
        *_table(header, rows),
        "",
        *_table((">coverage", ">accuracy", ">threshold"), curve),
        "",
    ]


def _portability(report: Report) -> list[str]:
    if not report.portability:
        return []
    rows = [
        (p.artifact, p.machine, p.status, _number(p.same_top, 4), _number(p.dp_max, 4), p.detail)
        for p in report.portability
    ]
    header = ("artifact", "machine", "result", ">same top", ">largest |Δp|", "detail")
    return ["## Portability", "", *_table(header, rows), ""]


def _rows_line(what: str, rows: Rows) -> str:
    return f"- {what}: {rows.n} rows of split {'+'.join(rows.splits)}, list `{rows.rows_sha256}`"


def markdown(report: Report) -> str:
    """The record for people."""
    lines = [
        f"# INT8 of {report.source['name']}",
        "",
        f"![latency and accuracy of the candidates, coverage and accuracy]({PICTURE_FILE})",
        "",
        f"- float bundle `{report.source['sha256']}`",
        f"- manifest `{report.manifest_sha256}`, divided by seed {report.division_seed}",
        _rows_line("ranges", report.ranges),
        _rows_line("search and gate", report.gate),
        *(f"- {key}: {value}" for key, value in report.machine.items()),
        "",
        *_candidates(report),
        "## Gate",
        "",
        *(line for judged in report.artifacts for line in _gate(judged)),
        *_confidences(report),
        *_portability(report),
        "## Golden inputs",
        "",
        *_table(
            ("artifact", ">mean |Δp| here"),
            [(file, f"{error:.5f}") for file, error in report.golden_errors.items()],
        ),
        "",
    ]
    return "\n".join(lines)


def report_texts(report: Report) -> dict[str, str]:
    """`report.json` and `report.md`. Raises `ValueError` for a figure that is no finite number."""
    return {
        JSON_FILE: json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n",
        MARKDOWN_FILE: markdown(report),
    }
