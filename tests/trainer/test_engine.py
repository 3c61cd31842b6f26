"""The loop: schedules, order of rows, accumulation, and what it writes."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from contract import metrics
from contract.errors import UserError
from contract.faces import FaceInput
from tests.trainer.tiny import NOTHING
from trainer.checkpoint import load_weights
from trainer.config import OptimConfig, SizeStep, TrainConfig
from trainer.device import Device
from trainer.engine import Data, Trainer
from trainer.history import History
from trainer.predict import predict
from trainer.schedules import epoch_order, learning_rate, training_size
from trainer.tasks import Batch, LabelTask, Loss

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


def small_trainer(folder: Path, rows: int = 64, **optim: Any) -> Trainer:
    """A linear model on up to 64 images of noise."""
    generator = torch.Generator().manual_seed(0)
    faces = torch.randint(0, 256, (64, 16, 16, 1), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 7, (64,), generator=generator)
    torch.manual_seed(0)
    linear = nn.Linear(256, 7)
    nn.init.normal_(linear.weight, std=1e-4)
    model = nn.Sequential(nn.Flatten(), linear)
    data = Data(faces, labels, torch.arange(rows), torch.arange(14))
    targets = nn.functional.one_hot(labels, 7).float()
    return Trainer(config(**optim), folder, model, LabelTask(targets, labels, None), data, CPU)


def test_accumulated_parts_are_one_large_batch(tmp_path: Path) -> None:
    weights, losses = [], []
    for name, batch, parts in (("whole", 16, 1), ("parts", 4, 4)):
        trainer = small_trainer(
            tmp_path / name, rows=62, epochs=2, batch_size=batch, accum_steps=parts, clip_norm=1e9
        )
        assert trainer.total_steps == 8  # the last of an epoch has 14 rows, in parts of 3 and 4
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

    class Broken(LabelTask):
        def loss(self, model: nn.Module, batch: Batch) -> Loss:
            return model(batch.images).sum() * float("nan"), {}

    trainer.task = Broken(torch.zeros(0), torch.zeros(0), None)
    before = trainer.model[1].weight.detach().clone()
    trainer.run()
    assert torch.equal(trainer.model[1].weight, before)
    (line,) = trainer.history.lines()
    assert (line["skipped_steps"], line["grad_norm_max"]) == (1, 0)


def test_a_batch_that_overflows_does_not_spoil_running_statistics(tmp_path: Path) -> None:
    class Overflowing(LabelTask):
        def loss(self, model: nn.Module, batch: Batch) -> Loss:
            images = batch.images * (float("inf") if batch.progress == 0.25 else 1.0)
            return super().loss(model, replace(batch, images=images))

    given = small_trainer(tmp_path, epochs=1, batch_size=16)
    model = nn.Sequential(nn.BatchNorm2d(1), *given.model)
    targets = nn.functional.one_hot(given.data.labels, 7).float()
    task = Overflowing(targets, given.data.labels, None)
    trainer = Trainer(given.config, tmp_path, model, task, given.data, CPU)
    trainer.run()
    (line,) = trainer.history.lines()
    assert line["skipped_steps"] == 1
    assert np.isfinite(line["calib_nll"])
    for network in (trainer.model, trainer.ema.module):
        assert float(network[0].running_mean) > 1  # of pixels around 127


def test_a_run_that_never_was_finite_says_so(tmp_path: Path) -> None:
    trainer = small_trainer(tmp_path, epochs=1, batch_size=64)
    nn.init.constant_(trainer.model[1].weight, float("nan"))
    nn.init.constant_(trainer.ema.module[1].weight, float("nan"))
    with pytest.raises(UserError, match=r"no epoch ended with a finite loss.*optim\.lr"):
        trainer.run()


class Parallel(nn.Module):
    """Stands for DistributedDataParallel: notes for which passes gradients are shared."""

    shared: list[bool]

    def __init__(self, model: nn.Module, **_: object) -> None:
        super().__init__()
        self.model, self.shared, self._sync = model, [], True

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        self._sync = False
        yield
        self._sync = True

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shared.append(self._sync)
        return self.model(images)


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_shared_once_a_step(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.engine.world", lambda: 2)
    monkeypatch.setattr("trainer.engine.DistributedDataParallel", Parallel)
    monkeypatch.setattr(torch, "compile", lambda network, **_: nn.Sequential(network))
    trainer = small_trainer(tmp_path, batch_size=8, accum_steps=3)
    changed = trainer.config.model_copy(update={"compile": compiled})
    again = (tmp_path, trainer.model, trainer.task, trainer.data, CPU)
    trainer = Trainer(changed, *again)
    trainer._step(epoch_order(trainer.data.labels, 0, 1, 0), 0)
    assert isinstance(trainer._parallel, Parallel)
    assert trainer._parallel.shared == [False, False, True]


def test_a_run_goes_on_with_as_many_processes_as_began_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another number a step is another share of an epoch."""
    small_trainer(tmp_path, epochs=1, batch_size=8).run()
    monkeypatch.setattr("trainer.engine.world", lambda: 2)
    monkeypatch.setattr("trainer.engine.DistributedDataParallel", lambda model, **_: model)
    resumed = small_trainer(tmp_path, epochs=1, batch_size=8)
    resumed.resume()
    with pytest.raises(UserError, match=r"begun by 1 process.*--nproc_per_node=1"):
        resumed.run()


