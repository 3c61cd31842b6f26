"""Comparing runs: the tests against known values, the table against scikit-learn."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score

from contract.command import run_command
from contract.errors import UserError
from contract.metrics import ece, softmax
from tests.trainer.answers import answers
from trainer.cli import main
from trainer.compare import compare, holm, mcnemar, open_run
from trainer.predictions import Predictions, save_predictions

TABLES = {
    "distillation.md": (
        "distillation",
        "student_ce-more", "student_ce-64/predictions.npz", "student_ce-long",
        "ensemble_two_students/predictions.npz", "student_kd-more", "student_dkd-more",
        "teacher_rn18-votes", "ensemble_rn18_soup/predictions.npz", "student_ce-fine",
        "student_kd-fine", "student_soup", "student_soup3", "teacher_rn18", "teacher_se_rn18",
        "ensemble_three/predictions.npz", "student_ce-three", "student_kd-three", "student_soup5",
    ),
    "distillation_again.md": (
        "distillation",
        "student_soup3", "teacher_se-votes", "student_kd-long", "student_soup6", "teacher_se-kd",
        "ensemble_kd/predictions.npz", "student_kd-a", "student_kd-b", "student_soup7",
    ),
    "distillation_third.md": (
        "distillation",
        "student_soup7", "student_kd-c", "student_soup8", "teacher_se-kd2",
        "ensemble_kd2/predictions.npz", "student_kd-d", "student_kd-e", "student_soup9",
    ),
    "distillation_resnet.md": (
        "distillation",
        "student_ce-fine", "student_kd-fine", "teacher_rn18-votes",
        "ensemble_rn18_soup/predictions.npz", "student_soup", "student_soup3",
    ),
    "distillation_se.md": (
        "distillation",
        "student_ce-three", "student_kd-three", "teacher_rn18", "teacher_se_rn18",
        "ensemble_three/predictions.npz", "student_soup3", "student_soup5",
    ),
    "arcface.md": ("distillation", "teacher_se-votes", "teacher_se-arcface", "teacher_se_rn18"),
    "ablation.md": (
        "ablation", "ce", "hard", "../runs/study_kd-seed1337", "kd-seen", "clahe",
        "../distillation/student_soup3",
    ),
    "ablation_kd.md": (
        "ablation", "../runs/study_kd-seed1337", "kd-no-ema/predictions.npz", "kd-std",
        "../runs/negl_tier1-seed1337", "../runs/nl_kd-seed1337",
    ),
    "ablation_views.md": ("ablation", "kd-seen", "kd-att", "../runs/study_kd-seed1337"),
}  # fmt: skip
"""Tables of docs/study/README.md as it makes them: the folder, then the runs, control first."""


def test_mcnemar_on_the_approval_ratings() -> None:
    """Agresti (2002), table 10.1: 150 and 86 changed their minds. The exact two-sided p that R's
    exact2x2 gives for it is 3.716e-05."""
    assert mcnemar(150, 86) == pytest.approx(3.716e-05, rel=1e-3)


def test_mcnemar_by_hand() -> None:
    """Of 16 coin tosses 4 or fewer, twice: 2 · (1 + 16 + 120 + 560 + 1820) / 65536."""
    assert mcnemar(4, 12) == mcnemar(12, 4) == 2 * 2517 / 65536
    assert mcnemar(0, 5) == 2 / 32
    assert mcnemar(0, 0) == mcnemar(7, 7) == 1.0


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_scipys_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_large_counts_is_a_number() -> None:
    assert 0 <= mcnemar(20, 5000) < 1e-300
    assert mcnemar(5000, 5000) == 1.0


def test_holm_by_hand() -> None:
    """Smallest times 4, next times 3 …, never below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_nothing_and_bonferroni(p_values: list[float]) -> None:
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p <= adjusted <= min(1.0, len(p_values) * p)


