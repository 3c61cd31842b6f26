"""What flows inside a float ONNX graph when it looks at faces."""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

BATCH = 8


def inner_values(
    model: onnx.ModelProto, names: Sequence[str], faces: NDArray[np.uint8]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The float tensors `names` of a graph, by name, for one batch of `faces` (`N×…`) at a time.

    Nothing is fused or left out: the values are those the graph as it is written has.
    """
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    probed.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        probed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = session.get_inputs()[0].name
    for start in range(0, len(faces), BATCH):
        answers = session.run(None, {feed: faces[start : start + BATCH]})
        yield {name: np.asarray(answer) for name, answer in zip(names, answers, strict=True)}