@pytest.mark.parametrize("rows", [448, 450, 479, 449, 33])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_pieces_of_a_step_are_every_row_once_over_all_processes(
    rows: int, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.engine.world", lambda: processes)
    monkeypatch.setattr("trainer.engine.DistributedDataParallel", lambda model, **_: model)
    trainer = small_trainer(tmp_path, batch_size=16, accum_steps=2)
    labels = torch.zeros(rows, dtype=torch.long)
    data = Data(torch.zeros(rows, 16, 16, 1, dtype=torch.uint8), labels, torch.arange(rows), labels)
    trainer = Trainer(trainer.config, tmp_path, trainer.model, trainer.task, data, CPU)
    order = epoch_order(labels, 0, 1, 0)
    seen: list[int] = []
    for step in range(trainer.steps_per_epoch):
        shares, sizes, calls = 0.0, [], set()
        for process in range(processes):
            monkeypatch.setattr("trainer.engine.rank", lambda process=process: process)
            pieces = list(trainer._pieces(order, step))
            assert [last for _, _, last in pieces] == [False] * (len(pieces) - 1) + [True]
            calls.add(len(pieces))
            for batch, share, _ in pieces:
                seen += batch.rows.tolist()
                sizes.append(len(batch.rows))
                shares += share
        assert shares == pytest.approx(1)
        assert len(calls) == 1, "every process must make as many passes, or the others wait"
        assert min(sizes) >= 2  # batch statistics of one row are none
        assert max(sizes) <= 16
    assert len(seen) == len(set(seen))
    assert rows - len(seen) < 2 * processes


class Hungry(LabelTask):
    """Runs out of memory above a number of images."""

    most = 5
    sizes: list[int]

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        if len(batch.rows) > self.most:
            raise torch.OutOfMemoryError("no memory")
        self.sizes.append(len(batch.rows))
        return super().loss(model, batch)


def hungry(folder: Path, most: int, **optim: Any) -> Trainer:
    trainer = small_trainer(folder, epochs=2, batch_size=16, clip_norm=1e9, **optim)
    targets = nn.functional.one_hot(trainer.data.labels, 7).float()
    task = Hungry(targets, trainer.data.labels, None)
    task.most, task.sizes = most, []
    trainer.task = task
    return trainer


def test_out_of_memory_halves_the_batch_and_keeps_the_step(tmp_path: Path) -> None:
    trainer, whole = hungry(tmp_path / "a", 5), hungry(tmp_path / "b", 16)
    trainer.run()
    whole.run()
    assert trainer.progress.parts == 4
    assert isinstance(trainer.task, Hungry)
    assert set(trainer.task.sizes) == {4}
    assert trainer.progress.step == whole.progress.step == 8
    torch.testing.assert_close(trainer.model[1].weight, whole.model[1].weight, rtol=1e-3, atol=1e-5)


def test_a_resumed_run_remembers_that_memory_ran_out(tmp_path: Path) -> None:
    hungry(tmp_path, 5).run()
    resumed = hungry(tmp_path, 5)
    resumed.resume()
    assert resumed.progress.parts == 4


def test_without_memory_for_two_images_it_says_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"out of memory with 2 images at once; .*input\.size"):
        hungry(tmp_path, 1).run()


