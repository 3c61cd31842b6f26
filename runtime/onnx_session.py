"""ONNX Runtime on the CPU, behind the interface of `runtime.session`."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from contract.expressions import EXPRESSIONS
from contract.faces import FaceInput
from runtime.errors import SessionError


class OnnxSession:
    """An ONNX graph held by ONNX Runtime's CPU provider; any batch size in one call."""

    def __init__(self, file: Path, face: FaceInput, threads: int) -> None:
        self.backend: Literal["onnxruntime"] = "onnxruntime"
        self.device = "CPU"
        self._file = file
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Its threads would otherwise burn a core between two frames, for no measurable gain.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        # Its exceptions (Fail, InvalidGraph, InvalidProtobuf …) share no base but Exception.
        except Exception as error:
            raise SessionError(f"{file.name}: ONNX Runtime cannot open it: {error}") from None
        inputs, outputs = session.get_inputs(), session.get_outputs()
        shape = [face.size, face.size, face.channels]
        if (
            len(inputs) != 1
            or len(outputs) != 1
            or inputs[0].type != "tensor(uint8)"
            or inputs[0].shape[1:] != shape
            or outputs[0].shape[1:] != [len(EXPRESSIONS)]
        ):
            raise SessionError(
                f"{file.name}: the graph does not map uint8 N×{'×'.join(map(str, shape))} to "
                f"N×{len(EXPRESSIONS)} logits"
            )
        self._session: ort.InferenceSession | None = session
        self._input = inputs[0].name

    def prepare(self, count: int) -> None:
        """See `runtime.session.Session.prepare`; its graphs take any size as they are."""

    def run(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `runtime.session.Session.run`."""
        if self._session is None:
            raise SessionError(f"{self._file.name}: the session is closed")
        try:
            answer = self._session.run(None, {self._input: np.ascontiguousarray(faces)})
        # See above.
        except Exception as error:
            raise SessionError(f"{self._file.name}: ONNX Runtime failed: {error}") from None
        return np.asarray(answer[0], np.float32)

    def close(self) -> None:
        """See `runtime.session.Session.close`."""
        self._session = None
