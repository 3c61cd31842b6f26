"""The gate: identity at first, the right gradient, whom it learns to trust, and what it costs."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from contract.faces import FaceInput
from trainer.backbones import CosineHead, build
from trainer.config import ModelConfig
from trainer.config_study import NestedConfig
from trainer.losses.distill import kd
from trainer.nested import SIGNALS, Gate, Nested, meta_draw, meta_loss, meta_rows

ROWS, META, WIDTH = 1400, 140, 16


def config(**changes: Any) -> NestedConfig:
    small = {"enabled": True, "meta_interval": 5, "meta_warmup": 1.0, "slow_interval": 20}
    return NestedConfig(**{**small, **changes})


def nested(seed: int = 0, epochs: int = 10, **changes: Any) -> Nested:
    return Nested(config(**changes), epochs=epochs, seed=seed, device="cpu")


def logits(seed: int, rows: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits and labels."""
    made = torch.Generator().manual_seed(seed)
    student, teacher = 2 * torch.randn(2, rows, 7, generator=made)
    return student, teacher, torch.randint(0, 7, (rows,), generator=made)


@dataclass(frozen=True)
class World:
    """A made-up task: overlapping clouds, and a teacher that names the next class half the time."""

    x: Tensor
    labels: Tensor
    wrong: Tensor
    teacher: Tensor
    meta_x: Tensor
    meta_labels: Tensor
    test_x: Tensor
    test_labels: Tensor


def world(seed: int) -> World:
    made = torch.Generator().manual_seed(seed)
    centres = torch.randn(7, WIDTH, generator=made)

    def rows(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % 7
        return centres[labels] + torch.randn(count, WIDTH, generator=made), labels

    (x, labels), meta, test = rows(ROWS), rows(META), rows(1400)
    wrong = torch.rand(ROWS, generator=made) < 0.5
    named = F.one_hot(torch.where(wrong, (labels + 1) % 7, labels), 7)
    sureness = 2 + 3 * torch.rand(ROWS, 1, generator=made)
    teacher = torch.randn(ROWS, 7, generator=made) + sureness * named
    return World(x, labels, wrong, teacher, *meta, *test)


class Student:
    """A small network in the loop the engine runs, at 11 steps of 128 rows an epoch."""

    def __init__(self, of: World, seed: int, **changes: Any) -> None:
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU())
        self.head = nn.Linear(32, 7)
        parameters = [*self.body.parameters(), *self.head.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=3e-3)
        self.nested = nested(seed, epochs=27, **changes)
        self.world, self.seed = of, seed

    def step(self, number: int) -> dict[str, Tensor]:
        made = torch.Generator().manual_seed(1000 * self.seed + number)
        rows = torch.randint(0, ROWS, (128,), generator=made)
        labels, teacher = self.world.labels[rows], self.world.teacher[rows]

        def rows_loss(logits: Tensor, weight: Tensor) -> Tensor:
            ce = F.cross_entropy(logits, labels, reduction="none")
            return 0.1 * ce + 0.9 * weight * kd(logits, teacher, 2.0)

        embedding = self.body(self.world.x[rows])
        student = self.head(embedding)
        look = self.nested.look(student, teacher, labels, number / 11)
        self.optimiser.zero_grad()
        rows_loss(student, look.weight).mean().backward()
        self.optimiser.step()
        self.nested.begin_step()
        self.nested.remember(student, labels, look)
        self.nested.end_step(number)
        if not self.nested.learns(number, number / 11):
            return {}
        chosen = meta_draw(self.world.meta_labels, 63, self.seed, number)
        with torch.no_grad():
            meta = self.body(self.world.meta_x[chosen])
        return self.nested.meta_step(
            self.head, embedding, rows_loss, look.signals, meta, self.world.meta_labels[chosen]
        )

    def accuracy(self) -> float:
        guess = self.head(self.body(self.world.test_x)).argmax(1)
        return float((guess == self.world.test_labels).float().mean())

    def weights(self) -> Tensor:
        student = self.head(self.body(self.world.x))
        return self.nested.look(student, self.world.teacher, self.world.labels, 27.0).weight


@pytest.mark.parametrize("seed", [1337, 2025, 42])
def test_the_gate_learns_whom_to_trust(seed: int) -> None:
    """And its student is better than the one that trusts the teacher in everything."""
    made = world(seed)
    gated, plain = Student(made, seed), Student(made, seed, gate="one")
    for number in range(300):
        gated.step(number)
        plain.step(number)
    weights = gated.weights()
    assert roc_auc_score((~made.wrong).numpy(), weights.numpy()) >= 0.8
    assert weights[made.wrong].mean() < 0.5 < 1.2 < weights[~made.wrong].mean()
    assert gated.accuracy() > plain.accuracy() + 0.05


