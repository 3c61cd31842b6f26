"""What a phase declares, as checked models. `phase_files.py` reads them from TOML."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contract.expressions import EXPRESSIONS
from contract.faces import FaceInput
from trainer.config_criteria import StudyConfig
from trainer.config_study import NegativeConfig, NestedConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArcFaceConfig(_Section):
    """A cosine classifier trained with an angular margin (Deng et al., 1801.07698)."""

    margin: float = Field(0.35, ge=0, lt=1.6, description="Largest margin m, in radians.")
    scale: float = Field(30.0, gt=0, description="Scale s of the cosines.")
    easy_margin: bool = Field(
        False, description="Apply the margin only where the angle is below a right one."
    )
    warmup_epochs: float = Field(5.0, ge=0, description="Epochs with m = 0, the same head.")
    ramp_epochs: float = Field(5.0, ge=0, description="Epochs in which m then rises linearly.")


class ModelConfig(_Section):
    """The network."""

    backbone: str = Field("mobilenetv3_large_100", description="A timm model name.")
    stem_stride: Literal["auto", 1, 2, 4] = Field(
        "auto",
        description="Stride of the first convolution; auto halves it for inputs of 80 px or less, "
        "which keeps small faces from vanishing.",
    )
    arcface: ArcFaceConfig | None = Field(
        None, description="Classify by cosines with an angular margin in training."
    )
    checkpoint_blocks: tuple[str, ...] = Field(
        (),
        description="Modules whose activations are computed again in the backward pass instead of "
        "kept, such as blocks.0 or layer1.",
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


class DistillConfig(_Section):
    """What the student learns from softlabels; the weights of the terms of its loss."""

    method: Literal["none", "kd", "dkd"] = Field(
        "none",
        description="kd: (1 − α) CE + α KD. dkd: (1 − α) CE + α TCKD + β NCKD. Softened terms "
        "carry T².",
    )
    softlabels: Path = Field(
        Path("softlabels/ensemble"), description="Folder made by fer-trainer softlabels."
    )
    teachers: tuple[str, ...] = Field(
        ("teacher_rn18", "teacher_b3", "teacher_cnxt"),
        description="Phases whose ensemble makes the softlabels, where they have to be made.",
    )
    views: Literal["seen", "clean"] = Field(
        "seen",
        description="seen: the student gets the very views the teachers saw. clean: fresh views, "
        "and the teachers' answer to the unchanged image.",
    )
    temperature: float = Field(2.0, gt=0, description="T of the softened terms.")
    temperature_by_epoch: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="T of the first epochs, one value each; `temperature` afterwards."
    )
    alpha: float = Field(0.5, ge=0, le=1, description="α: weight of KD, or of TCKD.")
    alpha_by_epoch: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (), description="α of the first epochs, one value each; `alpha` afterwards."
    )
    class_alpha: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict, description="α of rows of these expressions, instead of `alpha`."
    )
    beta: float = Field(4.0, ge=0, description="β: weight of NCKD.")
    ce_weight: float | None = Field(
        None, ge=0, description="Weight of CE instead of 1 − α; DKD's official code has 1."
    )
    warmup_epochs: float = Field(
        0.0, ge=0, description="Epochs in which the softened terms rise linearly from 0."
    )
    focal_weight: float = Field(0.0, ge=0, description="λ of an added focal cross-entropy.")
    focal_gamma: float = Field(1.5, ge=0, description="γ of the focal weight (1 − p)^γ.")
    focal_nckd: bool = Field(False, description="Weight NCKD by the focal weight as well.")
    standardise: bool = Field(
        False, description="Standardise logits before softening (Sun et al., 2403.01427)."
    )
    attention_weight: float = Field(
        0.0, ge=0, description="λ of attention transfer; needs softlabels with features."
    )
    similarity_weight: float = Field(
        0.0, ge=0, description="Weight of similarity preservation; needs features as well."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "DistillConfig":
        for name in self.class_alpha:
            if name not in EXPRESSIONS:
                raise ValueError(f"class_alpha names '{name}'; it takes {' '.join(EXPRESSIONS)}")
        if self.views == "clean" and (self.attention_weight or self.similarity_weight):
            raise ValueError('features are stored of seen views alone; use views = "seen"')
        return self


class StartConfig(_Section):
    """Weights to start from instead of random ones. Network and input are then theirs."""

    phase: str = Field("", description="The best epoch of this phase's run with the same seed.")
    checkpoint: Path | None = Field(None, description="A run folder or a weights file.")


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
    loss_guard: float = Field(
        0.0, ge=0, description="Skip a step whose loss is above this; 0 turns the guard off."
    )
    loss_guard_epochs: int = Field(2, ge=0, description="The guard ends after so many epochs.")
    patience: int = Field(
        0, ge=0, description="Stop after so many epochs without a better one; 0 never stops early."
    )
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


PREPARATION = frozenset(FaceInput.model_fields) - {"size", "colour"}
"""What of the input does not change the shape of what the network gets: weights can go on with it
otherwise than they were trained."""


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
    deterministic: bool = Field(
        False, description="Use deterministic algorithms on a GPU too; a CPU always does."
    )
    start: StartConfig = Field(StartConfig(), description="Where weights come from.")
    input: FaceInput = Field(description="What the model sees; goes into the bundle.")
    model: ModelConfig = Field(ModelConfig(), description="The network.")
    target: TargetConfig = Field(TargetConfig(), description="The targets.")
    distill: DistillConfig = Field(DistillConfig(), description="Softlabels and their loss.")
    negative: NegativeConfig = Field(NegativeConfig(), description="Negative learning.")
    nested: NestedConfig = Field(NestedConfig(), description="Nested learning.")
    study: StudyConfig = Field(StudyConfig(), description="Its place in the study.")
    augment: AugmentConfig = Field(AugmentConfig(), description="Augmentation.")
    optim: OptimConfig = Field(OptimConfig(), description="Optimiser and schedule.")
