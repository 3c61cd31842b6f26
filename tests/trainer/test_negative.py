"""Negative learning: the way its losses push, who gets a complementary label, and which."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from contract.errors import UserError
from contract.expressions import EXPRESSIONS, INDEX
from tests.trainer.answers import answers
from trainer.config_study import NegativeConfig
from trainer.losses.negative import entropy, negative_loss, negative_nckd_loss
from trainer.negative import Negative, confusion_of
from trainer.predictions import save_predictions

SEEDS = st.integers(0, 2**32 - 1)
Term = tuple[Tensor, dict[str, Tensor]]


def drawn_logits(seed: int, rows: int = 6, spread: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits `rows`×7, labels, and complementary classes that are never the label."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(rows, 7, generator=generator)
    labels = torch.randint(7, (rows,), generator=generator)
    away = torch.randint(1, 7, (rows,), generator=generator)
    return logits.requires_grad_(), labels, (labels + away) % 7


def share(logits: Tensor, classes: Tensor) -> Tensor:
    return torch.softmax(logits.detach(), 1).gather(1, classes[:, None]).squeeze(1)


def slope(loss: Tensor, logits: Tensor) -> Tensor:
    (made,) = torch.autograd.grad(loss.sum(), logits)
    return made


def apply(
    negative: Negative, logits: Tensor, labels: Tensor, step: int = 0, epoch: int = 0,
    key: int = 0, consistency: Tensor | None = None, nckd: Tensor | None = None,
) -> Term:  # fmt: skip
    return negative.term(
        logits, labels, step=step, epoch=epoch, key=key, consistency=consistency, nckd=nckd
    )


def made(seed: int = 1337, confusion: Any = None, **config: Any) -> Negative:
    return Negative(NegativeConfig.model_validate(config), seed, confusion)


def everyone(**config: Any) -> Negative:
    """All rows of all steps get a complementary label, but for the gates."""
    return made(ratio=1.0, **config)


# --- the losses; their values are in test_losses.py


def test_the_loss_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]]))
    complementary = torch.tensor([1, 2])
    torch.testing.assert_close(
        negative_loss(logits, complementary), -torch.log(torch.tensor([0.5, 0.4]))
    )
    # Without class 0: 2/3 of class 1, 3/4 of class 2.
    torch.testing.assert_close(
        negative_nckd_loss(logits, torch.tensor([0, 0]), complementary),
        -torch.log(torch.tensor([1 / 3, 1 / 4])),
    )


@given(SEEDS)
def test_a_step_lowers_the_probability_of_the_complementary_class(seed: int) -> None:
    logits, labels, complementary = drawn_logits(seed)
    for loss in (
        negative_loss(logits, complementary),
        negative_nckd_loss(logits, labels, complementary),
    ):
        # In float64, where a step of 1e-8 from a probability of 1e-8 is still seen.
        before = logits.double()
        after = before - 0.1 * slope(loss, logits)
        assert (share(after, complementary) < share(before, complementary)).all()


@pytest.mark.parametrize("nckd_only", [False, True])
def test_a_step_of_a_network_lowers_the_probability_of_the_complementary_classes(
    nckd_only: bool,
) -> None:
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(64, 20, generator=generator)
    network = nn.Linear(20, 7)
    nn.init.normal_(network.weight, generator=generator)
    nn.init.zeros_(network.bias)
    labels = torch.arange(64) % 7
    negative = everyone(nckd_only=nckd_only)
    before = network(inputs)
    term, _ = apply(negative, before, labels)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    term.mean().backward()
    optimiser.step()
    assert negative.applied(0) == 1
    assert negative.mean_p(network(inputs), 0) < negative.mean_p(before, 0) - 0.005


@given(SEEDS, st.floats(0.5, 4))
def test_nckd_only_leaves_the_labels_logit_alone(seed: int, temperature: float) -> None:
    logits, labels, complementary = drawn_logits(seed)
    loss = negative_nckd_loss(logits, labels, complementary, temperature)
    gradient = slope(loss, logits)
    assert (gradient.gather(1, labels[:, None]) == 0).all()
    assert (gradient.gather(1, complementary[:, None]) > 0).all()
    # Nothing is created: what the class loses the others gain, the label nothing.
    torch.testing.assert_close(gradient.sum(1), torch.zeros(6), rtol=0, atol=1e-6)


def test_the_term_of_nckd_only_leaves_the_labels_logit_alone() -> None:
    logits, labels, _ = drawn_logits(5, rows=40)
    for nckd_only in (True, False):
        term, _ = apply(everyone(nckd_only=nckd_only), logits, labels)
        target = slope(term, logits).gather(1, labels[:, None])
        assert (target == 0).all() if nckd_only else (target < 0).all()


@given(SEEDS)
def test_the_slope_is_the_probability(seed: int) -> None:
    logits, _, complementary = drawn_logits(seed)
    gradient = slope(negative_loss(logits, complementary), logits)
    at = gradient.gather(1, complementary[:, None]).squeeze(1)
    torch.testing.assert_close(at, share(logits, complementary), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [20.0, 200.0, 30000.0])
def test_a_class_that_is_certain_still_learns_and_never_overflows(
    size: float, dtype: torch.dtype
) -> None:
    # p = 1 in float32: −log(1 − p) written plainly would be infinite.
    logits = (size * torch.eye(7)).to(dtype).requires_grad_()
    complementary, labels = torch.arange(7), (torch.arange(7) + 1) % 7
    for loss, rest in (
        (negative_loss(logits, complementary), 6),
        (negative_nckd_loss(logits, labels, complementary), 5),
    ):
        assert loss.dtype == torch.float32
        expected = torch.full((7,), float(logits.detach().max()) - math.log(rest))
        torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-5)
        gradient = slope(loss, logits)
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradient.diag().float(), torch.ones(7), rtol=0, atol=1e-3)


def test_a_class_that_is_out_of_the_question_costs_nothing() -> None:
    logits = (-200 * torch.eye(7)).requires_grad_()
    loss = negative_loss(logits, torch.arange(7))
    assert (loss == 0).all()
    assert slope(loss, logits).isfinite().all()


def test_entropy_of_certainty_of_two_and_of_all() -> None:
    logits = torch.zeros(3, 7, dtype=torch.float16)
    logits[0, 2] = 60000
    logits[1, :2] = 60000
    expected = torch.tensor([0.0, math.log(2), math.log(7)])
    torch.testing.assert_close(entropy(logits), expected, rtol=0, atol=1e-6)


# --- who


ALL_BUT_SURE = torch.zeros(6, 7)
ALL_BUT_SURE[[0, 2, 4], 0] = 9.0  # entropies 0.01; the others ln 7 = 1.95
CONSISTENCY = torch.tensor([0.1, 0.2, 0.59, 0.61, 0.9, 0.3])
NCKD = torch.tensor([0.5, 0.1, 0.9, 0.8, 0.2, 0.7])
UNSURE, ASTRAY, GREATEST = {1, 3, 5}, {0, 1, 2, 5}, {2, 3, 5}


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        ((), {0, 1, 2, 3, 4, 5}),
        (("entropy",), UNSURE),
        (("consistency",), ASTRAY),
        (("nckd",), GREATEST),
        (("entropy", "consistency"), {1, 5}),
        (("consistency", "nckd"), {2, 5}),
        (("entropy", "nckd"), {3, 5}),
        (("nckd", "consistency", "entropy"), {5}),
    ],
)
def test_gates_let_through_exactly_those_who_meet_all_of_them(
    gates: tuple[str, ...], expected: set[int]
) -> None:
    negative = everyone(gates=gates)
    labels = torch.tensor([1, 2, 3, 4, 5, 6])
    term, parts = apply(negative, ALL_BUT_SURE, labels, consistency=CONSISTENCY, nckd=NCKD)
    assert set(term.nonzero().flatten().tolist()) == expected
    assert float(parts["negl_applied"]) == pytest.approx(len(expected) / 6)


@pytest.mark.parametrize(
    ("key", "low", "high"), [("entropy_threshold", 1.9, 1.95), ("consistency_threshold", 0.3, 0.31)]
)
def test_thresholds_are_those_of_the_config(key: str, low: float, high: float) -> None:
    logits, labels = torch.zeros(1, 7), torch.tensor([0])
    gate, below_passes = key.removesuffix("_threshold"), key.startswith("consistency")
    for bound in (low, high):
        negative = everyone(gates=[gate], **{key: bound})
        _, parts = apply(negative, logits, labels, consistency=torch.tensor([0.3]))
        assert bool(parts["negl_applied"]) == ((bound == high) == below_passes)


@given(st.integers(1, 40), st.floats(0, 1), SEEDS)
def test_the_nckd_gate_takes_its_share_even_where_all_are_equal(
    rows: int, wanted: float, seed: int
) -> None:
    values = torch.randint(3, (rows,), generator=torch.Generator().manual_seed(seed)).float()
    negative = everyone(gates=["nckd"], nckd_share=wanted)
    term, _ = apply(
        negative, torch.zeros(rows, 7), torch.zeros(rows, dtype=torch.long), nckd=values
    )
    taken = term > 0
    assert abs(int(taken.sum()) - wanted * rows) <= 0.5 + 1e-6
    if taken.any() and not taken.all():
        assert values[taken].min() >= values[~taken].max()


def test_gates_do_not_carry_gradients() -> None:
    logits, labels, _ = drawn_logits(3)
    consistency = torch.full((6,), 0.2, requires_grad=True)
    nckd = torch.rand(6, requires_grad=True)
    negative = everyone(gates=["entropy", "consistency", "nckd"], entropy_threshold=0.0)
    term, parts = apply(negative, logits, labels, consistency=consistency, nckd=nckd)
    term.sum().backward()
    assert logits.grad is not None and logits.grad.any()
    assert consistency.grad is None and nckd.grad is None
    assert not any(value.requires_grad for value in parts.values())


@pytest.mark.parametrize(("gate", "named"), [("consistency", "[nested]"), ("nckd", "distill")])
def test_a_gate_without_its_measure_says_where_it_comes_from(gate: str, named: str) -> None:
    negative = made(ratio=0.01, gates=[gate])  # at once, not at the first step that applies it
    with pytest.raises(UserError) as caught:
        apply(negative, torch.zeros(2, 7), torch.tensor([0, 1]))
    assert gate in str(caught.value) and named in str(caught.value)


# --- how many


def exposure(negative: Negative, steps: int, rows: int = 70, epoch: int = 0) -> dict[str, float]:
    """Over many steps: share of steps with any, of rows, and of the rows of each expression."""
    labels = torch.arange(rows) % 7
    logits = torch.zeros(rows, 7)
    sums: dict[str, float] = {"steps": 0.0}
    for step in range(steps):
        _, parts = apply(negative, logits, labels, step=step, epoch=epoch)
        sums["steps"] += bool(parts["negl_applied"])
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    found = {"steps": sums["steps"] / steps, "rows": sums["negl_applied"] / steps}
    for name in EXPRESSIONS:
        found[name] = sums[f"negl_applied_{name}"] / sums[f"negl_rows_{name}"]
    return found


def within(share: float, trials: int) -> Any:
    """Four standard errors of a share: the seeds are fixed, so it holds for good or never."""
    return pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / trials))


def test_a_share_of_batches_gets_labels_for_all_of_its_rows() -> None:
    found = exposure(made(ratio=0.1), 1000)
    assert found["steps"] == within(0.1, 1000)
    assert all(found[name] == pytest.approx(found["steps"]) for name in ("rows", *EXPRESSIONS))


def test_a_share_of_samples_gets_labels_in_any_batch() -> None:
    found = exposure(made(ratio=0.1, unit="sample"), 300)
    assert found["steps"] > 0.95
    for name in EXPRESSIONS:
        assert found[name] == within(0.1, 3000)


@pytest.mark.parametrize("unit", ["batch", "sample"])
def test_ratios_of_classes_and_pairs_are_their_exposure(unit: str) -> None:
    negative = made(ratio=0.2, unit=unit, class_ratio={"angry": 0.06, "fear": 0.04}, pair_ratio=0.1)
    found = exposure(negative, 1000)
    # The class goes before the pair, and the pair before the rest.
    wanted = {"angry": 0.06, "fear": 0.04} | dict.fromkeys(("surprise", "neutral", "sad"), 0.1)
    for name in EXPRESSIONS:
        share = wanted.get(name, 0.2)
        if unit == "sample":
            assert found[name] == within(share, 10000)
        else:  # thinned within the batches that were drawn
            batches = found["steps"]
            assert batches == within(0.2, 1000)
            assert found[name] / batches == within(share / 0.2, round(10000 * batches))


def test_a_class_may_get_more_by_samples_but_not_by_batches() -> None:
    found = exposure(made(ratio=0.05, unit="sample", class_ratio={"angry": 0.5}), 200)
    assert found["angry"] == within(0.5, 2000)
    for own in ({"class_ratio": {"angry": 0.06}}, {"pair_ratio": 0.06}):
        with pytest.raises(ValidationError, match="sample"):
            NegativeConfig.model_validate({"ratio": 0.05, **own})
        # Nor in an epoch of a ramp; one at 0 is off for all.
        with pytest.raises(ValidationError, match="sample"):
            NegativeConfig.model_validate({"ratio": 0.1, "ratio_by_epoch": [0.0, 0.05], **own})
        NegativeConfig.model_validate({"ratio": 0.1, "ratio_by_epoch": [0.0, 0.06], **own})


def test_an_expression_paired_with_itself_is_refused() -> None:
    with pytest.raises(ValidationError, match="fear with itself"):
        NegativeConfig.model_validate({"pairs": [["fear", "fear"]]})


@pytest.mark.parametrize("unit", ["batch", "sample"])
def test_the_ratio_follows_its_ramp(unit: str) -> None:
    negative = made(
        ratio=0.5, unit=unit, ratio_by_epoch=[0.0, 1.0], class_ratio={"happy": 0.25},
    )  # fmt: skip
    of = [exposure(negative, 400, rows=21, epoch=epoch) for epoch in range(4)]
    assert of[0]["rows"] == 0  # off is off for every class
    assert of[1]["sad"] == 1
    assert of[1]["happy"] == within(0.25, 1200)
    for then in of[2:]:
        assert then["sad"] == within(0.5, 400)
        assert then["happy"] == within(0.25, 400)


def test_off_is_off() -> None:
    term, parts = apply(made(class_ratio={"angry": 0.5}, unit="sample"), torch.zeros(70, 7),
                        torch.arange(70) % 7)  # fmt: skip
    assert not term.any()
    assert not any(value for name, value in parts.items() if not name.startswith("negl_rows"))


# --- which


def chosen(negative: Negative, label: str, rows: int = 6000) -> Tensor:
    """How often each class is the complementary one of faces of a label, from the gradient."""
    logits = torch.zeros(rows, 7, requires_grad=True)
    term, _ = apply(negative, logits, torch.full((rows,), INDEX[label]))
    # Only the complementary class has its logit pushed down.
    return (slope(term, logits) > 0).float().mean(0)


@pytest.mark.parametrize("label", EXPRESSIONS)
def test_uniform_is_any_class_but_the_label(label: str) -> None:
    found = chosen(everyone(), label)
    assert found[INDEX[label]] == 0
    for name in EXPRESSIONS:
        if name != label:
            assert float(found[INDEX[name]]) == within(1 / 6, 6000)


@pytest.mark.parametrize(
    ("label", "partner"),
    [("fear", "surprise"), ("surprise", "fear"), ("neutral", "sad"), ("sad", "neutral")],
)
def test_a_pair_is_each_others_target(label: str, partner: str) -> None:
    found = chosen(everyone(method="targeted"), label)
    assert found[INDEX[partner]] == 1


def test_an_expression_of_no_pair_is_uniform_and_one_of_two_pairs_divided() -> None:
    negative = everyone(method="targeted", pairs=[["fear", "surprise"], ["fear", "angry"]])
    for name in set(EXPRESSIONS) - {"happy"}:
        assert float(chosen(negative, "happy")[INDEX[name]]) == within(1 / 6, 6000)
    found = chosen(negative, "fear")
    assert float(found[INDEX["angry"]]) == within(0.5, 6000)
    assert found[INDEX["angry"]] + found[INDEX["surprise"]] == 1


def test_a_confusion_matrix_names_what_a_face_is_most_often_taken_for() -> None:
    confusion = np.diag([50] * 7).astype(np.int64)
    confusion[INDEX["angry"], [INDEX["disgust"], INDEX["sad"]]] = [4, 9]
    confusion[INDEX["disgust"], [INDEX["angry"], INDEX["fear"]]] = [5, 5]
    confusion[INDEX["fear"], INDEX["happy"]] = 1
    negative = everyone(method="targeted", confusion=confusion)
    assert chosen(negative, "angry")[INDEX["sad"]] == 1
    assert chosen(negative, "fear")[INDEX["happy"]] == 1  # not the pair
    equals = chosen(negative, "disgust")
    assert float(equals[INDEX["angry"]]) == within(0.5, 6000)
    assert equals[INDEX["angry"]] + equals[INDEX["fear"]] == 1
    never = chosen(negative, "happy")
    assert never[INDEX["happy"]] == 0 and float(never.max()) == within(1 / 6, 6000)


@settings(max_examples=30)
@given(SEEDS, st.integers(0, 10**6), st.sampled_from(["uniform", "targeted"]))
def test_the_label_is_never_the_complementary_class(seed: int, step: int, method: str) -> None:
    logits, labels, _ = drawn_logits(seed, rows=200)
    term, _ = apply(everyone(seed=seed, method=method), logits, labels, step=step)
    assert (slope(term, logits).gather(1, labels[:, None]) < 0).all()


def test_confusion_is_of_the_calib_rows_alone(tmp_path: Path) -> None:
    calib, val = answers(200, 1, "calib"), answers(300, 2, "val")
    both = answers(500)
    both.paths[:], both.sources[:] = calib.paths + val.paths, calib.sources + val.sources
    both.splits[:] = calib.splits + val.splits
    both.labels[:] = np.concatenate([calib.labels, val.labels])
    both.logits[:] = np.concatenate([calib.logits, val.logits])
    save_predictions(tmp_path / "predictions.npz", both)
    found = confusion_of(tmp_path / "predictions.npz")
    expected = np.zeros((7, 7), int)
    for truth, logits in zip(calib.labels, calib.logits, strict=True):
        expected[truth, logits.argmax()] += 1
    assert (found == expected).all()


def test_a_confusion_without_calib_rows_is_the_users_mistake(tmp_path: Path) -> None:
    save_predictions(tmp_path / "p.npz", answers(split="val"))
    with pytest.raises(UserError, match=r"p\.npz has no rows of split 'calib'"):
        confusion_of(tmp_path / "p.npz")
    with pytest.raises(UserError, match=r"gone\.npz"):
        confusion_of(tmp_path / "gone.npz")


# --- again


def test_a_step_is_the_same_whatever_went_before_it() -> None:
    logits, labels, _ = drawn_logits(1, rows=50)
    config: dict[str, Any] = {"ratio": 0.5, "unit": "sample"}
    fresh, used = made(**config), made(**config)
    for step in range(3):
        apply(used, logits, labels, step=step)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    first, parts = apply(fresh, logits, labels, step=7, key=2)
    assert torch.equal(torch.get_rng_state(), state)  # the loop's dropout is left alone
    torch.manual_seed(5)
    again, parts_again = apply(used, logits, labels, step=7, key=2)
    assert torch.equal(first, again)
    assert parts == parts_again


@pytest.mark.parametrize("other", [{"step": 8}, {"key": 3}, {"seed": 2}], ids=str)
def test_steps_pieces_and_seeds_differ(other: dict[str, int]) -> None:
    logits, labels, _ = drawn_logits(1, rows=50)
    terms = []
    for change in ({}, other):
        where = {"seed": 1337, "step": 7, "key": 2} | change
        negative = everyone(seed=where.pop("seed"))
        terms.append(apply(negative, logits, labels, **where)[0])
    assert not torch.equal(*terms)


def test_the_pieces_of_a_step_agree_on_whether_the_batch_is_drawn() -> None:
    logits, labels = torch.zeros(4, 7), torch.tensor([0, 1, 2, 3])
    shares = set()
    for step in range(60):
        # As in as many processes, each with an object of its own.
        pieces = [apply(made(ratio=0.5), logits, labels, step=step, key=key) for key in range(4)]
        shares.add(tuple(float(parts["negl_applied"]) for _, parts in pieces))
    assert shares == {(0.0,) * 4, (1.0,) * 4}


# --- the log


def test_the_log_is_what_was_done() -> None:
    logits, labels, _ = drawn_logits(8, rows=300, spread=1.0)
    term, parts = apply(made(ratio=0.3, unit="sample", weight=2.5), logits, labels)
    mask = term > 0
    assert 60 < int(mask.sum()) < 120
    assert float(parts["negl_applied"]) == pytest.approx(float(mask.float().mean()))
    # Without the weight, and p by the loss's own definition.
    losses = term.detach()[mask].double() / 2.5
    assert float(parts["negl_loss"]) == pytest.approx(float(losses.sum()) / 300, rel=1e-5)
    p = 1 - torch.exp(-losses)
    assert float(parts["negl_p"]) == pytest.approx(float(p.sum()) / 300, rel=1e-4)
    for number, name in enumerate(EXPRESSIONS):
        of = labels == number
        assert float(parts[f"negl_rows_{name}"]) == pytest.approx(float(of.float().mean()))
        both = float((of & mask).float().mean())
        assert float(parts[f"negl_applied_{name}"]) == pytest.approx(both)


def test_every_step_logs_the_same_things() -> None:
    # Processes add up their logs by name, so a step without any must have them too.
    negative = made(ratio=0.5)
    logits, labels = torch.zeros(4, 7), torch.tensor([0, 1, 2, 3])
    names = {tuple(apply(negative, logits, labels, step=step)[1]) for step in range(20)}
    assert len(names) == 1


def test_p_after_a_step_is_of_the_same_classes_of_the_same_rows_of_the_same_piece() -> None:
    negative = made(ratio=0.5, unit="sample")
    labels = torch.arange(70) % 7
    logits = [drawn_logits(key, rows=70)[0] for key in range(2)]
    logged = [apply(negative, logits[key], labels, key=key)[1] for key in range(2)]
    for key, parts in enumerate(logged):
        assert negative.applied(key) == parts["negl_applied"]
        assert negative.mean_p(logits[key], key) == parts["negl_p"]
        assert negative.mean_p(logits[1 - key], key) != parts["negl_p"]
        # Sure of every label, and so of no complementary class.
        assert negative.mean_p(torch.nn.functional.one_hot(labels, 7) * 20.0, key) < 1e-6


def test_the_term_is_zero_and_without_gradient_where_it_is_not_applied() -> None:
    logits, labels, _ = drawn_logits(2, rows=60)
    term, _ = apply(made(ratio=0.4, unit="sample"), logits, labels)
    gradient = slope(term, logits)
    assert 0 < int((term > 0).sum()) < 60
    assert torch.equal(term > 0, gradient.abs().sum(1) > 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_under_autocast_give_a_float32_term(dtype: torch.dtype) -> None:
    logits = torch.zeros(7, 7, dtype=dtype)
    logits.fill_diagonal_(30000.0)
    labels = (torch.arange(7) + 3) % 7
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term, parts = apply(everyone(), logits, labels)
    assert term.dtype == torch.float32
    assert term.isfinite().all()
    assert all(value.dtype == torch.float32 and value.isfinite() for value in parts.values())
