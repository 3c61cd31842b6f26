"""What the distillation losses promise whatever the logits; their values are in test_losses.py."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor

from contract.errors import UserError
from trainer.losses.distill import (
    class_alpha,
    dkd_parts,
    focal_cross_entropy,
    focal_nckd,
    focal_weight,
    kd,
    standardise,
)

SEEDS = st.integers(0, 2**32 - 1)
TEMPERATURES = st.floats(1, 6)


def logits_of(seed: int, spread: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits, 6×7 each, and labels."""
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(0, spread, (2, 6, 7)).astype(np.float32)
    return (
        torch.tensor(student, requires_grad=True),
        torch.tensor(teacher),
        torch.tensor(rng.integers(0, 7, 6)),
    )


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    (made,) = torch.autograd.grad(loss.sum(), of, retain_graph=True)
    return made


def one_hot(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, 7).float()


@given(SEEDS, TEMPERATURES)
def test_kd_is_tckd_and_the_teachers_doubt_times_nckd(seed: int, temperature: float) -> None:
    student, teacher, labels = logits_of(seed)
    tckd, nckd = dkd_parts(student, teacher, labels, temperature)
    p = softmax(teacher.double().numpy() / temperature, axis=1)[range(6), labels]
    whole = tckd.detach().double().numpy() + (1 - p) * nckd.detach().double().numpy()
    np.testing.assert_allclose(
        kd(student, teacher, temperature).detach().numpy(), whole, rtol=1e-4, atol=1e-4
    )


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "kd": lambda s, t, y, temperature: kd(s, t, temperature),
    "tckd": lambda s, t, y, temperature: dkd_parts(s, t, y, temperature)[0],
    "nckd": lambda s, t, y, temperature: dkd_parts(s, t, y, temperature)[1],
    "focal_nckd": lambda s, t, y, temperature: focal_nckd(s, t, y, temperature, 1.5),
    "standardised": lambda s, t, y, temperature: kd(standardise(s), standardise(t), temperature),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@every_loss
@given(SEEDS, TEMPERATURES)
def test_a_student_that_agrees_has_nothing_to_learn(
    loss: Callable[[Tensor, Tensor, Tensor, float], Tensor], seed: int, temperature: float
) -> None:
    _, teacher, labels = logits_of(seed)
    # A softmax does not see a shift, so neither may a loss.
    student = (teacher + 2.5).requires_grad_()
    made = loss(student, teacher, labels, temperature)
    torch.testing.assert_close(made, torch.zeros(6), rtol=0, atol=1e-4)
    torch.testing.assert_close(gradient(made, student), torch.zeros(6, 7), rtol=0, atol=1e-4)


# The weight of focal_nckd moves with the student, so its value may rise while its KL falls.
@pytest.mark.parametrize("loss", [LOSSES[name] for name in LOSSES if name != "focal_nckd"])
@given(SEEDS)
def test_a_student_that_differs_pays_for_it_and_a_step_brings_it_closer(
    loss: Callable[[Tensor, Tensor, Tensor, float], Tensor], seed: int
) -> None:
    student, teacher, labels = logits_of(seed)
    before = loss(student, teacher, labels, 2.0)
    assert (before > -1e-5).all()
    after = loss(student - 0.01 * gradient(before, student), teacher, labels, 2.0)
    assert (after <= before + 1e-5).all()
    assert after.sum() < before.sum()


@every_loss
@pytest.mark.parametrize("sign", [1, -1])
def test_saturated_logits_give_finite_losses_and_gradients(
    loss: Callable[[Tensor, Tensor, Tensor, float], Tensor], sign: int
) -> None:
    student = (sign * 200 * torch.eye(7)).requires_grad_()
    teacher = 200 * torch.eye(7).flip(0)
    made = loss(student, teacher, torch.arange(7), 2.0)
    assert made.isfinite().all()
    assert gradient(made, student).isfinite().all()


@given(SEEDS, TEMPERATURES)
def test_the_gradient_of_kd_is_t_times_the_gap_of_the_softened_probabilities(
    seed: int, temperature: float
) -> None:
    student, teacher, _ = logits_of(seed)
    made = gradient(kd(student, teacher, temperature), student)
    pulled = softmax(student.detach().double().numpy() / temperature, axis=1)
    gap = pulled - softmax(teacher.double().numpy() / temperature, axis=1)
    np.testing.assert_allclose(made.numpy(), temperature * gap, atol=2e-5)


@given(SEEDS, st.floats(0.2, 5))
def test_t_squared_stands_before_a_softened_term(seed: int, temperature: float) -> None:
    student, teacher, labels = logits_of(seed)
    hot = student * temperature, teacher * temperature
    torch.testing.assert_close(
        kd(*hot, temperature), temperature**2 * kd(student, teacher, 1.0), rtol=1e-3, atol=1e-4
    )
    for softened, plain in zip(
        dkd_parts(*hot, labels, temperature), dkd_parts(student, teacher, labels, 1.0), strict=True
    ):
        torch.testing.assert_close(softened, temperature**2 * plain, rtol=1e-3, atol=1e-4)


@given(SEEDS)
def test_at_a_high_temperature_kd_is_matching_of_logits(seed: int) -> None:
    # Hinton et al., equation 4: then only the squared gap of the centred logits is left.
    student, teacher, _ = logits_of(seed, spread=1.0)
    gap = (student - teacher).detach().double().numpy()
    expected = gap.var(axis=1) / 2
    np.testing.assert_allclose(
        kd(student, teacher, 40.0).detach().numpy(), expected, rtol=0.1, atol=2e-3
    )


