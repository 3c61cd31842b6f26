"""The edge's loop beside plain sequential loops on the same clips, in turns, in one run.

    PYTHONPATH=. python benchmarks/rivals.py --clips DIR --json FILE

A rival is what one writes in an afternoon: read, YuNet at 320 px in OpenCV's DNN, the bundle's own
crop, the model, the greatest probability; no tracking, smoothing, checks or fault handling. One
runs the bundle's float artifact on ONNX Runtime, one a MobileNetV3-Large (timm, random weights: the
time is the same) in PyTorch eager at the same input. Every contender is a process of its own that
runs `--frames` frames when its turn comes, ours and each rival on 1 and on 2 threads; a rival is
represented by its better one. Times are from the return of read() to the answer, FPS with reading;
ratios are of the same round. All but one contender wait meanwhile, in a read, without using a core.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from contract.bundle import Bundle
from contract.command import Parser, run_command
from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.faces import Box, Image, prepare_detection
from contract.files import write_json_atomic
from contract.metrics import softmax
from edge.bundles import bundle_to_run
from edge.cameras.base import Camera, Frame
from edge.cameras.factory import open_camera
from edge.capture import frames
from edge.detector_files import find_yunet
from edge.kpi import percentiles
from edge.offline.record import run_record
from edge.setup import start_engine
from firmware_config.profile import load_profile

THREADS = (1, 2)
SIZE = 320
Step = Callable[[Frame], bool]
"""A frame → whether there was a face in it."""


def _ours(bundle: Path | None, threads: int) -> Step:
    values = {"runtime.threads": threads, "runtime.bundle": bundle}
    profile = load_profile("default", {k: v for k, v in values.items() if v is not None})
    engine = start_engine(profile)
    return lambda frame: bool(engine.pipeline.process(frame).faces)


def _plain(bundle: Bundle, threads: int, logits: Callable[[Image], np.ndarray]) -> Step:
    """A plain loop's step around a model."""
    cv2.setNumThreads(threads)
    detector = cv2.FaceDetectorYN.create(str(find_yunet()), "", (SIZE, SIZE), 0.6, 0.3)
    face = bundle.info.input

    def step(frame: Frame) -> bool:
        height, width = frame.image.shape[:2]
        scale = max(width, height) / SIZE
        size = round(width / scale), round(height / scale)
        if detector.getInputSize() != size:
            detector.setInputSize(size)
        small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        found = detector.detect(small)[1]
        if found is None:
            return False
        crops = [
            prepare_detection(frame.image, Box(*(row[:4] * scale).tolist()), face, "yunet")
            for row in found
        ]
        best = softmax(logits(np.stack(crops)), bundle.info.temperature).argmax(axis=1)
        return bool(EXPRESSIONS[best[0]])

    return step