@pytest.mark.parametrize("hidden_dim, layers", [(32, 1), (64, 2)])
def test_distillation_is_plain_until_the_gate_has_learnt(hidden_dim: int, layers: int) -> None:
    fresh = nested(hidden_dim=hidden_dim, layers=layers)
    for progress in (0.0, 5.0):
        assert (fresh.look(*logits(1), progress).weight == 1).all()
    assert sum(isinstance(m, nn.Linear) for m in fresh.gate.modules()) == layers + 1


def test_before_the_warm_up_ends_no_gate_acts_or_learns() -> None:
    waiting = nested(gate="random", meta_warmup=3.0)
    assert (waiting.look(*logits(1), 2.9).weight == 1).all()
    assert not (waiting.look(*logits(1), 3.0).weight == 1).all()
    assert not nested(meta_warmup=3.0).learns(4, 2.9)


def test_each_level_has_its_period() -> None:
    student = Student(world(0), 0, slow_interval=3, meta_interval=4, meta_warmup=0.0)
    changed: dict[str, list[int]] = {"fast": [], "slow": [], "gate": []}
    names = {"fast": "memory.fast", "slow": "memory.slow", "gate": "gate.network.2.weight"}
    for number in range(12):
        before = student.nested.state()
        student.step(number)
        after = student.nested.state()
        for level, name in names.items():
            if not torch.equal(before[name], after[name]):
                changed[level].append(number)
    assert changed == {"fast": list(range(12)), "slow": [2, 5, 8, 11], "gate": [3, 7, 11]}


@pytest.mark.parametrize("memory", [True, False])
def test_a_gate_of_one_never_changes_a_weight(memory: bool) -> None:
    """Memory without a gate: the student is trained as by plain distillation."""
    made = world(3)
    student = Student(made, 3, gate="one", memory=memory)
    for number in range(30):
        assert student.step(number) == {}
    look = student.nested.look(*logits(1), 20.0)
    assert (look.weight == 1).all()
    assert (look.consistency == 1).all() == (not memory)


def test_a_random_gate_is_frozen_seeded_and_about_one_on_average() -> None:
    student = Student(world(4), 4, gate="random")
    before = student.nested.state()
    for number in range(60):
        assert student.step(number) == {}
    after = student.nested.state()
    assert all(torch.equal(before[name], after[name]) for name in before if "gate." in name)
    weights = student.weights()
    assert float(weights.std()) > 0.1
    assert float(weights.mean()) == pytest.approx(1, abs=0.15)
    same, other = nested(4, gate="random").state(), nested(5, gate="random").state()
    assert torch.equal(same["gate.network.0.weight"], before["gate.network.0.weight"])
    assert not torch.equal(other["gate.network.0.weight"], before["gate.network.0.weight"])


def test_without_memory_the_gate_still_learns() -> None:
    student = Student(world(5), 5, memory=False)
    for number in range(150):
        student.step(number)
    assert not any("memory" in name for name in student.nested.state())
    assert roc_auc_score((~student.world.wrong).numpy(), student.weights().numpy()) >= 0.8


def test_making_it_leaves_the_random_numbers_of_the_run_alone() -> None:
    torch.manual_seed(1)
    before = torch.rand(1)
    torch.manual_seed(1)
    nested(gate="random")
    assert torch.equal(torch.rand(1), before)


def test_signals_are_what_they_are_called() -> None:
    student, teacher, labels = logits(7, rows=5)
    labels[:2] = teacher[:2].argmax(1)
    of = nested(epochs=8)
    look = of.look(student, teacher, labels, 2.0)
    p, t = (softmax(z.double().numpy(), axis=1) for z in (student, teacher))
    rows = np.arange(5)
    others = t.copy()
    others[rows, labels] = -1
    expected = {
        "divergence": np.log1p(entropy(t, p, axis=1)),
        "student_entropy": entropy(p, axis=1, base=7),
        "teacher_entropy": entropy(t, axis=1, base=7),
        "teacher_margin": t[rows, labels] - others.max(1),
        "consistency": look.consistency.numpy(),
        "progress": np.full(5, 0.25),
    }
    for number, name in enumerate(SIGNALS):
        np.testing.assert_allclose(look.signals[:, number], expected[name], atol=1e-6, err_msg=name)
    assert (look.signals[:2, 3] > 0).all()


