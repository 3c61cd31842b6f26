"""Half-precision weights for an ONNX graph that goes on computing in float32.

Large weights are stored as float16 with a Cast in front of whoever reads them; runtimes fold the
Cast when they load, so only the file is smaller. A weight w comes back as w' with
|w' − w| ≤ max(|w| · 2⁻¹¹, 2⁻²⁵), float16's rounding.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LEAST_ELEMENTS = 256
"""Smaller tensors (biases, scales, the input's mean) would save less than their Cast costs."""

FLOAT16_MAX = 65504.0


def _half(tensor: onnx.TensorProto) -> onnx.TensorProto | None:
    """The tensor as float16 under another name, or None where it should stay as it is."""
    if tensor.data_type != TensorProto.FLOAT:
        return None
    values = numpy_helper.to_array(tensor)
    if values.size < LEAST_ELEMENTS or not np.all(np.abs(values) <= FLOAT16_MAX):
        return None
    return numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}.fp16")


def with_fp16_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` whose large float32 weights are stored as float16.

    Weights beyond float16's range, or not finite, stay float32.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    inputs = {value.name for value in graph.input}
    kept: list[onnx.TensorProto] = []
    casts: list[onnx.NodeProto] = []
    for tensor in graph.initializer:
        half = None if tensor.name in inputs else _half(tensor)
        kept.append(half or tensor)
        if half is not None:
            casts.append(helper.make_node("Cast", [half.name], [tensor.name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(changed)
    return changed