def _onnxruntime(bundle: Path | None, threads: int) -> Step:
    import onnxruntime as ort

    opened = bundle_to_run(bundle)
    artifact = next(
        a for a in opened.info.artifacts if a.format == "onnx" and a.precision != "int8"
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        str(opened.path(artifact)), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return _plain(opened, threads, lambda faces: np.asarray(session.run(None, {name: faces})[0]))


def _torch(bundle: Path | None, threads: int) -> Step:
    import timm
    import torch

    torch.set_num_threads(threads)
    opened = bundle_to_run(bundle)
    model = timm.create_model(
        "mobilenetv3_large_100", num_classes=len(EXPRESSIONS), in_chans=opened.info.input.channels
    ).eval()

    def logits(faces: Image) -> np.ndarray:
        with torch.inference_mode():
            pixels = torch.from_numpy(faces).permute(0, 3, 1, 2).float().div_(255)
            return np.asarray(model(pixels).numpy())

    return _plain(opened, threads, logits)


KINDS = {"ours": _ours, "opencv_onnxruntime": _onnxruntime, "opencv_torch": _torch}


def _turn(step: Step, source: Iterator[Frame], count: int) -> dict[str, Any]:
    """One turn's figures; the process has no children, so its own CPU time is all there is."""
    e2e, with_face = [], 0
    before, began = time.process_time(), time.perf_counter()
    for frame in islice(source, count):
        with_face += step(frame)
        e2e.append((time.monotonic_ns() - frame.mono_ns) / 1e6)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - before
    return {"e2e_ms": e2e, "fps": count / seconds, "cpu_s": cpu_s, "with_face": with_face}


def _camera(clips: str) -> Camera:
    return open_camera(clips, width=640, height=480, fps=30, seed=0, paced=False)


def _contender(
    kind: str, bundle: Path | None, threads: int, clips: str, count: int, pipe: Connection
) -> None:
    """A process: makes its loop ready, then one turn for each True it is sent."""
    step = KINDS[kind](bundle, threads)
    source = iter(frames(_camera(clips), cycle=True))
    _turn(step, source, 20)
    pipe.send(psutil.Process().memory_full_info().pss / 2**20)
    while pipe.recv():
        pipe.send(_turn(step, source, count))


def _summary(turns: list[dict[str, Any]], pss_mb: float) -> dict[str, Any]:
    shown = sum(len(turn["e2e_ms"]) for turn in turns)
    return {
        "fps": statistics.median(turn["fps"] for turn in turns),
        "fps_by_round": [turn["fps"] for turn in turns],
        "e2e_ms": percentiles(ms for turn in turns for ms in turn["e2e_ms"]),
        "cpu_s_per_1000_frames": 1000 * sum(turn["cpu_s"] for turn in turns) / shown,
        "face_rate": sum(turn["with_face"] for turn in turns) / shown,
        "pss_mb": pss_mb,
    }


def _ratio(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """FPS of one over those of the other, round by round."""
    rounds = np.divide(one["fps_by_round"], other["fps_by_round"])
    low, median, high = np.percentile(rounds, [10, 50, 90])
    return {"median": float(median), "p10": float(low), "p90": float(high)}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--clips", required=True, metavar="FILE|DIR", help="a recording, a folder of them, or demo")
    add("--bundle", type=Path, help="bundle folder (default: as fer-edge takes it)")
    add("--frames", type=int, default=500, metavar="N", help="frames of a turn")
    add("--rounds", type=int, default=10, metavar="N", help="turns of each contender")
    add("--json", type=Path)
    return parser


def main() -> int:
    """Measure, print and write; raises `UserError`."""
    given = _parser().parse_args()
    if find_yunet() is None:
        raise UserError("the rivals need YuNet's file; run fer-edge fetch-detector")
    bundle = bundle_to_run(given.bundle)
    _camera(given.clips)  # here a mistake is one line, in a contender it would be a traceback
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes, pss_mb = [], {}
    for kind in KINDS:
        for threads in THREADS:
            name = f"{kind}_{threads}_threads"
            pipes[name], far = context.Pipe()
            todo = (kind, given.bundle, threads, given.clips, given.frames, far)
            process = context.Process(target=_contender, args=todo)
            process.start()
            far.close()
            processes.append(process)
            pss_mb[name] = pipes[name].recv()
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in pipes}
    for _ in range(given.rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            turns[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    for process in processes:
        process.join()

    found = {name: _summary(turns[name], pss_mb[name]) for name in pipes}
    best = {
        kind: max((name for name in found if name.startswith(kind)), key=lambda n: found[n]["fps"])
        for kind in KINDS
    }
    result = {
        "contenders": found,
        "best_threads": best,
        "ratios": {
            f"ours_over_{kind}": _ratio(found[best["ours"]], found[best[kind]])
            for kind in KINDS
            if kind != "ours"
        },
        "clips": given.clips,
        "frames_per_round": given.frames,
        "rounds": given.rounds,
        "bundle": {"name": bundle.info.name, "sha256": bundle.sha256},
        "detector": f"yunet at {SIZE} px on every frame",
        "run": run_record("python benchmarks/rivals.py", sys.argv[1:], max(THREADS)),
    }
    print(
        json.dumps({key: result[key] for key in ("contenders", "best_threads", "ratios")}, indent=2)
    )
    if given.json:
        write_json_atomic(given.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("benchmarks/rivals.py", main))
