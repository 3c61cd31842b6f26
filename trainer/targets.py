"""A trained model in any of its forms, opened to answer faces: run folder, checkpoint or bundle."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from contract.bundle import BUNDLE_FILE, Bundle, open_bundle
from contract.errors import UserError
from contract.faces import FaceInput
from trainer.checkpoint import open_trained
from trainer.device import device_to_ask_on
from trainer.predict import predict
from trainer.predictions import load_predictions

BATCH = 256

Kind = Literal["run", "checkpoint", "bundle"]
Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Target:
    """An opened model. `logits` maps uint8 faces `N×H×W×C` to float32 `N×7`.

    `temperature` is the one it would be served with, where it has one. `protocol` is how the labels
    of the manifest `trained_on` (its SHA-256) were made; both are empty where it does not say.
    """

    name: str
    kind: Kind
    sha256: str
    runs_on: str
    face: FaceInput
    logits: Answer
    temperature: float | None
    trained_on: str
    protocol: str


def kind_of(path: Path) -> Kind:
    """What stands at a path. Raises `UserError` where there is nothing."""
    if (path / BUNDLE_FILE).is_file():
        return "bundle"
    if path.is_dir():
        return "run"
    if not path.exists():
        raise UserError(f"{path}: no such run folder, checkpoint file or bundle folder")
    return "checkpoint"


def _stored_temperature(run: Path) -> float | None:
    file = run / "predictions.npz"
    return load_predictions(file).temperature if file.is_file() else None


def _trained(path: Path, kind: Kind, device_name: str) -> Target:
    trained = open_trained(path)
    device = device_to_ask_on(trained.config, device_name)
    model = trained.model.to(device.name, memory_format=torch.channels_last)

    def logits(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = predict(model, torch.from_numpy(faces), device=device.name, batch=BATCH)
        return np.asarray(found.numpy(), np.float32)

    return Target(
        name=str(path),
        kind=kind,
        sha256=trained.sha256,
        runs_on=f"torch on {device.name}",
        face=trained.config.input,
        logits=logits,
        temperature=_stored_temperature(path) if kind == "run" else None,
        trained_on=trained.about["manifest_sha256"],
        protocol=trained.config.protocol,
    )


@contextmanager
def _serving(bundle: Bundle) -> Iterator[tuple[Answer, str]]:
    """The bundle's first artifact that opens here and passes its golden check, and its name.

    Not the fastest, as on the box: an evaluation must not depend on what else the machine does.
    """
    from runtime import golden
    from runtime.errors import GoldenError, SessionError
    from runtime.session import BACKENDS, open_session

    reasons = []
    for artifact, backend in product(bundle.info.artifacts, BACKENDS):
        try:
            session = open_session(bundle, artifact, backend, os.cpu_count() or 1)
        except SessionError as error:
            reasons.append(str(error))
            continue
        with closing(session):
            try:
                golden.check(session, bundle, artifact)
            except (SessionError, GoldenError) as error:
                reasons.append(str(error))
                continue
            yield session.run, f"{artifact.file} ({artifact.precision}) on {backend}"
            return
    raise UserError(f"{bundle.folder}: no artifact works here: {'; '.join(reasons)}")


@contextmanager
def open_target(path: Path, device: str = "auto") -> Iterator[Target]:
    """Open a run folder (its best checkpoint), a checkpoint or a bundle while the context lasts.

    Checkpoints answer in torch on `device`, bundles in an inference runtime on the CPU. Raises
    `UserError` for what is none of them, is damaged or has another order of expressions.
    """
    kind = kind_of(path)
    if kind != "bundle":
        yield _trained(path, kind, device)
        return
    bundle = open_bundle(path)
    with _serving(bundle) as (run, runs_on):

        def logits(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
            parts = range(0, len(faces), BATCH)
            return np.concatenate([run(faces[at : at + BATCH]) for at in parts])

        made = bundle.info.provenance
        yield Target(
            name=str(path),
            kind=kind,
            sha256=bundle.sha256,
            runs_on=runs_on,
            face=bundle.info.input,
            logits=logits,
            temperature=bundle.info.temperature,
            trained_on=made.manifests.get("train", ""),
            protocol=made.detail.get("config", {}).get("protocol", ""),
        )
