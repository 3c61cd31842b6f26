"""What the study's two methods declare: negative learning and nested learning."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contract.expressions import EXPRESSIONS

Ratio = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NegativeConfig(_Section):
    """Negative learning: −log(1 − p) of a class the face does not show (Kim et al., 1908.07387)."""

    ratio: Ratio = Field(0.0, description="How much gets complementary labels; 0 is off.")
    unit: Literal["batch", "sample"] = Field(
        "batch", description="Whether `ratio` is a share of whole batches or of samples."
    )
    ratio_by_epoch: tuple[Ratio, ...] = Field(
        (),
        description="Ratio of the first epochs, one value each; `ratio` afterwards. An epoch at 0 "
        "has no complementary labels.",
    )
    class_ratio: dict[str, Ratio] = Field(
        default_factory=dict,
        description="Ratio of samples of these expressions, instead of `ratio` and `pair_ratio`. "
        "Whole batches are thinned to it, so there it is `ratio` at most.",
    )
    method: Literal["uniform", "targeted"] = Field(
        "uniform",
        description="uniform: any other class. targeted: the class it is most confused with, any "
        "of them if there are several.",
    )
    pairs: tuple[tuple[str, str], ...] = Field(
        (("fear", "surprise"), ("neutral", "sad")),
        description="Confusable expressions, both ways, for targeted; others are uniform.",
    )
    confusion: Path | None = Field(
        None,
        description="predictions.npz whose confusion matrix on calib names the targets instead.",
    )
    pair_ratio: Ratio | None = Field(
        None,
        description="Ratio of samples of expressions in `pairs`, instead of `ratio`; by batches "
        "`ratio` at most.",
    )
    gates: tuple[Literal["entropy", "consistency", "nckd"], ...] = Field(
        (), description="Conditions a sample must meet, all of them."
    )
    entropy_threshold: float = Field(
        1.5, ge=0, description="entropy: the student's entropy is above this, in nats."
    )
    consistency_threshold: float = Field(
        0.6, ge=0, le=1, description="consistency: agreement with the class memory is below this."
    )
    nckd_share: Ratio = Field(
        0.5, description="nckd: among this share of a forward pass with the greatest NCKD."
    )
    nckd_only: bool = Field(
        False, description="On the distribution without the target class, leaving its logit alone."
    )
    weight: float = Field(1.0, ge=0, description="Weight of the term.")

    @model_validator(mode="after")
    def _known_expressions(self) -> "NegativeConfig":
        for name in [*self.class_ratio, *(name for pair in self.pairs for name in pair)]:
            if name not in EXPRESSIONS:
                raise ValueError(f"'{name}' is no expression (one of {' '.join(EXPRESSIONS)})")
        for one, other in self.pairs:
            if one == other:
                raise ValueError(f"pairs has {one} with itself, which is no complementary label")
        return self

    @model_validator(mode="after")
    def _batches_can_be_thinned(self) -> "NegativeConfig":
        if self.unit == "sample":
            return self
        lowest = min((r for r in (self.ratio, *self.ratio_by_epoch) if r > 0), default=1.0)
        own = {f"class_ratio of {name}": ratio for name, ratio in self.class_ratio.items()}
        if self.pair_ratio is not None:
            own["pair_ratio"] = self.pair_ratio
        for what, ratio in own.items():
            if ratio > lowest:
                raise ValueError(
                    f"{what} is {ratio:g}, but only a share of {lowest:g} of the batches has "
                    'complementary labels at all; set unit = "sample"'
                )
        return self

    @property
    def enabled(self) -> bool:
        """Whether any epoch has complementary labels."""
        return max(self.ratio, *self.ratio_by_epoch, 0.0) > 0


class NestedConfig(_Section):
    """Nested learning: levels of memory with periods of their own, and a learnt gate on KD."""

    enabled: bool = Field(False, description="Whether there is any of it.")
    memory: bool = Field(True, description="Class memories; without them consistency is 1.")
    gate: Literal["learned", "one", "random"] = Field(
        "learned", description="What weighs KD: a learnt gate, nothing, or a frozen random gate."
    )
    hidden_dim: int = Field(32, ge=1, description="Width of the gate's hidden layers.")
    layers: int = Field(1, ge=1, le=4, description="Hidden layers of the gate.")
    fast_momentum: float = Field(0.9, ge=0, lt=1, description="Of the memory updated every step.")
    slow_momentum: float = Field(0.9, ge=0, lt=1, description="Of the memory updated rarely.")
    slow_interval: int = Field(50, ge=1, description="Steps between updates of the slow memory.")
    meta_interval: int = Field(100, ge=1, description="Steps between updates of the gate.")
    meta_warmup: float = Field(2.0, ge=0, description="Epochs before the gate learns and acts.")
    meta_share: float = Field(
        0.02, gt=0, lt=0.5, description="Share of training rows cut off for the gate to learn on."
    )
    hold_meta_rows: bool = Field(
        False,
        description="Cut those rows off even where no gate learns on them, so that whatever is "
        "compared trains on the same rows.",
    )
    meta_batch: int = Field(64, ge=7, description="Class-balanced meta rows of an update.")
    meta_lr: float = Field(1e-2, gt=0, description="Learning rate of the gate (Adam).")
    inner_lr: float = Field(0.1, gt=0, description="Step of the virtual update of the head.")
