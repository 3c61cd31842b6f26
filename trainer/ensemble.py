"""Several trained networks as one: which, with what weights, and how they did.

An ensemble's folder holds `ensemble.json` (all that is needed to run it again), the figures of
every teacher and of the whole in `ensemble_metrics.json`, and `predictions.npz` like a run's.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from tqdm import tqdm

from contract import metrics
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.faces import FaceInput
from contract.files import sha256_file, write_json_atomic
from contract.manifest import Manifest
from contract.provenance import commit_of_this_project
from contract.validation import explain
from trainer.checkpoint import Trained, open_trained
from trainer.data.cache import packed_faces
from trainer.distributed import is_main, main_first, sharded, wait_for_all, world
from trainer.fusion import Fusion, fuse, search_weights
from trainer.predict import pixels
from trainer.predictions import Predictions, save_predictions
from trainer.reliability import temperature_or_one

SCHEMA_VERSION = 1
ENSEMBLE_FILE = "ensemble.json"
METRICS_FILE = "ensemble_metrics.json"
BATCH = 64


class Teacher(BaseModel):
    """One teacher of an ensemble."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Its run's name.")
    path: str = Field(description="Its checkpoint, relative to the ensemble's folder.")
    sha256: str = Field(description="Hash of the checkpoint.")
    weight: float = Field(ge=0, le=1, description="Its weight; all weights sum to 1.")
    temperature: float = Field(gt=0, description="Its logits are divided by it before fusion.")
    phase: str = Field(description="The phase it was trained by.")
    seed: int = Field(description="The seed it was trained with.")
    input: FaceInput = Field(description="What it wants to see.")
    manifest_sha256: str = Field(description="Hash of the manifest it was trained on.")


class EnsembleInfo(BaseModel):
    """The content of `ensemble.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(SCHEMA_VERSION, description="Version of this form.")
    expressions: list[str] = Field(description="Order of the logits.")
    fusion: Literal["logit", "probability"] = Field(description="What is averaged.")
    temperatures: Literal["fitted", "none"] = Field(
        description="Whether each teacher was divided by its own, fitted on calib."
    )
    weights: str = Field(description="Where the weights come from.")
    teachers: list[Teacher] = Field(min_length=1, description="In the order they were named.")
    temperature: float = Field(
        gt=0, description="Of the fused logits, fitted on calib; they are stored undivided."
    )
    manifest_sha256: str = Field(description="Manifest whose calib rows all was fitted on.")
    protocol: str = Field(description="How the labels were made.")
    commit: str = Field(description="Commit of this project that made it.")


@dataclass(frozen=True)
class Ensemble:
    """An opened ensemble: its record, the record's file and hash, and the teachers' networks."""

    info: EnsembleInfo
    file: Path
    sha256: str
    teachers: list[Trained]

    def fuse(self, logits: Sequence[Tensor]) -> Tensor:
        """Each teacher's own logits `N×7` → the ensemble's, float32 `N×7`."""
        scaled = [
            own / teacher.temperature
            for own, teacher in zip(logits, self.info.teachers, strict=True)
        ]
        weights = [teacher.weight for teacher in self.info.teachers]
        return fuse(torch.stack(scaled), weights, self.info.fusion)


def open_ensemble(file: Path) -> Ensemble:
    """Read `ensemble.json` and open its teachers.

    Raises `UserError` for a file that is no ensemble, another schema or order of expressions, or a
    teacher that is missing or has changed since.
    """
    file = file / ENSEMBLE_FILE if file.is_dir() else file
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no ensemble at {file}; make one with fer-trainer ensemble") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{file}: not readable as JSON ({error}); make it again") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{file}: schema version {version!r}, this program reads {SCHEMA_VERSION}; "
            "make it again with fer-trainer ensemble"
        )
    try:
        info = EnsembleInfo.model_validate(content)
    except ValidationError as error:
        raise explain(error, EnsembleInfo, file) from None
    if tuple(info.expressions) != EXPRESSIONS:
        raise UserError(
            f"{file}: expressions are in the order '{' '.join(info.expressions)}', "
            f"this program needs '{' '.join(EXPRESSIONS)}'; make it again"
        )
    teachers = []
    for teacher in info.teachers:
        trained = open_trained(file.parent / teacher.path)
        if trained.sha256 != teacher.sha256:
            raise UserError(
                f"{trained.file}: has changed since {file} was made of it; "
                "make the ensemble again with fer-trainer ensemble"
            )
        teachers.append(trained)
    return Ensemble(info, file, sha256_file(file), teachers)


def faces_of(manifest: Manifest, trained: Trained) -> NDArray[np.uint8]:
    """All rows' faces as a teacher sees them, mapped from disk; the main process packs them."""
    main_first(lambda: packed_faces(manifest, trained.config.input))
    return packed_faces(manifest, trained.config.input)


