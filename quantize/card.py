"""What quantization adds to a model card."""

from typing import Any

from contract.card import figures_table
from quantize.report import MARKDOWN_FILE, Judged, Report


def _artifact(judged: Judged) -> str:
    gate = judged.gate
    before, after = gate.original, gate.int8
    speed = "" if gate.speed is None else f", speed-up {gate.speed.median:.2f}×"
    waived = f"; waived: {', '.join(gate.waived)}" if gate.waived else ""
    return (
        f"- `{judged.file}` ({judged.backend}): agreement {gate.agreement:.2f} %, accuracy "
        f"{before.accuracy:.4f} → {after.accuracy:.4f}, macro-F1 {before.macro_f1:.4f} → "
        f"{after.macro_f1:.4f}, ECE {before.ece:.4f} → {after.ece:.4f}, |Δp| p99 "
        f"{gate.dp_p99:.4f}, {gate.size_mb:.2f} MB{speed}{waived}"
    )


def int8_section(report: Report, reported: dict[str, Any] | None) -> str:
    """Markdown: the gate's figures, and the INT8 model's on the rows it is reported on."""
    fitted = report.confidences
    lines = [
        "",
        "## INT8",
        "",
        f"Post-training quantization, ranges from {report.ranges.n} rows; compared with the float "
        f"model on {report.gate.n} others (split `{'+'.join(report.gate.splits)}`):",
        "",
        *(_artifact(judged) for judged in report.artifacts),
        "",
        f"Temperature {fitted.temperature:.3f}, {fitted.temperature_from}; 'uncertain' under "
        f"{fitted.abstain_threshold:.3f}. More in `{MARKDOWN_FILE}`.",
    ]
    if reported is not None:
        lines += ["", *figures_table(reported)]
    return "\n".join([*lines, ""])
