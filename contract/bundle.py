"""A bundle: the folder that carries a model between stages, and the only form of a model outside.

`bundle.json` says everything a stage needs to know and names the model's files with their SHA-256;
`SHA256SUMS` lists every file, the model card and `bundle.json` itself too. Opening a bundle
verifies all of them. No dataset image is ever in a bundle.
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.checksums import check_files, check_hash, damaged, read_sums, write_sums
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.faces import FaceInput
from contract.files import sha256_file, write_json_atomic
from contract.validation import explain

SCHEMA_VERSION = 1
BUNDLE_FILE = "bundle.json"


class Artifact(BaseModel):
    """One exported form of the model: uint8 `N×H×W×C` in, float32 logits `N×7` out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["openvino", "onnx"] = Field(description="OpenVINO IR, or an ONNX graph.")
    precision: Literal["int8", "fp16", "fp32"] = Field(
        description="int8: quantized; fp16: float with half-precision weights; fp32: float."
    )
    file: str = Field(description="The file a runtime opens.")
    sha256: dict[str, str] = Field(description="Hash of every file of this artifact, by name.")
    tolerance: float = Field(
        gt=0,
        description="Largest mean |Δp| against the golden answers that still is the same model.",
    )


class Golden(BaseModel):
    """Inputs made from a seed and the float model's answers to them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(ge=0, description="Seed of `golden_inputs`.")
    logits: list[list[float]] = Field(description="The float model's logits, a row per input.")


class Provenance(BaseModel):
    """Where a model came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    commit: str = Field(description="Commit of this project that made it.")
    phase: str = Field(description="The training phase.")
    seed: int = Field(description="The training seed.")
    parent: str = Field("", description="Hash of the bundle this one was made from.")
    manifests: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the manifests used, by purpose."
    )
    detail: dict[str, Any] = Field(default_factory=dict, description="Anything a stage records.")


class BundleInfo(BaseModel):
    """The content of `bundle.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(SCHEMA_VERSION, description="Version of this form.")
    name: str = Field(min_length=1, max_length=100, description="A name for people.")
    expressions: list[str] = Field(description="Order of the logits.")
    input: FaceInput = Field(description="What the model wants to see.")
    temperature: float = Field(gt=0, description="Divide logits by it, then softmax.")
    class_thresholds: dict[str, float] = Field(
        default_factory=dict, description="Least smoothed probability at which a class is shown."
    )
    abstain_threshold: float = Field(
        0.4, ge=0, le=1, description="Under this smoothed confidence the label is 'uncertain'."
    )
    artifacts: list[Artifact] = Field(min_length=1, description="Best first; float last.")
    metrics: dict[str, Any] = Field(
        default_factory=dict, description="Measured figures, each with protocol, split and n."
    )
    golden: Golden = Field(description="The check that runs at every start.")
    provenance: Provenance = Field(description="Where it came from.")


class Bundle:
    """An opened, verified bundle."""

    def __init__(self, folder: Path, info: BundleInfo, sha256: str) -> None:
        self.folder = folder
        self.info = info
        self.sha256 = sha256
        """Hash of `bundle.json`, which holds all other hashes: the bundle's identity."""

    def path(self, artifact: Artifact) -> Path:
        """The file a runtime opens."""
        return self.folder / artifact.file


