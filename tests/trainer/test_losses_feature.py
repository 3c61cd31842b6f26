"""Attention maps and similarities of a batch; their values are in test_losses.py."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainer.losses.feature import attention_map, attention_transfer, similarity_preserving

SEEDS = st.integers(0, 2**32 - 1)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape), dtype=torch.float32)


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    (made,) = torch.autograd.grad(loss.sum(), of)
    return made


@given(SEEDS, st.integers(1, 5), st.integers(3, 8), st.floats(0.01, 100))
def test_an_attention_map_has_length_one_and_sees_no_scale_sign_or_order_of_channels(
    seed: int, grid: int, side: int, scale: float
) -> None:
    features = normal(seed, 3, 4, side, side + 1)
    made = attention_map(features, grid)
    assert made.shape == (3, grid**2)
    torch.testing.assert_close(made.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(attention_map(-scale * features.flip(1), grid), made)


def test_an_attention_map_is_where_the_energy_is() -> None:
    features = torch.zeros(1, 2, 4, 4)
    features[0, 1, 0, 3] = -7.0
    assert torch.equal(attention_map(features, 2), torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    even = attention_map(torch.ones(1, 5, 6, 6), 3)
    torch.testing.assert_close(even, torch.full((1, 9), 1 / 3))


def test_squares_of_half_precision_features_do_not_overflow() -> None:
    features = torch.full((1, 3, 4, 4), 6e4, dtype=torch.float16)
    torch.testing.assert_close(attention_map(features, 2), torch.full((1, 4), 0.5))


def test_a_dead_map_has_a_finite_gradient() -> None:
    features = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = attention_transfer(attention_map(features, 2), torch.full((2, 4), 0.5))
    torch.testing.assert_close(loss, torch.ones(2))
    assert gradient(loss, features).isfinite().all()


@given(SEEDS)
def test_attention_is_compared_between_networks_of_any_width_and_size(seed: int) -> None:
    student = normal(seed, 4, 3, 6, 6).requires_grad_()
    teacher = attention_map(normal(seed + 1, 4, 9, 7, 7), 3)
    before = attention_transfer(attention_map(student, 3), teacher)
    assert before.shape == (4,)
    # Squared cosine law of two vectors of length 1.
    cosine = torch.nn.functional.cosine_similarity(attention_map(student, 3), teacher)
    torch.testing.assert_close(before, 2 - 2 * cosine, rtol=1e-4, atol=1e-5)
    moved = student - 0.01 * gradient(before, student)
    assert attention_transfer(attention_map(moved, 3), teacher).sum() < before.sum()
    assert torch.equal(attention_transfer(teacher, teacher), torch.zeros(4))


def test_attention_on_other_places_costs_two() -> None:
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert attention_transfer(one, other).tolist() == [2.0]


def test_similarities_by_hand() -> None:
    # The student finds two faces unlike (rows 1 0 and 0 1), the teacher the same (both ½√2 ½√2):
    # two rows of (1 − ½√2)² + ½ = 2 − √2, over N² = 4.
    student, teacher = torch.eye(2), torch.tensor([[3.0, 4.0, 0.0], [3.0, 4.0, 0.0]])
    made = similarity_preserving(student, teacher)
    assert made.shape == ()
    assert float(made) == pytest.approx((2 - np.sqrt(2)) / 2, rel=1e-6)


@given(SEEDS, st.floats(0.1, 10))
def test_similarities_see_no_rotation_scale_or_order(seed: int, scale: float) -> None:
    student, teacher = normal(seed, 6, 4), normal(seed + 1, 6, 9)
    expected = similarity_preserving(student, teacher)
    rotation, _ = torch.linalg.qr(normal(seed + 2, 4, 4))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        similarity_preserving(scale * student @ rotation, teacher), expected, rtol=1e-3, atol=1e-6
    )
    torch.testing.assert_close(similarity_preserving(student[order], teacher[order]), expected)
    alike = similarity_preserving(teacher @ torch.diag(-torch.ones(9)), teacher)
    assert float(alike) == pytest.approx(0, abs=1e-10)


@given(SEEDS)
def test_a_step_brings_the_similarities_closer(seed: int) -> None:
    student = normal(seed, 6, 4).requires_grad_()
    teacher = normal(seed + 1, 6, 9)
    before = similarity_preserving(student, teacher)
    moved = student - 0.01 * gradient(before, student)
    assert similarity_preserving(moved, teacher) < before


def test_inner_products_of_long_half_precision_embeddings_do_not_overflow() -> None:
    student = torch.full((2, 64), 60.0, dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.float16):
        made = similarity_preserving(student, student)
    assert float(made) == 0
