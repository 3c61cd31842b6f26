"""Which measured candidate is kept, and when the next best takes its place."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from contract.bundle import Artifact, Bundle
from quantize import search
from quantize.candidates import Candidate, Target
from quantize.gate import Answers, Bounds, judge
from quantize.intervals import Rounds
from quantize.report import Portability
from quantize.search import Found, Setting, choose

LABELS = np.arange(1000) % 7


def answers(wrong: int) -> Answers:
    top = np.where(np.arange(1000) < wrong, (LABELS + 1) % 7, LABELS)
    return Answers((np.eye(7)[top] * 8).astype(np.float32), 1.0)


def found(name: str, speed: float, wrong: int = 0) -> Found:
    """A measured candidate that is `speed` times as fast as float, with answers of its own."""
    rounds = Rounds([3.0] * 20, [3.0 / speed] * 20)
    gate = judge(LABELS, answers(0), answers(wrong), 4_000_000, rounds, Bounds(), frozenset())
    logits = answers(wrong).logits
    artifact = cast(Artifact, SimpleNamespace(file=name))
    return Found(Candidate(name, "onnxruntime"), Path(name), artifact, gate, rounds, logits, logits)


class Elsewhere:
    """A stand-in for the other CPU, on which the named candidates answer otherwise."""

    def __init__(self, *differing: str) -> None:
        self.differing, self.asked = differing, list[str]()

    def check(self, bundle: Bundle, threads: int) -> tuple[Portability, ...]:
        name = bundle.folder.name
        self.asked.append(name)
        status: Any = "fail" if name in self.differing else "pass"
        return (Portability(name, "another CPU", status, 1.0, 0.0, ""),)


def chosen(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Elsewhere, *measured: Found,
    target: Target = "cpu", waive: frozenset[str] = frozenset(),
) -> Found:  # fmt: skip
    monkeypatch.setattr(search, "portability", elsewhere)
    info = SimpleNamespace(model_copy=lambda update: SimpleNamespace(**update))
    setting = SimpleNamespace(
        target=target, waive=waive, threads=1, draft=SimpleNamespace(info=info),
        temperature=lambda logits: 1.0,
    )  # fmt: skip
    return choose(measured, cast(Setting, setting), say=lambda line: None)[0]


def test_the_fastest_that_passes_is_kept_and_only_it_is_asked_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = Elsewhere()
    measured = found("slow", 1.5), found("fast", 2.0), found("wrong", 3.0, wrong=50)
    best = chosen(monkeypatch, elsewhere, *measured)
    assert best.candidate.name == "fast"
    assert best.portability is not None and best.portability.status == "pass"
    assert elsewhere.asked == ["fast"]


def test_the_next_best_is_kept_where_the_best_answers_otherwise_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = Elsewhere("fast")
    best = chosen(monkeypatch, elsewhere, found("slow", 1.5), found("fast", 2.0))
    assert best.candidate.name == "slow" and not best.differs
    assert elsewhere.asked == ["fast", "slow"]


def test_where_all_answer_otherwise_the_best_is_named_with_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = Elsewhere("fast", "slow")
    best = chosen(monkeypatch, elsewhere, found("slow", 1.5), found("fast", 2.0))
    assert best.candidate.name == "fast" and best.differs


def test_a_waived_difference_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Elsewhere("fast")
    measured = found("slow", 1.5), found("fast", 2.0)
    best = chosen(monkeypatch, elsewhere, *measured, waive=frozenset({"portability"}))
    assert best.candidate.name == "fast" and best.differs


def test_nothing_is_asked_of_what_does_not_pass_or_is_not_for_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = Elsewhere()
    assert chosen(monkeypatch, elsewhere, found("wrong", 3.0, wrong=50)).portability is None
    assert chosen(monkeypatch, elsewhere, found("a", 2.0), target="jetson").portability is None
    assert not elsewhere.asked
