"""The picture of a report: what each candidate costs and keeps, and what abstaining buys."""

import io
from pathlib import Path
from typing import Any

from contract.errors import UserError
from contract.files import write_atomic
from quantize.report import Report

# Okabe & Ito's colours, told apart by colour-blind people; kept ones are also drawn without hatch.
_KEPT, _TRIED, _FLOAT, _MARK = "#0072B2", "#A6D3EE", "#999999", "#D55E00"
_LABEL = 44


def require_matplotlib() -> None:
    """Raises `UserError` where the `quantize` extra is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"fer-quantize draws its report and needs the 'quantize' extra ({error}); "
            "install it with: pip install 'fer-edge[quantize]'"
        ) from None


def _short(text: str) -> str:
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"


def _candidates(latency: Any, accuracy: Any, report: Report) -> None:
    """Bars of latency and points of accuracy, a line to each, runtime by runtime."""
    lines: list[tuple[str, float | None, float | None, str]] = []
    limits = []
    for reference in report.references:
        name = f"{reference.backend} {reference.precision}"
        start = len(lines)
        lines.append((name, reference.latency_ms, reference.accuracy, "float"))
        lines += [
            (_short(c.name), c.latency_ms, c.accuracy, "kept" if c.kept else "not kept")
            for c in report.candidates
            if c.backend == reference.backend
        ]
        limits.append((reference, start, len(lines)))
    colour = {"float": _FLOAT, "kept": _KEPT, "not kept": _TRIED}
    named: set[str] = set()
    for at, (_, milliseconds, right, kind) in enumerate(lines):
        hatch = "///" if kind == "not kept" else ""
        label = None if kind in named else kind
        if milliseconds is not None:
            named.add(kind)
            latency.barh(
                at, milliseconds, 0.7, color=colour[kind], hatch=hatch, edgecolor="white",
                label=label,
            )  # fmt: skip
        told = "not measured" if milliseconds is None else f"{milliseconds:.2f}"
        latency.text(milliseconds or 0, at, f" {told}", va="center", fontsize=8)
        if right is not None:
            accuracy.plot(
                right, at, "D" if kind == "float" else "o", color=colour[kind], markersize=7,
                markeredgecolor="black", markeredgewidth=0.6,
            )  # fmt: skip
    for reference, start, end in limits:
        if reference.latency_ms is not None:
            latency.plot(2 * [reference.latency_ms], (start - 0.5, end - 0.5), "--", color=_FLOAT)
        accuracy.plot(
            2 * [reference.accuracy], (start - 0.5, end - 0.5), "--", color=_FLOAT, zorder=0
        )
        if start:
            for axes in (latency, accuracy):
                axes.axhline(start - 0.5, color="black", linewidth=0.6)
    latency.set_yticks(range(len(lines)), [name for name, *_ in lines], fontsize=8)
    latency.set_ylim(len(lines) - 0.5, -0.5)
    latency.margins(x=0.2)
    latency.set(title="Latency", xlabel="milliseconds at batch 1, less is better")
    accuracy.set(title="Accuracy", xlabel=f"on the gate's {report.gate.n} rows, more is better")
    accuracy.margins(x=0.15)
    accuracy.locator_params(axis="x", nbins=5)
    accuracy.tick_params(axis="x", labelsize=8)
    accuracy.grid(axis="x", alpha=0.3)
    if named:
        handles, labels = latency.get_legend_handles_labels()
        latency.figure.legend(
            handles, labels, loc="outside lower left", ncols=len(labels), fontsize=8
        )


def _coverage(axes: Any, report: Report) -> None:
    shown = report.shown
    axes.plot(
        [point.coverage for point in shown.curve], [point.accuracy for point in shown.curve],
        "-o", color=_KEPT, markersize=4, label="the surest rows answered",
    )  # fmt: skip
    if shown.accuracy is not None:
        axes.plot(
            shown.coverage, shown.accuracy, "*", color=_MARK, markersize=14,
            markeredgecolor="black", markeredgewidth=0.6, label="with the bundle's thresholds",
        )  # fmt: skip
    axes.axhline(
        shown.all_accuracy, linestyle="--", color=_FLOAT, label="every row answered", zorder=0
    )
    axes.set(
        title=f"Abstaining (area under risk–coverage {shown.aurc:.4f})",
        xlabel=f"share of the gate's {shown.n} rows answered",
        ylabel="accuracy of the rows answered",
        xlim=(0, 1.03),
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="best")


def draw(report: Report, file: Path) -> None:
    """Write the picture as PNG at `file`. Raises `UserError` without the `quantize` extra."""
    require_matplotlib()
    # The object interface with a canvas of its own: nothing global, no window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(report.references) + len(report.candidates)
    figure = Figure(figsize=(14, max(4.2, 1.6 + 0.3 * count)), layout="constrained")
    FigureCanvasAgg(figure)
    latency, accuracy, coverage = figure.subplots(1, 3, width_ratios=(1.2, 1, 1.4))
    accuracy.sharey(latency)
    accuracy.tick_params(axis="y", labelleft=False)
    _candidates(latency, accuracy, report)
    _coverage(coverage, report)
    figure.suptitle(f"INT8 of {report.source['name']}", fontsize=12)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    write_atomic(file, lambda out: out.write(stream.getvalue()))
