"""What a phase of the study declares beforehand: what it needs, what counts as success, what next.

`gates.py` reads the verdict. Nothing here is code: the bounds and the rules stand in the phase's
TOML file under [study].
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contract.errors import nearest
from contract.expressions import EXPRESSIONS

BASELINE = "baseline"

ROW_MEASURES = (
    "accuracy", "macro_f1", "minority_f1", "ece_scaled", "ece_raw", "brier", "nll",
    "share_over_095", "pair_confusion",
    *(f"f1_{name}" for name in EXPRESSIONS),
    *(f"precision_{name}" for name in EXPRESSIONS),
)  # fmt: skip
"""Measured on the rows of a split. `share_over_095`: rows with a confidence above 0.95.
`pair_confusion`: of the rows labelled fear, surprise, neutral or sad, the share taken for the other
of its pair (fear and surprise, neutral and sad)."""

RUN_MEASURES = ("grad_norm_max", "nonfinite_epochs", "minority_f1_change", "peak_memory_mb")
"""Measured on a run's history. `minority_f1_change`: mean F1 of angry, disgust and fear on calib,
last epoch minus first."""

Found = Literal["pass", "fail", "undecided", "met", "missed"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Criterion(_Section):
    """A bound on something measured.

    Met or missed by the value measured; passed or failed where the whole interval says the same.
    """

    measure: str = Field(
        description="What is measured, or `file` for a value of a result file of the edge."
    )
    key: str = Field("", description="file: dotted key of the value, such as e2e_ms.p95.")
    versus: tuple[str, ...] = Field(
        (),
        description="Phases to compare with, `baseline` for the baseline's; of several the best. "
        "Empty: the value itself is bounded.",
    )
    change: Literal["difference", "relative"] = Field(
        "difference", description="relative: the difference as a share of the other's value."
    )
    at_least: float | None = Field(None, description="Lower bound.")
    at_most: float | None = Field(None, description="Upper bound.")
    original: str = Field("", description="The bound as the study's plan words it.")
    note: str = Field("", description="How the bound follows from the plan's, if not plainly.")

    @model_validator(mode="after")
    def _is_whole(self) -> "Criterion":
        known = (*ROW_MEASURES, *RUN_MEASURES, "file")
        if self.measure not in known:
            raise ValueError(f"no measure '{self.measure}'{nearest(self.measure, known)}")
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a criterion has either at_least or at_most")
        if bool(self.key) != (self.measure == "file"):
            raise ValueError('key belongs to measure = "file", and only there')
        if self.versus and self.measure not in ROW_MEASURES:
            raise ValueError(f"'{self.measure}' is not compared between phases")
        return self

    def holds(self, value: float) -> bool:
        """Whether a value is within the bound; NaN never is."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most


class Indicator(Criterion):
    """Measured for the decisions and remedies, not for success: there where its bound holds."""

    remedy: str = Field("", description="What to try where it is there.")


class Decision(_Section):
    """A rule: what follows where every condition holds. The first rule that fits is taken."""

    when: dict[str, Found] = Field(
        description="Criterion or indicator → pass, fail or undecided, by its interval; met or "
        "missed, by the value measured."
    )
    then: str = Field(description="What is concluded.")
    next: str = Field("", description="The phase to go on with.")
    retry: tuple[str, ...] = Field(
        (), description="Settings to try the same phase again with; each KEY=VALUE, by blanks."
    )


class StudyConfig(_Section):
    """A phase's place in the study."""

    requires: tuple[str, ...] = Field(
        (), description="Phases that must be complete with the same seed."
    )
    baseline: str = Field("", description="The phase that `baseline` stands for in criteria.")
    criteria: dict[str, Criterion] = Field({}, description="All of them make success.")
    indicators: dict[str, Indicator] = Field(
        {}, description="What rules and remedies ask for besides."
    )
    decisions: tuple[Decision, ...] = Field((), description="Rules; the first that fits.")

    @model_validator(mode="after")
    def _names_are_known(self) -> "StudyConfig":
        if both := self.criteria.keys() & self.indicators.keys():
            raise ValueError(f"'{min(both)}' is both a criterion and an indicator")
        named = {**self.criteria, **self.indicators}
        for rule in self.decisions:
            for name in rule.when:
                if name not in named:
                    raise ValueError(f"a decision asks for '{name}'{nearest(name, named)}")
        if not self.baseline and any(BASELINE in each.versus for each in named.values()):
            raise ValueError("criteria are against a baseline, and none is named")
        return self

    def needed(self) -> tuple[str, ...]:
        """Every phase that the criteria compare with, the baseline first."""
        every = [*self.criteria.values(), *self.indicators.values()]
        named = [self.baseline] if self.baseline else []
        named += [phase for each in every for phase in each.versus if phase != BASELINE]
        return tuple(dict.fromkeys(named))