@given(st.integers(0, 2**32 - 1), st.floats(0, 60), st.sampled_from(["learned", "random"]))
def test_weights_and_consistency_stay_in_bounds(seed: int, spread: float, gate: str) -> None:
    student, teacher, labels = logits(seed, rows=8)
    of = nested(gate=gate)
    look = of.look(spread * student, spread * teacher, labels, 5.0)
    assert ((look.weight >= 0) & (look.weight <= 2)).all()
    assert ((look.consistency >= 0) & (look.consistency <= 1)).all()
    assert look.signals.isfinite().all()


def numbers(gate: Gate) -> list[NDArray[np.float64]]:
    return [value.detach().numpy().copy() for value in gate.parameters()]


def meta_loss_in_numpy(
    gate: list[NDArray[np.float64]], head: list[NDArray[np.float64]], x: NDArray[np.float64],
    labels: NDArray[np.int64], teacher: NDArray[np.float64], signals: NDArray[np.float64],
    meta_x: NDArray[np.float64], meta_labels: NDArray[np.int64], inner_lr: float,
) -> float:  # fmt: skip
    """The same by the textbook's gradients: p − target of each softmax, times the embedding."""
    score = np.maximum(signals @ gate[0].T + gate[1], 0) @ gate[2][0] + gate[3][0]
    weight = 2 / (1 + np.exp(score.mean() - score))
    p = softmax(x @ head[0].T + head[1], axis=1)
    slope = 0.3 * (p - np.eye(7)[labels]) + 0.7 * weight[:, None] * (p - softmax(teacher, axis=1))
    slope /= len(x)
    moved = head[0] - inner_lr * slope.T @ x, head[1] - inner_lr * slope.sum(0)
    log_p = log_softmax(meta_x @ moved[0].T + moved[1], axis=1)
    return float(-log_p[np.arange(len(meta_x)), meta_labels].mean())


def test_the_meta_gradient_is_what_finite_differences_say() -> None:
    rng = np.random.default_rng(0)
    x, meta_x = rng.normal(size=(10, 4)), rng.normal(size=(6, 4))
    labels, meta_labels = rng.integers(0, 7, 10), rng.integers(0, 7, 6)
    teacher, signals = rng.normal(0, 2, (10, 7)), rng.normal(size=(10, len(SIGNALS)))
    torch.manual_seed(0)
    gate, head = Gate(3, 1, spread=1.0).double(), nn.Linear(4, 7).double()

    def rows_loss(logits: Tensor, weight: Tensor) -> Tensor:
        # Not `kd`, which is in float32: too coarse for differences.
        towards = -(torch.softmax(torch.tensor(teacher), 1) * torch.log_softmax(logits, 1)).sum(1)
        ce = F.cross_entropy(logits, torch.tensor(labels), reduction="none")
        return 0.3 * ce + 0.7 * weight * towards

    loss = meta_loss(
        gate, head, torch.tensor(x), rows_loss, torch.tensor(signals), torch.tensor(meta_x),
        torch.tensor(meta_labels), inner_lr=2.0,
    )  # fmt: skip
    loss.backward()
    fixed = [value.detach().numpy() for value in head.parameters()]
    at = numbers(gate)

    def by_hand() -> float:
        return meta_loss_in_numpy(
            at, fixed, x, labels, teacher, signals, meta_x, meta_labels, inner_lr=2.0
        )

    assert float(loss.detach()) == pytest.approx(by_hand(), rel=1e-12)
    assert all(value.grad is None for value in head.parameters())
    for values, parameter in zip(at, gate.parameters(), strict=True):
        found = parameter.grad.numpy()
        for place in np.ndindex(values.shape):
            kept = values[place]
            values[place] = kept + 1e-5
            more = by_hand()
            values[place] = kept - 1e-5
            slope = (more - by_hand()) / 2e-5
            values[place] = kept
            assert found[place] == pytest.approx(slope, rel=1e-4, abs=1e-8)
    assert float(gate.network[0].weight.grad.abs().max()) > 1e-4, "nothing was compared"


