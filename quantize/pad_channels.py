"""Channels in whole vectors: depthwise convolutions whose widths are multiples of a number.

ONNX Runtime's quantized depthwise convolution takes a slow path for widths that do not fill its
vectors; its float kernels pad by themselves. Added channels change no answer: they are made by zero
weights, and whatever a gate does to them, zero weights read them.
"""

from collections import Counter

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from quantize.graph import group_of, shapes_of

VECTOR = 16
"""Channels of one byte in the narrowest vectors of x86 and Arm."""

ALONG = {
    "Add", "Clip", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Mul", "ReduceMean", "Relu",
    "Sigmoid",
}  # fmt: skip
"""Operations that leave channels where they are; operands that are not maps must be scalars."""


class _Widths:
    """Tensors that must have the same number of channels, joined (union-find)."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def of(self, name: str) -> str:
        while (above := self._above.get(name, name)) != name:
            name = above
        return name

    def join(self, one: str, other: str) -> None:
        self._above[self.of(one)] = self.of(other)


def _is_depthwise(node: onnx.NodeProto, weight: NDArray[np.float32]) -> bool:
    return bool(group_of(node) == weight.shape[0] > 1 and weight.shape[1] == 1)


def _widened(value: NDArray[np.float32], axis: int, extra: int) -> NDArray[np.float32]:
    return np.pad(value, [(0, extra if i == axis else 0) for i in range(value.ndim)])


def pad_depthwise(model: onnx.ModelProto, multiple: int = VECTOR) -> onnx.ModelProto:
    """A copy in which every depthwise convolution has a multiple of `multiple` channels.

    Left alone are those whose channels reach an operation this does not know, the graph's input or
    its output. The copy answers as the original does, up to rounding.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    value = {name: np.asarray(numpy_helper.to_array(tensor)) for name, tensor in stored.items()}
    shapes = shapes_of(changed)
    widths, fixed, wanted = _Widths(), set[str](), set[str]()
    fixed_names = [value.name for value in (*graph.input, *graph.output)]
    readers = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        maps = [name for name in node.input if name and name not in value]
        made = node.output[0]
        if node.op_type == "Conv" and any(readers[name] > 1 for name in node.input[1:]):
            fixed_names += [made, *maps]  # widening a shared weight would widen others too
        elif node.op_type == "Conv" and node.input[1] in value:
            if _is_depthwise(node, value[node.input[1]]):
                widths.join(made, maps[0])
                wanted.add(made)
            elif group_of(node) > 1:
                fixed_names += [made, *maps]
        elif node.op_type in ALONG and all(
            value[name].size == 1 for name in node.input if name in value
        ):
            for name in maps:
                widths.join(name, made)
        else:
            fixed_names += [made, *maps]
    fixed = {widths.of(name) for name in fixed_names}
    extra = {
        group: -shapes[name][1] % multiple
        for name in wanted
        if (group := widths.of(name)) not in fixed and name in shapes
    }
    for node in graph.node:
        if node.op_type != "Conv" or node.input[1] not in value:
            continue
        weight = value[node.input[1]]
        out, into = (extra.get(widths.of(name), 0) for name in (node.output[0], node.input[0]))
        if _is_depthwise(node, weight):
            into = 0
            for attribute in node.attribute:
                if attribute.name == "group":
                    attribute.i += out
        for name, new in (
            (node.input[1], _widened(_widened(weight, 0, out), 1, into)),
            *((name, _widened(value[name], 0, out)) for name in node.input[2:3]),
        ):
            stored[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(new), name))
    del graph.value_info[:]
    onnx.checker.check_model(changed, full_check=True)
    return changed
