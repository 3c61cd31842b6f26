"""INT8 ONNX for ONNX Runtime, and for TensorRT behind it: quantize-dequantize pairs (QDQ).

ONNX Runtime's own post-training quantization places the pairs where its kernels fuse them. The
ranges are ours (`quantize/ranges.py`). Where a hard-swish or hard-sigmoid reads a value, what it
maps to 0 or 1 anyway is cut off, which costs nothing; and hard-swishes are put into words that
have INT8 kernels (`quantize/hard_swish.py`).
"""

import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from quantize.candidates import Candidate
from quantize.graph import float_model, nodes_by_part, with_names
from quantize.hard_swish import Gate, read_back, with_added_gates, with_pooling
from quantize.inner_values import inner_values
from quantize.pad_channels import pad_depthwise
from quantize.ranges import EVERYTHING, Range, row_extremes, row_range
from quantize.rounding import Moments, layers_of, rounded

REDUCED_MOST = 64
"""Largest weight of ONNX Runtime's reduced range."""
PIXELS: Range = (0.0, 255.0)
MOVES_BYTES = ("Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Shape", "Constant")


class _Faces:
    """Feeds faces one at a time, as `onnxruntime.quantization` asks for them."""

    def __init__(self, name: str, faces: NDArray[np.uint8]) -> None:
        self._rows: Iterator[dict[str, Any]] = ({name: face[None]} for face in faces)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._rows, None)


def _prepare(graph: Path, folder: Path, padded: bool) -> Path:
    """The float graph as it is quantized: tidy, widths padded, hard-swish taken apart."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    tidy, prepared = folder / "tidy.onnx", folder / "prepared.onnx"
    model = float_model(graph)
    onnx.save(pad_depthwise(model) if padded else model, tidy)
    quant_pre_process(str(tidy), str(prepared), skip_symbolic_shape=True)
    onnx.save(with_names(onnx.load(prepared)), prepared)
    return prepared


def _activations(model: onnx.ModelProto) -> list[str]:
    return [
        name
        for node in model.graph.node
        if node.op_type not in MOVES_BYTES
        for name in node.output
    ]  # fmt: skip


def _extremes(
    model: onnx.ModelProto, names: list[str], faces: NDArray[np.uint8]
) -> dict[str, NDArray[np.float32]]:
    """Least and greatest value of each tensor in each row: `2×N` by name."""
    found: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for values in inner_values(model, names, faces):
        for name, value in values.items():
            found[name].append(row_extremes(value))
    return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}


def _useful(model: onnx.ModelProto) -> dict[str, Range]:
    """Limits beyond which whatever reads a tensor cannot tell values apart."""
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    limits: dict[str, Range] = {}
    for node in model.graph.node:
        if node.op_type == "HardSigmoid":
            limits[node.output[0]] = (0.0, 1.0)
            # ONNX's defaults, as hard-swish has others and an exporter writes them out.
            given = {a.name: a.f for a in node.attribute}
            alpha, beta = given.get("alpha", 0.2), given.get("beta", 0.5)
            low, high = -beta / alpha, (1 - beta) / alpha
            source, others = node.input[0], [n for n in readers[node.input[0]] if n is not node]
            if not others:
                limits[source] = (low, high)
            elif all(n.op_type == "Mul" and node.output[0] in n.input for n in others):
                limits[source] = (low, np.inf)  # x·h(x) is 0 below and x above
    return limits


def activation_ranges(
    model: onnx.ModelProto, faces: NDArray[np.uint8], quantile: float
) -> dict[str, Range]:
    """The range of every float tensor of a graph on `faces` (`N×H×W×C`), zero always within."""
    names = _activations(model)
    limits = _useful(model)
    found = {
        name: row_range(extremes, quantile, limits.get(name, EVERYTHING))
        for name, extremes in _extremes(model, names, faces).items()
    }
    # What is only moved keeps its range; the faces themselves are bytes.
    moved = {model.graph.input[0].name: PIXELS}
    for node in model.graph.node:
        if node.op_type not in MOVES_BYTES or node.op_type == "Shape" or not node.input:
            continue
        source = node.input[0]
        if source in moved or source in found:
            moved[node.output[0]] = moved[source] if source in moved else found[source]
    del moved[model.graph.input[0].name]
    return found | moved


def _options(candidate: Candidate, ranges: dict[str, Range]) -> dict[str, Any]:
    overrides = {
        name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
        for name, (low, high) in ranges.items()
    }
    if not candidate.symmetric:
        return {"TensorQuantOverrides": overrides}
    # TensorRT wants pairs on weights too, zero points of 0, and biases in float.
    return {
        "TensorQuantOverrides": overrides,
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "AddQDQPairToWeight": True,
        "DedicatedQDQPair": True,
    }


def _round_again(model: onnx.ModelProto, prepared: onnx.ModelProto, moments: Moments) -> None:
    """Round the INT8 weights of a quantized graph as `quantize/rounding.py` does, in place."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, (node, weight) in layers_of(prepared).items():
        made, scale = (stored.get(f"{node.input[1]}_{what}") for what in ("quantized", "scale"))
        if made is None or scale is None or name not in moments:
            continue  # left float
        steps = np.broadcast_to(numpy_helper.to_array(scale).ravel(), weight.shape[:1])
        integers = rounded(weight, steps, moments[name], REDUCED_MOST)
        made.CopyFrom(numpy_helper.from_array(integers, made.name))


def quantize_onnx(
    graph: Path, faces: NDArray[np.uint8], file: Path, candidate: Candidate, moments: Moments
) -> list[Path]:
    """Quantize the float ONNX `graph` with ranges from `faces` (`N×H×W×C`); write QDQ at `file`.

    `moments` are those of the graph's layers on such faces. Returns the files written.
    """
    # Slow to import, and only this needs it.
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory(prefix="fer-quantize.") as work:
        prepared = _prepare(graph, Path(work), candidate.padded)
        model = onnx.load(prepared)
        parts = nodes_by_part(model)
        leave = [name for part in candidate.float_parts for name in parts[part]]
        ranges = activation_ranges(model, faces, candidate.range_quantile or 1.0)
        gates: list[Gate] = []
        if not candidate.symmetric:  # TensorRT has kernels of its own
            changed, gates = with_added_gates(with_pooling(model))
            onnx.save(changed, prepared)
            for gate in gates:
                ranges |= gate.ranges
        with warnings.catch_warnings():
            # Without its slopes the changed graph's own values grow without end: none is asked for.
            warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
            quantize_static(
                str(prepared),
                str(file),
                # The ranges are known; it insists on a row of its own.
                _Faces(model.graph.input[0].name, faces[:1]),
                quant_format=QuantFormat.QDQ,
                nodes_to_exclude=leave,
                per_channel=True,
                reduce_range=not candidate.symmetric,
                activation_type=QuantType.QInt8 if candidate.symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options=_options(candidate, ranges),
            )
        if not candidate.symmetric:  # whose weights stay float, for TensorRT to round
            quantized = onnx.load(file)
            read_back(quantized, gates)
            _round_again(quantized, model, moments)
            onnx.save(quantized, file)
    return [file]
