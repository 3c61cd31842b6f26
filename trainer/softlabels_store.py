"""Softlabels on disk: what teachers said about the training rows, and whether it still holds.

A folder of softlabels is whole or absent, and says what it was made from. A student opens it with
its own manifest and augmentation, and whatever does not match is named.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.files import sha256_file
from contract.manifest import Manifest
from contract.validation import explain
from trainer.config import AugmentConfig

SCHEMA_VERSION = 1
ARRAYS_FILE = "softlabels.npz"
INDEX_FILE = "softlabels_index.jsonl"
ORDER_FILE = "classorder.json"
ABOUT_FILE = "softlabels.json"
HASHES_FILE = "hash_manifest.json"
_MEND = "make them again with fer-trainer softlabels"


class Source(BaseModel):
    """A file that softlabels were made from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="Relative to the softlabels' folder.")
    sha256: str = Field(description="Hash of it when the softlabels were made.")


class Hashes(BaseModel):
    """The content of `hash_manifest.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = Field(description="Version of this form.")
    files: dict[str, str] = Field(description="Hash of every other file of the folder, by name.")
    manifest: Source = Field(description="The manifest whose training rows they are for.")
    ensemble: Source = Field(description="The ensemble's record.")
    teachers: list[Source] = Field(description="Every teacher's checkpoint.")


class About(BaseModel):
    """The content of `softlabels.json`: what the arrays are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = Field(description="Version of this form.")
    rows: int = Field(ge=1, description="N: training rows, in the manifest's order.")
    views: int = Field(ge=0, description="K: augmented views of each row.")
    seed: int = Field(ge=0, description="View k of all rows is draw(N, seed, k).")
    augment: dict[str, Any] = Field(description="How views were augmented.")
    features: bool = Field(description="Whether attention maps and embeddings are there.")
    attention_grid: int = Field(ge=1, description="Side of the pooled attention maps.")
    temperature: float = Field(
        gt=0, description="The ensemble's, fitted on calib; the logits are not divided by it."
    )
    batch: int = Field(ge=1, description="Images per forward pass.")
    amp: bool = Field(
        False, description="Teachers answered in the precision they were trained in, not float32."
    )
    commit: str = Field(description="Commit of this project that made them.")


@dataclass(frozen=True)
class SoftLabels:
    """What an ensemble says about N training rows, on the CPU, in the manifest's order.

    `clean` is `N×7` float32 logits of the unaugmented images, `views` `N×K×7` of K augmented ones:
    view k is `augment(faces, size, config, draw(N, seed, k))`. Of the views, where the softlabels
    have features: `attention` `N×K×grid²` float16, the mean of the teachers' attention maps, and
    `embedding` `N×K×D` float16, their embeddings of length 1 times √weight, one after the other, so
    that inner products are the weighted mean of the teachers' cosines. `temperature` would make
    the logits' softmax calibrated; they are not divided by it. `sha256` is the softlabels'
    identity.
    """

    clean: Tensor
    views: Tensor
    attention: Tensor | None
    embedding: Tensor | None
    seed: int
    temperature: float
    sha256: str


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is missing from the softlabels; {_MEND}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{file}: not readable as JSON ({error}); {_MEND}") from None


def _hashes(folder: Path) -> Hashes:
    """`hash_manifest.json`, once every file it names has been verified."""
    file = folder / HASHES_FILE
    if not file.is_file():
        raise UserError(
            f"no softlabels at {folder}: it has no {HASHES_FILE}; "
            "make them with fer-trainer softlabels"
        )
    try:
        hashes = Hashes.model_validate(_read_json(file))
    except ValidationError as error:
        raise explain(error, Hashes, file) from None
    for name in (ARRAYS_FILE, INDEX_FILE, ORDER_FILE, ABOUT_FILE):
        if name not in hashes.files:
            raise UserError(f"{file}: has no hash for '{name}'; {_MEND}")
    for name, expected in hashes.files.items():
        if Path(name).name != name:
            raise UserError(f"{file}: '{name}' is not a plain file name")
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing from the softlabels; {_MEND}")
        if sha256_file(folder / name) != expected:
            raise UserError(
                f"{folder / name} does not match its hash in {HASHES_FILE}: damaged or edited; "
                f"{_MEND}"
            )
    return hashes


def _check_manifest(folder: Path, hashes: Hashes, manifest: Manifest) -> None:
    if hashes.manifest.sha256 != manifest.sha256:
        raise UserError(
            f"{folder}: made for another manifest (hash {hashes.manifest.sha256[:12]}…) than "
            f"{manifest.file} ({manifest.sha256[:12]}…); {_MEND}"
        )


