"""The study's student in the real loop: its terms, its state, and what it keeps for backward."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from contract.errors import UserError
from contract.faces import FaceInput
from tests.trainer.tiny import NOTHING, fer_trainer, make_manifest, make_phase
from trainer.backbones import build
from trainer.config import TrainConfig
from trainer.device import Device
from trainer.engine import Data, Trainer
from trainer.nested import meta_rows
from trainer.softlabels_store import SoftLabels
from trainer.study_task import MetaRows, StudyTask
from trainer.tasks import DistillTask, Task

CPU = Device("cpu", "cpu", None)
ROWS, SIZE = 140, 32
NESTED = {"enabled": True, "meta_interval": 2, "meta_warmup": 0.5, "meta_batch": 14}


def config(**given: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "phase": "p",
            "input": FaceInput(size=SIZE),
            "model": {"backbone": "test_resnet"},
            "augment": NOTHING,
            "distill": {"method": "kd"},
            "checkpoint_every_s": 1e-9,
            **given,
            "optim": {"epochs": 2, "batch_size": 16, "lr": 1e-3} | given.get("optim", {}),
        }
    )


def trainer(folder: Path, plain: bool = False, **given: Any) -> Trainer:
    """A tiny network on noise, distilled from random softlabels, its real task."""
    settings = config(**given)
    generator = torch.Generator().manual_seed(0)
    faces = torch.randint(0, 256, (ROWS, SIZE, SIZE, 1), generator=generator, dtype=torch.uint8)
    labels = torch.arange(ROWS) % 7
    soft = SoftLabels(
        clean=torch.randn(ROWS, 7, generator=generator),
        views=torch.randn(ROWS, 2, 7, generator=generator),
        attention=None,
        embedding=None,
        seed=1,
        temperature=1.0,
        sha256="",
    )
    torch.manual_seed(0)
    network = build(settings.model, settings.input, [128.0], [64.0])
    data = Data(faces, labels, torch.arange(ROWS), torch.arange(14))
    meta = None
    if settings.nested.enabled:
        held = meta_rows(labels, 0.1, 1)
        data = Data(faces, labels, torch.arange(ROWS), torch.arange(14), held)
        meta = MetaRows(lambda chosen: faces[held[chosen]], labels[held])
    targets = nn.functional.one_hot(labels, 7).float()
    task: Task = DistillTask(settings.distill, targets, labels, soft, "cpu")
    if not plain:
        task = StudyTask(settings, targets, labels, soft, "cpu", network, meta)
    return Trainer(settings, folder, network, task, data, CPU)


BOTH = {
    "nested": NESTED,
    "negative": {"ratio": 0.5, "unit": "sample", "gates": ["consistency"],
                 "consistency_threshold": 1.0},
}  # fmt: skip


def test_with_neither_method_it_is_plain_distillation(tmp_path: Path) -> None:
    ours, theirs = trainer(tmp_path / "a"), trainer(tmp_path / "b", plain=True)
    ours.run()
    theirs.run()
    for one, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_held_rows_are_never_trained_on(tmp_path: Path) -> None:
    made = trainer(tmp_path, **BOTH)
    held = set(made.data.held.tolist())
    seen: list[int] = []
    loss = made.task.loss

    def note(model: nn.Module, batch: Any) -> Any:
        seen.extend(batch.rows.tolist())
        return loss(model, batch)

    made.task.loss = note  # type: ignore[method-assign]
    made.run()
    assert len(held) == 14
    assert not held & set(seen)
    assert set(seen) == set(range(ROWS)) - held


def test_the_history_tells_what_the_methods_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.negative.PROBE_INTERVAL", 4)
    made = trainer(tmp_path, **BOTH)
    made.run()
    for line in made.history.lines():
        assert 0.3 < line["negl_applied"] < 0.7
        assert line["negl_loss"] > 0
        assert line["negl_probed"] > 0
        assert line["negl_p_after"] != line["negl_p_before"]
        assert 0 <= line["consistency"] <= 1
        assert line["gate_mean"] == pytest.approx(1, abs=0.2)
        assert line["memory_apart_min"] >= 0
    last = made.history.lines()[-1]
    assert last["gate_sd"] > 0, "the gate has learnt something"
    assert last["meta_loss"] > 0
    assert last["meta_steps"] == pytest.approx(0.5, abs=0.1)


def test_a_killed_run_goes_on_with_its_memories_and_its_gate(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "a", **BOTH)
    whole.run()

    class KilledError(Exception):
        pass

    killed = trainer(tmp_path / "b", **BOTH)
    step = killed._step

    def until(order: torch.Tensor, number: int) -> Any:
        if number == 11:
            raise KilledError
        return step(order, number)

    killed._step = until  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        killed.run()
    resumed = trainer(tmp_path / "b", **BOTH)
    resumed.resume()
    assert resumed.progress.step == 11
    resumed.run()
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    ours, theirs = resumed.task.state(), whole.task.state()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert resumed.history.lines()[-1]["negl_loss"] == whole.history.lines()[-1]["negl_loss"]


def kept_for_backward(made: Trainer) -> int:
    """Bytes of activations that steps keep until their backward passes, at most."""
    most = 0
    order = made._drawn
    for number in range(8, 12):  # past the warm-up, with and without a step of the gate
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            made._step(order, number)
        most = max(most, sum(kept.values()))
    return most


def test_it_keeps_at_most_a_tenth_more_for_backward(tmp_path: Path) -> None:
    without = kept_for_backward(trainer(tmp_path / "a", plain=True))
    both = kept_for_backward(trainer(tmp_path / "b", **BOTH))
    assert without > 1e6
    assert both <= 1.1 * without


def test_the_methods_go_with_distillation_alone(tmp_path: Path) -> None:
    make_manifest(tmp_path, {"train": 32, "calib": 14})
    with pytest.raises(UserError, match=r"go with distillation; set distill\.method=kd or dkd"):
        fer_trainer("--phase", str(make_phase(tmp_path)), "--set", "negative.ratio=0.1")
