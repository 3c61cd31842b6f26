"""Checkpoints hold everything, and a damaged one is said to be so."""

from pathlib import Path

import pytest
import torch
from torch import nn

from contract.errors import UserError
from trainer.checkpoint import Progress, load_training, load_weights, save_training, save_weights


def network() -> nn.Module:
    """Small, with a kernel that lies in memory in another order than its shape says."""
    layers = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 7))
    return layers.to(memory_format=torch.channels_last)


def parts(seed: int) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer, torch.amp.GradScaler]:
    """A model that has made two steps, its average, its optimiser and a scaler."""
    torch.manual_seed(seed)
    model, ema = network(), network()
    groups = [{"params": model[3].parameters()}, {"params": model[:2].parameters(), "lr": 0.1}]
    optimiser = torch.optim.AdamW(groups, fused=True)
    for _ in range(2):
        model(torch.randn(8, 2, 4, 4)).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    return model, ema, optimiser, torch.amp.GradScaler("cpu", enabled=True, init_scale=512.0)


def test_a_training_state_comes_back_whole(tmp_path: Path) -> None:
    file = tmp_path / "last.safetensors"
    saved = parts(1)
    progress = Progress(step=17, best_epoch=2, best_nll=0.75)
    save_training(file, *saved, progress, {"memory": torch.arange(3.0)})
    loaded = parts(2)
    found, task = load_training(file, *loaded)
    assert found == progress
    assert torch.equal(task["memory"], torch.arange(3.0))
    for before, after in zip(saved[:2], loaded[:2], strict=True):
        for name, value in before.state_dict().items():
            assert torch.equal(after.state_dict()[name], value), name
    state, again = saved[2].state_dict()["state"], loaded[2].state_dict()["state"]
    assert state.keys() == again.keys()
    for index, values in state.items():
        assert values.keys() == again[index].keys()
        for key in values:
            assert torch.equal(values[key], again[index][key])
    assert loaded[3].get_scale() == 512.0

    # And the next step is the same one.
    for model, _, optimiser, _ in (saved, loaded):
        torch.manual_seed(3)
        model(torch.randn(8, 2, 4, 4)).square().sum().backward()
        optimiser.step()
    for name, value in saved[0].state_dict().items():
        assert torch.equal(loaded[0].state_dict()[name], value), name


def test_a_run_begun_without_fp16_goes_on_with_it(tmp_path: Path) -> None:
    """As one does that is begun on a CPU and goes on on a GPU."""
    file = tmp_path / "last.safetensors"
    model, ema, optimiser, scaler = parts(1)
    without = torch.amp.GradScaler("cpu", enabled=False)
    save_training(file, model, ema, optimiser, without, Progress(step=17), {})
    assert load_training(file, model, ema, optimiser, scaler)[0].step == 17
    assert scaler.get_scale() == 512.0


def test_weights_come_back_with_what_was_said_about_them(tmp_path: Path) -> None:
    model, other = parts(1)[0], parts(2)[0]
    save_weights(tmp_path / "w.safetensors", model, {"epoch": "3"})
    assert load_weights(tmp_path / "w.safetensors", other) == {"epoch": "3"}
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_damaged_file_is_named(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "last.safetensors"
    save_training(file, *parts(1), Progress(), {})
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"last\.safetensors: not a readable checkpoint"):
        load_training(file, *parts(2))
