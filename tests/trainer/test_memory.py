"""Class memories: bounds of the agreement, what is remembered, and that classes stay apart."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from trainer.memory import ClassMemory, RunningMean, agreement

# No subnormals: SciPy divides by them, and finds infinitely far what is equal but for them.
MASSES = (
    hnp.arrays(np.float64, 7, elements=st.floats(0, 1))
    .map(lambda m: np.where(m < 1e-300, 0, m))
    .filter(lambda m: m.sum() > 1e-3)
)


def memory(interval: int = 4, fast: float = 0.5, slow: float = 0.5) -> ClassMemory:
    return ClassMemory(7, fast, slow, interval, "cpu")


def step(of: ClassMemory, p: Tensor, labels: Tensor, number: int = 0) -> None:
    of.begin_step()
    of.note(p, labels)
    of.end_step(number)


def answers(labels: Tensor, confidence: float, seed: int = 0) -> Tensor:
    """Probabilities of a student that gives the label's logit so much more than the others."""
    noise = torch.randn(len(labels), 7, generator=torch.Generator().manual_seed(seed))
    return torch.softmax(noise + confidence * torch.eye(7)[labels], dim=1)


@given(MASSES, MASSES)
def test_agreement_is_bounded_symmetric_and_what_scipy_says(
    first: np.ndarray, second: np.ndarray
) -> None:
    p, q = torch.tensor(first / first.sum()), torch.tensor(second / second.sum())
    found = float(agreement(p, q))
    assert 0 <= found <= 1
    assert found == float(agreement(q, p))
    # SciPy takes the root of a difference that rounding may put below nothing: NaN for equals.
    distance = np.nan_to_num(jensenshannon(p, q, base=2))
    assert found == pytest.approx(1 - distance**2, abs=1e-9)


@given(MASSES, MASSES)
def test_agreement_is_whole_for_equals_alone(first: np.ndarray, second: np.ndarray) -> None:
    p, q = torch.tensor(first / first.sum()), torch.tensor(second / second.sum())
    assert float(agreement(p, p)) == pytest.approx(1, abs=1e-12)
    # Pinsker's inequality, from each to the middle: JS ≥ ‖p − q‖₁² / 8.
    gap = float((p - q).abs().sum())
    assert float(agreement(p, q)) <= 1 - gap**2 / 8 / np.log(2) + 1e-9


def test_answers_without_a_class_in_common_do_not_agree() -> None:
    p = torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0])
    q = torch.tensor([0, 0, 0.2, 0.8, 0, 0, 0])
    assert float(agreement(p, q)) == pytest.approx(0, abs=1e-12)


def test_a_fresh_memory_doubts_the_confidently_wrong_alone() -> None:
    label = torch.zeros(3, dtype=torch.long)
    undecided, right, wrong = torch.full((7,), 1 / 7), torch.eye(7)[0], torch.eye(7)[3]
    found = memory().consistency(torch.stack([undecided, right, wrong]), label)
    assert found[0] > 0.6 and found[1] > 0.6  # the study's threshold for negative learning
    assert found[2] < 0.3


def test_a_running_mean_is_the_plain_mean_then_forgets() -> None:
    mean = RunningMean(torch.full((1, 1), 5.0), momentum=0.75)
    one = torch.ones(1, dtype=torch.float64)
    for value in (1.0, 2.0, 6.0, 3.0):  # rates 1, 1/2, 1/3, 1/4
        mean.update(one.unsqueeze(0) * value, one)
    assert float(mean.value) == pytest.approx(3.0)
    mean.update(torch.full((1, 1), 14.0, dtype=torch.float64), 2 * one)  # two rows of 7
    assert float(mean.value) == pytest.approx(0.75 * 3 + 0.25 * 7)


def test_a_class_that_is_absent_keeps_its_memory() -> None:
    kept = memory(interval=1)
    step(kept, answers(torch.tensor([0, 1, 2]), 3.0), torch.tensor([0, 1, 2]))
    before = kept.means()
    step(kept, answers(torch.tensor([0, 0]), 3.0, seed=1), torch.tensor([0, 0]), 1)
    after = kept.means()
    assert torch.equal(after[1:], before[1:])
    assert not torch.equal(after[0], before[0])


def test_the_slow_memory_takes_in_all_rows_of_its_period() -> None:
    slow = memory(interval=3, fast=0.0)
    label = torch.tensor([4])
    start = slow.means()[4] * 2 - slow.state()["fast"][4]
    given = [answers(label, 2.0, seed) for seed in range(3)]
    for number, p in enumerate(given):
        assert torch.equal(slow.state()["slow"][4], start), "before its period is over"
        step(slow, p, label, number)
        torch.testing.assert_close(slow.state()["fast"][4], p[0].double())
    torch.testing.assert_close(slow.state()["slow"][4], torch.cat(given).double().mean(0))


def test_memories_stay_apart_while_the_student_separates_the_classes() -> None:
    """However long it runs; and where it answers all classes alike, they say so."""
    separating, collapsed = memory(), memory()
    for number in range(400):
        labels = torch.randint(0, 7, (16,), generator=torch.Generator().manual_seed(number))
        step(separating, answers(labels, 4.0, number), labels, number)
        step(collapsed, answers(torch.zeros_like(labels), 4.0, number), labels, number)
    assert separating.means().argmax(1).tolist() == list(range(7))
    assert float(separating.apart().min()) > 0.5
    assert float(collapsed.apart().max()) < 0.1


def test_however_a_step_is_divided_it_is_remembered_alike() -> None:
    labels = torch.arange(21) % 7
    p = answers(labels, 1.0)
    whole, parts, again = memory(), memory(), memory()
    step(whole, p, labels)
    parts.note(p[:5], labels[:5])
    parts.note(p[5:], labels[5:])
    parts.end_step(0)
    torch.testing.assert_close(parts.means(), whole.means(), rtol=1e-12, atol=0)
    again.note(p[:5], labels[:5])  # memory ran out, so the step begins anew
    step(again, p, labels)
    assert torch.equal(again.means(), whole.means())


def test_answers_that_are_not_finite_are_not_remembered() -> None:
    labels = torch.tensor([0, 0, 1])
    p = answers(labels, 2.0)
    p[1:] = torch.nan
    found = memory()
    step(found, p, labels)
    torch.testing.assert_close(found.state()["fast"][0], p[0].double())
    assert found.means().isfinite().all()
