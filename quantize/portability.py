"""Does an INT8 artifact answer the same on a CPU without VNNI?

There, INT8 instructions add pairs of products in 16 bits, and a sum that does not fit saturates:
nothing fails, the answers are only wrong. This CPU has VNNI and cannot show it, so a child process
answers the golden inputs as a CPU of 2013 would. OpenVINO is told to use AVX2 and no more, and
reports what it ran; ONNX Runtime has no such switch and runs under `qemu-user`, which emulates a
Haswell.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from contract.bundle import Artifact, Bundle, golden_inputs
from contract.metrics import softmax
from quantize.report import Portability
from runtime.session import Backend, open_session

TOLERANCE = 0.01
"""Largest |Δp| that is the same answer. INT8 sums are exact where they do not saturate; between
them floats may round the other way and move a value by one step of its range, which shifts a
probability by less than this. Saturation shifts it by several times as much."""
TIME_LIMIT_S = 300.0
"""Many times what an emulated run takes on an idle machine."""
EMULATOR = "qemu-x86_64-static"
CPUINFO = Path("/proc/cpuinfo")
PROGRAM = Path(__file__).with_name("other_cpu.py")
MACHINES: dict[Backend, str] = {
    "openvino": "OpenVINO held to AVX2",
    "onnxruntime": "ONNX Runtime on an emulated Haswell",
}


Status = Literal["pass", "fail", "skipped"]


class _SkipError(Exception):
    """Why nothing can be said about an artifact here."""


class _FailError(Exception):
    """What the other machine did instead of answering."""


@dataclass(frozen=True)
class _Answers:
    logits: NDArray[np.float32]
    kernels: list[str]
    """What ran the layers that sum products; empty where the runtime does not tell."""


def _backend(artifact: Artifact) -> Backend:
    return "openvino" if artifact.format == "openvino" else "onnxruntime"


def _require_vnni(cpuinfo: Path) -> None:
    """Raises `_SkipError` on a machine that has nothing to compare with."""
    if platform.machine() not in ("x86_64", "AMD64"):
        raise _SkipError(f"this machine is {platform.machine()}, not x86-64")
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise _SkipError(
            f"{cpuinfo} does not tell what this CPU can do: {error.strerror}"
        ) from None
    flags = set(text.split())
    if "avx2" not in flags:
        raise _SkipError("this CPU has no AVX2")
    if not flags & {"avx512_vnni", "avx_vnni"}:
        raise _SkipError("this CPU has no VNNI itself: all figures here are of one without")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:300]


def _ask(
    backend: Backend, model: Path, faces: NDArray[np.uint8], threads: int, emulator: str
) -> _Answers:
    """What the other machine answers. Raises `_SkipError` or `_FailError`."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    machine: list[str] = []
    if backend == "onnxruntime":
        found = shutil.which(emulator)
        if found is None:
            raise _SkipError(f"no {emulator} here; Debian has it in the package qemu-user-static")
        machine = [found, "-cpu", "Haswell"]
    with tempfile.TemporaryDirectory(prefix="fer-quantize.") as work:
        given, made = Path(work) / "faces.npy", Path(work) / "answers.npz"
        np.save(given, faces)
        # -P: its own folder holds modules with common names.
        program = [sys.executable, "-P", str(PROGRAM)]
        words = [backend, str(model), str(given), str(made), str(threads)]
        try:
            done = subprocess.run(
                [*machine, *program, *words],
                env=environment, capture_output=True, text=True, errors="replace",
                timeout=TIME_LIMIT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise _SkipError(f"it had not answered after {TIME_LIMIT_S:.0f} s") from None
        if machine and re.search(r"doesn't support requested feature.*\bavx2\b", done.stderr):
            raise _SkipError(f"this {emulator} does not know AVX2; versions from 7.2 on do")
        if done.returncode != 0:
            reason = f"exit status {done.returncode}: {_last_line(done.stderr)}"
            if machine:
                raise _SkipError(f"{emulator} did not get through it: {reason}")
            raise _FailError(reason)
        with np.load(made) as answers:
            return _Answers(answers["logits"], answers["kernels"].tolist())


def _proof(kernels: list[str]) -> str:
    """What ran with INT8 and AVX2, in words. Raises `_FailError` where nothing did, or more did."""
    told = ", ".join(f"{n} × {name}" for name, n in sorted(Counter(kernels).items()))
    if any("avx512" in name or "amx" in name for name in kernels):
        raise _FailError(f"more than AVX2 was used: {told}")
    if not any("avx2" in name and name.endswith("_I8") for name in kernels):
        raise _FailError(f"no INT8 kernel of AVX2 ran: {told or 'nothing did'}")
    return told


def _compare(
    bundle: Bundle, artifact: Artifact, threads: int, emulator: str, cpuinfo: Path
) -> tuple[float, float, str]:
    """Share of equal top expressions, largest |Δp|, and what ran."""
    _require_vnni(cpuinfo)
    backend = _backend(artifact)
    golden = bundle.info.golden
    faces = golden_inputs(golden.seed, len(golden.logits), bundle.info.input)
    there = _ask(backend, bundle.path(artifact), faces, threads, emulator)
    told = _proof(there.kernels) if backend == "openvino" else ""
    session = open_session(bundle, artifact, backend, threads)
    try:
        here = np.concatenate([session.run(face[None]) for face in faces])
    finally:
        session.close()
    if not np.isfinite(there.logits).all():
        raise _FailError("its answers are not finite numbers")
    p, q = (softmax(logits, bundle.info.temperature) for logits in (here, there.logits))
    return float((p.argmax(1) == q.argmax(1)).mean()), float(np.abs(p - q).max()), told


def check(
    bundle: Bundle, threads: int, *, emulator: str = EMULATOR, cpuinfo: Path = CPUINFO
) -> tuple[Portability, ...]:
    """Compare every INT8 artifact of `bundle` with itself on a CPU without VNNI.

    Passes where each golden input has the same top expression and no probability differs by more
    than `TOLERANCE`. OpenVINO has to prove, too, that it summed in INT8 with AVX2. Skipped, with
    the reason as its detail, where this machine cannot say. `threads` are for inference, here and
    there. Raises `SessionError` for an artifact that does not open on this machine.
    """
    results = []
    for artifact in bundle.info.artifacts:
        if artifact.precision != "int8":
            continue
        same, dp = None, None
        try:
            same, dp, told = _compare(bundle, artifact, threads, emulator, cpuinfo)
            status: Status = "pass" if same == 1.0 and dp <= TOLERANCE else "fail"
        except _SkipError as reason:
            status, told = "skipped", str(reason)
        except _FailError as reason:
            status, told = "fail", str(reason)
        machine = MACHINES[_backend(artifact)]
        results.append(Portability(artifact.file, machine, status, same, dp, told))
    return tuple(results)
