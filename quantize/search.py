"""Every declared candidate of a runtime, quantized and measured; the best that passes is kept."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, cmp_to_key
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from contract.bundle import Artifact, Bundle, artifact_of
from contract.errors import UserError
from quantize import portability
from quantize.calibration import Part
from quantize.candidates import LAST_RESORT, Candidate, Target, candidates
from quantize.confidences import temperature_of
from quantize.gate import PORTABILITY, Answers, Bounds, Gate, judge
from quantize.graph import float_model, nodes_by_part
from quantize.intervals import Rounds, rounds_of
from quantize.onnx_int8 import quantize_onnx
from quantize.openvino_int8 import quantize_openvino
from quantize.report import Candidate as Tried
from quantize.report import Portability
from quantize.rounding import Moments, moments_of
from runtime.errors import SessionError
from runtime.session import Backend, Session, open_session
from runtime.timing import interleaved_ms

BATCH = 32
BURST = 4
ROUNDS = 30
RANGES_ROWS = 300
"""Rows that ranges are taken from, as many as NNCF takes by default: each candidate reads them."""
TIE = 0.03
"""Candidates whose speed differs by less than this share are as fast as each other."""
# Until it is measured; any value above the limit a bundle may have.
UNMEASURED = 0.1


@dataclass(frozen=True)
class Setting:
    """What a search works with. `draft` holds files under `draft.folder` and no artifacts yet."""

    source: Bundle
    graph: Artifact
    draft: Bundle
    ranges: Part
    gate: Part
    bounds: Bounds
    waive: frozenset[str]
    threads: int
    speed: bool
    quick: bool
    target: Target = "cpu"

    @cached_property
    def moments(self) -> Moments:
        """Of the float graph's layers, on the faces that ranges are taken from."""
        graph = float_model(self.source.path(self.graph))
        return moments_of(graph, self.ranges.faces[:RANGES_ROWS])

    def temperature(self, logits: NDArray[np.float32]) -> float:
        """What a model is judged at, by its logits `N×7` on the ranges part.

        Fitted there for float and INT8 alike: the float bundle's own may have seen the gate's rows.
        But only on calib rows; with others, which only report, both are served at the bundle's.
        """
        kept = self.source.info.temperature
        if self.ranges.splits != ("calib",):
            return kept
        return temperature_of(logits, self.ranges.labels, kept)[0]


@dataclass(frozen=True)
class Found:
    """An INT8 artifact in `folder`, with its gate, its logits on both parts and its timing."""

    candidate: Candidate
    folder: Path
    artifact: Artifact
    gate: Gate
    rounds: Rounds | None
    ranges_logits: NDArray[np.float32]
    gate_logits: NDArray[np.float32]
    portability: Portability | None = None
    """Whether it answers the same on another CPU; None where that was not looked at."""

    @property
    def differs(self) -> bool:
        """Whether it is known to answer otherwise on another CPU."""
        return self.portability is not None and self.portability.status == "fail"


@dataclass(frozen=True)
class Searched:
    """What came of a runtime: its best candidate, passing or not, and a record of all."""

    backend: Backend
    best: Found
    tried: tuple[Tried, ...]
    float_answers: Answers


def logits_of(session: Session, faces: NDArray[np.uint8], purpose: str) -> NDArray[np.float32]:
    """Logits `N×7` of prepared faces `N×H×W×C`, with progress on a terminal."""
    starts = tqdm(range(0, len(faces), BATCH), desc=purpose, unit="batch", disable=None)
    return np.concatenate([session.run(faces[start : start + BATCH]) for start in starts])


def _make(candidate: Candidate, setting: Setting, folder: Path) -> Artifact:
    """Quantize as a candidate says, into `folder`."""
    graph, faces = setting.source.path(setting.graph), setting.ranges.faces[:RANGES_ROWS]
    if candidate.backend == "openvino":
        judged = (setting.ranges.faces, setting.ranges.labels)
        xml = folder / "student_int8.xml"
        drop = setting.bounds.accuracy_drop
        files = quantize_openvino(graph, faces, xml, candidate, judged, drop, setting.moments)
        return artifact_of(files, "openvino", "int8", UNMEASURED)
    files = quantize_onnx(graph, faces, folder / "student_int8.onnx", candidate, setting.moments)
    return artifact_of(files, "onnx", "int8", UNMEASURED)