def progress(title: str, count: int) -> "tqdm[None]":
    """A bar over `count` images; each process moves it by what it does times the processes."""
    return tqdm(total=count, desc=title, unit="face", disable=None if is_main() else True)


def _teacher_logits(
    trained: Trained, name: str, faces: NDArray[np.uint8], rows: NDArray[np.int64], device: str
) -> Tensor:
    """Logits `N×7` of the given rows of packed faces."""
    model = trained.model.to(device, memory_format=torch.channels_last)
    bar = progress(name, len(rows))

    def compute(part: slice) -> dict[str, Tensor]:
        batch = torch.from_numpy(faces[rows[part]])
        with torch.inference_mode():
            logits = model(pixels(batch, device)).float().cpu()
        bar.update(len(batch) * world())
        return {"logits": logits}

    with bar:
        return sharded(len(rows), BATCH, compute, device)["logits"]


def measured_rows(
    name: str, logits: NDArray[np.float32], temperature: float, manifest: Manifest, protocol: str
) -> list[dict[str, Any]]:
    """Figures of a model on the rows of a manifest: by split, over all sources and for each.

    `raw` are at temperature 1, `scaled` at `temperature`.
    """
    labels = manifest.labels()
    splits = np.array([row.split for row in manifest.rows])
    sources = np.array([row.source for row in manifest.rows])
    found = []
    for split in dict.fromkeys(splits.tolist()):
        of_split = splits == split
        for source in ("all", *sorted(set(sources[of_split].tolist()))):
            chosen = of_split if source == "all" else of_split & (sources == source)
            values = {}
            for kind, scale in (("raw", 1.0), ("scaled", temperature)):
                p = metrics.softmax(logits[chosen], scale)
                values[kind] = metrics.compute(labels[chosen], p, p.argmax(axis=1)).to_json()
            found.append(
                {
                    "model": name, "split": split, "source": source, "n": int(chosen.sum()),
                    "protocol": protocol, "temperature": temperature, **values,
                }
            )  # fmt: skip
    return found


def names_of(teachers: Sequence[Trained]) -> list[str]:
    """A name for each teacher: its run's folder or its file, numbered where it is not the only."""
    plain = [
        trained.file.parent.parent.name
        if trained.file.parent.name == "checkpoints"
        else trained.file.stem
        for trained in teachers
    ]
    return [
        name if plain.count(name) == 1 else f"{name} ({plain[: place + 1].count(name)})"
        for place, name in enumerate(plain)
    ]


@dataclass(frozen=True)
class Choices:
    """How to make an ensemble. `weights` are numbers, one for each teacher, or a way to get them.

    `protocol` says how the labels were made; empty, it is the teachers'.
    """

    fusion: Fusion = "logit"
    temperatures: Literal["fitted", "none"] = "fitted"
    weights: Literal["searched", "equal"] | tuple[float, ...] = "searched"
    protocol: str = ""


def _weights(choices: Choices, calib: Tensor, labels: NDArray[np.int64]) -> tuple[list[float], str]:
    """Weights of the teachers whose logits on calib are `M×N×7`, and what to say about them."""
    count = len(calib)
    if choices.weights == "equal":
        return [1 / count] * count, "equal"
    if choices.weights == "searched":
        found = search_weights(calib, torch.from_numpy(labels), choices.fusion)
        return found, f"least NLL on calib, n = {len(labels)}"
    total = sum(choices.weights)
    return [weight / total for weight in choices.weights], "given"


def _protocol(choices: Choices, teachers: Sequence[Trained]) -> str:
    theirs = sorted({trained.config.protocol for trained in teachers})
    if not choices.protocol and len(theirs) > 1:
        raise UserError(
            f"the teachers were trained on labels made in different ways ({', '.join(theirs)}); "
            "name the manifest's with --protocol"
        )
    return choices.protocol or theirs[0]


def _may_be_replaced(folder: Path) -> bool:
    return (folder / ENSEMBLE_FILE).is_file() or not any(folder.iterdir())


def _check_weights(choices: Choices, count: int) -> None:
    given = choices.weights
    if isinstance(given, str):
        return
    if len(given) != count:
        raise UserError(f"--weights: {len(given)} for {count} teachers; give one for each")
    if min(given) < 0 or not 0 < sum(given) < float("inf"):
        raise UserError("--weights: need to be 0 or more, and not all 0")


def _check(teachers: Sequence[Trained], manifest: Manifest, out: Path) -> None:
    seen: dict[str, Path] = {}
    for trained in teachers:
        if trained.sha256 in seen:
            raise UserError(
                f"{trained.file}: the same weights as {seen[trained.sha256]}; name each once"
            )
        seen[trained.sha256] = trained.file
    if not any(row.split == "calib" for row in manifest.rows):
        raise UserError(
            f"{manifest.file}: no rows of split 'calib' to fit weights and temperatures on; "
            "cut some from train with fer-trainer data split"
        )
    if out.exists() and not (out.is_dir() and _may_be_replaced(out)):
        raise UserError(f"{out} exists and is not an ensemble; name another place with --out")


