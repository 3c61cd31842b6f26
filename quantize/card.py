"""What quantization adds to a model card."""

from typing import Any

from contract.card import figures_table


def int8_section(gate: dict[str, Any], reported: dict[str, Any] | None) -> str:
    """Markdown: the gate's figures, and the INT8 model's on the rows it is reported on."""
    before, after = gate["float"], gate["int8"]
    lines = [
        "",
        "## INT8",
        "",
        f"Post-training quantization, ranges from {gate['ranges_rows']['n']} rows; compared with "
        f"the float model on {gate['n']} others (split `{gate['split']}`): agreement "
        f"{gate['agreement']:.2f} %, accuracy {before['accuracy']:.4f} → {after['accuracy']:.4f}, "
        f"|Δp| p99 {gate['dp_p99']:.4f}, size {before['size_mb']:.1f} → {after['size_mb']:.1f} MB. "
        f"Temperature {gate['temperature']['value']:.3f}, {gate['temperature']['from']}.",
    ]
    if reported is not None:
        lines += ["", *figures_table(reported)]
    return "\n".join([*lines, ""])
