"""Latency of a student's INT8 artifacts beside its float graph, on both runtimes.

    PYTHONPATH=. python benchmarks/int8_speed.py --float RUN/bundle --int8 BUNDLE --json FILE

Batch 1, float32 between INT8 layers, turn by turn: each turn is a run that is not counted and four
that are, of which the median is taken; ratios are of the same round. `openvino_default` is the
float graph as OpenVINO runs it unasked, which on CPUs with bfloat16 means bfloat16, in a process of
its own, as the limit on instruction sets that `runtime` sets would hold it back. With several
numbers of `--threads` each takes the one that is fastest in rounds of trial before the measured
ones.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from contract.bundle import Bundle, golden_inputs, open_bundle
from contract.files import write_json_atomic
from edge.offline.record import run_record
from quantize.intervals import Rounds, speed_of
from runtime.session import Backend, open_session

BURST = 4
TRIAL = 20
BACKENDS: tuple[Backend, ...] = ("openvino", "onnxruntime")
RATIOS = (
    ("openvino_int8", "openvino_fp32"),
    ("openvino_int8", "onnxruntime_fp32"),
    ("onnxruntime_int8", "onnxruntime_fp32"),
    ("openvino_int8", "openvino_default"),
)


def _turn(run: Callable[[], object]) -> float:
    """Milliseconds: the median of a warm burst."""
    run()
    taken = []
    for _ in range(BURST):
        began = time.perf_counter()
        run()
        taken.append((time.perf_counter() - began) * 1e3)
    return statistics.median(taken)


def _unasked(graph: Path, face: np.ndarray, threads: int, pipe: Connection) -> None:
    """OpenVINO with nothing set but its threads: one turn for each message."""
    os.environ.pop("ONEDNN_MAX_CPU_ISA", None)
    import openvino as ov

    core = ov.Core()
    model = core.read_model(graph)
    model.reshape(list(face.shape))
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    pipe.send(str(compiled.get_property("INFERENCE_PRECISION_HINT")))
    while pipe.recv():
        pipe.send(_turn(lambda: request.infer({0: face}, share_inputs=True)))


class _Unasked:
    """The process of `_unasked`; calling it takes one turn."""

    def __init__(self, graph: Path, face: np.ndarray, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._child = context.Process(target=_unasked, args=(graph, face, threads, far))
        self._child.start()
        self.precision: str = self._pipe.recv()

    def __call__(self) -> float:
        self._pipe.send(True)
        taken: float = self._pipe.recv()
        return taken

    def end(self) -> None:
        """Let the process go."""
        self._pipe.send(False)
        self._child.join()


def _way(bundle: Bundle, precision: str, backend: Backend, threads: int) -> Callable[[], float]:
    formats = ("onnx",) if backend == "onnxruntime" or precision == "fp32" else ("openvino",)
    artifact = next(
        each
        for each in bundle.info.artifacts
        if each.format in formats and each.precision == precision
    )
    session = open_session(bundle, artifact, backend, threads)
    face = golden_inputs(bundle.info.golden.seed, 1, bundle.info.input)
    return lambda: _turn(lambda: session.run(face))


def _measure(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each way, a turn a round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, turn in ways.items():
            taken[name].append(turn())
    return taken


def _fastest(ways: Mapping[int, Mapping[str, Callable[[], float]]]) -> dict[str, int]:
    """For each way the number of threads with the least median in rounds of trial."""
    if len(ways) == 1:
        (threads,) = ways
        return dict.fromkeys(ways[threads], threads)
    flat = {
        f"{threads} {name}": turn for threads, own in ways.items() for name, turn in own.items()
    }
    median = {key: statistics.median(values) for key, values in _measure(flat, TRIAL).items()}
    names = next(iter(ways.values()))
    return {name: min(ways, key=lambda threads: median[f"{threads} {name}"]) for name in names}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--float", type=Path, required=True, dest="original", metavar="BUNDLE")
    parser.add_argument("--int8", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    original, int8 = open_bundle(given.original), open_bundle(given.int8)
    face = golden_inputs(original.info.golden.seed, 1, original.info.input)
    graph = original.path(next(a for a in original.info.artifacts if a.format == "onnx"))
    unasked = {threads: _Unasked(graph, face, threads) for threads in given.threads}
    ways: dict[int, dict[str, Callable[[], float]]] = {}
    for threads in given.threads:
        ways[threads] = {
            f"{backend}_{precision}": _way(bundle, precision, backend, threads)
            for bundle, precision in ((original, "fp32"), (int8, "int8"))
            for backend in BACKENDS
        }
        ways[threads]["openvino_default"] = unasked[threads]
    fastest = _fastest(ways)
    taken = _measure({name: ways[threads][name] for name, threads in fastest.items()}, given.rounds)
    default_precision = unasked[given.threads[0]].precision
    for each in unasked.values():
        each.end()
    result = {
        "latency_ms": {
            name: {
                "min": min(values),
                "median": statistics.median(values),
                "p90": float(np.percentile(values, 90)),
            }
            for name, values in taken.items()
        },
        "speed_up": {
            f"{one}_over_{other}": asdict(speed_of(Rounds(taken[other], taken[one])))
            for one, other in RATIOS
        },
        "openvino_default_precision": default_precision,
        "threads": fastest,
        "input": original.info.input.model_dump(mode="json"),
        "bundles": {"float": original.sha256, "int8": int8.sha256},
        "rounds": given.rounds,
        "run": run_record("python benchmarks/int8_speed.py", sys.argv[1:], max(given.threads)),
    }
    print(json.dumps({key: result[key] for key in ("latency_ms", "speed_up")}, indent=2))
    if given.json:
        write_json_atomic(given.json, result)


if __name__ == "__main__":
    main()
