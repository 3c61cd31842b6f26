"""One run of a phase: a folder from the resolved config to the float bundle."""

import functools
import json
import os
import platform
from collections.abc import Callable, Collection
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.files import sha256_file, write_json_atomic
from contract.manifest import Manifest, read_manifest
from contract.provenance import commit_of_this_project
from trainer.backbones import NormalisedClassifier, build, recompute
from trainer.checkpoint import Trained, load_weights, open_trained
from trainer.config import PREPARATION, TrainConfig
from trainer.data.cache import packed_faces
from trainer.device import Device, pick_device
from trainer.distributed import is_main, main_first, process_group, wait_for_all, world
from trainer.engine import Data, Trainer
from trainer.losses.distill import vote_targets
from trainer.nested import meta_rows
from trainer.softlabels_store import SoftLabels, open_softlabels
from trainer.study_task import MetaRows, StudyTask
from trainer.tasks import DistillTask, LabelTask, Task

# A run may go on elsewhere, with other patience or a better-measured crop (which whole faces do not
# pass through), and still be the same run.
_NOT_IDENTITY = {
    "description",
    "study",
    "device",
    "threads",
    "compile",
    "checkpoint_every_s",
    "out",
    "input",
}


def _identity(config: TrainConfig) -> dict[str, Any]:
    resolved = config.model_dump(mode="json")
    kept = {key: value for key, value in resolved.items() if key not in _NOT_IDENTITY}
    seen = {key: value for key, value in resolved["input"].items() if key != "crop"}
    return {**kept, "input": seen}


def _differences(file: Path, config: TrainConfig, inputs: dict[str, str]) -> list[str]:
    """Names of what a run folder's config.json has otherwise than this config and its inputs."""
    stored = json.loads(file.read_text())
    had = stored.pop("inputs", {})
    try:
        before = _identity(TrainConfig.model_validate(stored))
    except ValidationError:
        return ["version of the trainer"]
    now = _identity(config)
    changed = [key for key in now if before[key] != now[key]]
    return sorted([*changed, *(key for key in inputs | had if inputs.get(key) != had.get(key))])


