"""The float ONNX graph as the quantizers see it: tidied, and its parts by the role they play."""

from collections import defaultdict
from pathlib import Path
from typing import Literal

import onnx
from onnx import TensorProto, shape_inference

Part = Literal["stem", "depthwise", "squeeze-excite", "head", "classifier"]
PARTS: tuple[Part, ...] = ("stem", "depthwise", "squeeze-excite", "head", "classifier")


def without_idle_casts(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without casts of float32 to float32, which exporters leave and quantizers trip over.

    An input or output of the graph keeps its name.
    """
    known = shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*known.value_info, *known.input, *known.output)
    }
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    outputs = {value.name for value in graph.output}
    for node in [n for n in graph.node if n.op_type == "Cast"]:
        to = next(a.i for a in node.attribute if a.name == "to")
        source, target = node.input[0], node.output[0]
        if to != TensorProto.FLOAT or types.get(source) != TensorProto.FLOAT:
            continue
        graph.node.remove(node)
        # The graph's output keeps its name, so its producer takes it; else readers are redirected.
        old, new = (source, target) if target in outputs else (target, source)
        for other in graph.node:
            for names in (other.input, other.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = new
    onnx.checker.check_model(changed)
    return changed


def batch_of_one(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose input takes one face, with the shapes of all its tensors inferred."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for value in (*changed.graph.input, *changed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del changed.graph.value_info[:]
    return shape_inference.infer_shapes(changed, data_prop=True)


def group_of(node: onnx.NodeProto) -> int:
    """The `group` attribute of a convolution."""
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, for a batch of one; what cannot be inferred is left out."""
    graph = batch_of_one(model).graph
    return {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if all(d.dim_value > 0 for d in value.type.tensor_type.shape.dim)
    }


def _is_point(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and len(shape) == 4 and shape[2:] == (1, 1)


def nodes_by_part(model: onnx.ModelProto) -> dict[Part, list[str]]:
    """Names of the convolutions and matrix products that play each role, in the graph's order.

    `stem`: the first convolution. `depthwise`: as many groups as channels. `squeeze-excite`: works
    on a pooled map and ends in a product with a whole one. `head`: the other convolutions on a
    pooled map. `classifier`: the matrix product at the end. What is in none of these is a pointwise
    or an ordinary convolution.
    """
    shapes = shapes_of(model)
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)

    def scales_a_map(name: str) -> bool:
        for node in readers[name]:
            whole = not _is_point(shapes.get(node.output[0]))
            if node.op_type == "Mul" and whole:
                return True
            if not whole and scales_a_map(node.output[0]):
                return True
        return False

    found: dict[Part, list[str]] = {part: [] for part in PARTS}
    convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
    for node in convolutions:
        if node is convolutions[0]:
            found["stem"].append(node.name)
        elif group_of(node) > 1:
            found["depthwise"].append(node.name)
        elif _is_point(shapes.get(node.output[0])):
            excites = scales_a_map(node.output[0])
            found["squeeze-excite" if excites else "head"].append(node.name)
    found["classifier"] = [n.name for n in model.graph.node if n.op_type in ("Gemm", "MatMul")]
    return found


def with_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node has a name of its own, as quantizers name nodes to leave alone."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    taken: set[str] = set()
    for number, node in enumerate(changed.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)
    return changed


def float_model(file: Path) -> onnx.ModelProto:
    """The float graph in a file as all quantizers start from it: no idle casts, every node named.

    Moments and quantized layers find each other by these names.
    """
    return with_names(without_idle_casts(onnx.load(file)))
