"""A device that is not there is refused by name."""

import os

import pytest
import torch

from contract.errors import UserError
from contract.faces import FaceInput
from trainer.config import TrainConfig
from trainer.device import device_to_ask_on, pick_device


def pick(device: str) -> str:
    return pick_device(TrainConfig(phase="p", input=FaceInput(size=16), device=device)).name


@pytest.mark.parametrize("device", ["cuda:2", "cuda:x", "cuda:-1"])
def test_a_gpu_that_is_not_there_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=rf"device '{device}': this machine's 2 GPU"):
        pick(device)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match=r"'cuda:2': .*no more processes"):
        pick("cuda")


@pytest.mark.parametrize("device", ["tpu", "mps", "gpu"])
def test_another_kind_of_device_is_refused(device: str) -> None:
    with pytest.raises(UserError, match=f"device '{device}': use auto, cpu, cuda"):
        pick(device)


def test_a_network_trained_with_one_thread_answers_with_all() -> None:
    before = torch.get_num_threads()
    try:
        config = TrainConfig(phase="p", input=FaceInput(size=16), threads=1)
        pick_device(config)
        assert torch.get_num_threads() == 1
        device_to_ask_on(config, "cpu")
        assert torch.get_num_threads() == len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(before)
