"""`fer-edge bench`: what a recording costs, from the return of read() to the result."""

import argparse
import resource
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import psutil

from contract.command import Parser
from contract.errors import UserError
from contract.files import write_json_atomic
from edge.cameras.base import Camera
from edge.cameras.factory import open_camera
from edge.cameras.pace import Paced
from edge.capture import frames
from edge.cli import add_engine_flags, engine_overrides, result_file
from edge.kpi import percentiles
from edge.offline.record import run_record
from edge.process_age import process_age_s
from edge.setup import Engine, start_engine
from firmware_config.profile import load_profile


def _tree() -> list[psutil.Process]:
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def _cpu_s() -> float:
    """User and system seconds of the process tree, ended children included."""
    total: float = 0.0
    for process in _tree():
        times = process.cpu_times()
        total += times.user + times.system
    own = psutil.Process().cpu_times()
    return float(total + own.children_user + own.children_system)


def _peak_rss_mb() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return float(own + sum(p.memory_info().rss for p in _tree()[1:]) / 2**20)


def _pss_mb() -> float:
    """Memory of the process tree, shared pages divided among those who share them."""
    return float(sum(process.memory_full_info().pss for process in _tree()) / 2**20)


def measure(camera: Camera, engine: Engine, count: int) -> dict[str, Any]:
    """Run `count` frames of a camera (a recording starts over at its end) through the pipeline.

    Latencies in ms, `fps` over the whole run with decoding, CPU over the whole process tree;
    `cpu_percent` is of one core, and says something where the frames are paced. `pss_mb` is at the
    end of the run, `first_result_s` from the start of the process.
    Raises `UserError` if the camera gives no frame.
    """
    e2e: list[float] = []
    stages: dict[str, list[float]] = {}
    with_face = faces = detections = 0
    first_result_s = 0.0
    # The first pass fills the caches of the runtime and the file system.
    cpu_before, began = _cpu_s(), time.perf_counter()
    for frame in islice(frames(camera, cycle=True), count):
        result = engine.pipeline.process(frame)
        if not e2e:
            first_result_s = process_age_s()
        e2e.append(result.e2e_ms)
        for stage, ms in result.stages_ms.items():
            stages.setdefault(stage, []).append(ms)
        with_face += bool(result.faces)
        faces += len(result.faces)
        detections += result.detected
    seconds, cpu_s = time.perf_counter() - began, _cpu_s() - cpu_before
    if not e2e:
        raise UserError(f"camera {camera.name} gave no frame; name a recording with --camera")
    return {
        "frames": len(e2e),
        "e2e_ms": percentiles(e2e),
        "stages_ms": {stage: percentiles(values) for stage, values in stages.items()},
        "fps": len(e2e) / seconds,
        "cpu_s_per_1000_frames": 1000 * cpu_s / len(e2e),
        "cpu_percent": 100 * cpu_s / seconds,
        "peak_rss_mb": _peak_rss_mb(),
        "pss_mb": _pss_mb(),
        "first_result_s": first_result_s,
        "face_rate": with_face / len(e2e),
        "faces_per_frame": faces / len(e2e),
        "detections_run": detections,
    }


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fer-edge bench", description=__doc__)
    add = parser.add_argument
    add(
        "--camera", required=True, metavar="FILE|DIR", help="a recording, a folder of them, or demo"
    )
    add("--frames", type=int, default=1000, metavar="N", help="frames to run (default 1000)")
    add("--fps", type=float, metavar="F", help="pace the frames; without it, as fast as they go")
    add("--json", type=result_file, required=True, metavar="OUT", help="where the figures go")
    add_engine_flags(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    if given.frames < 1:
        raise UserError(f"--frames {given.frames}: give at least 1")
    if given.fps is not None and not 0 < given.fps <= 240:
        raise UserError(f"--fps {given.fps:g}: give more than 0 and at most 240")
    profile = load_profile(given.profile, engine_overrides(given))
    wanted = profile.camera
    camera = open_camera(
        given.camera, width=wanted.width, height=wanted.height, fps=wanted.fps, seed=0, paced=False
    )
    if camera.live:
        raise UserError(f"--camera {camera.name}: a bench needs a recording, a folder, or demo")
    engine = start_engine(profile)
    paced = Paced(camera, interval_s=1 / given.fps) if given.fps else camera  # type: ignore[arg-type]
    try:
        figures = measure(paced, engine, given.frames)
    finally:
        engine.chosen.session.close()
    result = {
        **figures,
        "camera": camera.name,
        "paced_fps": given.fps,
        "bundle": {"name": engine.bundle.info.name, "sha256": engine.bundle.sha256},
        "backend": engine.chosen.session.backend,
        "precision": engine.chosen.artifact.precision,
        "detector": engine.detector.name,
        "run": run_record("fer-edge bench", arguments, profile.runtime.threads),
    }
    write_json_atomic(given.json, result)
    e2e = figures["e2e_ms"]
    print(
        f"{figures['frames']} frames  end to end p50 {e2e['p50']:.2f}  p95 {e2e['p95']:.2f}  "
        f"p99 {e2e['p99']:.2f} ms  {figures['fps']:.0f} FPS  "
        f"{figures['cpu_s_per_1000_frames']:.1f} CPU-s per 1000 frames  "
        f"{figures['cpu_percent']:.0f} % of a core  {figures['pss_mb']:.0f} MB  "
        f"a face in {figures['face_rate']:.1%}"
    )
    return 0