def test_the_guard_skips_steps_of_great_loss_until_its_end(tmp_path: Path) -> None:
    trainer = small_trainer(tmp_path, epochs=3, batch_size=16, loss_guard=1e-6, loss_guard_epochs=2)
    before = trainer.model[1].weight.detach().clone()
    counts = []
    add = trainer.history.add

    def note(epoch: int, values: dict[str, float]) -> None:
        counts.append((values["guarded_steps"], torch.equal(trainer.model[1].weight, before)))
        add(epoch, values)

    trainer.history.add = note  # type: ignore[method-assign]
    trainer.run()
    assert counts == [(4, True), (4, True), (0, False)]


def test_it_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    trainer = small_trainer(
        tmp_path, epochs=50, batch_size=16, lr=1.0, ema_decay=0.0, patience=3, warmup_epochs=0
    )
    trainer.run()
    lines = trainer.history.lines()
    best = int(np.argmin([line["calib_nll_scaled"] for line in lines]))
    assert len(lines) == best + 1 + 3 < 50
    resumed = small_trainer(tmp_path, epochs=50, batch_size=16, patience=3)
    resumed.resume()
    resumed.run()
    assert len(resumed.history.lines()) == len(lines)


def test_a_line_of_history_covers_the_whole_epoch_whoever_was_killed(tmp_path: Path) -> None:
    """Sums of the first part of an epoch survive with the checkpoint."""
    whole = small_trainer(tmp_path / "a", epochs=1, batch_size=4)
    whole.run()

    class KilledError(Exception):
        pass

    killed = small_trainer(tmp_path / "b", epochs=1, batch_size=4)
    killed.config = killed.config.model_copy(update={"checkpoint_every_s": 1e-9})
    step = killed._step

    def until(order: torch.Tensor, number: int) -> Any:
        if number == 9:
            raise KilledError
        return step(order, number)

    killed._step = until  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        killed.run()
    resumed = small_trainer(tmp_path / "b", epochs=1, batch_size=4)
    resumed.resume()
    assert resumed.progress.step == 9
    resumed.run()
    for key in ("loss", "grad_norm_max", "calib_nll"):
        assert resumed.history.lines()[0][key] == whole.history.lines()[0][key]


def test_a_run_killed_at_the_end_of_an_epoch_still_ends_that_epoch(tmp_path: Path) -> None:
    """Its line of history and its claim to be the best are not lost with it."""

    class KilledError(Exception):
        pass

    killed = small_trainer(tmp_path, epochs=2, batch_size=16)
    killed.config = killed.config.model_copy(update={"checkpoint_every_s": 1e-9})

    def die(epoch: int) -> None:
        raise KilledError

    killed._end_epoch = die  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        killed.run()
    resumed = small_trainer(tmp_path, epochs=2, batch_size=16)
    resumed.resume()
    resumed.run()
    assert [line["epoch"] for line in resumed.history.lines()] == [0, 1]


def test_the_best_epoch_is_that_of_the_lowest_calib_nll_at_its_temperature(
    tmp_path: Path,
) -> None:
    trainer = small_trainer(tmp_path, epochs=6, batch_size=16, lr=1e-4, ema_decay=0.0)
    trainer.run()
    losses = [line["calib_nll_scaled"] for line in trainer.history.lines()]
    assert [line["epoch"] for line in trainer.history.lines()] == list(range(6))
    assert trainer.progress.best_epoch == int(np.argmin(losses))
    assert trainer.progress.best_nll == min(losses)
    about = load_weights(trainer.best_file, trainer.model)
    assert about == {"epoch": str(int(np.argmin(losses)))}
    logits = predict(trainer.model, trainer.data.faces[:14])
    labels = trainer.data.labels[:14]
    temperature = metrics.fit_temperature(logits.numpy(), labels.numpy())
    found = nn.functional.cross_entropy(logits.double() / temperature, labels)
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
    history = History(tmp_path)
    for epoch, loss in ((0, 3.0), (1, 2.0), (2, 1.0), (1, 1.5)):
        history.add(epoch, {"loss": loss})
    assert [(line["epoch"], line["loss"]) for line in history.lines()] == [(0, 3.0), (1, 1.5)]


@given(st.integers(1, 40), st.integers(1, 50))
def test_a_prediction_does_not_depend_on_the_batch(count: int, batch: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.Dropout(0.5))
    faces = torch.randint(0, 256, (count, 8, 8, 1), dtype=torch.uint8)
    logits = predict(model, faces, batch=batch)
    assert logits.shape == (count, 7)
    torch.testing.assert_close(logits, predict(model, faces, batch=1000), rtol=1e-4, atol=1e-3)
