"""The report: what it says is what the run folders say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from contract.errors import UserError
from contract.files import write_text_atomic
from tests.trainer.study import epochs, make_run, sure
from trainer.commands.report import main
from trainer.report import mean_sd

ECE = {"measure": "ece_scaled", "versus": ["baseline"], "change": "relative", "at_most": -0.1}
ALONE: dict[str, Any] = {
    "baseline": "study_kd",
    "criteria": {"ece": {**ECE, "original": "ECE ↓ ≥ 10 %"}},
    "decisions": [{"when": {"ece": "met"}, "then": "good", "next": "nl_negl_kd"}],
}
# Confidence and wrong rows of 200 a class, by phase and seed: F1 is 1 − wrong / 200, ECE is the
# confidence minus that.
RUNS = {
    "study_kd": ((0.90, 40), (0.90, 42)),
    "negl_tier1": ((0.85, 40), (0.84, 42)),
    "nl_kd": ((0.92, 30), (0.92, 30)),
    "nl_negl_kd": ((0.84, 34), (0.84, 36)),
}


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.gates.RESAMPLES", 50)


def make_runs(folder: Path) -> list[Path]:
    return [
        make_run(
            folder, phase, sure(confidence, wrong, temperature=1.5), seed=seed,
            study=ALONE if phase != "study_kd" else None,
        )
        for phase, pairs in RUNS.items()
        for seed, (confidence, wrong) in zip((1, 2), pairs, strict=True)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of four phases with two seeds each."""
    folder = tmp_path_factory.mktemp("study")
    runs = make_runs(folder / "runs")
    assert main([*map(str, runs), "--out", str(folder / "report")]) == 0
    return folder / "report"


def table(report: Path, heading: str) -> dict[str, list[str]]:
    """The rows of the table under a heading, by their first cell."""
    text = (report / "report.md").read_text()
    section = re.split(r"^#+ ", text.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.M)[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in rows}


def test_mean_and_deviation_by_hand() -> None:
    """Of 1, 2 and 3 the sample's deviation is 1."""
    assert mean_sd([1.0, 2.0, 3.0], 1) == "2.0 ± 1.0"
    assert mean_sd([0.5]) == "0.5000"


def test_figures_are_means_over_seeds(report: Path) -> None:
    """F1 0.80 and 0.79; ECE 0.10 and 0.11."""
    rows = table(report, "Results")
    at = {name: rows["phase"].index(name) for name in rows["phase"]}
    base = rows["study_kd"]
    assert base[at["seeds"]] == "2"
    assert base[at["macro-F1"]] == base[at["angry F1"]] == "0.7950 ± 0.0071"
    assert base[at["ECE"]] == "0.1050 ± 0.0071"
    assert base[at["T*"]] == "1.500 ± 0.000"
    assert list(rows) == ["phase", "---", *RUNS]
    assert table(report, "Each class")["study_kd"] == 7 * ["0.7950 ± 0.0071"]


def test_differences_are_from_the_baseline_with_paired_tests(report: Path) -> None:
    """nl_kd gets 10 and 12 more of each class's 200 right: 70 and 84 rows, and loses none."""
    rows = table(report, "Against study_kd")
    assert rows["nl_kd"][0].startswith("+5.50 pp [")
    assert "1: 0, 70, p " in rows["nl_kd"][3]
    assert "2: 0, 84, p " in rows["nl_kd"][3]
    assert "1: 0, 0, p 1, Holm 1" in rows["negl_tier1"][3]


def test_synergy_is_measured_against_the_better_of_both(report: Path) -> None:
    """F1: 0.83 and 0.82 against 0.85 of NL alone. ECE: 0.01 and 0.02 against 0.05 of NegL."""
    row = table(report, "NL and NegL together")["nl_negl_kd"]
    assert row[2].startswith("−2.50 pp [")
    assert row[2].endswith("(nl_kd)")
    assert row[4].startswith("−3.50 pp [")
    assert row[4].endswith("(negl_tier1)")
    assert (row[3], row[5]) == ("undecided", "undecided"), "two seeds are few: t is 12.7"


def test_it_says_where_everything_comes_from(report: Path) -> None:
    text = (report / "report.md").read_text()
    assert "Split val, protocol made up, n = 1400, manifest " + "cd" * 32 in text
    assert "seeds 1, 2; trained by commit 0123456789abcdef" in text
    assert "Written by `fer-trainer report " in text


def test_verdicts_are_in_it_with_the_plans_own_bound(report: Path) -> None:
    row = table(report, "negl_tier1: pass")["ece: ECE"]
    assert row[0] == "−52.3 %", "−50 % and −54.5 %: ± 28.9"
    assert row[1] == "[−81.2 %, −23.4 %]"
    assert row[-1] == "ECE ↓ ≥ 10 %"
    assert "next: nl_negl_kd" in (report / "report.md").read_text()


def test_every_picture_it_shows_is_there(report: Path) -> None:
    shown = re.findall(r"!\[.*?\]\((.*?)\)", (report / "report.md").read_text())
    assert len(shown) == 3 * len(RUNS)
    assert all((report / file).read_bytes()[:4] == b"\x89PNG" for file in shown)


def test_the_page_has_the_tables_and_the_pictures(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.count("<table>") == (report / "report.md").read_text().count("| --- |")
    assert page.count("<img") == 3 * len(RUNS)


def test_every_figure_is_in_the_json(report: Path) -> None:
    stored = json.loads((report / "study.json").read_text())
    assert stored["figures"]["study_kd"]["1"]["macro_f1"] == pytest.approx(0.8)
    assert {each["phase"] for each in stored["verdicts"]} == set(RUNS) - {"study_kd"}


def test_signs_of_trouble_are_told(tmp_path: Path) -> None:
    run = make_run(tmp_path, "study_kd", sure(0.9), history=epochs(grad_norm_max=120.0))
    main([str(run), "--out", str(tmp_path / "report")])
    text = (tmp_path / "report" / "report.md").read_text()
    assert "- study_kd-seed1337, epoch 3: gradient norm 120 is above 100" in text


def test_a_matrix_is_reported_with_what_is_left_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    make_run(runs, "study_kd", sure(0.9))
    write_text_atomic(
        tmp_path / "m.toml",
        f"description = 'A small study.'\nphases = ['negl_tier1']\nout = '{runs}'\n",
    )
    assert main([str(tmp_path / "m.toml"), "--out", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.startswith("# A small study.\n")
    assert "Not finished, and not in here: student_ce-seed1337, negl_tier1-seed1337." in text
    assert "The runs of both methods and of each alone are not all there." in text
    assert "report.html" in capsys.readouterr().out


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run in"):
        main(["two_cores", "--runs-in", str(tmp_path)])


@pytest.mark.parametrize(
    ("matrix", "folder"),
    [("two_cores_seeds", "docs/study"), ("two_cores_short", "docs/study/four_ways")],
)
def test_a_committed_report_is_what_the_committed_runs_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matrix: str, folder: str
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    main([matrix, "--runs-in", f"{folder}/runs", "--out", str(tmp_path)])
    for name in ("report.md", "report.html", "study.json"):
        assert (tmp_path / name).read_bytes() == Path(folder, name).read_bytes(), name
