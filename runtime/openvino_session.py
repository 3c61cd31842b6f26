"""OpenVINO, on the CPU or another of its devices, behind the interface of `runtime.session`.

Batch sizes are compiled as static shapes: a graph with a dynamic batch takes 1.3 to 1.5 times as
long at batch 1, and stalls for tens of milliseconds at every size it has not seen. A batch of N is
made up of the sizes in `SIZES`, largest first, so nothing is padded. Size 1 is compiled when the
session opens; a larger one in the background once a frame could use it, because compiling takes
longer than a live loop may wait, and most boxes see one face.
"""

import logging
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from contract.expressions import EXPRESSIONS
from contract.faces import FaceInput
from runtime.errors import SessionError
from runtime.openvino_settings import openvino_core, openvino_settings

SIZES = (8, 4, 2, 1)

log = logging.getLogger(__name__)


class OpenVinoSession:
    """An ONNX graph or OpenVINO IR compiled for a device of this machine."""

    def __init__(
        self, file: Path, face: FaceInput, threads: int, cache: Path | None, device: str = "CPU"
    ) -> None:
        self.backend: Literal["openvino"] = "openvino"
        self.device = device
        self._file = file
        self._face_shape = (face.size, face.size, face.channels)
        self._core = openvino_core()
        self._config: dict[str, Any] = openvino_settings(device, threads, cache)
        self._requests: dict[int, ov.InferRequest] = {}
        self._closed = False
        self._compiling: threading.Thread | None = None
        self._failed: set[int] = set()
        try:
            self._requests[1] = self._compile_first()
        except RuntimeError as error:
            raise SessionError(
                f"{file.name}: OpenVINO cannot open it on {device}: {error}"
            ) from None

    def _compile_first(self) -> ov.InferRequest:
        try:
            return self._compile(1)
        except RuntimeError as error:
            if self._config.pop("CACHE_DIR", None) is None:
                raise
            # The cache may be what failed: a full disk, a folder of somebody else's.
            log.warning("OpenVINO goes on without its model cache: %s", str(error).splitlines()[0])
            return self._compile(1)

    def _compile(self, size: int) -> ov.InferRequest:
        model = self._core.read_model(self._file)
        inputs, outputs = model.inputs, model.outputs
        shape = inputs[0].partial_shape if len(inputs) == 1 and len(outputs) == 1 else None
        wanted = self._face_shape
        if (
            shape is None
            or inputs[0].element_type != ov.Type.u8
            or not shape.compatible(ov.PartialShape([-1, *wanted]))
            or not outputs[0].partial_shape.compatible(ov.PartialShape([-1, len(EXPRESSIONS)]))
        ):
            raise SessionError(
                f"{self._file.name}: the graph does not map uint8 "
                f"N×{'×'.join(map(str, wanted))} to N×{len(EXPRESSIONS)} logits"
            )
        model.reshape([size, *wanted])
        return self._core.compile_model(model, self.device, self._config).create_infer_request()

    def _compile_larger(self, size: int) -> None:
        try:
            request = self._compile(size)
        except (RuntimeError, SessionError):
            self._failed.add(size)  # The smaller sizes go on serving, only less quickly.
            return
        if not self._closed:
            self._requests[size] = request

    def _prepare(self, count: int) -> None:
        """Start compiling the largest size that fits in `count`, unless there is one at work."""
        size = next(size for size in SIZES if size <= count)
        busy = self._compiling is not None and self._compiling.is_alive()
        if size in self._requests or size in self._failed or busy:
            return
        # Not a daemon: a process that exits while OpenVINO compiles would abort.
        self._compiling = threading.Thread(target=self._compile_larger, args=(size,))
        self._compiling.start()

    def prepare(self, count: int) -> None:
        """See `runtime.session.Session.prepare`."""
        for size in SIZES:
            if size <= count and size not in self._requests and size not in self._failed:
                self._compile_larger(size)

    def run(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `runtime.session.Session.run`."""
        if self._closed:
            raise SessionError(f"{self._file.name}: the session is closed")
        if len(faces) > 1:
            self._prepare(len(faces))
        faces = np.ascontiguousarray(faces)
        logits = np.empty((len(faces), len(EXPRESSIONS)), np.float32)
        ready = [size for size in SIZES if size in self._requests]
        start = 0
        try:
            while start < len(faces):
                size = next(size for size in ready if size <= len(faces) - start)
                part = slice(start, start + size)
                # Both ends are shared, not copied: the assignment is the only copy made.
                answer = self._requests[size].infer(
                    {0: faces[part]}, share_inputs=True, share_outputs=True
                )
                logits[part] = answer[0]
                start += size
        except RuntimeError as error:
            raise SessionError(f"{self._file.name}: OpenVINO failed: {error}") from None
        return logits

    def close(self) -> None:
        """See `runtime.session.Session.close`."""
        self._closed = True
        if self._compiling is not None:
            self._compiling.join()
        self._requests.clear()
