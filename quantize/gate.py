"""The gate: is the INT8 model still the same model, smaller and faster, on rows it never saw?

Seven bounds, each judged by itself. Accuracy, agreement, |Δp|, size and the rise of ECE are
compared as measured. Macro-F1 and speed are judged with how sure they are:

- **macro-F1** is a test of non-inferiority. It passes where the one-sided 95 % lower bound of
  F1(INT8) − F1(float) is no lower than minus the bound, so a set of rows too small to tell fails:
  it is for the INT8 model to show that it is as good. The bound comes from a paired bootstrap over
  rows (Efron & Tibshirani, 1993).
- **speed** is the median over interleaved rounds of each round's ratio, with a distribution-free
  95 % interval from order statistics (the inverted sign test). Other work on the machine adds time
  to both models and so draws the ratio towards 1: it can hide a speed-up, not make one. So it
  passes where the whole interval is at or above the bound, and fails only where all of it is below
  *and* the machine was quiet, which is: the middle half of the rounds' ratios is no wider than
  `BUSY_SPREAD` of the median. Anything else, or fewer than `LEAST_ROUNDS`, is undecided.

A fail blocks. What is undecided or not measured does not: speed says nothing about whether the
answers are right, and the machine that quantizes is often not the one that serves. It is recorded
and printed all the same. A waiver turns a fail, or an undecided, into "waived".
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from contract.errors import UserError, nearest
from contract.metrics import Floats, Ints, compute, softmax
from quantize.intervals import Rounds, Speed, macro_f1_drop, speed_of

LEAST_ROUNDS = 20
BUSY_SPREAD = 0.25

Status = Literal["pass", "fail", "undecided", "waived", "not measured"]


@dataclass(frozen=True)
class Bounds:
    """What an INT8 model must keep to."""

    accuracy_drop: float = 0.3
    """Largest loss of accuracy against the float model, in percentage points."""
    agreement: float = 98.5
    """Least share of rows on which both name the same expression, in percent."""
    macro_f1_drop: float = 1.0
    """Largest loss of macro-F1, in points, that must be ruled out with 95 % confidence."""
    dp_p99: float = 0.05
    """Largest 99th percentile of |Δp| over all probabilities of all rows."""
    size_mb: float = 5.8
    """Most megabytes (10⁶ bytes) of one INT8 artifact, all its files."""
    ece_rise: float = 0.005
    """Largest rise of ECE over the float model's, each at its own temperature."""
    speed_up: float = 1.4
    """Least speed-up over FP32 on the same runtime at batch 1."""


@dataclass(frozen=True)
class _Kind:
    """How a bound reads: what is measured, its unit, its option, and what to do where it breaks."""

    what: str
    unit: str
    digits: int
    at_least: bool
    option: str
    remedy: str

    def text(self, value: float) -> str:
        return f"{value:.{self.digits}f}{self.unit}"

    def margin(self, value: float, limit: float) -> float:
        return value - limit if self.at_least else limit - value


_MORE_ROWS = "give more rows, from the camera's conditions, with --calib"
_FLOAT_LAYERS = "leave the worst layers in float (a search without --quick does)"
_KINDS = {
    "accuracy": _Kind(
        "accuracy drop", " points", 2, False, "--max-accuracy-drop",
        f"{_MORE_ROWS}, or {_FLOAT_LAYERS}",
    ),
    "agreement": _Kind(
        "agreement with float", " %", 2, True, "--min-agreement",
        f"{_MORE_ROWS}, or {_FLOAT_LAYERS}",
    ),
    "macro-f1": _Kind(
        "macro-F1 drop, 95 % bound", " points", 2, False, "--max-macro-f1-drop",
        "give more rows of the rare expressions with --calib: few rows cannot rule a drop out",
    ),
    "dp": _Kind(
        "|Δp| p99", "", 4, False, "--max-dp", f"{_MORE_ROWS}, or {_FLOAT_LAYERS}",
    ),
    "size": _Kind(
        "size of the artifact", " MB", 2, False, "--max-size",
        "leave fewer layers in float, or train a smaller student",
    ),
    "ece": _Kind(
        "rise of ECE", "", 4, False, "--max-ece-rise",
        "give calib rows with --calib, a thousand or more, so that the temperature can be fitted",
    ),
    "speed": _Kind(
        "speed-up over FP32", "×", 2, True, "--min-speed-up",
        "measure on the target with nothing else running, or leave it out with --no-speed",
    ),
}  # fmt: skip
NAMES = tuple(_KINDS)
"""The bounds, by the names that `--allow` takes."""
PORTABILITY = "portability"
"""What `--allow` also takes: an artifact may answer otherwise on CPUs without VNNI."""


