"""One run of a phase: a folder from the resolved config to the float bundle."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contract.errors import UserError
from contract.files import write_json_atomic
from contract.manifest import Manifest, read_manifest
from contract.provenance import commit_of_this_project
from trainer.backbones import NormalisedClassifier, build
from trainer.config import TrainConfig
from trainer.data.cache import packed_faces
from trainer.device import Device, pick_device
from trainer.engine import Data, Trainer
from trainer.losses.distill import soft_cross_entropy, vote_targets

# A run may go on elsewhere, with other patience or a better-measured crop (which whole faces do not
# pass through), and still be the same run.
_NOT_IDENTITY = {
    "description",
    "device",
    "threads",
    "compile",
    "checkpoint_every_s",
    "out",
    "input",
}


class VotesTask:
    """Cross-entropy against the distribution of votes, or the label where there are no votes."""

    def __init__(self, targets: Tensor) -> None:
        self._targets = targets

    def loss(self, model: nn.Module, images: Tensor, rows: Tensor) -> Tensor:
        """Mean cross-entropy of a batch."""
        return soft_cross_entropy(model(images), self._targets[rows])


def _identity(resolved: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in resolved.items() if key not in _NOT_IDENTITY}
    seen = {key: value for key, value in resolved["input"].items() if key != "crop"}
    return {**kept, "input": seen}


def claim_folder(config: TrainConfig, manifest: Manifest, name: str | None) -> Path:
    """The run folder, with its config; the same settings continue what is there.

    Raises `UserError` if the folder holds a run with other settings or another manifest.
    """
    folder = config.out / (name or f"{config.phase}-seed{config.seed}")
    resolved = {**config.model_dump(mode="json"), "manifest_sha256": manifest.sha256}
    file = folder / "config.json"
    if file.is_file():
        before = _identity(json.loads(file.read_text()))
        now = _identity(resolved)
        changed = sorted(key for key in before | now if before.get(key) != now.get(key))
        if changed:
            raise UserError(
                f"{folder} holds a run with another {', '.join(changed)}; "
                "start a new one with --name, or remove the folder"
            )
        return folder
    write_json_atomic(file, resolved)
    packages = ("torch", "timm", "numpy", "opencv-python-headless")
    environment = {
        "commit": commit_of_this_project(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": {package: version(package) for package in packages},
    }
    write_json_atomic(folder / "environment.json", environment)
    return folder


def _targets(config: TrainConfig, part: Manifest) -> Tensor:
    labels = torch.from_numpy(part.labels())
    classes = 7
    votes = torch.zeros(len(part.rows), classes)
    if config.target.kind == "votes":
        given = [row.votes or (0.0,) * classes for row in part.rows]
        votes = torch.tensor(given, dtype=torch.float32)
    return vote_targets(
        votes, labels, config.target.drop_single_votes, config.target.label_smoothing
    )


def _normalisation(faces: np.ndarray[Any, Any]) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of uint8 faces, in 0…255."""
    sample = faces[:: max(1, len(faces) // 4096)].reshape(-1, faces.shape[-1]).astype(np.float64)
    mean, std = sample.mean(axis=0), sample.std(axis=0).clip(1.0)
    return [round(float(v), 3) for v in mean], [round(float(v), 3) for v in std]


def prepare(
    config: TrainConfig, manifest: Manifest, folder: Path
) -> tuple[Trainer, NormalisedClassifier]:
    """Faces packed, network built, state resumed: a `Trainer` ready to run."""
    device: Device = pick_device(config)
    splits = np.array([row.split for row in manifest.rows])
    for split in ("train", "calib"):
        if not (splits == split).any():
            raise UserError(f"{manifest.file}: no rows of split '{split}'; import the data again")
    faces = packed_faces(manifest, config.input)
    train, calib = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "calib")
    if len(train) < config.optim.batch_size * config.optim.accum_steps:
        raise UserError(
            f"{manifest.file}: {len(train)} training rows are fewer than one step takes; "
            "lower optim.batch_size"
        )
    mean, std = _normalisation(faces[train])
    torch.manual_seed(config.seed)
    model = build(config.model, config.input.channels, mean, std)
    labels = torch.from_numpy(manifest.labels())
    data = Data(
        torch.from_numpy(faces[train]).to(device.name),
        labels[train].to(device.name),
        torch.from_numpy(faces[calib]).to(device.name),
        labels[calib].to(device.name),
    )
    targets = _targets(config, manifest.select("train")).to(device.name)
    trainer = Trainer(config, folder, model, VotesTask(targets), data, device)
    trainer.resume()
    return trainer, model


def train_phase(config: TrainConfig, name: str | None, *, export_best: bool = False) -> Path:
    """Train a phase to its end and export its float bundle; returns the bundle's folder.

    Runs on from wherever an earlier call was stopped; with `export_best` it exports the best epoch
    so far instead, and a later call trains on. Raises `UserError` for bad data or settings.
    """
    manifest = read_manifest(config.manifest)
    folder = claim_folder(config, manifest, name)
    bundle = folder / "bundle"
    if (bundle / "bundle.json").is_file():
        print(f"{folder} is complete: {bundle}")
        return bundle
    trainer, model = prepare(config, manifest, folder)
    if export_best:
        if trainer.progress.best_epoch < 0:
            raise UserError(f"{folder} has finished no epoch yet; train it first")
        name_so_far = f"{folder.name}-epoch{trainer.progress.best_epoch + 1}"
        bundle = folder / name_so_far / "bundle"
    else:
        if trainer.progress.step:
            print(f"resuming {folder} at step {trainer.progress.step} of {trainer.total_steps}")
        trainer.run()
    from trainer.export import export_run  # the exporter is slow to import and needed only now

    export_run(config, manifest, trainer, model, bundle)
    print(f"float bundle: {bundle}")
    return bundle
