"""The program of the child process that answers as another CPU would: see `quantize.portability`.

Run by its path with `RUNTIME MODEL FACES ANSWERS THREADS`: reads faces `N×H×W×C` uint8 from an
.npy file and writes an .npz file with `logits` (`N×7` float32) and `kernels`, what OpenVINO ran its
convolutions and matrix products with. It imports one runtime and nothing of this project, because
under an emulator every import counts.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PRODUCTS = ("Convolution", "GroupConvolution", "FullyConnected", "MatMul")
"""OpenVINO's names of the layers that sum products: the only ones in which sums can saturate."""

Answers = tuple[NDArray[np.float32], list[str]]


def answer_openvino(model: Path, faces: NDArray[np.uint8], threads: int) -> Answers:
    """Logits of a model in OpenVINO with float32 between INT8 layers, and the kernels it ran."""
    import openvino as ov

    core = ov.Core()
    graph = core.read_model(model)
    graph.reshape([1, *faces.shape[1:]])
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERF_COUNT": True,
    }
    request = core.compile_model(graph, "CPU", config).create_infer_request()
    logits = [np.array(request.infer({0: face[None]})[0]) for face in faces]
    ran = [
        layer.exec_type
        for layer in request.get_profiling_info()
        if layer.node_type in PRODUCTS and layer.status == ov.ProfilingInfo.Status.EXECUTED
    ]
    return np.concatenate(logits), ran


def answer_onnxruntime(model: Path, faces: NDArray[np.uint8], threads: int) -> Answers:
    """Logits of a model in ONNX Runtime, which does not tell what it ran."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: face[None]})[0] for face in faces]), []


def main() -> None:
    """Answer the faces."""
    runtime, model, faces, answers, threads = sys.argv[1:]
    answer = answer_openvino if runtime == "openvino" else answer_onnxruntime
    logits, kernels = answer(Path(model), np.load(faces), int(threads))
    np.savez(answers, logits=logits, kernels=np.array(kernels, np.str_))


if __name__ == "__main__":
    main()