@dataclass(frozen=True)
class Verdict:
    """One bound, judged.

    `value` is what is compared with `limit`, and `margin` by how much it is within (negative:
    beyond) it; both are None where it was not measured. `note` says what the value alone does not.
    """

    name: str
    value: float | None
    limit: float
    status: Status
    margin: float | None
    remedy: str
    note: str = ""

    def texts(self) -> tuple[str, str, str, str]:
        """What was measured, its value, the limit and the margin, for a table."""
        kind = _KINDS[self.name]
        sign = "≥" if kind.at_least else "≤"
        value = "–" if self.value is None else kind.text(self.value)
        margin = "–" if self.margin is None else f"{self.margin:+.{kind.digits}f}"
        return kind.what, value, f"{sign} {kind.text(self.limit)}", margin


@dataclass(frozen=True)
class Answers:
    """Logits `N×7` of the gate's rows, and the temperature the model will be served with."""

    logits: NDArray[np.float32]
    temperature: float

    def probabilities(self) -> Floats:
        """`N×7`."""
        return softmax(self.logits, self.temperature)


@dataclass(frozen=True)
class Figures:
    """One model on the gate's rows, at its temperature; the latency is the median round's."""

    accuracy: float
    macro_f1: float
    ece: float
    nll: float
    temperature: float
    latency_ms: float | None


@dataclass(frozen=True)
class Gate:
    """Float against INT8 on `n` rows, and a verdict for each bound.

    `agreement` is in percent, `size_mb` in 10⁶ bytes.
    """

    n: int
    original: Figures
    int8: Figures
    agreement: float
    dp_p99: float
    size_mb: float
    speed: Speed | None
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """No bound failed; undecided, not measured and waived ones do not count as failed."""
        return all(verdict.status != "fail" for verdict in self.verdicts)

    @property
    def waived(self) -> tuple[str, ...]:
        """The bounds that would not have passed without a waiver."""
        return tuple(verdict.name for verdict in self.verdicts if verdict.status == "waived")

    def verdict(self, name: str) -> Verdict:
        """The verdict of one bound. Raises `KeyError` for an unknown name."""
        return {verdict.name: verdict for verdict in self.verdicts}[name]

    def broken(self) -> list[str]:
        """One phrase for each failed bound: which, by how much, and the remedy."""
        phrases = []
        for verdict in self.verdicts:
            if verdict.status == "fail" and verdict.margin is not None:
                kind = _KINDS[verdict.name]
                what, value, limit, _ = verdict.texts()
                phrases.append(
                    f"{what} {value}, {kind.text(-verdict.margin)} beyond the bound of {limit} "
                    f"({kind.option}): {verdict.remedy}"
                )
        return phrases

    def to_json(self) -> dict[str, Any]:
        """The figures and verdicts as plain JSON values."""
        body = asdict(self)
        body["float"] = body.pop("original")
        body["verdicts"] = [asdict(verdict) for verdict in self.verdicts]
        return {**body, "passed": self.passed, "waived": list(self.waived)}

    def table(self) -> str:
        """Both models' figures and the verdicts, for a terminal."""
        a, b = self.original, self.int8
        lines = [f"{'':14}{'float':>9}{'INT8':>9}   n {self.n}"]
        for name, one, two in (
            ("accuracy", a.accuracy, b.accuracy),
            ("macro-F1", a.macro_f1, b.macro_f1),
            ("ECE", a.ece, b.ece),
            ("latency, ms", a.latency_ms, b.latency_ms),
        ):
            if one is not None and two is not None:
                lines.append(f"{name:14}{one:9.4f}{two:9.4f}")
        for verdict in self.verdicts:
            what, value, limit, _ = verdict.texts()
            note = f"   {verdict.note}" if verdict.note else ""
            lines.append(f"{verdict.status:13}{what:28}{value:>13}   {limit:15}{note}".rstrip())
        return "\n".join(lines)


