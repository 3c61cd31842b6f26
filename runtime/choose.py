"""Which artifact of a bundle, on which runtime: decided by measuring on the device itself.

The rule. Every artifact is opened by every runtime that reads it, golden-checked and timed at batch
1. Of the INT8 artifacts that pass, the fastest is kept; a float one takes its place only if no INT8
passes, or if the float is faster by more than `FLOAT_MARGIN`: INT8 needs less memory, and a short
measurement cannot tell less than that apart. Compared are the quickest runs, not the medians: other
work on the box only ever adds time. Only the one kept stays loaded.

OpenVINO may have further devices. With `auto` they compete like the CPU; one that is asked for by
name is tried alone first, and if it is absent or nothing passes on it, the CPU stands in and the
reason is noted.
"""

import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from contract.bundle import Artifact, Bundle, golden_inputs
from contract.errors import UserError
from runtime import golden, memory
from runtime.errors import GoldenError, SessionError, UnavailableError
from runtime.session import BACKENDS, Backend, Session, open_session, openvino_devices
from runtime.timing import interleaved_ms

FLOAT_MARGIN = 0.10
ROUNDS = 8
BUDGET_S = 0.4
"""Seconds for all timing together; opening and checking come on top."""

Device = Literal["auto", "CPU", "GPU", "NPU"]
Place = tuple[Backend, str]
"""A runtime and the device it runs on."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attempt:
    """What came of one artifact on one runtime.

    `failed` is a fault worth showing (it does not open, or its golden check failed); `unavailable`
    is none: the runtime is not installed, or does not read the format. `latency_ms` is the batch-1
    median; `reason` is one line for everything but `kept`.
    """

    file: str
    precision: str
    backend: Backend
    status: Literal["kept", "slower", "unavailable", "failed"]
    reason: str = ""
    latency_ms: float | None = None
    golden_error: float | None = None
    device: str = "CPU"


@dataclass(frozen=True)
class Chosen:
    """The open session that was kept, and how it came to be. `latency_ms` is the batch-1 median.

    A `remembered` choice was measured at an earlier start; `attempts` then holds only itself.
    """

    session: Session
    artifact: Artifact
    latency_ms: float
    attempts: tuple[Attempt, ...]
    remembered: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for every artifact that should have worked and did not."""
        return tuple(a.reason for a in self.attempts if a.status == "failed")


@dataclass(frozen=True)
class Candidate:
    """An artifact that opened and passed its golden check. Batch-1 times: the least, the median."""

    artifact: Artifact
    session: Session
    golden_error: float
    quickest_ms: float = math.nan
    latency_ms: float = math.nan


def fastest(candidates: Sequence[Candidate]) -> Candidate:
    """The one to keep, by the rule at the top of this file. Needs at least one, all timed."""
    quantized = [c for c in candidates if c.artifact.precision == "int8"]
    best = min(quantized or candidates, key=lambda c: c.quickest_ms)
    overall = min(candidates, key=lambda c: c.quickest_ms)
    return overall if overall.quickest_ms < best.quickest_ms * (1 - FLOAT_MARGIN) else best


def _try(
    bundle: Bundle, artifact: Artifact, place: Place, threads: int, models: Path | None
) -> Candidate | Attempt:
    """A candidate, not timed yet, or what stood in the way."""
    backend, device = place

    def rejected(status: Literal["unavailable", "failed"], error: Exception) -> Attempt:
        return Attempt(
            artifact.file, artifact.precision, backend, status, str(error), device=device
        )

    try:
        session = open_session(bundle, artifact, backend, threads, models, device)
    except UnavailableError as error:
        return rejected("unavailable", error)
    except SessionError as error:
        return rejected("failed", error)
    try:
        return Candidate(artifact, session, golden.check(session, bundle, artifact))
    except (SessionError, GoldenError) as error:
        session.close()
        return rejected("failed", error)


def _attempt(candidate: Candidate, best: Candidate) -> Attempt:
    """The record of a candidate, beside the one that was kept."""
    kept, reason = candidate is best, ""
    if not kept:
        reason = (
            f"{candidate.artifact.file} on {candidate.session.backend}: "
            f"{candidate.quickest_ms:.2f} ms at its quickest; kept {best.artifact.file} on "
            f"{best.session.backend} with {best.quickest_ms:.2f} ms"
        )
    return Attempt(
        candidate.artifact.file, candidate.artifact.precision, candidate.session.backend,
        "kept" if kept else "slower", reason, candidate.latency_ms, candidate.golden_error,
        candidate.session.device,
    )  # fmt: skip