@given(SEEDS, TEMPERATURES)
def test_nckd_leaves_the_labels_logit_alone_and_tckd_moves_it_to_the_teacher(
    seed: int, temperature: float
) -> None:
    student, teacher, labels = logits_of(seed)
    tckd, nckd = dkd_parts(student, teacher, labels, temperature)
    rows = torch.arange(6)
    assert torch.equal(gradient(nckd, student)[rows, labels], torch.zeros(6))
    focal = focal_nckd(student, teacher, labels, temperature, 1.5)
    assert torch.equal(gradient(focal, student)[rows, labels], torch.zeros(6))
    p_student = torch.softmax(student / temperature, dim=1)[rows, labels]
    p_teacher = torch.softmax(teacher / temperature, dim=1)[rows, labels]
    expected = temperature * (p_student - p_teacher)
    torch.testing.assert_close(gradient(tckd, student)[rows, labels], expected, rtol=0, atol=1e-4)


@given(SEEDS)
def test_focal_nckd_steps_as_nckd_does_and_furthest_for_the_rows_the_student_gets_wrong(
    seed: int,
) -> None:
    student, teacher, labels = logits_of(seed)
    weight = focal_weight(student, one_hot(labels), 1.5).detach()
    _, nckd = dkd_parts(student, teacher, labels, 2.0)
    made = gradient(focal_nckd(student, teacher, labels, 2.0, 1.5), student)
    torch.testing.assert_close(made, weight[:, None] * gradient(nckd, student))


@given(SEEDS)
def test_nckd_sees_nothing_of_the_labels_logit(seed: int) -> None:
    student, teacher, labels = logits_of(seed)
    _, before = dkd_parts(student, teacher, labels, 2.0)
    lifted = 5 * one_hot(labels)
    _, after = dkd_parts(student + lifted, teacher - lifted, labels, 2.0)
    torch.testing.assert_close(after, before)


@given(SEEDS, st.floats(0.5, 4))
def test_a_focal_weight_is_a_share_that_falls_as_the_student_gets_it_right(
    seed: int, gamma: float
) -> None:
    student, _, labels = logits_of(seed, spread=1.0)
    weight = focal_weight(student, one_hot(labels), gamma)
    righter = focal_weight(student + one_hot(labels), one_hot(labels), gamma)
    assert ((weight >= 0) & (weight <= 1)).all()
    assert (righter < weight).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5])
def test_a_focal_weight_keeps_its_figures_and_its_gradient_where_the_student_is_sure(
    gamma: float,
) -> None:
    # 1 − softmax would be 0 in float32 in the second row; nothing at all is left in the third.
    gaps = [5.0, 30.0, 500.0]
    student = torch.tensor([[gap, 0.0] for gap in gaps], requires_grad=True)
    right = torch.tensor([[1.0, 0.0]] * 3)
    weight = focal_weight(student, right, gamma)
    missed = [1 / (1 + np.exp(gap)) for gap in gaps[:2]]
    assert weight[:2].tolist() == pytest.approx(np.power(missed, gamma), rel=1e-4)
    assert float(weight[2].detach()) == pytest.approx(0 if gamma else 1, abs=1e-6)
    assert gradient(focal_cross_entropy(student, right, gamma), student).isfinite().all()


@given(SEEDS, st.floats(0.5, 3))
def test_focal_cross_entropy_is_differentiated_through_its_weight(seed: int, gamma: float) -> None:
    student, _, labels = logits_of(seed)
    targets = 0.8 * one_hot(labels) + 0.2 / 7

    def value(logits: NDArray[np.float64]) -> float:
        wanted = targets.double().numpy()
        missed = 1 - (wanted * softmax(logits, axis=1)).sum(1)
        return float((-(missed**gamma) * (wanted * log_softmax(logits, axis=1)).sum(1)).sum())

    made = gradient(focal_cross_entropy(student, targets, gamma), student)
    at = student.detach().double().numpy()
    for step in np.eye(42).reshape(42, 6, 7)[::5] * 1e-5:
        slope = (value(at + step) - value(at - step)) / 2e-5
        assert float(made[tuple(np.argwhere(step)[0])]) == pytest.approx(slope, abs=1e-3)


@given(SEEDS, st.floats(0.1, 50), st.floats(-20, 20))
def test_standardise_sees_neither_shift_nor_scale(seed: int, scale: float, shift: float) -> None:
    _, logits, _ = logits_of(seed)
    made = standardise(logits)
    torch.testing.assert_close(made.mean(1), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(made.std(1, correction=0), torch.ones(6), rtol=0, atol=1e-4)
    torch.testing.assert_close(standardise(logits * scale + shift), made, rtol=0, atol=1e-3)
    torch.testing.assert_close(standardise(-logits), -made)


def test_standardise_of_a_new_head_is_zero_with_a_finite_gradient() -> None:
    logits = torch.full((2, 7), 3.0, requires_grad=True)
    made = standardise(logits)
    assert torch.equal(made, torch.zeros(2, 7))
    assert gradient(kd(made, torch.eye(7)[:2], 2.0), logits).isfinite().all()


def test_class_alpha_refuses_a_name_that_is_no_expression() -> None:
    with pytest.raises(UserError, match=r"'angri'.*did you mean 'angry'"):
        class_alpha(torch.tensor([0]), 0.5, {"angri": 0.6})