def _measure(
    candidate: Candidate, setting: Setting, original: Session, answers: Answers, folder: Path
) -> Found:
    artifact = _make(candidate, setting, folder)
    opened = Bundle(folder, setting.draft.info, "")
    session = open_session(opened, artifact, candidate.backend, setting.threads)
    try:
        ranges_logits = logits_of(session, setting.ranges.faces, f"{candidate.name}: ranges")
        gate_logits = logits_of(session, setting.gate.faces, f"{candidate.name}: gate")
        rounds = None
        if setting.speed:
            face = setting.gate.faces[:1]
            times = interleaved_ms([original, session], face, ROUNDS, BURST)
            rounds = rounds_of(times[0], times[1], BURST)
    finally:
        session.close()
    temperature = setting.temperature(ranges_logits)
    size = sum((folder / name).stat().st_size for name in artifact.sha256)
    gate = judge(
        setting.gate.labels, answers, Answers(gate_logits, temperature), size, rounds,
        setting.bounds, setting.waive,
    )  # fmt: skip
    return Found(candidate, folder, artifact, gate, rounds, ranges_logits, gate_logits)


def broken(gate: Gate) -> list[str]:
    """The bounds that a gate says are not held, and that are not waived."""
    return [verdict.name for verdict in gate.verdicts if verdict.status == "fail"]


def better(one: Found, other: Found) -> bool:
    """Whether `one` is to be kept rather than `other`.

    What passes comes first; then the faster one; of equally fast ones that which agrees more with
    the float model, and of those the smaller. Of two that fail, the one with fewer broken bounds.
    """
    failed = [len(broken(each.gate)) for each in (one, other)]
    if failed[0] != failed[1]:
        return failed[0] < failed[1]
    if one.gate.speed is not None and other.gate.speed is not None:
        ratio = one.gate.speed.median / other.gate.speed.median
        if abs(ratio - 1) > TIE:
            return ratio > 1
    if one.gate.agreement != other.gate.agreement:
        return one.gate.agreement > other.gate.agreement
    return one.gate.size_mb < other.gate.size_mb


def _record(found: Found, kept: bool) -> Tried:
    gate, candidate = found.gate, found.candidate
    bounds = [*broken(gate), *([PORTABILITY] if found.differs else [])]
    if kept:
        reason = "nearest to passing" if bounds else "best of those that pass"
    else:
        reason = f"fails: {', '.join(bounds)}" if bounds else "passes; another is better"
    return Tried(
        backend=candidate.backend, name=candidate.name, settings=candidate.settings,
        kept=kept and gate.passed, reason=reason, accuracy=gate.int8.accuracy,
        agreement=gate.agreement, size_mb=gate.size_mb, latency_ms=gate.int8.latency_ms,
        speed_up=None if gate.speed is None else gate.speed.median,
    )  # fmt: skip


def _told(found: Found) -> str:
    gate, bounds = found.gate, broken(found.gate)
    verdict = f"fails {', '.join(bounds)}" if bounds else "passes"
    speed = "" if gate.speed is None else f", {gate.speed.median:.2f}× as fast as float"
    return (
        f"{found.candidate.backend} {found.candidate.name}: {verdict}; agreement "
        f"{gate.agreement:.2f} %, accuracy {gate.int8.accuracy:.4f} "
        f"(float {gate.original.accuracy:.4f}){speed}"
    )


def _different(declared: Sequence[Candidate], setting: Setting) -> list[Candidate]:
    """Without those that differ only in leaving float what the net does not have."""
    parts = nodes_by_part(onnx.load(setting.source.path(setting.graph)))
    found: dict[Candidate, Candidate] = {}
    for candidate in declared:
        present = tuple(part for part in candidate.float_parts if parts[part])
        found.setdefault(replace(candidate, name="", float_parts=present), candidate)
    return list(found.values())


