"""Latency of a student's INT8 artifacts beside its float graph, on both runtimes.

    PYTHONPATH=. python benchmarks/int8_speed.py --float RUN/bundle --int8 BUNDLE --json FILE

Batch 1, float32 between INT8 layers, turn by turn: each turn is a run that is not counted and four
that are, of which the median is taken; ratios are of the same round. `openvino_default` is the
float graph as OpenVINO runs it unasked, which on CPUs with bfloat16 means bfloat16, in a process of
its own, as the limit on instruction sets that `runtime` sets would hold it back.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
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


def _way(bundle: Bundle, precision: str, backend: Backend, threads: int) -> Callable[[], object]:
    formats = ("onnx",) if backend == "onnxruntime" or precision == "fp32" else ("openvino",)
    artifact = next(
        each
        for each in bundle.info.artifacts
        if each.format in formats and each.precision == precision
    )
    session = open_session(bundle, artifact, backend, threads)
    face = golden_inputs(bundle.info.golden.seed, 1, bundle.info.input)
    return lambda: session.run(face)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--float", type=Path, required=True, dest="original", metavar="BUNDLE")
    parser.add_argument("--int8", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    original, int8 = open_bundle(given.original), open_bundle(given.int8)
    ways = {
        f"{backend}_{precision}": _way(bundle, precision, backend, given.threads)
        for bundle, precision in ((original, "fp32"), (int8, "int8"))
        for backend in ("openvino", "onnxruntime")
    }
    face = golden_inputs(original.info.golden.seed, 1, original.info.input)
    graph = original.path(next(a for a in original.info.artifacts if a.format == "onnx"))
    context = multiprocessing.get_context("spawn")
    pipe, far = context.Pipe()
    child = context.Process(target=_unasked, args=(graph, face, given.threads, far))
    child.start()
    default_precision = pipe.recv()

    taken: dict[str, list[float]] = {name: [] for name in (*ways, "openvino_default")}
    for _ in range(given.rounds):
        for name, run in ways.items():
            taken[name].append(_turn(run))
        pipe.send(True)
        taken["openvino_default"].append(pipe.recv())
    pipe.send(False)
    child.join()
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
        "input": original.info.input.model_dump(mode="json"),
        "bundles": {"float": original.sha256, "int8": int8.sha256},
        "rounds": given.rounds,
        "run": run_record("python benchmarks/int8_speed.py", sys.argv[1:], given.threads),
    }
    print(json.dumps({key: result[key] for key in ("latency_ms", "speed_up")}, indent=2))
    if given.json:
        write_json_atomic(given.json, result)


if __name__ == "__main__":
    main()