def make_ensemble(
    teachers: Sequence[Trained], manifest: Manifest, out: Path, choices: Choices, device: str
) -> tuple[EnsembleInfo, list[dict[str, Any]]]:
    """Fuse teachers and write the ensemble's folder; returns its record and its figures.

    Weights and temperatures are fitted on the manifest's calib rows, val rows only report. Every
    process of a group takes part, the main one writes. Raises `UserError` for a manifest without
    calib rows, a teacher named twice, weights that do not fit, or something else at `out`.
    """
    _check(teachers, manifest, out)
    _check_weights(choices, len(teachers))
    names, protocol = names_of(teachers), _protocol(choices, teachers)
    rows = np.array([n for n, row in enumerate(manifest.rows) if row.split in ("calib", "val")])
    part = Manifest(manifest.file, manifest.sha256, tuple(manifest.rows[n] for n in rows))
    labels = part.labels()
    calib = np.array([row.split == "calib" for row in part.rows])
    logits = [
        _teacher_logits(trained, name, faces_of(manifest, trained), rows, device)
        for name, trained in zip(names, teachers, strict=True)
    ]
    own = [temperature_or_one(z[calib].numpy(), labels[calib]) for z in logits]
    divided = own if choices.temperatures == "fitted" else [1.0] * len(own)
    scaled = torch.stack([z / t for z, t in zip(logits, divided, strict=True)])
    weights, told = _weights(choices, scaled[:, calib], labels[calib])
    fused = fuse(scaled, weights, choices.fusion)
    temperature = temperature_or_one(fused[calib].numpy(), labels[calib])
    info = EnsembleInfo(
        schema_version=SCHEMA_VERSION,
        expressions=list(EXPRESSIONS),
        fusion=choices.fusion,
        temperatures=choices.temperatures,
        weights=told,
        teachers=[
            Teacher(
                name=name,
                path=os.path.relpath(trained.file, out),
                sha256=trained.sha256,
                weight=weight,
                temperature=divide,
                phase=trained.config.phase,
                seed=trained.config.seed,
                input=trained.config.input,
                manifest_sha256=trained.about.get("manifest_sha256", ""),
            )
            for name, trained, weight, divide in zip(names, teachers, weights, divided, strict=True)
        ],
        temperature=temperature,
        manifest_sha256=manifest.sha256,
        protocol=protocol,
        commit=commit_of_this_project(),
    )
    figures = [
        row
        for name, z, t in zip(
            [*names, "ensemble"], [*logits, fused], [*own, temperature], strict=True
        )
        for row in measured_rows(name, z.numpy(), t, part, protocol)
    ]
    if is_main():
        predictions = Predictions(
            paths=[row.path for row in part.rows],
            sources=[row.source for row in part.rows],
            splits=[row.split for row in part.rows],
            labels=labels,
            logits=fused.numpy(),
            temperature=temperature,
            manifest_sha256=manifest.sha256,
            protocol=protocol,
            name=out.name,
        )
        save_predictions(out / "predictions.npz", predictions)
        described = {"manifest_sha256": manifest.sha256, "commit": info.commit, "rows": figures}
        write_json_atomic(out / METRICS_FILE, {"schema_version": SCHEMA_VERSION, **described})
        write_json_atomic(out / ENSEMBLE_FILE, info.model_dump(mode="json"))  # last: it is whole
    wait_for_all()
    return info, figures


def summary(info: EnsembleInfo, figures: list[dict[str, Any]]) -> str:
    """A table for people: every teacher and the ensemble, on calib and val, source by source."""
    weights = {teacher.name: f"{teacher.weight:.4f}" for teacher in info.teachers}
    wide = max(len(row["model"]) for row in figures)
    source = max(6, *(len(row["source"]) for row in figures))
    lines = [
        f"{info.fusion} fusion, weights: {info.weights}; protocol {info.protocol}; "
        "NLL and ECE after each model's own temperature",
        f"{'model':<{wide}}  weight  temperature  split  {'source':<{source}}      n  accuracy  "
        "macro-F1     NLL     ECE",
    ]
    for row in figures:
        of = row["scaled"]
        lines.append(
            f"{row['model']:<{wide}}  {weights.get(row['model'], ''):<6}  "
            f"{row['temperature']:>11.3f}  {row['split']:<5}  {row['source']:<{source}}  "
            f"{row['n']:>5}  {of['accuracy']:>8.4f}  {of['macro_f1']:>8.4f}  {of['nll']:>6.4f}  "
            f"{of['ece']:>6.4f}"
        )
    return "\n".join(lines)
