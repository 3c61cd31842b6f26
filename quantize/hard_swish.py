"""Hard-swish for ONNX Runtime in INT8: an addition that saturates, and a product.

x·relu6(x + 3)/6 has no INT8 kernel; taken apart it runs a hard-sigmoid in float between two
conversions of whole maps. But relu6(x + 3) is what x + 3 becomes where its INT8 range is 0…6, as
whatever is beyond saturates, and for that there is a kernel. A sixth of it costs nothing: its
integers are read back at a sixth of the scale they were written at.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from quantize.ranges import Range


@dataclass(frozen=True)
class Gate:
    """The tensor that x + offset became, from 0 to 1/slope, and the added constant."""

    output: str
    offset_name: str
    offset: float
    slope: float

    @property
    def ranges(self) -> dict[str, Range]:
        """The ranges that make the addition a hard-sigmoid over `slope`, by tensor."""
        return {self.output: (0.0, 1 / self.slope), self.offset_name: (0.0, self.offset)}


def with_added_gates(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Gate]]:
    """A copy in which the hard-sigmoids of hard-swishes are additions, and what these are.

    Only as `read_back` mends it after quantization at the gates' ranges does it answer as before.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in changed.graph.node:
        for name in node.input:
            readers[name].append(node)
    gates = []
    for node in changed.graph.node:
        if node.op_type != "HardSigmoid":
            continue
        source, made = node.input[0], node.output[0]
        if [n.op_type for n in readers[made]] != ["Mul"] or source not in readers[made][0].input:
            continue  # a gate of its own, as squeeze-excite has
        given = {a.name: a.f for a in node.attribute}
        slope, share = given.get("alpha", 0.2), given.get("beta", 0.5)
        gate = Gate(made, f"{made}_offset", share / slope, slope)
        offset = np.full((1, 1, 1, 1), gate.offset, np.float32)
        changed.graph.initializer.append(numpy_helper.from_array(offset, gate.offset_name))
        node.op_type = "Add"
        del node.attribute[:]
        node.input.append(gate.offset_name)
        gates.append(gate)
    return changed, gates


def read_back(quantized: onnx.ModelProto, gates: list[Gate]) -> None:
    """Read the gates' integers at their slope times the scale they were written at, in place."""
    graph = quantized.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    slopes = {gate.output: gate.slope for gate in gates}
    written = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    for node in graph.node:
        gate = written.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if gate is None or gate not in slopes:
            continue
        scale = np.asarray(numpy_helper.to_array(stored[node.input[1]]))
        name = f"{node.output[0]}_scale_read"
        value = (scale * slopes[gate]).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        node.input[1] = name


def with_pooling(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which means over a whole map are global average pooling: it has an INT8 kernel."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in changed.graph.initializer}
    for node in changed.graph.node:
        if node.op_type != "ReduceMean":
            continue
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), [])
        if len(node.input) > 1 and node.input[1] in stored:
            axes = numpy_helper.to_array(stored[node.input[1]]).ravel().tolist()
        kept = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        if sorted(axes) in ([2, 3], [-2, -1]) and kept:
            node.op_type = "GlobalAveragePool"
            del node.attribute[:]
            del node.input[1:]
    return changed