@pytest.mark.parametrize("head", [nn.Linear(8, 7), CosineHead(8, 7, 16.0)], ids=["linear", "cos"])
def test_any_head_can_be_stepped_and_stays_as_it_is(head: nn.Module) -> None:
    student, teacher, labels = logits(1, rows=32)
    of = nested(meta_warmup=0.0)
    look = of.look(student, teacher, labels, 1.0)
    made = torch.Generator().manual_seed(0)
    embedding = torch.randn(32, 8, generator=made).requires_grad_()
    meta = torch.randn(14, 8, generator=made)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    with torch.no_grad():  # whatever mode the caller is in
        told = of.meta_step(
            head, embedding, lambda z, w: w * kd(z, teacher, 2.0), look.signals, meta,
            torch.arange(14) % 7,
        )  # fmt: skip
    assert float(told["meta_loss"]) > 0
    assert all(torch.equal(head.state_dict()[name], before[name]) for name in before)
    assert embedding.grad is None and all(value.grad is None for value in head.parameters())
    assert not (of.look(student, teacher, labels, 1.0).weight == 1).all(), "the gate learnt"


def test_a_meta_step_that_overflows_leaves_the_gate_alone() -> None:
    student, teacher, labels = logits(1, rows=32)
    of = nested()
    look = of.look(student, teacher, labels, 5.0)
    before = of.state()
    of.meta_step(
        nn.Linear(8, 7), torch.full((32, 8), torch.inf), lambda z, w: w * kd(z, teacher, 2.0),
        look.signals, torch.zeros(14, 8), torch.arange(14) % 7,
    )  # fmt: skip
    after = of.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("stop", [7, 23], ids=["before it learnt", "after"])
def test_a_resumed_run_goes_on_to_the_last_bit(stop: int, tmp_path: Path) -> None:
    whole = Student(world(6), 6)
    for number in range(stop):
        whole.step(number)
    save_file(whole.nested.state(), tmp_path / "state.safetensors")
    resumed = Student(world(6), 7)  # another gate, until it is loaded
    resumed.seed = 6
    for part in ("body", "head", "optimiser"):
        state = copy.deepcopy(getattr(whole, part).state_dict())
        getattr(resumed, part).load_state_dict(state)
    resumed.nested.load_state(load_file(tmp_path / "state.safetensors"))
    for number in range(stop, 60):
        assert whole.step(number) == resumed.step(number)
    ends = whole.nested.state(), resumed.nested.state()
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert any("adam." in name for name in ends[0])


def test_what_is_told_of_a_step() -> None:
    student, teacher, labels = logits(2)
    of = nested(gate="random")
    told = of.parts(of.look(student, teacher, labels, 5.0))
    assert all(value.ndim == 0 and not value.requires_grad for value in told.values())
    assert float(told["gate_sd"]) > 0
    # A fresh memory's classes: 4/7 against 1/14 each way, the rest alike.
    p, q = np.full(7, 1 / 14), np.full(7, 1 / 14)
    p[0] = q[1] = 4 / 7
    middle = (p + q) / 2
    js = (entropy(p, middle) + entropy(q, middle)) / 2 / np.log(2)
    assert float(told["memory_apart"]) == pytest.approx(js)
    assert float(told["memory_apart_min"]) == pytest.approx(js)
    bare = nested(memory=False)
    assert set(bare.parts(bare.look(student, teacher, labels, 5.0))) == {"gate_mean", "gate_sd"}


def kept_bytes(run: Callable[[], None]) -> int:
    """Bytes of all tensors that autograd keeps for backward while it runs, each once."""
    kept: dict[tuple[int, int], int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr(), storage.nbytes()] = storage.nbytes()
        alive.append(storage)  # so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(kept.values())


def training_step(device: str, size: int, with_nested: bool) -> Callable[[], None]:
    face = FaceInput(size=size)
    model = build(ModelConfig(backbone="test_resnet"), face, [127.0], [64.0]).to(device)
    pixels = 255 * torch.rand(32, 1, size, size, device=device)
    teacher, labels = torch.randn(32, 7, device=device), torch.arange(32, device=device) % 7
    of = Nested(config(meta_warmup=0.0, meta_interval=1), epochs=1, seed=0, device=device)

    def rows_loss(logits: Tensor, weight: Tensor) -> Tensor:
        ce = F.cross_entropy(logits, labels, reduction="none")
        return 0.5 * ce + 0.5 * weight * kd(logits, teacher, 2.0)

    def run() -> None:
        model.train()
        logits, features = model(pixels, with_features=True)
        if not with_nested:
            rows_loss(logits, torch.ones(32, device=device)).mean().backward()
            return
        look = of.look(logits, teacher, labels, 0.5)
        of.remember(logits, labels, look)
        head = model.network.get_classifier()
        # Before backward, while the activations are still held: the worst order there is.
        of.meta_step(head, features.embedding, rows_loss, look.signals, features.embedding, labels)
        rows_loss(logits, look.weight).mean().backward()
        of.end_step(0)

    return run


