"""What a phase declares: TOML files that extend each other, read into checked models."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import UserError, nearest
from contract.faces import FaceInput
from contract.validation import explain

PHASES = Path(__file__).parent / "phases"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(_Section):
    """The network."""

    backbone: str = Field("mobilenetv3_large_100", description="A timm model name.")
    stem_stride: Literal[1, 2] = Field(
        2, description="Stride of the first convolution; 1 keeps small faces from vanishing."
    )
    pretrained: bool = Field(False, description="Start from timm's ImageNet weights (downloads).")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout before the classifier.")


class TargetConfig(_Section):
    """What the student is asked to say."""

    kind: Literal["votes", "label"] = Field(
        "votes", description="The distribution of votes, where there are votes, or the label."
    )
    drop_single_votes: bool = Field(
        True, description="Treat a lone vote as an outlier, as the FER+ authors do."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Mixed in as a uniform share.")


class AugmentConfig(_Section):
    """Random changes of a training face; every range is drawn per image."""

    flip: float = Field(0.5, ge=0, le=1, description="Probability of mirroring.")
    rotate_deg: float = Field(12.0, ge=0, le=90, description="Largest rotation in degrees.")
    zoom: float = Field(1.18, ge=1, le=2, description="Largest zoom in or out, as a factor.")
    stretch: float = Field(1.06, ge=1, le=2, description="Largest change of the aspect ratio.")
    shift: float = Field(0.07, ge=0, le=0.5, description="Largest shift, share of the side.")
    brightness: float = Field(0.12, ge=0, le=1, description="Largest offset, share of full scale.")
    contrast: float = Field(1.4, ge=1, le=4, description="Largest contrast factor, up or down.")
    side_light: float = Field(0.3, ge=0, le=1, description="Strongest ramp of light across.")
    blur: float = Field(0.1, ge=0, le=1, description="Probability of a lower-resolution look.")
    noise: float = Field(6.0, ge=0, le=64, description="Largest noise, standard deviation of 255.")
    erase: float = Field(0.15, ge=0, le=1, description="Probability of a covered rectangle.")


class SizeStep(_Section):
    """One step of progressive resizing."""

    until: float = Field(gt=0, le=1, description="Share of training after which it ends.")
    size: int = Field(ge=16, le=512, description="Training size in pixels until then.")


class OptimConfig(_Section):
    """The optimiser and its schedule."""

    epochs: int = Field(30, ge=1, description="Passes over the training rows.")
    batch_size: int = Field(64, ge=2, description="Images per forward pass.")
    accum_steps: int = Field(1, ge=1, description="Forward passes per optimiser step.")
    lr: float = Field(1.5e-3, gt=0, description="Peak learning rate of AdamW.")
    min_lr: float = Field(1e-5, ge=0, description="Learning rate at the end of the cosine.")
    weight_decay: float = Field(0.05, ge=0, description="Not applied to biases and norms.")
    warmup_epochs: float = Field(2.0, ge=0, description="Linear warm-up, in epochs.")
    clip_norm: float = Field(5.0, gt=0, description="Largest gradient norm.")
    ema_decay: float = Field(0.9995, ge=0, lt=1, description="Averaging of weights per step.")
    balance_power: float = Field(
        0.0, ge=0, le=1, description="Rows are drawn ∝ class count^-power; 0 draws each row once."
    )
    amp: Literal["auto", "off", "bf16", "fp16"] = Field(
        "auto", description="Mixed precision; auto is fp16 on a GPU and off on a CPU."
    )
    size_schedule: tuple[SizeStep, ...] = Field(
        (), description="Progressive resizing (EfficientNetV2, 2104.00298); the last is the input."
    )


class TrainConfig(_Section):
    """A whole phase, resolved."""

    phase: str = Field(description="Name of the phase.")
    description: str = Field("", description="What it is for.")
    manifest: Path = Field(
        Path("data/ferplus/argmax/manifest.csv"), description="Rows with splits train and calib."
    )
    protocol: str = Field("argmax", description="How the labels were made; recorded only.")
    out: Path = Field(Path("runs"), description="Folder of run folders.")
    seed: int = Field(1337, ge=0, description="Of everything random.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    threads: int = Field(0, ge=0, description="CPU threads; 0 is all cores.")
    compile: bool = Field(
        False,
        description="torch.compile the network: slow to start, then faster; needs a C++ compiler.",
    )
    checkpoint_every_s: float = Field(120.0, gt=0, description="Seconds between checkpoints.")
    input: FaceInput = Field(description="What the model sees; goes into the bundle.")
    model: ModelConfig = Field(ModelConfig(), description="The network.")
    target: TargetConfig = Field(TargetConfig(), description="The targets.")
    augment: AugmentConfig = Field(AugmentConfig(), description="Augmentation.")
    optim: OptimConfig = Field(OptimConfig(), description="Optimiser and schedule.")


def phase_names() -> list[str]:
    """Names of the phases that ship with the trainer; those with a leading `_` are bases."""
    return sorted(p.stem for p in PHASES.glob("*.toml") if not p.stem.startswith("_"))


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _read(file: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if file in seen:
        raise UserError(f"{file} extends itself; remove the circle of 'extends'")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{seen[-1] if seen else 'phase'}: no phase file at {file}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid TOML: {error}") from None
    parent = content.pop("extends", None)
    if parent is None:
        return content
    near = file.parent / f"{parent}.toml"
    base = near if near.is_file() else PHASES / f"{parent}.toml"
    return _merge(_read(base, (*seen, file)), content)


def override(content: dict[str, Any], assignment: str) -> None:
    """Apply `key.sub=value` (a TOML value, or a bare word) to `content`, in place."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise UserError(f"--set {assignment}: write it as key=value, such as optim.epochs=3")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.split(".")
    for part in path:
        content = content.setdefault(part, {})
        if not isinstance(content, dict):
            raise UserError(f"--set {assignment}: '{part}' is not a section")
    content[last] = value


def load_phase(phase: str, overrides: list[str]) -> TrainConfig:
    """A phase by name or by its TOML file, with `key=value` overrides, checked.

    Raises `UserError` for an unknown phase or key (suggesting the nearest) or a wrong value.
    """
    file = Path(phase) if phase.endswith(".toml") else PHASES / f"{phase}.toml"
    if not file.is_file():
        known = phase_names()
        raise UserError(
            f"--phase {phase}: no such phase{nearest(phase, known)} (one of {' '.join(known)})"
        )
    content = _merge({"phase": file.stem}, _read(file))
    for assignment in overrides:
        override(content, assignment)
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        raise explain(error, TrainConfig, f"phase {file.stem}") from None
