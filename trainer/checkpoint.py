"""Checkpoints: one safetensors file, replaced in one rename, never pickled."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from contract.errors import UserError
from contract.files import sha256_file, write_atomic
from trainer.backbones import NormalisedClassifier, build
from trainer.config import TrainConfig


@dataclass(frozen=True)
class Progress:
    """Where training stands: optimiser steps done, and the best epoch so far.

    `parts` is into how many pieces a batch is divided since memory ran out. `sums` are the sums
    of the unfinished epoch that its line of history is made of, `seconds` the time it took so far.
    `rows_per_step` is what a step took, over all processes; 0 where none was done.
    """

    step: int = 0
    best_epoch: int = -1
    best_nll: float = float("inf")
    parts: int = 1
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    rows_per_step: int = 0


def _flatten(state: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value.contiguous() for key, value in state.items()}


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optim.{index}.{key}": torch.as_tensor(value).contiguous()
        for index, values in optimiser.state_dict()["state"].items()
        for key, value in values.items()
    }


def save_training(
    file: Path,
    model: torch.nn.Module,
    ema: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    task: dict[str, Tensor],
) -> None:
    """Everything a resumed run needs, atomically."""
    tensors = {
        **_flatten(model.state_dict(), "model."),
        **_flatten(ema.state_dict(), "ema."),
        **_optimiser_tensors(optimiser),
        **_flatten(task, "task."),
    }
    meta = {"progress": json.dumps(asdict(progress)), "scaler": json.dumps(scaler.state_dict())}
    write_atomic(file, lambda stream: stream.write(save(tensors, meta)))


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as stored:
            return {key: stored.get_tensor(key) for key in stored.keys()}, stored.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file}: not a readable checkpoint ({error}); remove it to start over"
        ) from None


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def load_training(
    file: Path,
    model: torch.nn.Module,
    ema: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> tuple[Progress, dict[str, Tensor]]:
    """Put a saved state back into the given objects; returns the progress and the task's state.

    Raises `UserError` for a damaged file.
    """
    tensors, meta = _read(file)
    model.load_state_dict(_part(tensors, "model."))
    ema.load_state_dict(_part(tensors, "ema."))
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optim.").items():
        index, key = name.split(".", 1)
        # The fused kernel walks weights and moments by address: in another memory format than its
        # weight's (channels_last) a moment would be applied to the wrong elements.
        like = parameters[int(index)]
        moment = value.shape == like.shape
        state.setdefault(int(index), {})[key] = (
            torch.empty_like(like).copy_(value) if moment else value
        )
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    scale = json.loads(meta["scaler"])
    if scale:  # empty where the run was without fp16 so far, such as on a CPU
        scaler.load_state_dict(scale)
    return Progress(**json.loads(meta["progress"])), _part(tensors, "task.")


def save_weights(file: Path, model: torch.nn.Module, about: dict[str, str]) -> None:
    """The weights of a model and strings about them, atomically."""
    tensors = _flatten(model.state_dict(), "")
    write_atomic(file, lambda stream: stream.write(save(tensors, about)))


def load_weights(file: Path, model: torch.nn.Module) -> dict[str, str]:
    """Load `save_weights`' file into a model; returns the strings about it.

    Raises `UserError` for a damaged file or one of another network.
    """
    tensors, about = _read(file)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"{file}: holds another network ({str(error).splitlines()[-1].strip()}); "
            "use the model settings it was trained with"
        ) from None
    return about


@dataclass(frozen=True)
class Trained:
    """A trained network ready to answer (in eval mode, on the CPU) and where it comes from.

    `about` has the strings saved with the weights: epoch, commit, manifest_sha256, config.
    """

    model: NormalisedClassifier
    config: TrainConfig
    about: dict[str, str]
    file: Path
    sha256: str


def open_trained(path: Path) -> Trained:
    """The best epoch of a run folder, or the weights of a .safetensors file.

    Raises `UserError` where there is none, or it does not say how it was configured.
    """
    file = path / "checkpoints" / "best.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"{path}: no checkpoint at {file}; name a run folder or a .safetensors file of weights"
        )
    _, about = _read(file)
    settings = about.get("config")
    if settings is None:
        raise UserError(
            f"{file}: does not say how it was configured; "
            "name a best.safetensors that fer-trainer wrote"
        )
    try:
        config = TrainConfig.model_validate_json(settings)
    except ValidationError:
        raise UserError(
            f"{file}: was configured by another version of the trainer; train it again"
        ) from None
    untrained = config.model.model_copy(update={"pretrained": False, "checkpoint_blocks": ()})
    channels = config.input.channels
    model = build(untrained, config.input, [0.0] * channels, [1.0] * channels)
    load_weights(file, model)
    return Trained(model.eval(), config, about, file, sha256_file(file))