def test_it_keeps_no_more_for_backward() -> None:
    plain = kept_bytes(training_step("cpu", 32, with_nested=False))
    ours = kept_bytes(training_step("cpu", 32, with_nested=True))
    assert plain < ours <= 1.1 * plain


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_it_takes_no_more_memory_of_a_gpu() -> None:
    peaks = []
    for with_nested in (False, True):
        run = training_step("cuda", 112, with_nested)
        run()  # libraries set up their workspaces
        torch.cuda.reset_peak_memory_stats()
        run()
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] <= 1.1 * peaks[0]


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=7).filter(any),
    st.floats(0.005, 0.4),
    st.integers(0, 99),
)
def test_meta_rows_are_balanced_and_spare_rare_classes(
    counts: list[int], share: float, seed: int
) -> None:
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    chosen = meta_rows(labels, share, seed)
    assert torch.equal(chosen, chosen.unique()), "in order, none twice"
    assert torch.equal(chosen, meta_rows(labels, share, seed))
    wanted = round(share * len(labels) / sum(n > 0 for n in counts))
    found = torch.bincount(labels[chosen], minlength=len(counts)).tolist()
    assert found == [min(wanted, n // 2) for n in counts]


def test_another_seed_cuts_other_meta_rows() -> None:
    labels = torch.arange(700) % 7
    assert not torch.equal(meta_rows(labels, 0.1, 0), meta_rows(labels, 0.1, 1))


def test_a_meta_batch_has_every_class_alike() -> None:
    labels = torch.tensor([0] * 30 + [1] * 20 + [3] * 2)
    chosen = meta_draw(labels, 21, 5, 0)
    assert torch.bincount(labels[chosen]).tolist() == [7, 7, 0, 7]
    assert len(chosen[labels[chosen] == 0].unique()) == 7, "as long as there are rows, none twice"
    assert torch.equal(chosen, meta_draw(labels, 21, 5, 0))
    assert not torch.equal(chosen, meta_draw(labels, 21, 5, 1))


class Meeting:
    """Stands for two processes' all_reduce between two threads."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2, timeout=60)
        self._given: dict[int, Tensor] = {}

    def all_reduce(self, values: Tensor) -> None:
        self._given[threading.get_ident()] = values.clone()
        self._barrier.wait()
        total = torch.stack(list(self._given.values())).sum(0)
        self._barrier.wait()
        values.copy_(total)


def test_processes_agree_on_memories_and_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = nested(slow_interval=1, meta_warmup=0.0)
    pair = [nested(slow_interval=1, meta_warmup=0.0) for _ in range(2)]
    head = nn.Linear(8, 7)
    gradients = []
    for rank in (0, 1):  # one process that has the rows of both
        student, teacher, labels = logits(rank)
        alone.remember(student, labels, alone.look(student, teacher, labels, 1.0))
    alone.end_step(0)

    def teach(of: Nested, rank: int) -> None:
        _, teacher, _ = logits(rank)
        made = torch.Generator().manual_seed(rank)
        signals = torch.rand(64, len(SIGNALS), generator=made)
        embedding, meta = (torch.randn(n, 8, generator=made) for n in (64, 14))
        labels = torch.arange(14) % 7
        own = copy.deepcopy(head)  # functional_call changes a head for a moment: none is shared
        of.meta_step(own, embedding, lambda z, w: w * kd(z, teacher, 2.0), signals, meta, labels)

    for rank in (0, 1):
        probe = nested(meta_warmup=0.0)
        teach(probe, rank)
        gradients.append([value.grad.clone() for value in probe.gate.parameters()])

    def process(rank: int) -> None:
        student, teacher, labels = logits(rank)
        of = pair[rank]
        of.remember(student, labels, of.look(student, teacher, labels, 1.0))
        of.end_step(0)
        teach(of, rank)

    meeting = Meeting()
    monkeypatch.setattr("trainer.memory.world", lambda: 2)
    monkeypatch.setattr("trainer.nested.world", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", meeting.all_reduce)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(process, (0, 1)))
    first, second = (of.state() for of in pair)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("memory.fast", "memory.slow"):
        torch.testing.assert_close(first[name], alone.state()[name], rtol=1e-12, atol=0)
    for mine, *theirs in zip(pair[0].gate.parameters(), *gradients, strict=True):
        torch.testing.assert_close(mine.grad, sum(theirs) / 2)