def golden_inputs(seed: int, count: int, face: FaceInput) -> NDArray[np.uint8]:
    """`count` smooth pseudo-faces, `count×size×size×C` uint8, the same on every machine.

    Low-frequency blobs with mild noise: closer to what a face crop excites than white noise is,
    without being anybody's picture. Integer arithmetic only, so no library version changes a bit.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    size, channels, cells = face.size, face.channels, 6
    coarse = rng.integers(0, 256, (count, cells + 1, cells + 1, channels), dtype=np.int64)
    noise = rng.integers(-8, 9, (count, size, size, channels), dtype=np.int64)
    position = np.arange(size) * cells * 256 // size
    cell, fraction = position // 256, position % 256
    down = fraction[None, :, None, None]
    rows = coarse[:, cell] * (256 - down) + coarse[:, cell + 1] * down
    across = fraction[None, None, :, None]
    smooth = rows[:, :, cell] * (256 - across) + rows[:, :, cell + 1] * across
    return np.clip(smooth // 65536 + noise, 0, 255).astype(np.uint8)


def _artifact_hashes(file: Path, info: BundleInfo) -> dict[str, str]:
    """The hashes in `bundle.json`, by file name."""
    hashes: dict[str, str] = {}
    for artifact in info.artifacts:
        if artifact.file not in artifact.sha256:
            raise UserError(f"{file}: no hash for '{artifact.file}'; re-export it")
        for name in artifact.sha256:
            if Path(name).name != name:
                raise UserError(f"{file}: '{name}' is not a plain file name")
        hashes.update(artifact.sha256)
    return hashes


def _parse(file: Path, text: bytes) -> BundleInfo:
    """What `bundle.json` says; raises `UserError` where this program cannot work with it."""
    try:
        content = json.loads(text.decode())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{file}: not readable as JSON ({error}); copy the bundle again") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{file}: schema version {version!r}, this program reads {SCHEMA_VERSION}; "
            "export the bundle again or update the program"
        )
    try:
        info = BundleInfo.model_validate(content)
    except ValidationError as error:
        raise explain(error, BundleInfo, file) from None
    if tuple(info.expressions) != EXPRESSIONS:
        raise UserError(
            f"{file}: expressions are in the order '{' '.join(info.expressions)}', "
            f"this program needs '{' '.join(EXPRESSIONS)}'; export the bundle again"
        )
    if any(len(row) != len(EXPRESSIONS) for row in info.golden.logits) or not info.golden.logits:
        raise UserError(f"{file}: golden.logits must be rows of {len(EXPRESSIONS)} numbers")
    return info


def open_bundle(folder: Path) -> Bundle:
    """Read `bundle.json` and verify every file of the folder.

    Raises `UserError` for a folder that is no bundle, another schema or order of expressions, a
    file that is missing, does not match its hash or is not listed, or a damaged list.
    """
    file = folder / BUNDLE_FILE
    try:
        text = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"no bundle at {folder}: it has no {BUNDLE_FILE}; "
            "name one that fer-trainer or fer-quantize wrote"
        ) from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; copy the bundle again") from None
    sums, identity = read_sums(folder), hashlib.sha256(text).hexdigest()
    if BUNDLE_FILE not in sums:
        raise damaged(folder, f"it does not list '{BUNDLE_FILE}'")
    check_hash(folder, BUNDLE_FILE, sums[BUNDLE_FILE], identity, None)
    info = _parse(file, text)
    vouched = _artifact_hashes(file, info)
    check_files(folder, sums, vouched)
    for name, expected in vouched.items():
        if name not in sums:
            raise UserError(
                f"{folder / name} is missing from the bundle; copy the whole folder again"
            )
        if sums[name] != expected:
            raise UserError(
                f"{folder / name} does not match its hash in {BUNDLE_FILE}: another file was put "
                "in its place; copy the bundle again from where it was made"
            )
    return Bundle(folder, info, identity)


def artifact_of(
    files: list[Path], format: Literal["openvino", "onnx"],
    precision: Literal["int8", "fp16", "fp32"], tolerance: float,
) -> Artifact:  # fmt: skip
    """An `Artifact` record for exported files; the first is the one a runtime opens."""
    hashes = {path.name: sha256_file(path) for path in files}
    return Artifact(
        format=format, precision=precision, file=files[0].name, sha256=hashes, tolerance=tolerance
    )


def write_bundle(folder: Path, info: BundleInfo, files: list[Path], texts: dict[str, str]) -> None:
    """Make a bundle at `folder` in one rename, replacing one already there.

    `files` are copied in under their own names; `texts` are further files (a model card) by name.
    Raises `UserError` if something other than a bundle stands at `folder`.
    """
    if folder.exists() and not (folder / BUNDLE_FILE).is_file():
        raise UserError(f"{folder} exists and is not a bundle; name another place with --out")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        fresh = Path(temporary) / "new"
        fresh.mkdir()
        for file in files:
            shutil.copyfile(file, fresh / file.name)
        for name, text in texts.items():
            (fresh / name).write_text(text, encoding="utf-8")
        write_json_atomic(fresh / BUNDLE_FILE, info.model_dump(mode="json"))
        write_sums(fresh)
        open_bundle(fresh)
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        fresh.rename(folder)
