"""How OpenVINO is asked to run a model here: the classifier and the face detector alike."""

from functools import cache as made_once
from pathlib import Path
from typing import Any

import openvino as ov


@made_once
def openvino_core() -> ov.Core:
    """The one `Core` of this process: another must never be made beside it, nor be let go of.

    A core's CPU plugin gives its thread a stack for signals and takes it away at its end. Where two
    end in the order they were made, the thread is left with one that is unmapped, and the next
    signal it handles, a SIGTERM say, kills the process (OpenVINO 2026.4).
    """
    return ov.Core()


def openvino_settings(device: str, threads: int, cache: Path | None) -> dict[str, Any]:
    """Settings for `compile_model`: one frame at a time, the same answers on every box.

    `threads` count on the CPU only. `cache` is a folder for compiled models, or None.
    """
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        # OpenVINO would choose bfloat16 where the CPU has it, and the same bundle would give
        # other answers on another box.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if device == "CPU":
        settings.update({"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads})
    if cache is not None:
        settings["CACHE_DIR"] = str(cache)
    return settings
