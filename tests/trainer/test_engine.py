"""The loop: schedules, order of rows, accumulation, and what it writes."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from contract.faces import FaceInput
from tests.trainer.test_augment import NOTHING
from trainer.checkpoint import load_weights
from trainer.config import OptimConfig, SizeStep, TrainConfig
from trainer.device import Device
from trainer.engine import (
    Data,
    History,
    Trainer,
    epoch_order,
    learning_rate,
    predict,
    training_size,
)
from trainer.run import VotesTask

CPU = Device("cpu", "cpu", None)


def config(**optim: Any) -> TrainConfig:
    return TrainConfig(
        phase="p", input=FaceInput(size=16), augment=NOTHING, optim=OptimConfig(**optim)
    )


@given(st.integers(1, 50), st.integers(1, 200), st.floats(0, 60))
def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_end(
    epochs: int, steps: int, warmup: float
) -> None:
    optim = OptimConfig(epochs=epochs, warmup_epochs=warmup, lr=1e-3, min_lr=1e-5)
    rates = [learning_rate(optim, step, steps) for step in range(epochs * steps)]
    top = int(np.argmax(rates))
    assert all(rate > 0 for rate in rates)
    assert (np.diff(rates[: top + 1]) >= 0).all()
    assert (np.diff(rates[top:]) <= 1e-12).all()
    assert top <= warmup * steps + 1
    # The cosine ends where the training does: one step more would be at min_lr.
    assert learning_rate(optim, epochs * steps, steps) == pytest.approx(1e-5)


def test_the_learning_rate_by_hand() -> None:
    optim = OptimConfig(epochs=10, warmup_epochs=2, lr=1.0, min_lr=0.2)
    rates = [learning_rate(optim, step, 5) for step in range(50)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[30] == pytest.approx(0.6)  # half-way down
    assert learning_rate(optim, 50, 5) == pytest.approx(0.2)


def test_sizes_grow_with_the_share_of_training() -> None:
    schedule = (SizeStep(until=0.5, size=16), SizeStep(until=0.75, size=24))
    resized = config(size_schedule=schedule).model_copy(update={"input": FaceInput(size=48)})
    assert [training_size(resized, share) for share in (0, 0.49, 0.5, 0.74, 0.75, 1)] == [
        16, 16, 24, 24, 48, 48,
    ]  # fmt: skip


@given(st.integers(1, 300), st.integers(0, 2**31), st.integers(0, 100))
def test_an_epoch_draws_every_row_once(rows: int, seed: int, epoch: int) -> None:
    order = epoch_order(torch.zeros(rows, dtype=torch.long), 0.0, seed, epoch)
    assert sorted(order.tolist()) == list(range(rows))


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_every_epoch_has_its_own_order_and_a_resumed_one_the_same(power: float) -> None:
    labels = torch.arange(210) % 7
    orders = [epoch_order(labels, power, 1, epoch).tolist() for epoch in range(20)]
    assert len({tuple(order) for order in orders}) == 20
    assert orders == [epoch_order(labels, power, 1, epoch).tolist() for epoch in range(20)]
    assert orders[0] != epoch_order(labels, power, 2, 0).tolist()


def test_balanced_epochs_do_not_leave_rows_out_for_good() -> None:
    """A sampler seeded alike every epoch would never show 40 % of the rows."""
    labels = torch.arange(200) % 2
    seen = {row for epoch in range(20) for row in epoch_order(labels, 1.0, 3, epoch).tolist()}
    assert seen == set(range(200))


@pytest.mark.parametrize(("power", "share"), [(0.5, 0.25), (1.0, 0.5)])
def test_rare_classes_are_drawn_by_the_power(power: float, share: float) -> None:
    labels = torch.tensor([0] * 9000 + [1] * 1000)  # 1000^½ : 9000^½ is 1 : 3
    drawn = Counter(labels[epoch_order(labels, power, 0, 0)].tolist())
    assert drawn[1] / 10_000 == pytest.approx(share, abs=0.02)


def small_trainer(folder: Path, **optim: Any) -> Trainer:
    """A linear model on 64 images of noise."""
    generator = torch.Generator().manual_seed(0)
    faces = torch.randint(0, 256, (64, 16, 16, 1), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 7, (64,), generator=generator)
    torch.manual_seed(0)
    linear = nn.Linear(256, 7)
    nn.init.normal_(linear.weight, std=1e-4)
    model = nn.Sequential(nn.Flatten(), linear)
    data = Data(faces, labels, faces[:14], labels[:14])
    targets = nn.functional.one_hot(labels, 7).float()
    return Trainer(config(**optim), folder, model, VotesTask(targets), data, CPU)


def test_accumulated_parts_are_one_large_batch(tmp_path: Path) -> None:
    weights, losses = [], []
    for name, batch, parts in (("whole", 16, 1), ("parts", 4, 4)):
        trainer = small_trainer(
            tmp_path / name, epochs=2, batch_size=batch, accum_steps=parts, clip_norm=1e9
        )
        assert trainer.total_steps == 8
        trainer.run()
        weights.append(trainer.model[1].weight.detach())
        losses.append([line["loss"] for line in trainer.history.lines()])
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-3, atol=1e-5)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_decay_is_not_applied_to_biases(tmp_path: Path) -> None:
    groups = small_trainer(tmp_path, weight_decay=0.05).optimiser.param_groups
    assert {(p.ndim, group["weight_decay"]) for group in groups for p in group["params"]} == {
        (2, 0.05),
        (1, 0.0),
    }


def test_a_step_that_is_not_finite_leaves_the_weights(tmp_path: Path) -> None:
    trainer = small_trainer(tmp_path, epochs=1, batch_size=64)

    class Broken:
        def loss(self, model: nn.Module, images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return model(images).sum() * float("nan")

    trainer.task = Broken()
    before = trainer.model[1].weight.detach().clone()
    trainer.run()
    assert torch.equal(trainer.model[1].weight, before)


def test_the_best_epoch_is_that_of_the_lowest_calib_nll(tmp_path: Path) -> None:
    trainer = small_trainer(tmp_path, epochs=6, batch_size=16, lr=1e-4, ema_decay=0.0)
    trainer.run()
    losses = [line["calib_nll"] for line in trainer.history.lines()]
    assert [line["epoch"] for line in trainer.history.lines()] == list(range(6))
    assert trainer.progress.best_epoch == int(np.argmin(losses))
    assert trainer.progress.best_nll == min(losses)
    about = load_weights(trainer.best_file, trainer.model)
    assert about == {"epoch": str(int(np.argmin(losses)))}
    logits = predict(trainer.model, trainer.data.calib_faces)
    found = nn.functional.cross_entropy(logits, trainer.data.calib_labels)
    assert float(found) == pytest.approx(min(losses), rel=1e-4)


def test_checkpoints_come_by_the_clock(tmp_path: Path) -> None:
    trainer = small_trainer(tmp_path, epochs=1, batch_size=4)  # 16 steps, one a minute
    state = tmp_path / "checkpoints/last.safetensors"
    times: list[int] = []
    clock = 0.0

    def next_minute() -> float:
        nonlocal clock
        clock += 60 / 2  # asked twice a step when none is written
        changed = state.stat().st_mtime_ns if state.is_file() else 0
        if not times or times[-1] != changed:
            times.append(changed)
        return clock

    trainer._clock = next_minute
    trainer.run()
    assert 3 <= len(times) <= 6  # every 120 s of 16 steps, and not at each


def test_history_forgets_what_a_resumed_run_does_again(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    for epoch, loss in ((0, 3.0), (1, 2.0), (2, 1.0), (1, 1.5)):
        history.add(epoch, {"loss": loss})
    assert [(line["epoch"], line["loss"]) for line in history.lines()] == [(0, 3.0), (1, 1.5)]


@given(st.integers(1, 40), st.integers(1, 50))
def test_a_prediction_does_not_depend_on_the_batch(count: int, batch: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.Dropout(0.5))
    faces = torch.randint(0, 256, (count, 8, 8, 1), dtype=torch.uint8)
    logits = predict(model, faces, batch)
    assert logits.shape == (count, 7)
    torch.testing.assert_close(logits, predict(model, faces, 1000), rtol=1e-4, atol=1e-3)
