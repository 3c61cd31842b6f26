"""The report: the same figures in JSON and Markdown, a picture, and a card."""

import builtins
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from quantize import confidences
from quantize.card import int8_section
from quantize.gate import Answers, Bounds, judge
from quantize.intervals import Rounds
from quantize.plots import draw
from quantize.report import (
    Candidate,
    Judged,
    Portability,
    Reference,
    Report,
    Rows,
    markdown,
    report_texts,
)


def make_report(**changes: Any) -> Report:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 7, 900)
    logits = (rng.normal(0, 1, (900, 7)) + 2.5 * np.eye(7)[labels]).astype(np.float32)
    moved = (logits + rng.normal(0, 0.02, logits.shape)).astype(np.float32)
    rounds = Rounds([4.0] * 20, [2.0] * 20)
    openvino = judge(labels, Answers(logits, 1.1), Answers(moved, 1.1), 4_600_000, rounds)
    onnx = judge(
        labels, Answers(logits, 1.1), Answers(moved, 1.1), 6_000_000, None,
        waive=frozenset({"size"}),
    )  # fmt: skip
    fitted = confidences.fit(moved, labels, 1.1, "fitted on 900 answers", 0.4)
    made = {
        "source": {"name": "student", "sha256": "a" * 64},
        "manifest_sha256": "b" * 64,
        "division_seed": 0,
        "ranges": Rows(1500, ("calib",), "c" * 64),
        "gate": Rows(900, ("calib",), "d" * 64),
        "bounds": Bounds(),
        "references": (
            Reference("openvino", "fp32", 0.84, 16.1, 4.0),
            Reference("onnxruntime", "fp32", 0.84, 16.1, 4.4),
        ),
        "candidates": (
            Candidate(
                "openvino", "mixed", {"preset": "mixed"}, True, "the fastest that passes",
                0.839, 99.1, 4.6, 2.0, 2.0,
            ),
            Candidate(
                "openvino", "symmetric", {}, False, "accuracy drop 0.90 points", 0.831, 97.0, 4.6,
                1.9, 2.1,
            ),
            Candidate("onnxruntime", "QDQ", {}, True, "the only | one", 0.838, 98.9, 5.1, 2.9, 1.5),
            Candidate("onnxruntime", "QDQ, per tensor", {}, False, "does not open:\nno kernel"),
        ),
        "artifacts": (
            Judged("student_int8.xml", "openvino", openvino),
            Judged("student_int8.onnx", "onnxruntime", onnx),
        ),
        "confidences": fitted,
        "shown": confidences.measure(fitted, moved, labels),
        "golden_errors": {"student_int8.xml": 0.004},
        "portability": (
            Portability("student_int8.xml", "AVX2, float32", "pass", 1.0, 0.012, ""),
            Portability("student_int8.onnx", "Haswell", "skipped", None, None, "no qemu here"),
        ),
        "machine": {"cpu": "some CPU", "threads": 2},
        **changes,
    }  # fmt: skip
    return Report(**made)


@pytest.fixture(scope="module")
def report() -> Report:
    return make_report()


def tables(text: str) -> list[list[list[str]]]:
    """Cells of every Markdown table, the header first and without the rule."""
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.strip().splitlines()]
        found.append([[cell.strip() for cell in line] for line in lines[:1] + lines[2:]])
    return found


def test_json_and_markdown_hold_the_same_figures(report: Report) -> None:
    texts = report_texts(report)
    body, text = json.loads(texts["report.json"]), texts["report.md"]
    candidates, first, second, *_ = tables(text)
    assert [row[:3] for row in candidates[1:4]] == [
        ["openvino", "fp32", "0.8400"],
        ["onnxruntime", "fp32", "0.8400"],
        ["openvino", "mixed", "0.8390"],
    ]
    for verdicts, judged in zip((first, second), body["artifacts"], strict=True):
        assert len(verdicts) == 1 + 7
        for row, verdict in zip(verdicts[1:], judged["gate"]["verdicts"], strict=True):
            assert row[4] == verdict["status"]
            if verdict["value"] is not None:
                shown = float(row[1].split()[0].rstrip("×"))
                assert shown == pytest.approx(verdict["value"], abs=0.0051)
    assert body["artifacts"][1]["gate"]["waived"] == ["size"]
    assert "with size waived" in text
    assert body["confidences"]["class_thresholds"] == report.confidences.class_thresholds
    assert f"{body['confidences']['abstain_threshold']:.3f}" in text
    for place in ("manifest_sha256", "division_seed", "ranges", "gate", "bounds", "machine"):
        assert place in body
    for hash in ("a", "b", "c", "d"):
        assert hash * 64 in text


def test_every_row_of_a_table_has_its_headers_cells(report: Report) -> None:
    """A bar or a line break in a reason must not tear a table."""
    found = tables(markdown(report))
    assert len(found) == 7
    for table in found:
        assert {len(row) for row in table} == {len(table[0])}
    reasons = [row[-1] for row in found[0]]
    assert "the only \\| one" in reasons and "does not open: no kernel" in reasons
    assert found[0][-1][2:7] == ["–"] * 5


def test_confidences_of_every_expression_fitted_and_reported(report: Report) -> None:
    table = next(table for table in tables(markdown(report)) if table[0][0] == "expression")
    assert [row[0] for row in table[1:]] == list(EXPRESSIONS)
    for row in table[1:]:
        assert float(row[1]) == pytest.approx(
            report.confidences.classes[row[0]].threshold, abs=1e-3
        )
        assert row[8] == str(report.shown.count[row[0]])


def test_what_was_not_proven_elsewhere_is_said(report: Report) -> None:
    table = next(table for table in tables(markdown(report)) if table[0][1] == "machine")
    assert table[2][2:] == ["skipped", "–", "–", "no qemu here"]
    assert "## Portability" not in markdown(make_report(portability=()))


def test_a_figure_that_is_no_number_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        report_texts(make_report(golden_errors={"student_int8.xml": float("nan")}))


def test_the_card_names_each_artifact(report: Report) -> None:
    card = int8_section(report, None)
    gate = report.artifacts[0].gate
    assert f"`student_int8.xml` (openvino): agreement {gate.agreement:.2f} %" in card
    assert "speed-up 2.00×" in card
    assert "waived: size" in card
    assert "1500 rows" in card and "on 900 others (split `calib`)" in card


def test_the_picture_is_drawn_with_and_without_latencies(report: Report, tmp_path: Path) -> None:
    bare = make_report(
        references=(Reference("openvino", "fp32", 0.84, 16.1, None),),
        candidates=(Candidate("openvino", "x" * 200, {}, False, "does not open"),),
    )
    for number, each in enumerate((report, bare)):
        file = tmp_path / f"{number}.png"
        draw(each, file)
        image = cv2.imread(str(file))
        assert image is not None and image.shape[1] > 1200
        assert (image < 250).mean() > 0.02
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["0.png", "1.png"]


def test_without_matplotlib_the_extra_is_named(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError("No module named 'matplotlib'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match=r"'quantize' extra .*pip install 'fer-edge\[quantize\]'"):
        draw(report, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