def _check_order(folder: Path) -> None:
    order = _read_json(folder / ORDER_FILE)
    if order != list(EXPRESSIONS):
        raise UserError(
            f"{folder / ORDER_FILE}: logits are in the order {order}, this program needs "
            f"'{' '.join(EXPRESSIONS)}'; {_MEND}"
        )


def _check_images(folder: Path, train: Manifest) -> None:
    """Every training row is in the index, in order, with the hash the manifest or the file has."""
    file = folder / INDEX_FILE
    try:
        index = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        stored = [(str(line["path"]), str(line["label"]), str(line["sha256"])) for line in index]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not readable ({error}); {_MEND}") from None
    if len(stored) != len(train.rows):
        raise UserError(
            f"{file}: {len(stored)} rows, {train.file} has {len(train.rows)} to train on; {_MEND}"
        )
    for row, (path, label, sha256) in zip(train.rows, stored, strict=True):
        if (row.path, row.label) != (path, label):
            raise UserError(
                f"{train.place(row)} ({row.label}): the softlabels in {folder} have {path} "
                f"({label}) in its place; {_MEND}"
            )
        if (row.sha256 or sha256_file(train.path(row))) != sha256:
            raise UserError(
                f"{train.place(row)}: the image is not the one the softlabels in {folder} were "
                f"made from; restore it, or {_MEND}"
            )


def _check_teachers(folder: Path, hashes: Hashes) -> None:
    """A teacher may have moved away; one that is there must be the one that was asked."""
    for teacher in hashes.teachers:
        file = folder / teacher.path
        if file.is_file() and sha256_file(file) != teacher.sha256:
            raise UserError(
                f"{file}: this teacher has changed since the softlabels in {folder} were made; "
                f"make its ensemble again, and then {_MEND}"
            )


def _check_augment(folder: Path, about: About, expected: AugmentConfig) -> None:
    ours = expected.model_dump(mode="json")
    for key in sorted(ours | about.augment):
        if ours.get(key) != about.augment.get(key):
            raise UserError(
                f"{folder}: views were made with augment.{key} = {about.augment.get(key)}, the "
                f"student has {ours.get(key)}; {_MEND}, or set the student's augment.{key}"
            )


def _arrays(folder: Path, about: About) -> dict[str, Tensor]:
    """The arrays, of the shapes `softlabels.json` says."""
    file, count, views = folder / ARRAYS_FILE, about.rows, about.views
    shapes: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
        "clean": ((count, len(EXPRESSIONS)), np.float32),
        "views": ((count, views, len(EXPRESSIONS)), np.float32),
    }
    if about.features:
        shapes["attention"] = ((count, views, about.attention_grid**2), np.float16)
        shapes["embedding"] = ((count, views), np.float16)
    found = {}
    try:
        with np.load(file, allow_pickle=False) as stored:
            for name, (shape, kind) in shapes.items():
                array = stored[name]
                if array.shape[: len(shape)] != shape or array.dtype != kind:
                    raise UserError(
                        f"{file}: {name} is {array.dtype} of shape {array.shape}, not "
                        f"{np.dtype(kind)} of shape {shape} as {ABOUT_FILE} says; {_MEND}"
                    )
                found[name] = torch.from_numpy(array)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{file}: not readable as softlabels ({error}); {_MEND}") from None
    return found


def open_softlabels(
    folder: Path, manifest: Manifest, expect_augment: AugmentConfig | None
) -> SoftLabels:
    """Softlabels for the training rows of a manifest, verified.

    `expect_augment` is what a student would make the views with; None for one that makes none.
    Raises `UserError` naming what differs: a file of the folder, the manifest, the order of the
    expressions, an image, a teacher that is still where it was, or a key of the augmentation.
    """
    hashes = _hashes(folder)
    _check_manifest(folder, hashes, manifest)
    _check_order(folder)
    try:
        about = About.model_validate(_read_json(folder / ABOUT_FILE))
    except ValidationError as error:
        raise explain(error, About, folder / ABOUT_FILE) from None
    train = manifest.select("train")
    _check_images(folder, train)
    _check_teachers(folder, hashes)
    if about.views and expect_augment is not None:
        _check_augment(folder, about, expect_augment)
    arrays = _arrays(folder, about)
    return SoftLabels(
        clean=arrays["clean"],
        views=arrays["views"],
        attention=arrays.get("attention"),
        embedding=arrays.get("embedding"),
        seed=about.seed,
        temperature=about.temperature,
        sha256=sha256_file(folder / HASHES_FILE),
    )
