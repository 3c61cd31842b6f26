"""Verdicts, against ones worked out by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.metrics import softmax
from tests.trainer.answers import answers
from tests.trainer.study import epochs, make_run, sure
from trainer.commands.gates import judge, main
from trainer.compare import compare, open_run
from trainer.config_criteria import ROW_MEASURES, Criterion, StudyConfig
from trainer.figures import Answers, figures
from trainer.gates import PhaseVerdict, Verdict, decide, judged, t_interval
from trainer.study_runs import of_rows
from trainer.verdict_text import decision_line

ECE = {"measure": "ece_scaled", "versus": ["baseline"], "change": "relative", "at_most": -0.1}
STUDY: dict[str, Any] = {
    "baseline": "study_kd",
    "criteria": {
        "ece": ECE,
        "macro_f1": {"measure": "macro_f1", "versus": ["baseline"], "at_least": -0.003},
        "grad_norm": {"measure": "grad_norm_max", "at_most": 80.0},
        "finite": {"measure": "nonfinite_epochs", "at_most": 0.0},
    },
    "indicators": {
        "rises": {**ECE, "at_most": None, "at_least": 1e-9, "remedy": "aim it"},
    },
    "decisions": [
        {"when": {"ece": "met", "macro_f1": "met"}, "then": "good", "next": "nl_negl_kd"},
        {"when": {"ece": "met", "macro_f1": "missed"}, "then": "dear", "next": "negl_tier2"},
        {"when": {"rises": "met"}, "then": "bad", "retry": ["negative.ratio=0.03 optim.lr=1e-3"]},
        {"when": {"ece": "missed"}, "then": "weak"},
    ],
}


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("gates", "compare"):
        monkeypatch.setattr(f"trainer.{module}.RESAMPLES", 100)


def one(folders: list[Path], *, baseline: list[Path] | None = None) -> PhaseVerdict:
    (made,) = judge(folders, baseline or [], "val", 1)
    return made


def of(made: PhaseVerdict) -> dict[str, Verdict]:
    return {each.name: each for each in (*made.criteria, *made.indicators)}


def test_a_success_by_hand(tmp_path: Path) -> None:
    """8 of 10 right at a confidence of 0.90 is an ECE of 0.10; at 0.88, of 0.08: −20 %."""
    make_run(tmp_path, "study_kd", sure(0.90))
    made = one([make_run(tmp_path, "negl_tier1", sure(0.88), study=STUDY)])
    found = of(made)
    assert found["ece"].measured == pytest.approx(-0.2, abs=1e-6)
    assert found["ece"].interval is not None
    assert found["ece"].interval[0] < -0.2 < found["ece"].interval[1] < -0.1
    assert (found["macro_f1"].measured, found["macro_f1"].interval) == (0.0, (0.0, 0.0))
    assert found["grad_norm"].measured == 4.0
    assert {each.status for each in made.criteria} == {"pass"} == {made.status}
    assert made.decision is not None
    assert made.decision.next == "nl_negl_kd"
    assert made.remedies == ()


def test_a_failure_names_its_remedy_and_its_retry(tmp_path: Path) -> None:
    """ECE from 0.10 to 0.15 is a rise of a half."""
    make_run(tmp_path, "study_kd", sure(0.90))
    made = one([make_run(tmp_path, "negl_tier1", sure(0.95), study=STUDY)])
    assert of(made)["ece"].measured == pytest.approx(0.5, abs=1e-6)
    assert (of(made)["ece"].status, made.status) == ("fail", "fail")
    assert made.decision is not None
    assert made.decision.then == "bad"
    assert made.remedies == ("aim it",)


def test_a_bound_inside_the_interval_leaves_it_undecided(tmp_path: Path) -> None:
    """−12 % on 140 rows: the ECE of 0.10 has a standard error of a third of itself."""
    make_run(tmp_path, "study_kd", sure(0.90, wrong=4, per_class=20))
    better = sure(0.888, wrong=4, per_class=20)
    made = one([make_run(tmp_path, "negl_tier1", better, study=STUDY)])
    ece = of(made)["ece"]
    assert ece.measured == pytest.approx(-0.12, abs=1e-6)
    assert (ece.status, ece.met, made.status) == ("undecided", True, "undecided")
    line = decision_line(made)
    assert "ECE −12.0 % ≤ −10.0 %: undecided" in line
    assert "so by the values measured, with ece undecided: good; next: nl_negl_kd" in line
    assert made.decision is not None, "rules go by the value measured"
    assert made.decision.next == "nl_negl_kd"


def test_several_seeds_are_paired_and_have_students_interval(tmp_path: Path) -> None:
    """−20, −10 and −15 %: mean −15, sd 5; t of 2 degrees of freedom is 4.303, so ±12.42."""
    folders = []
    for seed, confidence in ((1, 0.88), (2, 0.89), (3, 0.885)):
        make_run(tmp_path, "study_kd", sure(0.90), seed=seed)
        run = make_run(tmp_path, "negl_tier1", sure(confidence), seed=seed, study=STUDY)
        folders.append(run)
    ece = of(one(folders))["ece"]
    assert ece.measured == pytest.approx(-0.15, abs=1e-6)
    assert ece.interval == pytest.approx((-0.2742, -0.0258), abs=1e-4)
    assert ece.status == "undecided"
    assert dict(ece.values) == pytest.approx({1: -0.2, 2: -0.1, 3: -0.15}, abs=1e-6)


def test_students_interval_by_hand() -> None:
    """t of 1 degree of freedom is 12.706; the standard error of 1 and 3 is 1."""
    assert t_interval([1.0, 3.0]) == pytest.approx((2 - 12.706, 2 + 12.706), abs=1e-3)


@pytest.mark.parametrize(
    ("interval", "status"),
    [((0.01, 0.05), "pass"), ((-0.01, 0.05), "undecided"), (None, "pass"), ((0.0, 0.05), "pass")],
)
def test_the_whole_interval_must_be_within(
    interval: tuple[float, float] | None, status: str
) -> None:
    at_least = Criterion(measure="macro_f1", at_least=0.0)
    assert judged(at_least, 0.03, interval) == status
    at_most = Criterion(measure="macro_f1", at_most=0.0)
    turned = None if interval is None else (-interval[1], -interval[0])
    assert judged(at_most, -0.03, turned) == status
    opposite = {"pass": "fail", "undecided": "undecided"}[status]
    if interval != (0.0, 0.05):
        assert judged(at_most, 0.03, interval) == opposite


def test_a_missing_baseline_is_named_and_nothing_follows(tmp_path: Path) -> None:
    made = one([make_run(tmp_path, "negl_tier1", sure(0.88), study=STUDY)])
    ece = of(made)["ece"]
    assert (ece.measured, ece.status, ece.missing) == (None, "undecided", ("study_kd-seed1337",))
    assert made.decision is None


def test_a_seed_without_its_baseline_leaves_it_undecided(tmp_path: Path) -> None:
    make_run(tmp_path, "study_kd", sure(0.90), seed=1)
    folders = [
        make_run(tmp_path, "negl_tier1", sure(0.88), seed=seed, study=STUDY) for seed in (1, 2)
    ]
    ece = of(one(folders))["ece"]
    assert ece.measured == pytest.approx(-0.2, abs=1e-6)
    assert (ece.status, ece.missing) == ("undecided", ("study_kd-seed2",))


def test_of_several_the_best_is_to_be_beaten(tmp_path: Path) -> None:
    """F1 0.75 and 0.85 alone, 0.80 together: below the better by 0.05."""
    both = {
        "criteria": {
            "f1": {"measure": "macro_f1", "versus": ["nl_kd", "negl_tier1"], "at_least": 0.0},
            "ece": {"measure": "ece_scaled", "versus": ["nl_kd", "negl_tier1"], "at_most": 0.0},
        }
    }
    make_run(tmp_path, "nl_kd", sure(0.85, wrong=50))
    make_run(tmp_path, "negl_tier1", sure(0.99, wrong=30))
    found = of(one([make_run(tmp_path, "nl_negl_kd", sure(0.85), study=both)]))
    assert (found["f1"].versus, found["f1"].status) == ("negl_tier1", "fail")
    assert found["f1"].measured == pytest.approx(-0.05)
    assert found["ece"].versus == "nl_kd", "0.10 there, 0.14 with negl_tier1"
    assert found["ece"].measured == pytest.approx(-0.05, abs=1e-6)


def test_without_one_of_several_the_best_is_not_known(tmp_path: Path) -> None:
    both = {
        "criteria": {
            "f1": {"measure": "macro_f1", "versus": ["nl_kd", "negl_tier1"], "at_least": 0.0}
        }
    }
    make_run(tmp_path, "nl_kd", sure(0.85, wrong=100))
    made = one([make_run(tmp_path, "nl_negl_kd", sure(0.85), study=both)])
    assert (made.criteria[0].status, made.criteria[0].missing) == (
        "undecided",
        ("negl_tier1-seed1337",),
    )


@pytest.mark.parametrize(
    ("history", "norm", "finite"),
    [
        (epochs(grad_norm_max=79.0), "pass", "pass"),
        (epochs(grad_norm_max=81.0), "fail", "pass"),
        (epochs(grad_norm_max=math.nan), "fail", "pass"),
        (epochs(loss=math.nan), "pass", "fail"),
        (epochs(calib_nll=math.inf), "pass", "fail"),
        ([], "undecided", "undecided"),
    ],
)
def test_stability_is_read_from_the_history(
    tmp_path: Path, history: list[dict[str, float]], norm: str, finite: str
) -> None:
    make_run(tmp_path, "study_kd", sure(0.90))
    run = make_run(tmp_path, "negl_tier1", sure(0.88), study=STUDY, history=history)
    found = of(one([run]))
    assert (found["grad_norm"].status, found["finite"].status) == (norm, finite)


def test_the_worst_seed_decides_on_stability(tmp_path: Path) -> None:
    folders = [
        make_run(
            tmp_path, "negl_tier1", sure(0.88), seed=seed, study=STUDY,
            history=epochs(grad_norm_max=norm),
        )
        for seed, norm in ((1, 5.0), (2, 90.0), (3, 6.0))
    ]  # fmt: skip
    assert of(one(folders))["grad_norm"].measured == 90.0


def test_raw_ece_stands_beside_the_scaled(tmp_path: Path) -> None:
    """Confidence 0.9 at T = 1 in the baseline; 0.88 at T = 2 is far too sure before it."""
    make_run(tmp_path, "study_kd", sure(0.90))
    found = of(one([make_run(tmp_path, "negl_tier1", sure(0.88, temperature=2.0), study=STUDY)]))
    odds = (6 * 0.88 / 0.12) ** 2
    raw = odds / (odds + 6) - 0.8
    assert found["ece"].measured == pytest.approx(-0.2, abs=1e-5)
    assert found["ece"].raw == pytest.approx((raw - 0.1) / 0.1, abs=1e-4)


def test_intervals_over_rows_are_those_of_compare(tmp_path: Path) -> None:
    """The same rows drawn in the same order: both programs must say the same."""
    study = {
        "baseline": "study_kd",
        "criteria": {
            name: {"measure": name, "versus": ["baseline"], "at_least": 0.0}
            for name in ("macro_f1", "ece_scaled", "nll")
        },
    }
    first = make_run(tmp_path, "study_kd", answers(120))
    other = make_run(tmp_path, "negl_tier1", answers(120, noise_seed=2), study=study)
    made = of(one([other]))
    compared = compare([open_run(path, "val") for path in (first, other)], "val", 1)
    expected = compared["against_first"][0]["differences"]
    for name, each in made.items():
        assert each.measured == pytest.approx(expected[name]["difference"])
        assert each.interval == pytest.approx(expected[name]["interval"])


def test_other_rows_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, "study_kd", sure(0.9, per_class=100))
    with pytest.raises(UserError, match=r"study_kd-seed1337 was evaluated on other rows .* 700 of"):
        one([make_run(tmp_path, "negl_tier1", sure(0.88), study=STUDY)])


def test_two_runs_of_one_seed_are_refused(tmp_path: Path) -> None:
    first = make_run(tmp_path, "negl_tier1", sure(0.88), study=STUDY)
    again = make_run(tmp_path, "negl_tier1", sure(0.88), study=STUDY, name="again")
    with pytest.raises(UserError, match="both of phase negl_tier1 with seed 1337"):
        one([first, again])


def test_another_baseline_may_be_given(tmp_path: Path) -> None:
    make_run(tmp_path, "study_kd", sure(0.90))
    other = make_run(tmp_path / "elsewhere", "student_kd", sure(0.96))
    made = one([make_run(tmp_path, "negl_tier1", sure(0.88), study=STUDY)], baseline=[other])
    assert of(made)["ece"].measured == pytest.approx(-0.5, abs=1e-6)
    assert made.baseline == "student_kd, as given"


def test_what_else_differs_from_the_baseline_is_said(tmp_path: Path) -> None:
    make_run(tmp_path, "study_kd", sure(0.90), optim={"batch_size": 64, "lr": 1e-3})
    run = make_run(
        tmp_path, "negl_tier1", sure(0.88), study=STUDY, optim={"batch_size": 128, "lr": 1e-3},
        negative={"ratio": 0.05},
    )  # fmt: skip
    assert one([run]).notes == (f"{run} differs from its baseline in optim.batch_size as well",)


def test_other_softlabels_are_said_and_another_seeds_start_is_not(tmp_path: Path) -> None:
    def made(phase: str, seed: int, soft: str) -> Path:
        inputs = {"softlabels_sha256": soft, "start_sha256": f"of seed {seed}"}
        study = STUDY if phase == "negl_tier1" else None
        return make_run(tmp_path, phase, sure(0.9), seed=seed, study=study, inputs=inputs)

    for seed in (1, 2):
        made("study_kd", seed, "a")
    assert one([made("negl_tier1", 1, "a"), made("negl_tier1", 2, "a")]).notes == ()
    other = made("negl_tier1", 1, "b")
    (note,) = one([other]).notes
    assert note.endswith("in inputs.softlabels_sha256 as well")


def test_pairs_taken_for_each_other_are_counted(tmp_path: Path) -> None:
    """Of 800 faces with fear, surprise, neutral or sad, the baseline takes 30 + 20 for the other
    of their pair, the run 10."""

    def taken(pairs: dict[tuple[int, int], int]) -> Any:
        p = sure(0.9, wrong=0)
        logits = p.logits.copy()
        for (label, guess), count in pairs.items():
            rows = np.flatnonzero(p.labels == label)[:count]
            logits[rows, label], logits[rows, guess] = p.logits[rows, guess], p.logits[rows, label]
        return replace(p, logits=logits)

    study = {
        "baseline": "study_kd",
        "criteria": {
            "pairs": {"measure": "pair_confusion", "versus": ["baseline"], "at_most": 0.0},
            "fear": {"measure": "precision_fear", "versus": ["baseline"], "at_least": 0.0},
        },
    }
    make_run(tmp_path, "study_kd", taken({(2, 5): 30, (6, 4): 20, (0, 2): 50}))
    run = make_run(tmp_path, "negl_tier2", taken({(2, 5): 10, (0, 3): 5}), study=study)
    found = of(one([run]))
    assert found["pairs"].measured == pytest.approx((10 - 50) / 800)
    assert found["fear"].measured == pytest.approx(1 - 170 / 220)


def test_the_first_rule_that_fits_is_taken() -> None:
    study = StudyConfig.model_validate(STUDY)
    criterion = study.criteria["ece"]
    verdicts = [
        Verdict("ece", criterion, -0.2, (-0.3, -0.15), "pass"),
        Verdict("macro_f1", study.criteria["macro_f1"], -0.004, (-0.01, 0.002), "undecided"),
        Verdict("rises", study.indicators["rises"], -0.2, (-0.3, -0.15), "fail"),
    ]
    rule = decide(study, verdicts)
    assert rule is not None
    assert rule.next == "negl_tier2"


@pytest.mark.parametrize(
    ("study", "complaint"),
    [
        ({"criteria": {"x": {"measure": "macro_f2", "at_least": 0}}}, "did you mean 'macro_f1'"),
        ({"criteria": {"x": {"measure": "macro_f1"}}}, "either at_least or at_most"),
        ({"criteria": {"x": ECE}}, "none is named"),
        ({"decisions": [{"when": {"x": "met"}, "then": ""}]}, "asks for 'x'"),
        (
            {"criteria": {"x": {"measure": "grad_norm_max", "versus": ["a"], "at_most": 1}}},
            "not compared",
        ),
        ({"criteria": {"x": {"measure": "file", "at_most": 1}}}, "key belongs"),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused(
    tmp_path: Path, study: dict[str, Any], complaint: str
) -> None:
    run = make_run(tmp_path, "negl_tier1", sure(0.9), study=study)
    with pytest.raises(UserError, match=complaint):
        one([run])


def test_the_command_prints_verdict_next_and_retry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, "study_kd", sure(0.90))
    good = make_run(tmp_path, "negl_tier1", sure(0.88), study=STUDY)
    assert main([str(good), "--json", str(tmp_path / "gates.json")]) == 0
    out = capsys.readouterr().out
    assert "negl_tier1 against study_kd: seeds 1337; split val, protocol made up, n = 1400" in out
    assert "ECE −20.0 % ≤ −10.0 %: pass; macro-F1 +0.00 pp ≥ −0.30 pp: pass" in out
    assert "next: nl_negl_kd" in out
    stored = json.loads((tmp_path / "gates.json").read_text())
    assert stored["verdicts"][0]["criteria"][0]["measured"] == pytest.approx(-0.2, abs=1e-6)
    assert stored["run"]["command"].startswith("fer-trainer gates")
    make_run(tmp_path, "negl_tier1", sure(0.95), study=STUDY)
    main([str(good)])
    out = capsys.readouterr().out
    assert (
        "retry: fer-trainer --phase negl_tier1 --seed 1337 --name "
        "negl_tier1-ratio0.03-lr1e-3-seed1337 --set negative.ratio=0.03 --set optim.lr=1e-3"
    ) in out
    assert "remedy: aim it" in out


def test_a_nan_can_be_written(tmp_path: Path) -> None:
    study = {"criteria": {"norm": {"measure": "grad_norm_max", "at_most": 80}}}
    run = make_run(
        tmp_path, "negl_tier1", sure(0.9), study=study, history=epochs(grad_norm_max=math.nan)
    )
    main([str(run), "--json", str(tmp_path / "gates.json")])
    stored = json.loads((tmp_path / "gates.json").read_text())["verdicts"][0]["criteria"][0]
    assert (stored["measured"], stored["status"]) == (None, "fail")


@pytest.mark.parametrize(
    ("flips", "p95", "said"),
    [
        (0.04, 12.0, "so ready to deploy"),
        (0.12, 12.0, "raise the hysteresis delta from 0.1 to 0.15"),
        (0.04, 70.0, "not ready: too slow"),
    ],
)
def test_deployment_is_judged_by_result_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flips: float, p95: float, said: str
) -> None:
    score, bench = tmp_path / "score.json", tmp_path / "bench.json"
    score.write_text(json.dumps({"flip_rate": flips}))
    bench.write_text(json.dumps({"e2e_ms": {"p95": p95}}))
    assert main(["--deployment", str(score), str(bench)]) == 0
    assert said in capsys.readouterr().out


def test_deployment_without_a_file_is_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score = tmp_path / "score.json"
    score.write_text(json.dumps({"flip_rate": 0.04}))
    main(["--deployment", str(score)])
    out = capsys.readouterr().out
    assert "needs a file with e2e_ms.p95" in out
    assert "ready to deploy" not in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "name run folders"),
        (["nowhere"], "no config.json in nowhere"),
        (["--deployment", "nowhere.json"], "nowhere.json: not readable"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        main(arguments)


def test_runs_without_criteria_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no criteria in study_kd"):
        main([str(make_run(tmp_path, "study_kd", sure(0.9)))])


@pytest.mark.parametrize("name", ROW_MEASURES)
def test_every_measure_is_what_figures_and_metrics_say(name: str) -> None:
    p = answers(150)
    found = Answers(p.labels, softmax(p.logits), p.probabilities())
    value = of_rows(name, found)
    expected = figures(found)
    if name in expected:
        assert value == pytest.approx(expected[name])
    elif name.startswith("precision_"):
        label = EXPRESSIONS.index(name.removeprefix("precision_"))
        taken = p.logits.argmax(1) == label
        assert value == pytest.approx((p.labels[taken] == label).mean())
    else:
        assert name in ("share_over_095", "pair_confusion")