def waivers(names: Iterable[str]) -> frozenset[str]:
    """The bounds to waive, and `PORTABILITY`. Raises `UserError`, with the nearest, for others."""
    known = (*NAMES, PORTABILITY)
    found = frozenset(names)
    for name in sorted(found - set(known)):
        raise UserError(
            f"--allow {name}: no such bound{nearest(name, known)} (one of {' '.join(known)})"
        )
    return found


def _figures(labels: Ints, model: Answers, milliseconds: Sequence[float] | None) -> Figures:
    found = compute(labels, model.probabilities(), model.logits.argmax(axis=1))
    return Figures(
        accuracy=found.accuracy,
        macro_f1=found.macro_f1,
        ece=found.ece,
        nll=found.nll,
        temperature=model.temperature,
        latency_ms=None if milliseconds is None else float(np.median(milliseconds)),
    )


def _speed_status(speed: Speed, limit: float) -> tuple[Status, str]:
    told = f"median of {speed.rounds} rounds, 95 % interval {speed.low:.2f}–{speed.high:.2f}"
    if speed.rounds < LEAST_ROUNDS:
        return "undecided", f"{told}: fewer than {LEAST_ROUNDS} rounds"
    if speed.low >= limit:
        return "pass", told
    if speed.high >= limit:
        return "undecided", f"{told}, which holds the bound"
    if speed.spread > BUSY_SPREAD:
        return "undecided", f"{told}; busy: the rounds' ratios spread over {speed.spread:.0%}"
    return "fail", told


def judge(
    labels: Ints, original: Answers, int8: Answers, size_bytes: int, rounds: Rounds | None,
    bounds: Bounds = Bounds(), waive: frozenset[str] = frozenset(), seed: int = 0,
) -> Gate:  # fmt: skip
    """Judge an INT8 artifact of `size_bytes` (all its files) against the float model.

    Both answered the same `N` rows, which neither's ranges nor temperature were fitted on. Without
    `rounds` (float FP32 and INT8 on the same runtime) speed is not measured. `waive` are names out
    of `NAMES`; `seed` is the bootstrap's. Raises `UserError` where a model's answers are not finite
    numbers.
    """
    for name, model in (("float", original), ("INT8", int8)):
        if not np.isfinite(model.logits).all():
            raise UserError(
                f"the {name} model answers some of the gate's rows with values that are not "
                f"finite; {'train and export it again' if name == 'float' else _FLOAT_LAYERS}"
            )
    first, second = original.logits.argmax(axis=1), int8.logits.argmax(axis=1)
    before = _figures(labels, original, None if rounds is None else rounds.original_ms)
    after = _figures(labels, int8, None if rounds is None else rounds.int8_ms)
    agreement = 100 * float(np.mean(first == second))
    moved = np.abs(original.probabilities() - int8.probabilities())
    dp_p99 = float(np.percentile(moved, 99))
    drop, most = macro_f1_drop(labels, first, second, seed)
    speed = None if rounds is None else speed_of(rounds)

    def verdict(name: str, value: float, limit: float, note: str = "") -> Verdict:
        kind = _KINDS[name]
        margin = kind.margin(value, limit)
        # Shares of rows carry rounding errors; 1e-9 is far below one row.
        status: Status = "pass" if margin >= -1e-9 else "fail"
        if name == "speed" and speed is not None:
            status, note = _speed_status(speed, limit)
        if name in waive and status in ("fail", "undecided"):
            status = "waived"
        return Verdict(name, value, limit, status, margin, kind.remedy, note)

    verdicts = [
        verdict("accuracy", 100 * (before.accuracy - after.accuracy), bounds.accuracy_drop),
        verdict("agreement", agreement, bounds.agreement),
        verdict(
            "macro-f1", 100 * most, bounds.macro_f1_drop, f"measured drop {100 * drop:.2f} points"
        ),
        verdict("dp", dp_p99, bounds.dp_p99),
        verdict("size", size_bytes / 1e6, bounds.size_mb),
        verdict("ece", after.ece - before.ece, bounds.ece_rise),
    ]
    if speed is None:
        remedy = _KINDS["speed"].remedy
        verdicts.append(Verdict("speed", None, bounds.speed_up, "not measured", None, remedy))
    else:
        verdicts.append(verdict("speed", speed.median, bounds.speed_up))
    return Gate(
        n=len(labels),
        original=before,
        int8=after,
        agreement=agreement,
        dp_p99=dp_p99,
        size_mb=size_bytes / 1e6,
        speed=speed,
        verdicts=tuple(verdicts),
    )
