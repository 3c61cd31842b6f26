"""An opened artifact, whichever runtime holds it."""

import glob
import sys
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from contract.bundle import Artifact, Bundle
from runtime.errors import UnavailableError

Backend = Literal["openvino", "onnxruntime"]
BACKENDS: tuple[Backend, ...] = ("openvino", "onnxruntime")
ACCELERATOR_NODES = "/dev/dri/renderD*", "/dev/accel/accel*", "/dev/dxg"
"""Where Linux, or Linux inside Windows, shows a GPU or an NPU that OpenVINO could use."""


class Session(Protocol):
    """An artifact held by a runtime. Used from one thread at a time."""

    @property
    def backend(self) -> Backend:
        """Which runtime holds it."""
        ...

    @property
    def device(self) -> str:
        """What it runs on: CPU, or another device of OpenVINO."""
        ...

    def prepare(self, count: int) -> None:
        """Make ready for up to `count` faces at once, so that the first such frame is not slow."""
        ...

    def run(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Prepared faces, `N×H×W×C` uint8 for any N ≥ 1 → logits, `N×7` float32, the caller's own.

        Raises `SessionError` for a runtime that fails.
        """
        ...

    def close(self) -> None:
        """Let go of the model; the session cannot run again."""
        ...


def openvino_devices() -> tuple[str, ...]:
    """The devices OpenVINO has here (CPU, GPU, NPU, …), or none where it is not installed."""
    try:
        from runtime.openvino_settings import openvino_core
    except ImportError:
        return ()
    # To be asked, OpenVINO loads its plugin for every kind of device and keeps it: 15 MB.
    if sys.platform == "linux" and not any(map(glob.glob, ACCELERATOR_NODES)):
        return ("CPU",)
    return tuple(openvino_core().available_devices)


def open_session(
    bundle: Bundle,
    artifact: Artifact,
    backend: Backend,
    threads: int,
    cache: Path | None = None,
    device: str = "CPU",
) -> Session:
    """Open one artifact of a bundle on `threads` inference threads of the CPU, or on a `device`.

    ONNX opens in both runtimes, OpenVINO IR in OpenVINO only. `cache` is a folder in which OpenVINO
    may keep compiled models, so a later start is quicker; a damaged entry there is compiled anew.
    Raises `UnavailableError` for a runtime that is not installed or does not read the format, and
    `SessionError` for a file it cannot open or a graph that does not fit the bundle's input.
    """
    if artifact.format == "openvino" and backend != "openvino":
        raise UnavailableError(f"{artifact.file}: {backend} does not read OpenVINO IR")
    file, face = bundle.path(artifact), bundle.info.input
    try:
        # Imported here: a box may have only one of them, and each costs memory and start-up time.
        if backend == "openvino":
            from runtime.openvino_session import OpenVinoSession

            return OpenVinoSession(file, face, threads, cache, device)
        from runtime.onnx_session import OnnxSession

        return OnnxSession(file, face, threads)
    except ImportError as error:
        raise UnavailableError(f"{artifact.file}: {backend} is not installed ({error})") from None
