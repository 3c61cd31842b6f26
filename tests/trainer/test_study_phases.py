"""The study's phases: the plan's values, criteria that can be judged, rules that lead somewhere."""

import json
from pathlib import Path

import pytest

from trainer.config import TrainConfig
from trainer.config_criteria import Criterion, StudyConfig
from trainer.matrix import MATRICES, in_order, jobs_of, load_matrix
from trainer.phase_files import load_phase, phase_names
from trainer.smoke import smoke_overrides

STUDY = [
    "negl_tier1", "negl_tier2", "negl_tier3", "negl_dkd", "nl_kd", "nl_negl_kd", "nl_negl_dkd",
    "nl_negl_dkd_focal",
]  # fmt: skip
CONTROLS = ["study_dkd", "nl_gate_one", "nl_gate_random", "nl_gate_only", "nl_memory_only"]
MINORITY = {"angry": 0.03, "disgust": 0.03}


def phase(name: str) -> TrainConfig:
    return load_phase(name, [])


def bound(name: str, criterion: str) -> tuple[str, tuple[str, ...], str, float]:
    each: Criterion = phase(name).study.criteria[criterion]
    value = each.at_least if each.at_least is not None else each.at_most
    assert value is not None
    sign = ">=" if each.at_least is not None else "<="
    return each.measure, each.versus, f"{sign} {each.change}" if each.versus else sign, value


@pytest.mark.parametrize("name", [*STUDY, *CONTROLS])
def test_a_phase_differs_from_the_baseline_in_its_method_alone(name: str) -> None:
    ours, base = phase(name), phase("study_kd")
    for section in (
        "optim",
        "augment",
        "target",
        "model",
        "input",
        "start",
        "manifest",
        "protocol",
    ):
        assert getattr(ours, section) == getattr(base, section), section
    assert (ours.distill.temperature, ours.distill.alpha) == (2.0, 0.5)
    assert ours.study.baseline == "study_kd"


def test_the_baseline_is_the_plans() -> None:
    base = phase("study_kd")
    assert (base.distill.method, base.negative.ratio, base.nested.enabled) == ("kd", 0.0, False)
    assert (base.optim.batch_size, base.optim.epochs, base.seed) == (128, 20, 1337)
    assert (base.optim.amp, base.start.phase) == ("auto", "student_ce")


def test_the_tiers_are_the_plans() -> None:
    one, two, three = (phase(f"negl_tier{tier}").negative for tier in (1, 2, 3))
    assert (one.ratio, one.unit, one.method, one.gates) == (0.05, "batch", "uniform", ())
    assert (two.ratio_by_epoch[0], two.ratio_by_epoch[4], two.ratio) == (0.08, 0.05, 0.05)
    assert (two.gates, two.entropy_threshold, two.class_ratio) == (("entropy",), 1.5, MINORITY)
    assert (three.method, three.pair_ratio, three.ratio) == ("targeted", 0.1, 0.05)
    assert set(three.pairs) == {("fear", "surprise"), ("neutral", "sad")}


def test_nested_learning_is_the_plans() -> None:
    for name in ("nl_kd", "nl_negl_kd", "nl_negl_dkd", "nl_negl_dkd_focal"):
        nested = phase(name).nested
        assert (nested.enabled, nested.hidden_dim, nested.layers) == (True, 32, 1)
        assert (nested.meta_interval, nested.gate, nested.memory) == (100, "learned", True)
    assert phase("nl_kd").negative.ratio == 0


def test_the_combinations_are_the_plans() -> None:
    b, c, plus = (phase(f"nl_negl_{name}") for name in ("kd", "dkd", "dkd_focal"))
    assert (b.negative.ratio_by_epoch[0], b.negative.ratio) == (0.05, 0.08)
    assert (b.negative.gates, b.negative.consistency_threshold) == (("consistency",), 0.6)
    for each in (c, plus):
        assert (each.distill.method, each.distill.beta) == ("dkd", 2.0)
        assert each.negative.gates == ("consistency", "nckd")
        assert (each.negative.nckd_share, each.negative.nckd_only) == (0.5, True)
    assert all(each.negative.class_ratio == MINORITY for each in (b, c, plus))
    assert (plus.distill.focal_nckd, plus.distill.focal_gamma) == (True, 1.5)
    assert plus.distill.class_alpha == {"angry": 0.6}
    assert phase("negl_dkd").negative.nckd_only


def test_controls_leave_out_one_thing() -> None:
    nested = {name: phase(name).nested for name in CONTROLS}
    assert (nested["nl_gate_one"].gate, nested["nl_gate_one"].memory) == ("one", False)
    assert (nested["nl_gate_random"].gate, nested["nl_gate_random"].memory) == ("random", True)
    assert (nested["nl_gate_only"].gate, nested["nl_gate_only"].memory) == ("learned", False)
    assert (nested["nl_memory_only"].gate, nested["nl_memory_only"].memory) == ("one", True)
    assert phase("nl_memory_only").negative == phase("nl_negl_kd").negative


BASE = ("baseline",)
BOTH = ("nl_kd", "negl_tier1")


