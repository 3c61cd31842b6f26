"""Losses against values worked out by hand and by SciPy; golden_losses.json holds a row of each."""

import inspect
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from contract.expressions import INDEX
from tests.trainer.make_golden_losses import FILE, rows
from trainer.losses import distill, feature, margin, negative
from trainer.losses.distill import soft_cross_entropy, vote_targets

Row = dict[str, Any]

# angry, disgust, fear, happy, sad, surprise, neutral
LABEL = INDEX["neutral"]


def targets(votes: list[float], drop_single: bool, smoothing: float = 0.0) -> list[float]:
    made = vote_targets(torch.tensor([votes]), torch.tensor([LABEL]), drop_single, smoothing)
    return [round(float(value), 6) for value in made[0]]


GOLDEN = {
    "shares": ([1, 0, 0, 3, 0, 0, 6], False, 0.0, [0.1, 0, 0, 0.3, 0, 0, 0.6]),
    "lone vote dropped": ([1, 0, 0, 3, 0, 0, 6], True, 0.0, [0, 0, 0, 1 / 3, 0, 0, 2 / 3]),
    "two votes kept": ([2, 0, 0, 2, 0, 0, 6], True, 0.0, [0.2, 0, 0, 0.2, 0, 0, 0.6]),
    "only lone votes": ([1, 1, 0, 0, 0, 0, 2 - 1], True, 0.0, [1 / 3, 1 / 3, 0, 0, 0, 0, 1 / 3]),
    "no votes": ([0, 0, 0, 0, 0, 0, 0], True, 0.0, [0, 0, 0, 0, 0, 0, 1]),
    "soft labels": ([0.5, 0, 0, 0, 0, 0, 0.5], True, 0.0, [0.5, 0, 0, 0, 0, 0, 0.5]),
    "smoothed": (
        [0, 0, 0, 5, 0, 0, 5], False, 0.14, [0.02, 0.02, 0.02, 0.45, 0.02, 0.02, 0.45],
    ),
    "smoothed label": ([0] * 7, False, 0.7, [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("votes", "drop_single", "smoothing", "expected"), GOLDEN.values(), ids=GOLDEN
)
def test_targets_by_hand(
    votes: list[float], drop_single: bool, smoothing: float, expected: list[float]
) -> None:
    given_votes = [float(v) for v in votes]
    assert targets(given_votes, drop_single, smoothing) == pytest.approx(expected, abs=1e-6)


@given(
    st.lists(st.tuples(*[st.integers(0, 10)] * 7), min_size=1, max_size=20),
    st.booleans(),
    st.floats(0, 0.9),
)
def test_targets_are_distributions(
    votes: list[tuple[int, ...]], drop_single: bool, smoothing: float
) -> None:
    labels = torch.zeros(len(votes), dtype=torch.long)
    made = vote_targets(torch.tensor(votes, dtype=torch.float32), labels, drop_single, smoothing)
    assert (made >= 0).all()
    torch.testing.assert_close(made.sum(1), torch.ones(len(votes)))


def test_cross_entropy_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    target = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    # ½·ln 2 + ½·ln 4 = 1½·ln 2, and −ln 0.8
    expected = (1.5 * np.log(2) - np.log(0.8)) / 2
    assert float(soft_cross_entropy(logits, target)) == pytest.approx(expected, rel=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_cross_entropy_and_its_gradient_are_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 5, (8, 7))
    target = rng.dirichlet(np.full(7, 0.3), 8)
    logits = torch.tensor(values, dtype=torch.float32, requires_grad=True)
    loss = soft_cross_entropy(logits, torch.tensor(target, dtype=torch.float32))
    expected = -(target * log_softmax(values, axis=1)).sum(axis=1).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert logits.grad is not None
    # The classic identity: (softmax − target) / N. A step down raises what was voted for.
    gradient = (softmax(values, axis=1) - target) / 8
    np.testing.assert_allclose(logits.grad.numpy(), gradient, atol=1e-5)


def test_cross_entropy_of_half_precision_logits_is_computed_in_float32() -> None:
    logits = torch.tensor([[60000.0, 0.0]], dtype=torch.float16)
    loss = soft_cross_entropy(logits, torch.tensor([[0.0, 1.0]]))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(60000, rel=1e-3)


def _public(module: ModuleType) -> dict[str, Callable[..., Any]]:
    functions = inspect.getmembers(module, inspect.isfunction)
    return {
        name: function
        for name, function in functions
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


LOSSES = _public(distill) | _public(feature) | _public(margin) | _public(negative)
CLASSES = {"labels", "complementary"}
FILED: list[Row] = json.loads(FILE.read_text(encoding="utf-8"))
FILED_IDS = [f"{row['loss']}-{i}" for i, row in enumerate(FILED)]


def tensors(row: Row, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {
        name: torch.tensor(value, dtype=torch.int64 if name in CLASSES else dtype)
        for name, value in row["inputs"].items()
    }


def computed(row: Row, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    made = LOSSES[row["loss"]](**inputs, **row["parameters"])
    return list(made) if isinstance(made, tuple) else [made]


def test_the_golden_file_is_what_its_script_makes() -> None:
    made: list[Row] = json.loads(json.dumps(rows()))
    assert len(made) == len(FILED)
    for row, filed in zip(made, FILED, strict=True):
        for key in ("loss", "parameters"):
            assert row[key] == filed[key]
        assert row["inputs"].keys() == filed["inputs"].keys()
        for name, value in row["inputs"].items():
            np.testing.assert_allclose(value, filed["inputs"][name], rtol=1e-9)
        # Not to the last bit: another SciPy may round otherwise.
        np.testing.assert_allclose(row["expected"], filed["expected"], rtol=1e-8, atol=1e-12)


def test_every_loss_has_a_golden_row() -> None:
    by_hand_above = {"vote_targets", "soft_cross_entropy"}
    assert LOSSES.keys() == {row["loss"] for row in FILED} | by_hand_above


@pytest.mark.parametrize("row", FILED, ids=FILED_IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_losses_are_the_golden_ones(row: Row, dtype: torch.dtype) -> None:
    made = computed(row, tensors(row, dtype))
    expected = row["expected"] if len(made) > 1 else [row["expected"]]
    for part, golden in zip(made, expected, strict=True):
        torch.testing.assert_close(part, torch.tensor(golden), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("row", FILED, ids=FILED_IDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_inputs_are_computed_in_float32(row: Row, dtype: torch.dtype) -> None:
    halves = tensors(row, dtype)
    full = {k: v.float() if v.is_floating_point() else v for k, v in halves.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = computed(row, halves)
    for part, expected in zip(made, computed(row, full), strict=True):
        assert part.dtype == torch.float32
        assert torch.equal(part, expected)
