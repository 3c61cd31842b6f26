"""Verdicts of the study: each phase's criteria, measured, with how sure they are, and what follows.

With one seed, intervals are of a paired bootstrap over the rows, as in `figures`: what other
images could have given. With several, the difference is taken seed by seed and the interval is
Student's t over the seeds: what other seeds could have given. Of several phases to compare with,
the best by its mean is taken, and the interval is of the difference from that one. What is
measured on a run's history has no interval: the worst seed decides.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.stats import t as student_t

from contract.intervals import RESAMPLES, Interval, bootstrap
from contract.metrics import Ints
from trainer.config_criteria import (
    BASELINE,
    ROW_MEASURES,
    Criterion,
    Decision,
    Indicator,
    StudyConfig,
)
from trainer.figures import BIASED, Answers
from trainer.study_runs import StudyRun, differing, of_history, of_rows, same_rows

Seeds = Mapping[int, StudyRun]
Status = Literal["pass", "fail", "undecided"]
_LEAST = 1e-12  # a share of nothing is no number


@dataclass(frozen=True)
class Verdict:
    """What became of a criterion. `measured` is None where nothing could be; `interval` is None
    where there is none. `raw` is the same as `measured` before temperature scaling, for ECE.
    `versus` is the phase compared with, `values` the measured one of each seed, `missing` what
    a full verdict would need.
    """

    name: str
    criterion: Criterion
    measured: float | None
    interval: Interval | None
    status: Status
    raw: float | None = None
    versus: str = ""
    values: tuple[tuple[int, float], ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def met(self) -> bool | None:
        """Whether the value measured is within the bound; None where nothing was measured."""
        return None if self.measured is None else self.criterion.holds(self.measured)

    def found(self) -> set[str]:
        """The conditions of a rule that are true of it."""
        told = {True: {"met"}, False: {"missed"}, None: set[str]()}[self.met]
        return {str(self.status)} | told


@dataclass(frozen=True)
class PhaseVerdict:
    """The verdicts of one phase, the rule that applies (if one does) and the remedies due."""

    phase: str
    runs: tuple[StudyRun, ...]
    baseline: str
    criteria: tuple[Verdict, ...]
    indicators: tuple[Verdict, ...]
    decision: Decision | None
    remedies: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def status(self) -> Status:
        """All pass, one fails, or neither is sure."""
        found = {each.status for each in self.criteria}
        if "fail" in found:
            return "fail"
        return "pass" if found == {"pass"} else "undecided"


def judged(criterion: Criterion, measured: float, interval: Interval | None) -> Status:
    """Pass or fail where the whole interval says the same as the value, else undecided.

    Without an interval the value alone decides.
    """
    ends = {criterion.holds(each) for each in (measured, *(interval or ()))}
    if len(ends) > 1:
        return "undecided"
    return "pass" if ends == {True} else "fail"


def _change(criterion: Criterion, value: float, other: float) -> float:
    if criterion.change == "relative":
        return (value - other) / max(other, _LEAST)
    return value - other


def _statistic(criterion: Criterion, measure: str, own: Answers, other: Answers | None) -> float:
    value = of_rows(measure, own)
    return value if other is None else _change(criterion, value, of_rows(measure, other))


def t_interval(values: Sequence[float]) -> Interval:
    """95 % interval of the mean of two or more values, by Student's t."""
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(student_t.ppf(0.975, len(values) - 1)) * spread
    mean = float(np.mean(values))
    return mean - half, mean + half


def _row_interval(
    criterion: Criterion, own: Answers, other: Answers | None, seed: int
) -> Interval:  # fmt: skip
    """95 % bootstrap interval over rows.

    A relative change is resampled as its first-order form m + (v − (1 + m)·w) / w₀ about the
    measured change m and other value w₀: in a resample the other's calibration error may come
    close to zero, and a plain ratio has no mean then.
    """
    measure = criterion.measure
    value = of_rows(measure, own)
    beside = 0.0 if other is None else of_rows(measure, other)
    change = _change(criterion, value, beside) if other is not None else value

    def statistic(rows: Ints) -> dict[str, float]:
        drawn = of_rows(measure, own[rows])
        if other is None:
            return {measure: drawn}
        drawn_beside = of_rows(measure, other[rows])
        if criterion.change == "difference":
            return {measure: drawn - drawn_beside}
        gap = drawn - (1 + change) * drawn_beside
        return {measure: change + gap / max(beside, _LEAST)}

    return bootstrap(statistic, len(own.labels), seed, RESAMPLES, BIASED)[measure]


def _best(criterion: Criterion, phases: Sequence[str], pool: Mapping[str, Seeds]) -> str:
    """Of phases, the one that is hardest to beat by its mean."""

    def mean(phase: str) -> float:
        return float(np.mean([of_rows(criterion.measure, r.answers) for r in pool[phase].values()]))

    return (max if criterion.at_least is not None else min)(phases, key=mean)


def _on_history(name: str, criterion: Criterion, runs: Seeds) -> Verdict:
    found = {seed: of_history(criterion.measure, run.history) for seed, run in runs.items()}
    values = tuple((seed, value) for seed, value in found.items() if value is not None)
    missing = tuple(
        f"{criterion.measure} in {runs[seed].folder / 'history.jsonl'}"
        for seed, value in found.items()
        if value is None
    )
    if not values:
        return Verdict(name, criterion, None, None, "undecided", missing=missing)
    # A NaN is the worst there is, and no bound holds for it.
    every = [value for _, value in values]
    worst = min(every) if criterion.at_least is not None else max(every)
    if isinstance(criterion, Indicator):  # there where one seed shows it
        worst = max(every) if criterion.at_least is not None else min(every)
    if any(math.isnan(value) for value in every):
        worst = math.nan
    status = judged(criterion, worst, None)
    if missing and status == "pass":
        status = "undecided"
    return Verdict(name, criterion, worst, None, status, values=values, missing=missing)