@pytest.mark.parametrize(
    ("name", "criterion", "expected"),
    [
        ("negl_tier1", "ece", ("ece_scaled", BASE, "<= relative", -0.10)),
        ("negl_tier1", "macro_f1", ("macro_f1", BASE, ">= difference", -0.003)),
        ("negl_tier1", "angry", ("f1_angry", BASE, ">= difference", 0.0)),
        ("negl_tier1", "grad_norm", ("grad_norm_max", (), "<=", 80.0)),
        ("negl_tier1", "finite", ("nonfinite_epochs", (), "<=", 0.0)),
        ("negl_tier2", "ece", ("ece_scaled", BASE, "<= relative", -0.15)),
        ("negl_tier2", "macro_f1", ("macro_f1", BASE, ">= difference", -0.002)),
        ("negl_tier3", "fear_precision", ("precision_fear", BASE, ">= difference", 0.05)),
        ("negl_tier3", "neutral_precision", ("precision_neutral", BASE, ">= difference", 0.04)),
        ("negl_dkd", "grad_norm", ("grad_norm_max", (), "<=", 60.0)),
        ("nl_kd", "macro_f1", ("macro_f1", BASE, ">= difference", 0.0)),
        ("nl_kd", "ece", ("ece_scaled", BASE, "<= relative", -0.10)),
        ("nl_kd", "grad_norm", ("grad_norm_max", (), "<=", 50.0)),
        ("nl_negl_kd", "macro_f1", ("macro_f1", BOTH, ">= difference", 0.0)),
        ("nl_negl_kd", "angry", ("f1_angry", BOTH, ">= difference", 0.0)),
        ("nl_negl_kd", "ece", ("ece_scaled", BASE, "<= relative", -0.20)),
        ("nl_negl_dkd", "grad_norm", ("grad_norm_max", (), "<=", 50.0)),
    ],
)
def test_bounds_are_the_plans(name: str, criterion: str, expected: object) -> None:
    assert bound(name, criterion) == expected


@pytest.mark.parametrize(
    ("name", "criterion", "plan", "plan_baseline", "relative"),
    [
        ("negl_tier3", "ece", 0.035, 0.042, True),
        ("negl_dkd", "ece", 0.035, 0.042, True),
        ("negl_dkd", "macro_f1", 0.725, 0.7226, False),
        ("nl_negl_dkd", "ece", 0.035, 0.042, True),
        ("nl_negl_dkd", "macro_f1", 0.725, 0.7226, False),
        ("nl_negl_dkd_focal", "ece", 0.033, 0.042, True),
        ("nl_negl_dkd_focal", "macro_f1", 0.73, 0.7226, False),
    ],
)
def test_absolute_bounds_became_differences_to_the_plans_baseline(
    name: str, criterion: str, plan: float, plan_baseline: float, relative: bool
) -> None:
    expected = plan / plan_baseline - 1 if relative else plan - plan_baseline
    assert bound(name, criterion)[3] == pytest.approx(expected, abs=5e-4)
    assert str(plan) in phase(name).study.criteria[criterion].original


@pytest.mark.parametrize("name", [*STUDY, *CONTROLS])
def test_what_is_compared_is_trained_before(name: str) -> None:
    study = phase(name).study
    assert set(study.needed()) <= set(in_order([name])) - {name}


@pytest.mark.parametrize("name", [*STUDY, *CONTROLS])
def test_a_runs_config_keeps_the_criteria(name: str) -> None:
    study = phase(name).study
    assert StudyConfig.model_validate(json.loads(phase(name).model_dump_json())["study"]) == study


@pytest.mark.parametrize("name", STUDY)
def test_every_bound_says_what_the_plan_had(name: str) -> None:
    study = phase(name).study
    assert study.decisions
    assert all(each.original for each in study.criteria.values())
    assert all(each.original or each.note for each in study.indicators.values())


@pytest.mark.parametrize("name", [*STUDY, *CONTROLS])
def test_rules_lead_to_phases_and_settings_there_are(name: str) -> None:
    for rule in phase(name).study.decisions:
        assert not rule.next or rule.next in phase_names()
        for settings in rule.retry:
            assert load_phase(name, settings.split()) != phase(name), settings


@pytest.mark.parametrize("name", ["negl_tier1", "nl_negl_dkd_focal", "student_ce"])
def test_a_phase_has_a_short_form(name: str) -> None:
    plain = load_phase(name, ["out='some runs'"])
    short = load_phase(name, smoke_overrides(plain))
    assert (short.optim.epochs, short.out) == (3, Path("some runs/smoke"))
    assert short.nested.meta_warmup < short.optim.epochs
    assert (short.phase, short.negative) == (name, phase(name).negative)


@pytest.mark.parametrize("file", sorted(MATRICES.glob("*.toml")), ids=lambda file: file.stem)
def test_a_shipped_matrix_can_be_run(file: Path) -> None:
    jobs = jobs_of(load_matrix(file.stem))
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    for number, job in enumerate(jobs):
        assert set(job.needs) <= set(names[:number])
        assert load_phase(job.phase, job.arguments[job.arguments.index("--set") + 1 :: 2])


def test_the_full_matrix_has_the_whole_study() -> None:
    matrix = load_matrix("study")
    assert matrix.seeds == (1337, 2025, 42)
    assert {*STUDY, *CONTROLS, "study_kd"} <= set(matrix.phases)
    for name in matrix.phases:
        config = load_phase(name, [*matrix.set, *matrix.phase_set.get(name, ())])
        assert config.input.size >= 112
        assert config.optim.batch_size == 128
