"""ArcFace against NumPy around its turns, and what it promises a trainer."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.losses.margin import arcface_logits

MARGINS = st.floats(0, 1.5)
EASY = pytest.mark.parametrize("easy", [False, True], ids=["hard", "easy"])


def label_logits(theta: NDArray[np.float64], margin: float, easy: bool = False) -> torch.Tensor:
    """Logits of the label at each angle, for a scale of 1."""
    cosine = torch.tensor(np.cos(theta), dtype=torch.float32)[:, None]
    labels = torch.zeros(len(theta), dtype=torch.int64)
    return arcface_logits(cosine, labels, margin, 1.0, easy)[:, 0]


@given(st.floats(0.05, 1.5), st.floats(1e-3, 0.04))
def test_hard_margin_on_both_sides_of_pi_minus_m_is_numpys(margin: float, away: float) -> None:
    turn = np.pi - margin
    before, after = label_logits(np.array([turn - away, turn + away]), margin).tolist()
    assert before == pytest.approx(np.cos(turn - away + margin), abs=2e-5)
    assert after == pytest.approx(np.cos(turn + away) - margin * np.sin(turn), abs=2e-5)


@given(MARGINS)
def test_the_hard_form_falls_all_the_way_as_the_angle_grows(margin: float) -> None:
    made = label_logits(np.linspace(0, np.pi, 721), margin)
    # A float32 cosine is flat near 0 and π.
    assert (made.diff() <= 1e-6).all()
    assert (made[::40].diff() < 0).all()


@given(MARGINS)
def test_the_easy_form_moves_only_what_is_within_a_right_angle(margin: float) -> None:
    theta = np.linspace(0, np.pi, 721)
    # The right angle itself is neither side in float32.
    theta = theta[np.abs(theta - np.pi / 2) > 1e-3]
    expected = np.where(theta < np.pi / 2, np.cos(theta + margin), np.cos(theta))
    np.testing.assert_allclose(label_logits(theta, margin, easy=True), expected, atol=5e-4)


@EASY
@given(MARGINS, st.floats(1, 64), st.integers(0, 2**32 - 1))
def test_only_the_label_is_moved_and_only_down(
    easy: bool, margin: float, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    cosine = torch.tensor(rng.uniform(-1, 1, (9, 7)), dtype=torch.float32)
    labels = torch.tensor(rng.integers(0, 7, 9))
    made, plain = arcface_logits(cosine, labels, margin, scale, easy), scale * cosine
    is_label = torch.nn.functional.one_hot(labels, 7).bool()
    assert torch.equal(made[~is_label], plain[~is_label])
    # A margin makes the right class harder, never easier.
    assert (made[is_label] <= plain[is_label] + 1e-4).all()


@EASY
def test_without_a_margin_the_logits_are_the_scaled_cosines(easy: bool) -> None:
    cosine = torch.linspace(-1, 1, 35).reshape(5, 7)
    made = arcface_logits(cosine, torch.arange(5), 0.0, 30.0, easy)
    assert torch.equal(made, 30.0 * cosine)


@EASY
@pytest.mark.parametrize("margin", [0.0, 0.35, 0.5, 1.5])
def test_the_gradient_is_finite_and_never_turns_at_the_ends_of_the_cosine(
    easy: bool, margin: float
) -> None:
    # ±1, their neighbours in float32, and the overshoot of a product of two rounded unit vectors.
    ends = torch.tensor([1.0, 1 - 2**-24, 1 + 2**-23, -1.0, -1 + 2**-24, -1 - 2**-23])
    cosine = ends[:, None].requires_grad_()
    made = arcface_logits(cosine, torch.zeros(6, dtype=torch.int64), margin, 30.0, easy)
    assert made.isfinite().all()
    (slope,) = torch.autograd.grad(made.sum(), cosine)
    assert slope.isfinite().all()
    assert (slope > 0).all()
    assert float(slope.max()) < 30 * 3e3


def test_a_step_turns_a_face_towards_its_class() -> None:
    cosine = torch.tensor([[0.2, 0.4, -0.9]], requires_grad=True)
    logits = arcface_logits(cosine, torch.tensor([2]), 0.35, 30.0, False)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([2]))
    (slope,) = torch.autograd.grad(loss, cosine)
    assert slope[0, 2] < 0 < slope[0, 1]