def _on_rows(
    name: str, criterion: Criterion, runs: Seeds, pool: Mapping[str, Seeds], baseline: str,
    seed: int,
) -> Verdict:  # fmt: skip
    phases = [baseline if phase == BASELINE else phase for phase in criterion.versus]
    there = [phase for phase in phases if pool.get(phase)]
    missing = [f"{phase}-seed{min(runs)}" for phase in phases if phase not in there]
    if phases and missing:  # the best of several is not known while one is missing
        return Verdict(name, criterion, None, None, "undecided", missing=tuple(missing))
    versus = _best(criterion, there, pool) if there else ""
    others = pool[versus] if versus else {}
    same_rows([*runs.values(), *others.values()])
    missing = [f"{versus}-seed{each}" for each in runs if versus and each not in others]
    paired = [(run, others.get(each)) for each, run in runs.items() if not versus or each in others]
    if not paired:
        return Verdict(
            name, criterion, None, None, "undecided", versus=versus, missing=tuple(missing)
        )

    def values(measure: str) -> list[float]:
        return [
            _statistic(criterion, measure, own.answers, other.answers if other else None)
            for own, other in paired
        ]

    every = values(criterion.measure)
    if len(paired) > 1:
        interval = t_interval(every)
    else:
        own, other = paired[0]
        interval = _row_interval(criterion, own.answers, other.answers if other else None, seed)
    measured = float(np.mean(every))
    raw = float(np.mean(values("ece_raw"))) if criterion.measure == "ece_scaled" else None
    return Verdict(
        name, criterion, measured, interval,
        "undecided" if missing else judged(criterion, measured, interval),
        raw, versus, tuple((own.seed, each) for (own, _), each in zip(paired, every, strict=True)),
        tuple(missing),
    )  # fmt: skip


def verdict(
    name: str, criterion: Criterion, runs: Seeds, pool: Mapping[str, Seeds], baseline: str,
    seed: int,
) -> Verdict:  # fmt: skip
    """One criterion of a phase with these runs by seed; `pool` has the other phases' runs.

    `seed` is the bootstrap's. Raises `UserError` for runs that answered different rows.
    """
    if criterion.measure in ROW_MEASURES:
        return _on_rows(name, criterion, runs, pool, baseline, seed)
    return _on_history(name, criterion, runs)


def decide(study: StudyConfig, verdicts: Sequence[Verdict]) -> Decision | None:
    """The first rule all of whose conditions hold."""
    found = {each.name: each.found() for each in verdicts}
    for rule in study.decisions:
        if all(wanted in found[name] for name, wanted in rule.when.items()):
            return rule
    return None


def _remedies(indicators: Sequence[Verdict]) -> tuple[str, ...]:
    return tuple(
        each.criterion.remedy
        for each in indicators
        if isinstance(each.criterion, Indicator) and each.criterion.remedy and each.met
    )


def _notes(runs: Seeds, others: Seeds) -> tuple[str, ...]:
    """What else differs between a phase and its baseline, or between its own seeds."""
    said = []
    first = next(iter(runs.values()))
    for run in runs.values():
        beside = others.get(run.seed)
        for other, what in ((first, "the other seeds"), (beside, "its baseline")):
            keys = differing(run, other) if other is not None else []
            if keys:
                said.append(f"{run.folder} differs from {what} in {', '.join(keys)} as well")
    return tuple(dict.fromkeys(said))


def judge_phase(
    phase: str, pool: Mapping[str, Seeds], seed: int, baseline: str = ""
) -> PhaseVerdict:
    """The verdicts of a phase of the pool (runs by phase and seed).

    `baseline` names another baseline than the phase's own. Criteria are those that the phase's
    first run was begun with. Raises `UserError` for runs that answered different rows.
    """
    runs = pool[phase]
    study = next(iter(runs.values())).study
    base = baseline or study.baseline
    criteria, indicators = (
        tuple(
            verdict(name, each, runs, pool, base, seed)
            for name, each in section.items()
        )
        for section in (study.criteria, study.indicators)
    )  # fmt: skip
    notes = _notes(runs, pool.get(base, {}))
    if any(run.study != study for run in runs.values()):
        notes += (f"the seeds of {phase} were begun with different criteria; the first's are used",)
    return PhaseVerdict(
        phase, tuple(runs.values()), base, criteria, indicators,
        decide(study, [*criteria, *indicators]), _remedies(indicators), notes,
    )  # fmt: skip


def _value_at(content: Any, key: str) -> float | None:
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return None
        content = content[part]
    return float(content) if isinstance(content, int | float) else None


def judge_files(study: StudyConfig, files: Mapping[Path, Any]) -> PhaseVerdict:
    """The verdicts of criteria on result files (their JSON content, by path)."""

    def one(name: str, criterion: Criterion) -> Verdict:
        found = [_value_at(content, criterion.key) for content in files.values()]
        values = [each for each in found if each is not None]
        if not values:
            missing = (f"a file with {criterion.key}",)
            return Verdict(name, criterion, None, None, "undecided", missing=missing)
        worst = min(values) if criterion.at_least is not None else max(values)
        if isinstance(criterion, Indicator):
            worst = max(values) if criterion.at_least is not None else min(values)
        return Verdict(name, criterion, worst, None, judged(criterion, worst, None))

    criteria = tuple(one(name, each) for name, each in study.criteria.items())
    indicators = tuple(one(name, each) for name, each in study.indicators.items())
    return PhaseVerdict(
        "deployment", (), "", criteria, indicators, decide(study, [*criteria, *indicators]),
        _remedies(indicators), (),
    )  # fmt: skip