def claim_folder(config: TrainConfig, inputs: dict[str, str], name: str | None) -> Path:
    """The run folder, with its config; the same settings continue what is there.

    `inputs` are the hashes of what it is made from. Raises `UserError` if the folder holds a run
    with other settings or other inputs.
    """
    folder = config.out / (name or f"{config.phase}-seed{config.seed}")
    file = folder / "config.json"
    if file.is_file():
        changed = _differences(file, config, inputs)
        if not changed:
            return folder
        # One without a checkpoint was refused or stopped before it had trained.
        if (folder / "checkpoints").is_dir():
            raise UserError(
                f"{folder} holds a run with another {', '.join(changed)}; "
                "start a new one with --name, or remove the folder"
            )
    packages = ("torch", "timm", "numpy", "opencv-python-headless")
    environment = {
        "commit": commit_of_this_project(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "processes": world(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "packages": {package: version(package) for package in packages},
    }
    write_json_atomic(folder / "environment.json", environment)
    write_json_atomic(file, {**config.model_dump(mode="json"), "inputs": inputs})
    return folder


def _start(config: TrainConfig) -> Trained | None:
    """The trained network a config starts from, if it names one."""
    if config.start.checkpoint is not None:
        return open_trained(config.start.checkpoint)
    if not config.start.phase:
        return None
    folder = config.out / f"{config.start.phase}-seed{config.seed}"
    if not (folder / "bundle" / "bundle.json").is_file():
        raise UserError(
            f"phase {config.phase} starts from {config.start.phase}, and {folder} is not complete; "
            f"train it first: fer-trainer --phase {config.start.phase} --seed {config.seed}"
        )
    return open_trained(folder)


def _value(config: TrainConfig, key: str) -> object:
    return functools.reduce(getattr, key.split("."), config)


def _inherit(config: TrainConfig, start: Trained, asked: Collection[str]) -> TrainConfig:
    """The config with the network and the input of the weights it starts from.

    How faces are prepared may be asked for otherwise, and so may a margin where the weights have
    none. Raises `UserError` where a phase that goes on from another, or a key in `asked`, wants
    something else: the weights decide, and what was asked for must not be ignored.
    """
    trained = start.config.input.size
    if config.start.phase and config.start.checkpoint is None and config.input.size != trained:
        raise UserError(
            f"phase {config.phase} at {config.input.size} px starts from {start.file}, which sees "
            f"{trained} px; leave the size out, or train {config.start.phase} at that size"
        )
    parts = {key: key.split(".") for key in asked}
    changes: dict[str, Any] = {"checkpoint_blocks": config.model.checkpoint_blocks}
    if start.config.model.arcface is None and any(
        part[:2] == ["model", "arcface"] for part in parts.values()
    ):
        changes["arcface"] = config.model.arcface
    model = start.config.model.model_copy(update=changes)
    sections = {part[1] for part in parts.values() if part[0] == "input" and part[1:]}
    prepared = {section: getattr(config.input, section) for section in sections & PREPARATION}
    seen = start.config.input.model_copy(update=prepared)
    inherited = config.model_copy(update={"model": model, "input": seen})
    for key, part in parts.items():
        if part[0] not in ("model", "input") or prepared.keys() & set(part[1:2]):
            continue
        if _value(config, key) != _value(inherited, key):
            raise UserError(
                f"{key} = {_value(config, key)}: {start.file}, which the phase starts from, has "
                f"{_value(inherited, key)}; leave {key} out, or start from weights made with it"
            )
    return inherited


def _softlabels(config: TrainConfig, manifest: Manifest) -> SoftLabels | None:
    """The softlabels a config learns from, with all that its loss asks of them."""
    distill = config.distill
    if distill.method == "none":
        return None
    seen = distill.views == "seen"
    soft = open_softlabels(distill.softlabels, manifest, config.augment if seen else None)
    again = "make them again with fer-trainer softlabels"
    if seen and not soft.views.shape[1]:
        raise UserError(
            f"{distill.softlabels}: holds no views; {again} --views 4, or set "
            "distill.views=clean for the teachers' answers to plain images"
        )
    features = {"attention_weight": soft.attention, "similarity_weight": soft.embedding}
    for key, stored in features.items():
        if getattr(distill, key) and stored is None:
            raise UserError(
                f"{distill.softlabels}: holds no features for distill.{key}; {again} --features"
            )
    return soft


def _targets(config: TrainConfig, part: Manifest) -> Tensor:
    labels = torch.from_numpy(part.labels())
    votes = torch.zeros(len(part.rows), len(EXPRESSIONS))
    if config.target.kind == "votes":
        given = [row.votes or (0.0,) * len(EXPRESSIONS) for row in part.rows]
        votes = torch.tensor(given, dtype=torch.float32)
    return vote_targets(
        votes, labels, config.target.drop_single_votes, config.target.label_smoothing
    )


def _normalisation(data: Data) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of (a sample of) the training faces, in 0…255."""
    rows = data.train[:: max(1, len(data.train) // 4096)].to(data.faces.device)
    sample = data.faces[rows].cpu().numpy().reshape(-1, data.faces.shape[-1]).astype(np.float64)
    mean, std = sample.mean(axis=0), sample.std(axis=0).clip(1.0)
    return [round(float(v), 3) for v in mean], [round(float(v), 3) for v in std]


def load_data(config: TrainConfig, manifest: Manifest, device: Device) -> Data:
    """The faces of a manifest as a run needs them: on the GPU where they fit, else from disk.

    Raises `UserError` where the splits a run needs are not in the manifest.
    """
    splits = np.array([row.split for row in manifest.rows])
    for split in ("train", "calib"):
        if not (splits == split).any():
            raise UserError(
                f"{manifest.file}: no rows of split '{split}'; import the data again, or cut one "
                "with fer-trainer data split"
            )
    train = np.flatnonzero(splits == "train")
    needed = 2 * world()
    if len(train) < needed:
        raise UserError(f"{manifest.file}: {len(train)} training rows; a step takes {needed}")
    packed = main_first(lambda: packed_faces(manifest, config.input))
    faces = torch.from_numpy(packed)
    if device.kind == "cuda" and faces.numel() < 0.5 * torch.cuda.mem_get_info()[0]:
        faces = faces.to(device.name)
    labels = torch.from_numpy(manifest.labels())
    calib = torch.from_numpy(np.flatnonzero(splits == "calib"))
    return Data(faces, labels, torch.from_numpy(train), calib)


def _hold_meta_rows(config: TrainConfig, data: Data) -> Data:
    """The data with rows cut off for a learnt gate, if there is one or it is to be compared."""
    learns = config.nested.enabled and config.nested.gate == "learned"
    if not (learns or config.nested.hold_meta_rows):
        return data
    held = meta_rows(data.labels[data.train], config.nested.meta_share, config.seed)
    return replace(data, held=held)


def _task(
    config: TrainConfig, manifest: Manifest, soft: SoftLabels | None, data: Data,
    network: NormalisedClassifier, device: Device,
) -> Task:  # fmt: skip
    part = manifest.select("train")
    targets = _targets(config, part).to(device.name)
    labels = torch.from_numpy(part.labels()).to(device.name)
    studied = config.negative.enabled or config.nested.enabled
    if soft is None:
        if studied:
            raise UserError(
                f"phase {config.phase}: negative and nested learning go with distillation; "
                "set distill.method=kd or dkd"
            )
        return LabelTask(targets, labels, config.model.arcface)
    if not studied:
        return DistillTask(config.distill, targets, labels, soft, device.name)
    meta = None
    if len(data.held):
        rows = data.train[data.held]
        meta = MetaRows(lambda chosen: data.faces[rows[chosen].to(data.faces.device)],
                        data.labels[rows])  # fmt: skip
    return StudyTask(config, targets, labels, soft, device.name, network, meta)


def _network(config: TrainConfig, data: Data, start: Trained | None) -> NormalisedClassifier:
    torch.manual_seed(config.seed)
    if start is not None:
        if config.model.arcface is not None and start.model.head is None:
            start.model.classify_by_cosines(config.model.arcface.scale)
        recompute(start.model.network, config.model.checkpoint_blocks)
        return start.model
    mean, std = _normalisation(data)
    return build(config.model, config.input, mean, std)


def prepare(
    config: TrainConfig,
    manifest: Manifest,
    name: str | None,
    device: Device,
    asked: Collection[str] = (),
) -> Trainer:
    """A run folder claimed, faces packed, network built, state resumed: ready to run."""
    start = _start(config)
    if start is not None:
        config = _inherit(config, start, asked)
    soft = _softlabels(config, manifest)
    inputs = {"manifest_sha256": manifest.sha256}
    if start is not None:
        inputs["start_sha256"] = start.sha256
    if soft is not None:
        inputs["softlabels_sha256"] = soft.sha256
    claim: Callable[[], Path] = lambda: claim_folder(config, inputs, name)  # noqa: E731
    folder = main_first(claim)
    data = _hold_meta_rows(config, load_data(config, manifest, device))
    about = {
        "commit": commit_of_this_project(),
        "phase": config.phase,
        "seed": str(config.seed),
        "config": config.model_dump_json(),
        **inputs,
    }
    model = _network(config, data, start)
    task = _task(config, manifest, soft, data, model, device)
    trainer = Trainer(config, folder, model, task, data, device, about)
    trainer.resume()
    return trainer


def train_phase(
    config: TrainConfig,
    name: str | None,
    *,
    asked: Collection[str] = (),
    export_best: bool = False,
) -> Path:
    """Train a phase to its end and write its results; returns the folder of the float bundle.

    `asked` are keys of the config that the user gave: one that the weights the phase starts from
    overrule is refused.

    Runs on from wherever an earlier call was stopped; with `export_best` it exports the best epoch
    so far instead, and a later call trains on. Raises `UserError` for bad data or settings.
    """
    device = pick_device(config)
    with process_group(device.kind):
        manifest = read_manifest(config.manifest)
        trainer = prepare(config, manifest, name, device, asked)
        folder = trainer.folder
        if (folder / "bundle" / "bundle.json").is_file():
            if is_main():
                print(f"{folder} is complete: {folder / 'bundle'}")
            return folder / "bundle"
        out = folder
        if export_best:
            if trainer.progress.best_epoch < 0:
                raise UserError(f"{folder} has finished no epoch yet; train it first")
            out = folder / f"{folder.name}-epoch{trainer.progress.best_epoch + 1}"
        else:
            if trainer.progress.step and is_main():
                print(f"resuming {folder} at step {trainer.progress.step} of {trainer.total_steps}")
            trainer.run()
        from trainer.results import write_results  # plots and ONNX: slow, and needed only now

        best = trainer.best_file
        about = load_weights(best, trainer.model)
        trained = Trained(trainer.model, trainer.config, about, best, sha256_file(best))
        write_results(
            trained, manifest, trainer.data.faces, trainer.device.name, trainer.history.lines(), out
        )
        wait_for_all()
        if is_main():
            print(f"float bundle: {out / 'bundle'}")
        return out / "bundle"
