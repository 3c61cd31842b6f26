"""Pictures of a run: there, not blank, and of the right numbers."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve

from contract.expressions import EXPRESSIONS
from contract.metrics import softmax
from tests.trainer.answers import answers
from trainer.plots import BINS, confusion, curves, plot_run, reliability
from trainer.predictions import Predictions

HISTORY = [
    {"epoch": 0, "loss": 1.9, "calib_nll": 1.8, "calib_accuracy": 0.3, "calib_macro_f1": 0.2},
    {"epoch": 1, "loss": 1.5, "calib_nll": 1.2, "calib_accuracy": 0.5, "calib_macro_f1": 0.4},
    {"epoch": 2, "loss": 1.2, "calib_nll": 1.4, "calib_accuracy": 0.6, "calib_macro_f1": 0.5},
]


def lines(axes: Any) -> dict[str, np.ndarray]:
    """Points of the lines drawn, `2×N`, by their label."""
    return {str(line.get_label()): np.array(line.get_data()) for line in axes.lines}


def heights(axes: Any) -> list[float]:
    """Of the bars drawn."""
    return [bar.get_height() for bar in axes.patches]


def texts(figure: Figure) -> str:
    """Everything written on a figure."""
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    return " ".join([*titles, *(text.get_text() for axes in figure.axes for text in axes.texts)])


@pytest.mark.parametrize("split", ["val", "calib"])
def test_three_pictures_are_written(tmp_path: Path, split: str) -> None:
    plot_run(tmp_path, HISTORY, answers(split=split))
    files = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert files == ["confusion.png", "curves.png", "reliability.png"]
    for name in files:
        image = cv2.imread(str(tmp_path / "plots" / name))
        assert image is not None
        assert min(image.shape[:2]) > 400
        assert 0.02 < (image < 200).any(axis=2).mean() < 0.9, "neither blank nor black"


def test_a_run_of_one_epoch_has_curves_too(tmp_path: Path) -> None:
    plot_run(tmp_path, HISTORY[:1], answers(20))
    assert cv2.imread(str(tmp_path / "plots/curves.png")) is not None


def test_curves_are_the_history_with_losses_apart_from_shares() -> None:
    losses, shares = curves(HISTORY).axes
    drawn = lines(losses)
    assert drawn["training loss"].tolist() == [[1, 2, 3], [1.9, 1.5, 1.2]]
    assert drawn["nll (calib)"][1].tolist() == [1.8, 1.2, 1.4]
    assert drawn["least calib NLL"][0].tolist() == [2, 2]  # the best epoch, counted from 1
    assert {"accuracy (calib)", "macro_f1 (calib)"} <= set(lines(shares))
    assert not set(lines(shares)) & set(drawn)


def test_the_confusion_matrix_is_by_row_with_counts() -> None:
    labels = np.array([0, 0, 0, 0, 1, 3])
    guess = np.array([0, 0, 0, 3, 1, 3])
    figure = confusion(labels, guess, "six rows")
    axes, _bar = figure.axes
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(shown) == 49
    assert shown[0, 0] == "75%\n3"
    assert shown[3, 0] == "25%\n1"  # labelled angry, called happy: right in its row
    assert shown[3, 3] == "100%\n1"
    assert shown[2, 2] == "0%\n0"
    assert np.asarray(axes.images[0].get_array())[0, 3] == 0.25
    assert [tick.get_text() for tick in axes.get_yticklabels()][:2] == ["angry (4)", "disgust (1)"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == list(EXPRESSIONS)


def test_the_reliability_diagram_is_scikit_learns() -> None:
    p = answers(400)
    figure = reliability(p, "made up")
    raw, scaled, raw_rows, scaled_rows = figure.axes
    for axes, below, probabilities in (
        (raw, raw_rows, softmax(p.logits)),
        (scaled, scaled_rows, p.probabilities()),
    ):
        confidence = probabilities.max(1)
        right = probabilities.argmax(1) == p.labels
        share, mean = calibration_curve(right, confidence, n_bins=BINS)
        np.testing.assert_allclose(lines(axes)["mean confidence"], [mean, share])
        np.testing.assert_allclose(heights(axes), share)
        counts = heights(below)
        assert (len(counts), sum(counts)) == (BINS, 400)
        assert {text.get_text() for text in below.texts} >= {str(int(n)) for n in counts if n}
    assert "at temperature 1.400" in texts(figure)


def test_without_val_the_pictures_say_calib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: dict[str, Figure] = {}
    monkeypatch.setattr("trainer.plots._save", lambda f, file: figures.update({file.stem: f}))
    calib = answers(30, split="calib")
    val = answers(20, seed=1)
    both = Predictions(
        calib.paths + val.paths, calib.sources + val.sources, calib.splits + val.splits,
        np.concatenate([calib.labels, val.labels]), np.concatenate([calib.logits, val.logits]),
        1.4, "ab" * 32, "made up", "a run",
    )  # fmt: skip
    plot_run(tmp_path, HISTORY, both)
    assert "a run, val, protocol made up, n = 20" in texts(figures["confusion"])
    plot_run(tmp_path, HISTORY, calib)
    for name in ("confusion", "reliability"):
        assert "model 1, calib, protocol made up, n = 30" in texts(figures[name])
