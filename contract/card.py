"""Parts of a model card that more than one stage writes, made from recorded figures only."""

from typing import Any

from contract.expressions import EXPRESSIONS

_NAMES = ("accuracy", "macro_f1", "nll", "brier", "ece", "adaptive_ece", "classwise_ece")
_BY_SOURCE = ("accuracy", "macro_f1", "ece", "brier", "nll")
_MISTAKES = 6
_LEAST_IMAGES = 10
"""Of an expression, under which a share of them says nothing."""


def _cell(figures: dict[str, Any], name: str, value: float, digits: int) -> str:
    interval = figures.get("intervals", {}).get(name)
    if interval is None:
        return f"{value:.{digits}f}"
    low, high = interval
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _sources(figures: dict[str, Any]) -> list[str]:
    sources = figures.get("by_source", {})
    if len(sources) < 2:
        return []
    return [
        "",
        "| source | n | " + " | ".join(_BY_SOURCE) + " |",
        "| --- | ---: |" + " ---: |" * len(_BY_SOURCE),
        *(
            f"| {source} | {own['n']} | "
            + " | ".join(_cell(own, name, own[name], 3) for name in _BY_SOURCE)
            + " |"
            for source, own in sources.items()
        ),
    ]


def _coverage(figures: dict[str, Any]) -> list[str]:
    points = figures.get("coverage", [])
    if not points:
        return []
    return [
        "",
        "Accuracy of the surest share of the images, and the confidence that share begins at:",
        "",
        "| share | accuracy | from |",
        "| ---: | ---: | ---: |",
        *(
            f"| {point['coverage']:.0%} | {point['accuracy']:.3f} | {point['confidence']:.2f} |"
            for point in points
        ),
    ]


def _mistakes(figures: dict[str, Any]) -> list[str]:
    matrix = figures["confusion_matrix"]
    taken = [
        (row[other] / sum(row), row[other], sum(row), EXPRESSIONS[own], EXPRESSIONS[other])
        for own, row in enumerate(matrix)
        for other in range(len(row))
        if own != other and row[other] and sum(row) >= _LEAST_IMAGES
    ]
    if not taken:
        return []
    told = (
        f"{own} for {other} {share:.0%} ({count} of {images})"
        for share, count, images, own, other in sorted(taken, reverse=True)[:_MISTAKES]
    )
    return ["", f"What it takes for something else most often: {'; '.join(told)}."]


def figures_table(figures: dict[str, Any]) -> list[str]:
    """Markdown lines: what was measured on which rows, overall, by expression and by source, how
    right the surest answers are, and the commonest mistakes.

    `figures` holds `split`, `protocol`, `precision` and what `contract.measured.measured` gives; a
    bundle from before intervals were recorded has the fields of `contract.metrics.Metrics` alone.
    """
    lines = [
        f"Split `{figures['split']}`, protocol {figures['protocol']}, n = {figures['n']}, "
        f"{figures['precision']}, single crop, after temperature scaling"
        + (
            "; in brackets 95 % intervals of the bootstrap over images."
            if "intervals" in figures
            else "."
        ),
        "",
        "| metric | value |",
        "| --- | ---: |",
        *(f"| {name} | {_cell(figures, name, figures[name], 4)} |" for name in _NAMES),
        "",
        "| expression | F1 | precision | recall |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in EXPRESSIONS:
        f1 = _cell(figures, f"f1_{name}", figures["per_class_f1"][name], 3)
        values = [figures[f"per_class_{kind}"][name] for kind in ("precision", "recall")]
        lines.append(f"| {name} | {f1} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    return [*lines, *_sources(figures), *_coverage(figures), *_mistakes(figures)]
