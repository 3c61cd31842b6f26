"""Pictures of a run: learning curves, confusion matrix, reliability diagram."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from contract import metrics
from contract.expressions import EXPRESSIONS
from contract.files import write_atomic
from contract.metrics import Floats, Ints
from trainer.predictions import Predictions

BINS = 15
_BLUE, _ORANGE, _GREY = "#2166ac", "#d6604d", "#8c8c8c"


def _save(figure: Figure, file: Path) -> None:
    # The object interface with a canvas of its own: nothing global, so it works in any thread.
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    write_atomic(file, lambda out: out.write(stream.getvalue()))


def curves(history: list[dict[str, float]]) -> Figure:
    """Loss and every `calib_*` figure over the epochs.

    What is small when good (NLL, ECE …) shares an axis with the training loss; shares of right
    answers have their own.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    losses, shares = figure.subplots(1, 2)
    epochs = [line["epoch"] + 1 for line in history]
    keys = ["loss", *sorted({key for line in history for key in line if key.startswith("calib_")})]
    for key in keys:
        axes = shares if any(part in key for part in ("accuracy", "f1")) else losses
        label = "training loss" if key == "loss" else key.removeprefix("calib_") + " (calib)"
        values = [line.get(key, np.nan) for line in history]
        axes.plot(epochs, values, marker="o", markersize=2.5, label=label)
    nll = [line.get("calib_nll", np.nan) for line in history]
    if np.isfinite(nll).any():
        best = epochs[int(np.nanargmin(nll))]
        losses.axvline(best, color=_GREY, linewidth=0.8, linestyle=":", label="least calib NLL")
        shares.axvline(best, color=_GREY, linewidth=0.8, linestyle=":")
    shares.set_ylim(0, 1)
    for axes, title in ((losses, "Loss"), (shares, "Accuracy and macro-F1")):
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def confusion(labels: Ints, predicted: Ints, title: str) -> Figure:
    """Confusion matrix: colour and percentage by row, so rare classes can be read; counts below."""
    matrix = metrics.confusion_matrix(labels, predicted, len(EXPRESSIONS))
    rows = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
    figure = Figure(figsize=(7, 6.2), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        axes.text(
            column, row, f"{share[row, column]:.0%}\n{count}", ha="center", va="center", fontsize=8,
            color="white" if share[row, column] > 0.55 else "black",
        )  # fmt: skip
    names = [f"{name} ({n})" for name, n in zip(EXPRESSIONS, rows[:, 0], strict=True)]
    ticks = range(len(EXPRESSIONS))
    axes.set_xticks(ticks, EXPRESSIONS, rotation=35, ha="right")
    axes.set_yticks(ticks, names)
    axes.set(title=title, xlabel="predicted", ylabel="label (rows)")
    figure.colorbar(picture, ax=axes, label="share of the row", shrink=0.85)
    return figure


def _bins(labels: Ints, p: Floats) -> tuple[Ints, Floats, Floats]:
    """Rows, mean confidence and accuracy of each equal-width bin of confidence."""
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    bin_of = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    count = np.bincount(bin_of, minlength=BINS)
    used = np.maximum(count, 1)
    mean = np.bincount(bin_of, confidence, minlength=BINS) / used
    return count, mean, np.bincount(bin_of, right, minlength=BINS) / used


def _reliability_column(top: Any, below: Any, labels: Ints, p: Floats, title: str) -> None:
    count, confidence, accuracy = _bins(labels, p)
    width = 1 / BINS
    centres = (np.arange(BINS) + 0.5) * width
    seen = count > 0
    top.bar(centres[seen], accuracy[seen], width * 0.92, color=_BLUE, label="accuracy")
    top.plot(
        confidence[seen], accuracy[seen], "o", color=_ORANGE, markersize=4, label="mean confidence"
    )
    top.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=1, label="perfectly calibrated")
    top.set(title=f"{title}: ECE {metrics.ece(labels, p, BINS):.3f}", xlim=(0, 1), ylim=(0, 1.02))
    top.grid(alpha=0.3)
    drawn = below.bar(centres, count, width * 0.92, color=_GREY)
    shown = [str(each) if each else "" for each in count]
    below.bar_label(drawn, shown, fontsize=7, rotation=90, padding=2)
    below.set(xlabel="confidence")
    below.margins(y=0.45)


def reliability(predictions: Predictions, title: str) -> Figure:
    """Reliability diagrams before and after the temperature, each with the rows of its bins."""
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1.2))
    raw = metrics.softmax(predictions.logits)
    scaled = predictions.probabilities()
    told = f"at temperature {predictions.temperature:.3f}"
    for column, (p, name) in enumerate(((raw, "raw"), (scaled, told))):
        _reliability_column(axes[0, column], axes[1, column], predictions.labels, p, name)
    axes[0, 0].set_ylabel("accuracy in the bin")
    axes[1, 0].set_ylabel("rows")
    axes[0, 0].legend(fontsize=8, loc="upper left")
    figure.suptitle(title)
    return figure


def plot_run(folder: Path, history: list[dict[str, float]], predictions: Predictions) -> None:
    """Write `plots/curves.png`, `confusion.png` and `reliability.png` into a run folder.

    `history` are the lines of history.jsonl; without any there are no curves. The last two show
    `val`, or `calib` without val.
    """
    split = "val" if "val" in predictions.splits else "calib"
    shown = predictions.select(split)
    told = f"{predictions.name}, {split}, protocol {predictions.protocol}, n = {len(shown)}"
    plots = folder / "plots"
    if history:
        _save(curves(history), plots / "curves.png")
    guess = shown.logits.argmax(axis=1).astype(np.int64)
    _save(confusion(shown.labels, guess, told), plots / "confusion.png")
    _save(reliability(shown, told), plots / "reliability.png")
