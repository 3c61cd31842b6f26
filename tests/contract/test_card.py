"""The parts of a model card: what a reader of one finds in it."""

from typing import Any

import numpy as np

from contract.card import figures_table
from contract.expressions import EXPRESSIONS, INDEX
from contract.measured import KEPT, measured
from contract.metrics import compute

HAPPY, FEAR, SURPRISE, SAD = (INDEX[name] for name in ("happy", "fear", "surprise", "sad"))
# Label, prediction and how often: 20 happy, of fear 5 of 20 right, of sad both of 2 wrong.
ROWS = [(HAPPY, HAPPY, 20), (FEAR, FEAR, 5), (FEAR, SURPRISE, 12), (FEAR, SAD, 3), (SAD, HAPPY, 2)]


def answers() -> tuple[Any, Any, Any]:
    """Labels, probabilities, predictions; a right answer is surer (0.9) than a wrong one (0.5)."""
    truth, guess = np.repeat([row[:2] for row in ROWS], [row[2] for row in ROWS], axis=0).T
    sure = np.where(truth == guess, 0.9, 0.5)
    p = np.repeat((1 - sure[:, None]) / 6, 7, axis=1)
    p[np.arange(len(truth)), guess] = sure
    return truth, p, guess


def card(figures: dict[str, Any]) -> list[str]:
    return figures_table({"split": "val", "protocol": "argmax", "precision": "int8", **figures})


def test_it_says_how_sure_its_figures_are() -> None:
    labels, p, guess = answers()
    lines = card(measured(labels, p, guess, ["web"] * 42))
    assert "n = 42, int8" in lines[0] and "95 % intervals" in lines[0]
    (accuracy,) = [line for line in lines if line.startswith("| accuracy |")]
    value, low, high = (float(part) for part in accuracy.translate(
        str.maketrans("|[],", "    ")).split()[1:])  # fmt: skip
    assert value == round(25 / 42, 4)
    assert 0.4 < low < value < high < 0.8
    (fear,) = [line for line in lines if line.startswith("| fear |")]
    assert fear.startswith("| fear | 0.400 [") and fear.endswith("] | 1.000 | 0.250 |")


def test_it_says_how_right_the_surest_answers_are() -> None:
    lines = card(measured(*answers(), ["web"] * 42))
    shares = [line for line in lines if line.startswith("| ") and "% |" in line]
    assert len(shares) == len(KEPT)
    assert shares[0] == "| 100% | 0.595 | 0.50 |"
    assert shares[-1] == "| 50% | 1.000 | 0.90 |"


def test_it_names_the_commonest_mistakes_where_there_are_images_to_judge_by() -> None:
    (line,) = [line for line in card(measured(*answers(), ["web"] * 42)) if "most often" in line]
    assert line.endswith(": fear for surprise 60% (12 of 20); fear for sad 15% (3 of 20).")


def test_several_sources_have_a_row_each() -> None:
    labels, p, guess = answers()
    lines = card(measured(labels, p, guess, ["film"] * 20 + ["web"] * 22))
    assert any(line.startswith("| film | 20 | 1.000 [1.000, 1.000] | ") for line in lines)
    assert any(line.startswith("| web | 22 | 0.227 [") for line in lines)
    alone = card(measured(labels, p, guess, ["web"] * 42))
    assert not any("source" in line for line in alone)


def test_a_bundle_of_before_has_figures_without_intervals() -> None:
    """`compute` alone is what bundles recorded once; `fer-quantize` still takes them."""
    lines = card(compute(*answers()).to_json())
    assert "| accuracy | 0.5952 |" in lines
    assert not any("[" in line for line in lines)
    assert [line.split(" | ")[0] for line in lines[-9:-2]] == [f"| {name}" for name in EXPRESSIONS]