def _recall(
    bundle: Bundle, threads: int, remembered: memory.Remembered, models: Path
) -> Chosen | None:
    """Open and check only what was kept before; None if it does not hold any more."""
    artifact = next((a for a in bundle.info.artifacts if a.file == remembered.file), None)
    if artifact is None:
        return None
    place = remembered.backend, remembered.device
    result = _try(bundle, artifact, place, threads, models)
    if isinstance(result, Attempt):
        return None
    candidate = replace(result, latency_ms=remembered.latency_ms)
    attempts = (_attempt(candidate, candidate),)
    return Chosen(result.session, artifact, remembered.latency_ms, attempts, remembered=True)


def _rungs(backends: Sequence[Backend], device: Device) -> list[list[Place]]:
    """Where to look, rung by rung: the next one only if nothing passes on those before."""
    on_cpu: list[Place] = [(backend, "CPU") for backend in backends]
    if device == "CPU" or "openvino" not in backends:
        return [on_cpu]
    others: list[Place] = [
        ("openvino", name) for name in openvino_devices() if name.startswith(("GPU", "NPU"))
    ]
    if device == "auto":
        return [[*others, *on_cpu]]
    return [[place for place in others if place[1].startswith(device)], on_cpu]


def _measure(
    bundle: Bundle, threads: int, rungs: Sequence[Sequence[Place]], models: Path | None
) -> Chosen:
    """Try and time everything on the first rung that holds; keep one session, close the others."""
    opened: list[Candidate] = []
    rejected: list[Attempt] = []
    for places in rungs:
        for artifact in bundle.info.artifacts:
            for place in places:
                result = _try(bundle, artifact, place, threads, models)
                if isinstance(result, Attempt):
                    rejected.append(result)
                else:
                    opened.append(result)
        if opened:
            break
        if not places:
            first = bundle.info.artifacts[0]
            reason = "OpenVINO has no such device here as the profile's runtime.device; CPU instead"
            rejected.append(Attempt(first.file, first.precision, "openvino", "failed", reason))
    for attempt in rejected:
        if attempt.status == "failed":
            log.warning("%s", attempt.reason)
    if not opened:
        reasons = "; ".join(attempt.reason for attempt in rejected)
        raise UserError(
            f"{bundle.folder}: no artifact of this bundle works here: {reasons}; "
            "quantize or export it again on this machine, or name another bundle"
        )
    face = golden_inputs(bundle.info.golden.seed, 1, bundle.info.input)
    times = interleaved_ms([each.session for each in opened], face, ROUNDS, budget_s=BUDGET_S)
    timed = [
        replace(each, quickest_ms=min(milliseconds), latency_ms=statistics.median(milliseconds))
        for each, milliseconds in zip(opened, times, strict=True)
    ]
    best = fastest(timed)
    for each in timed:
        if each is not best:
            each.session.close()
    attempts = (*(_attempt(each, best) for each in timed), *rejected)
    return Chosen(best.session, best.artifact, best.latency_ms, attempts)


def choose(
    bundle: Bundle,
    *,
    threads: int,
    backend: Backend | Literal["auto"] = "auto",
    device: Device = "CPU",
    cache: Path | None = None,
) -> Chosen:
    """Open the artifact of `bundle` that serves best on this machine, on `threads` threads.

    `backend` limits the choice to one runtime; `device` is OpenVINO's, see above. With a `cache`
    folder the choice is remembered under the bundle, the CPU, the library versions and the
    settings, and the next start opens and checks only that one; if it fails, everything is measured
    again. A choice beside which something failed is not remembered, so that the fault shows at
    every start. Raises `UserError` if nothing opens and passes its golden check.
    """
    backends = BACKENDS if backend == "auto" else (backend,)
    rungs = _rungs(backends, device)
    if cache is None:
        return _measure(bundle, threads, rungs, None)
    models = cache / "openvino"
    key = memory.key(bundle, threads, backend, str(rungs))
    remembered = memory.recall(cache, key)
    if remembered is not None:
        recalled = _recall(bundle, threads, remembered, models)
        if recalled is not None:
            return recalled
    chosen = _measure(bundle, threads, rungs, models)
    if not chosen.notes:
        kept = memory.Remembered(
            chosen.artifact.file, chosen.session.backend, chosen.latency_ms, chosen.session.device
        )
        memory.keep(cache, key, kept)
    return chosen
