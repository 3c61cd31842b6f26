"""YuNet's graph as OpenVINO runs it soonest: the same sums in fewer and larger steps.

The file ends in twelve small branches: `PARTS` for each of three grids, each a 1×1 convolution to 1
to 10 channels and a 3×3 one of each channel by itself. The four of a grid start from the same map,
so they are one 1×1 convolution to 16 channels and one 3×3 of each. The input is float32 with the
colours last, which is how OpenVINO's first convolution wants it: of bytes, or of planes, it makes
two copies before.
"""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as opset
from openvino.passes import ConstantFolding, Manager
from openvino.preprocess import PrePostProcessor

from edge.detect_reference import PARTS, STRIDES

CHANNELS = 16
"""Of a cell: cls, obj, bbox (4), kps (10), in the order of `PARTS`."""


def _before(output: Any, *kinds: str) -> tuple[Any, Any]:
    """The node that feeds an output, past what reorders it or squashes it, and its constant.

    Raises `RuntimeError` where it is none of `kinds`, or its second input is no constant.
    """
    node = output.get_node()
    while node.get_type_name() in ("Reshape", "Transpose", "Sigmoid", "Result"):
        node = node.input_value(0).get_node()
    if node.get_type_name() not in kinds:
        raise RuntimeError(f"YuNet's graph has {node.get_type_name()} where {kinds[0]} belongs")
    second = node.input_value(1).get_node()
    if second.get_type_name() != "Constant":
        raise RuntimeError(f"YuNet's graph has no constant in {node.get_friendly_name()}")
    return node, second.data


def _grid(graph: ov.Model, stride: int) -> Any:
    """The answers for one grid, `1×cells×16`; scores are left as logits."""
    ones, threes, biases_one, biases = [], [], [], []
    trunks = set()
    for part in PARTS:
        add, bias = _before(graph.output(f"{part}_{stride}"), "Add")
        three, kernel = _before(add.input_value(0), "GroupConvolution", "Convolution")
        add_one, bias_one = _before(three.input_value(0), "Add")
        one, kernel_one = _before(add_one.input_value(0), "Convolution")
        ones.append(kernel_one)
        threes.append(kernel.reshape(-1, 1, 1, 3, 3))
        biases_one.append(bias_one)
        biases.append(bias)
        trunk = one.input_value(0)
        trunks.add(trunk.get_node().get_friendly_name())
    if len(trunks) != 1:
        raise RuntimeError(f"the branches of YuNet's grid {stride} start from different maps")

    def joined(values: list[Any], axis: int) -> Any:
        return opset.constant(np.concatenate(values, axis))

    found = opset.convolution(trunk, joined(ones, 0), [1, 1], [0, 0], [0, 0], [1, 1])
    found = opset.add(found, joined(biases_one, 1))
    found = opset.group_convolution(found, joined(threes, 0), [1, 1], [1, 1], [1, 1], [1, 1])
    found = opset.add(found, joined(biases, 1))
    return opset.reshape(opset.transpose(found, [0, 2, 3, 1]), [1, -1, CHANNELS], False)


def yunet_graph(core: ov.Core, model: Path, width: int, height: int) -> ov.Model:
    """YuNet for inputs `1×height×width×3` of BGR values 0…255, with one output `1×cells×16`.

    Cells are those of the three grids, finest first, row by row; `cls` and `obj` are logits.
    Raises `RuntimeError` for a file that is not built as YuNet is.
    """
    graph = core.read_model(model)
    graph.reshape([1, 3, height, width])
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(graph)
    grids = [_grid(graph, stride) for stride in STRIDES]
    # One output instead of twelve: fetching each costs as much as joining all of them.
    steps = PrePostProcessor(ov.Model([opset.concat(grids, 1)], graph.get_parameters(), "yunet"))
    steps.input().tensor().set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    return steps.build()