def stored(folder: Path, name: str, p: Predictions) -> Path:
    """A run folder with predictions for calib and val."""
    calib = replace(answers(50, seed=9, split="calib"), temperature=p.temperature)
    both = replace(
        p,
        paths=calib.paths + p.paths, sources=calib.sources + p.sources,
        splits=calib.splits + p.splits, labels=np.concatenate([calib.labels, p.labels]),
        logits=np.concatenate([calib.logits, p.logits]),
    )  # fmt: skip
    save_predictions(folder / name / "predictions.npz", both)
    return folder / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run, a better one, and one that answers just like the first, on 250 rows of val."""
    folder = tmp_path_factory.mktemp("runs")
    first = answers(250)
    better = replace(
        first, logits=first.logits + 3 * np.eye(7, dtype=np.float32)[first.labels],
        temperature=0.8, name="better",
    )  # fmt: skip
    again = replace(first, name="again")
    named = {"first": first, "better": better, "again": again}
    return [stored(folder, name, p) for name, p in named.items()]


@pytest.fixture(scope="module")
def compared(runs: list[Path]) -> dict[str, Any]:
    return compare([open_run(path, "val") for path in runs], "val", seed=1)


def test_the_table_holds_the_figures_of_each_run(
    compared: dict[str, Any], runs: list[Path]
) -> None:
    assert (compared["split"], compared["n"], compared["protocol"]) == ("val", 250, "made up")
    assert [row["run"] for row in compared["runs"]] == [str(path) for path in runs]
    for row, path in zip(compared["runs"], runs, strict=True):
        p = open_run(path, "val").predictions
        guess = p.logits.argmax(1)
        by_class = f1_score(p.labels, guess, average=None)
        expected = {
            "accuracy": accuracy_score(p.labels, guess),
            "macro_f1": by_class.mean(),
            "minority_f1": by_class[:3].mean(),
            "ece_raw": ece(p.labels, softmax(p.logits)),
            "ece_scaled": ece(p.labels, softmax(p.logits, p.temperature)),
        }
        for name, value in expected.items():
            cell = row["figures"][name]
            assert cell["value"] == pytest.approx(value), name
            assert cell["interval"][0] <= cell["value"] <= cell["interval"][1], name
        assert row["temperature"] == p.temperature


def test_differences_are_from_the_first_on_the_same_rows(
    compared: dict[str, Any], runs: list[Path]
) -> None:
    better, again = compared["against_first"]
    assert [better["run"], again["run"]] == [str(runs[1]), str(runs[2])]
    # The same answers differ by nothing in any resample: an unpaired interval would be wide.
    for cell in again["differences"].values():
        assert (cell["difference"], *cell["interval"]) == (0, 0, 0)
    first, second = (row["figures"]["accuracy"] for row in compared["runs"][:2])
    gain = better["differences"]["accuracy"]
    assert gain["difference"] == pytest.approx(second["value"] - first["value"])
    assert 0 < gain["interval"][0] < gain["difference"] < gain["interval"][1]
    one, two = (open_run(path, "val").predictions for path in runs[:2])
    right, also = (p.logits.argmax(1) == p.labels for p in (one, two))
    # Of a paired difference of shares: √((b + c − (b − c)²/n)) / n.
    b, c = int((also & ~right).sum()), int((right & ~also).sum())
    spread = np.sqrt(b + c - (b - c) ** 2 / 250) / 250
    width = gain["interval"][1] - gain["interval"][0]
    assert width == pytest.approx(2 * 1.96 * spread, rel=0.15)


def test_the_tests_count_rows_only_one_got_right(
    compared: dict[str, Any], runs: list[Path]
) -> None:
    better, again = compared["against_first"]
    one, two = (open_run(path, "val").predictions for path in runs[:2])
    right, also = (p.logits.argmax(1) == p.labels for p in (one, two))
    assert better["only_this_right"] == int((also & ~right).sum()) > 10
    assert better["only_first_right"] == int((right & ~also).sum())
    counts = better["only_first_right"], better["only_this_right"]
    assert better["mcnemar_p"] == pytest.approx(binomtest(counts[0], sum(counts)).pvalue)
    assert better["holm_p"] == pytest.approx(2 * better["mcnemar_p"])
    assert (again["only_first_right"], again["only_this_right"], again["holm_p"]) == (0, 0, 1.0)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["fer-trainer", "compare", *map(str, arguments)])
    return run_command("fer-trainer", main)


def test_the_command_prints_a_table_and_writes_markdown(
    runs: list[Path], compared: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert command(monkeypatch, *runs, "--seed", 1, "--markdown", tmp_path / "c.md") == 0
    shown, written = capsys.readouterr().out, (tmp_path / "c.md").read_text()
    accuracy = compared["runs"][1]["figures"]["accuracy"]
    cell = f"{accuracy['value']:.4f} [{accuracy['interval'][0]:.4f}, {accuracy['interval'][1]:.4f}]"
    for text in (shown, written):
        assert cell in text
        assert "split val, protocol made up, n = 250" in text.replace("Split", "split")
        assert all(str(path) in text for path in runs)
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert len(rows) == (2 + 3) + (2 + 2)
    assert len({line.count("|") for line in rows[:5]}) == len({r.count("|") for r in rows[5:]}) == 1


def test_the_command_prints_json_for_programs(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, *runs[:2], "--split", "calib", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["split"], found["bootstrap"]["seed"]) == (50, "calib", 1337)
    assert found["run"]["command"].startswith("fer-trainer compare ")


def test_runs_on_other_rows_are_refused_by_manifest(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    p = answers(250)
    strict = replace(p.rows(np.arange(200)), manifest_sha256="cd" * 32, protocol="strict")
    relabelled = replace(p, labels=(p.labels + 1) % 7, manifest_sha256="ef" * 32)
    for number, other in enumerate((strict, relabelled)):
        path = stored(tmp_path, f"other{number}", other)
        assert command(monkeypatch, runs[0], path) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{path} was evaluated on other rows than {runs[0]}" in line
        assert f"{len(other)} of manifest {other.manifest_sha256[:12]}" in line
        assert "against 250 of abababababab (made up)" in line


def test_mistakes_are_one_line(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    cases: list[tuple[list[object], str]] = [
        ([runs[0]], "at least two runs"),
        ([runs[0], tmp_path / "nowhere"], "no predictions at "),
        ([*runs, "--split", "test"], "no rows of split 'test'"),
    ]
    for arguments, message in cases:
        assert command(monkeypatch, *arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_a_file_of_predictions_is_a_run_too(runs: list[Path]) -> None:
    opened = open_run(runs[0] / "predictions.npz", "val")
    with pytest.raises(UserError, match="split 'train'"):
        open_run(runs[0] / "predictions.npz", "train")
    assert len(opened.predictions) == 250


@pytest.mark.parametrize("table", TABLES)
def test_a_committed_table_is_what_the_committed_answers_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    study = Path(__file__).parents[2] / "docs/study"
    folder, *runs = TABLES[table]
    monkeypatch.chdir(study / folder)
    made = tmp_path / table
    assert command(monkeypatch, *runs, "--markdown", made) == 0
    assert made.read_bytes() == (study / table).read_bytes()