def _elsewhere(found: Found, setting: Setting, say: Callable[[str], None]) -> Found:
    """`found` with what is known of it on other CPUs."""
    info = setting.draft.info.model_copy(
        update={
            "artifacts": [found.artifact],
            "temperature": setting.temperature(found.ranges_logits),
        }
    )
    (checked,) = portability.check(Bundle(found.folder, info, ""), setting.threads)
    told = f"{found.candidate.backend} {found.candidate.name} on {checked.machine}"
    say(f"{told}: {checked.status} {checked.detail}".rstrip())
    return replace(found, portability=checked)


def _order(one: Found, other: Found) -> int:
    return -1 if better(one, other) else 1


def choose(
    measured: Sequence[Found], setting: Setting, say: Callable[[str], None] = print
) -> tuple[Found, list[Found]]:
    """The one of `measured` to keep, and all of them, best first, with what was found out.

    The best that passes is asked for its answers on another CPU, and the next where they differ;
    an emulator is too slow to ask all. What TensorRT runs, no CPU shows. Where none will do, the
    one kept says what is wrong.
    """
    ranked = sorted(measured, key=cmp_to_key(_order))
    if setting.target != "cpu":
        return ranked[0], ranked
    for i, found in enumerate(ranked):
        if broken(found.gate):
            break
        ranked[i] = _elsewhere(found, setting, say)
        if not ranked[i].differs or PORTABILITY in setting.waive:
            return ranked[i], ranked
    return ranked[0], ranked


def search(backend: Backend, setting: Setting, say: Callable[[str], None] = print) -> Searched:
    """Try the candidates of a runtime; the files of the one kept are left in `draft.folder`.

    Raises `SessionError` where the float graph does not open on that runtime, and `UserError` where
    no candidate could be quantized at all.
    """
    folder = setting.draft.folder
    original = open_session(setting.source, setting.graph, backend, setting.threads)
    measured: list[Found] = []
    failed: list[Tried] = []
    try:
        float_ranges = logits_of(original, setting.ranges.faces, f"float on {backend}: ranges")
        float_logits = logits_of(original, setting.gate.faces, f"float on {backend}: gate")
        answers = Answers(float_logits, setting.temperature(float_ranges))

        def attempt(candidate: Candidate) -> None:
            work = folder / f"candidate-{backend}-{candidate.name}"
            work.mkdir()
            try:
                found = _measure(candidate, setting, original, answers, work)
            except (SessionError, RuntimeError) as error:
                # One candidate that a library cannot quantize does not end the search.
                reason = f"failed: {error}"
                failed.append(
                    Tried(backend, candidate.name, candidate.settings, kept=False, reason=reason)
                )
                say(f"{backend} {candidate.name}: failed: {str(error).splitlines()[0]}")
            else:
                measured.append(found)
                say(_told(found))

        for candidate in _different(candidates(backend, setting.target, setting.quick), setting):
            attempt(candidate)
        decisive = any(
            all(found.gate.verdict(name).status != "fail" for name in ("accuracy", "agreement"))
            for found in measured
        )
        if backend == "openvino" and not decisive and not setting.quick:
            attempt(LAST_RESORT)
    finally:
        original.close()
    if not measured:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in failed)
        raise UserError(
            f"{setting.source.folder}: nothing could be quantized for {backend}: {reasons}; "
            "export the float bundle again"
        )
    best, ranked = choose(measured, setting, say)
    for name in best.artifact.sha256:
        shutil.copyfile(best.folder / name, folder / name)
    for found in measured:
        shutil.rmtree(found.folder)
    tried = (*(_record(found, found is best) for found in ranked), *failed)
    return Searched(backend, best, tried, answers)


def backends_of(target: Target) -> tuple[Backend, ...]:
    """The runtimes a target's INT8 artifacts are for."""
    return ("onnxruntime",) if target == "jetson" else ("openvino", "onnxruntime")
