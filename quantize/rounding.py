"""Weights rounded so that a layer's answers change least, not the weights themselves.

Rounding each weight to the nearest step treats their errors as independent; on real inputs they add
up. Here weights are rounded input by input, and what one rounding spoils, the weights not yet
rounded make good, as far as the layer's inputs on real faces allow: GPTQ (Frantar et al., ICLR
2023, 2210.17323), for convolutions with their inputs unfolded. Scales stay as they were chosen.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from quantize.graph import group_of
from quantize.inner_values import inner_values

Moments = Mapping[str, NDArray[np.float64]]
"""By the name of a convolution or Gemm: the inputs' second moments, `G×K×K` for G groups."""

DAMPING = 0.1
"""Added to the moments' diagonal, as a share of its mean: few rows do not know every direction."""


def _ints(node: onnx.NodeProto, name: str, default: list[int]) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == name), default)


def _is_known(node: onnx.NodeProto, weight: NDArray[np.float32]) -> bool:
    """Whether what follows can unfold it: outputs first, no dilation, all groups or one."""
    given = {a.name: a for a in node.attribute}
    if node.op_type == "Gemm":
        return "transB" in given and given["transB"].i == 1
    plain = "auto_pad" not in given or given["auto_pad"].s == b"NOTSET"
    return (
        plain
        and weight.ndim == 4
        and _ints(node, "dilations", [1, 1]) == [1, 1]
        and group_of(node) in (1, weight.shape[0])
    )


def layers_of(model: onnx.ModelProto) -> dict[str, tuple[onnx.NodeProto, NDArray[np.float32]]]:
    """The convolutions and Gemms of a float graph with stored weights, by name.

    Left out are those of kinds that no student has, as dilated convolutions are: they stay rounded
    to the nearest.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.name and node.op_type in ("Conv", "Gemm") and node.input[1] in stored:
            weight = np.asarray(numpy_helper.to_array(stored[node.input[1]]), np.float32)
            if _is_known(node, weight):
                found[node.name] = (node, weight)
    return found


def _unfolded(
    node: onnx.NodeProto, values: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What each weight of a group is multiplied with: `G×positions×K`."""
    if node.op_type == "Gemm":
        return values[None]
    top, left, bottom, right = _ints(node, "pads", [0, 0, 0, 0])
    down, across = _ints(node, "strides", [1, 1])
    padded = np.pad(values, [(0, 0), (0, 0), (top, bottom), (left, right)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    windows = windows[:, :, ::down, ::across]
    count, channels = values.shape[:2]
    groups = group_of(node)
    rows = windows.reshape(count, groups, channels // groups, *windows.shape[2:])
    rows = rows.transpose(1, 0, 3, 4, 2, 5, 6)
    return np.asarray(rows.reshape(groups, -1, channels // groups * weight[0, 0].size))


def moments_of(model: onnx.ModelProto, faces: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Second moments of the inputs of every layer of a float graph on `faces` (`N×H×W×C`)."""
    layers = layers_of(model)
    if not layers:
        return {}
    names = sorted({node.input[0] for node, _ in layers.values()})
    found: dict[str, NDArray[np.float64]] = {}
    for inputs in inner_values(model, names, faces):
        for name, (node, weight) in layers.items():
            rows = _unfolded(node, inputs[node.input[0]], weight)
            part = np.matmul(rows.transpose(0, 2, 1), rows).astype(np.float64)
            found[name] = found[name] + part if name in found else part
    return found


def _widened(moments: NDArray[np.float64], groups: int, inputs: int) -> NDArray[np.float64]:
    """Moments with zeros for groups and inputs that padding added."""
    extra = [(0, groups - moments.shape[0]), *[(0, inputs - moments.shape[1])] * 2]
    return np.pad(moments, extra)


def rounded(
    weight: NDArray[np.float32], scale: NDArray[np.float32], moments: NDArray[np.float64], most: int
) -> NDArray[np.int8]:
    """The integers, at most `most` in size, that `weight` (`O×…`) becomes at `scale` (`O`).

    `moments` are those of the layer's inputs, `G×K×K`; a layer that was padded since may be wider.
    """
    out = weight.shape[0]
    groups = out if moments.shape[0] > 1 else 1
    left = weight.reshape(groups, out // groups, -1).astype(np.float64)
    inputs = left.shape[2]
    steps = scale.astype(np.float64).reshape(groups, -1)
    known = _widened(moments, groups, inputs)
    diagonal = np.einsum("gkk->gk", known)
    mean = diagonal.mean(axis=1)
    # An input that is always zero tells nothing; its weights are rounded as they are.
    diagonal += np.where(mean > 0, DAMPING * mean, 1.0)[:, None]
    # Most active inputs first, while the rest can still make good.
    order = np.argsort(-diagonal, axis=1, kind="stable")
    pick = order[:, :, None], order[:, None, :]
    known = known[np.arange(groups)[:, None, None], pick[0], pick[1]]
    left = np.take_along_axis(left, order[:, None, :], axis=2)
    spread = np.linalg.cholesky(np.linalg.inv(known)).transpose(0, 2, 1)
    integers = np.empty_like(left)
    for k in range(inputs):
        integers[:, :, k] = np.clip(np.round(left[:, :, k] / steps), -most, most)
        missed = (left[:, :, k] - integers[:, :, k] * steps) / spread[:, k, k, None]
        left[:, :, k + 1 :] -= missed[:, :, None] * spread[:, k, None, k + 1 :]
    back = np.argsort(order, axis=1, kind="stable")
    integers = np.take_along_axis(integers, back[:, None, :], axis=2)
    return integers.reshape(weight.shape).astype(np.int8)
