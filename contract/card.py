"""Parts of a model card that more than one stage writes, made from recorded figures only."""

from typing import Any

from contract.expressions import EXPRESSIONS

_NAMES = ("accuracy", "macro_f1", "nll", "brier", "ece", "adaptive_ece", "classwise_ece")


def figures_table(figures: dict[str, Any]) -> list[str]:
    """Markdown lines: what was measured on which rows, overall and by expression.

    `figures` holds the fields of `contract.metrics.Metrics` with `split`, `protocol`, `precision`.
    """
    lines = [
        f"Split `{figures['split']}`, protocol {figures['protocol']}, n = {figures['n']}, "
        f"{figures['precision']}, single crop, after temperature scaling.",
        "",
        "| metric | value |",
        "| --- | ---: |",
        *(f"| {name} | {figures[name]:.4f} |" for name in _NAMES),
        "",
        "| expression | F1 | precision | recall |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in EXPRESSIONS:
        values = [figures[f"per_class_{kind}"][name] for kind in ("f1", "precision", "recall")]
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    return lines
