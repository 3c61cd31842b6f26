"""Losses against values worked out by hand and by SciPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from contract.expressions import INDEX
from trainer.losses.distill import soft_cross_entropy, vote_targets

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
