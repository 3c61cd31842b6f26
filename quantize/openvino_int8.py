"""INT8 OpenVINO IR by NNCF's post-training quantization."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13

from contract.errors import UserError
from quantize.candidates import Candidate
from quantize.graph import float_model, nodes_by_part
from quantize.ranges import Range, row_extremes, row_range
from quantize.rounding import Moments, layers_of, rounded
from runtime.openvino_settings import openvino_core

Faces = NDArray[np.uint8]

BATCH = 16
LAYERS = ("Convolution", "GroupConvolution", "MatMul")
WITHOUT_BIAS = "/WithoutBiases"
"""OpenVINO's frontend splits a layer and its bias and names them after the ONNX node."""
POOLING = ("ReduceMean", "HardSigmoid", "Sigmoid")
"""Left float with squeeze-excite: between its convolutions they would only add conversions."""


def require_nncf() -> Any:
    """The nncf module. Raises `UserError` where the `quantize` extra is not installed."""
    # NNCF would report its use to its makers; this program talks to nobody unasked.
    os.environ.setdefault("NNCF_CI", "1")
    try:
        import nncf
    except ImportError as error:
        raise UserError(
            f"fer-quantize needs the 'quantize' extra ({error}); "
            "install it with: pip install 'fer-edge[quantize]'"
        ) from None
    return nncf


def _ignored(nncf: Any, model: ov.Model, graph: onnx.ModelProto, candidate: Candidate) -> Any:
    """NNCF's ignored scope for the parts a candidate leaves float."""
    parts = nodes_by_part(graph)
    wanted = {name for part in candidate.float_parts for name in parts[part]}
    names = [
        each.get_friendly_name()
        for each in model.get_ops()
        if each.get_friendly_name().removesuffix(WITHOUT_BIAS) in wanted
        and each.get_type_name() in LAYERS
    ]
    types = list(POOLING) if "squeeze-excite" in candidate.float_parts else []
    return nncf.IgnoredScope(names=names, types=types, validate=False)


def _fold_grouped_weights(model: ov.Model) -> None:
    """Store the weights of depthwise convolutions in the shape they are used in, in place.

    OpenVINO's frontend reshapes them on the way, and NNCF then takes a kernel's columns for its
    channels: it makes scales that no INT8 kernel has, and the convolutions stay float.
    """
    for each in model.get_ops():
        if each.get_type_name() != "GroupConvolution":
            continue
        shaped = each.input_value(1).get_node()
        stored = shaped.input_value(0).get_node() if shaped.get_input_size() else shaped
        if shaped.get_type_name() == "Reshape" and stored.get_type_name() == "Constant":
            folded = opset13.constant(stored.data.reshape(list(shaped.get_output_shape(0))))
            folded.set_friendly_name(stored.get_friendly_name())
            each.input(1).replace_source_output(folded.output(0))
    model.validate_nodes_and_infer_types()


def _round_again(quantized: ov.Model, graph: onnx.ModelProto, moments: Moments) -> None:
    """Round the INT8 weights of a quantized model as `quantize/rounding.py` does, in place."""
    layers = layers_of(graph)
    for each in quantized.get_ops():
        name = each.get_friendly_name().removesuffix(WITHOUT_BIAS)
        if each.get_type_name() not in LAYERS or name not in layers or name not in moments:
            continue
        scaled = each.input_value(1).get_node()
        if scaled.get_type_name() != "Multiply":
            continue  # left float
        converted = scaled.input_value(0).get_node()
        made = converted.input_value(0).get_node().data
        weight, scale = layers[name][1], scaled.input_value(1).get_node().data
        # Seven bits where the overflow fix asks for them, else eight.
        most = 64 if np.abs(made.astype(np.int16)).max() <= 64 else 127
        steps = np.broadcast_to(scale.ravel(), weight.shape[:1])
        integers = rounded(weight, steps, moments[name], most).reshape(made.shape)
        converted.input(0).replace_source_output(opset13.constant(integers).output(0))


def quantize_openvino(
    graph: Path,
    faces: Faces,
    xml: Path,
    candidate: Candidate,
    judged: tuple[Faces, NDArray[np.int64]],
    accuracy_drop: float,
    moments: Moments,
) -> list[Path]:
    """Quantize the float ONNX `graph` with ranges from `faces` (`N×H×W×C`); write IR at `xml`.

    NNCF places the quantizers and makes the weights. Ranges are those of `quantize/ranges.py`, or
    NNCF's own with its full bias correction: the fast one is known to cost a small MobileNetV3 far
    more accuracy. An accuracy-aware candidate measures itself on `judged` (faces `M×H×W×C` and
    labels `M`) and keeps to `accuracy_drop` points. `moments` are those of the graph's layers on
    such faces. Returns the files written, the one a runtime opens first.
    """
    nncf = require_nncf()
    nncf.set_log_level(logging.ERROR)
    original = float_model(graph)
    model = openvino_core().read_model(original.SerializeToString())
    _fold_grouped_weights(model)
    data = nncf.Dataset([face[None] for face in faces])
    preset = "PERFORMANCE" if candidate.symmetric else "MIXED"
    fix = nncf.quantization.advanced_parameters.OverflowFix.ENABLE
    settings: dict[str, Any] = {
        "preset": nncf.QuantizationPreset[preset],
        "subset_size": len(faces),
        "fast_bias_correction": False,
        "ignored_scope": _ignored(nncf, model, original, candidate),
    }
    own_ranges = candidate.range_quantile is not None
    advanced = nncf.AdvancedQuantizationParameters(
        overflow_fix=fix, disable_bias_correction=own_ranges
    )
    # NNCF draws its progress on stdout, which belongs to the result.
    with contextlib.redirect_stdout(sys.stderr):
        if candidate.accuracy_aware:
            rows = list(zip(*judged, strict=True))
            quantized = nncf.quantize_with_accuracy_control(
                model,
                calibration_dataset=data,
                validation_dataset=nncf.Dataset(rows),
                validation_fn=_accuracy,
                max_drop=accuracy_drop / 100,
                advanced_quantization_parameters=advanced,
                **settings,
            )
        else:
            quantized = nncf.quantize(model, data, advanced_parameters=advanced, **settings)
    if candidate.range_quantile is not None:
        _end_ranges(quantized, faces, candidate.range_quantile)
        _round_again(quantized, original, moments)
    ov.save_model(quantized, xml, compress_to_fp16=False)
    return [xml, xml.with_suffix(".bin")]


def _ends(quantizer: Any) -> Range:
    low, high = (quantizer.input_value(i).get_node().data for i in (1, 2))
    return float(low.ravel()[0]), float(high.ravel()[0])


def _aligned(wanted: Range, before: Range) -> Range:
    """`wanted` as a range of the same kind as `before`, with zero on one of its 256 steps."""
    low, high = wanted
    if before[0] == 0:
        return 0.0, high
    if abs(before[0] * 127 / 128 + before[1]) < 1e-3 * before[1]:  # symmetric: −128…127
        high = max(high, -low * 127 / 128)
        return -high * 128 / 127, high
    step = (high - low) / 255
    zero = round(-low / step)
    return -zero * step, (255 - zero) * step


def _end_ranges(quantized: ov.Model, faces: Faces, quantile: float) -> None:
    """Give the activations of a quantized model the ranges of `quantize/ranges.py`, in place."""
    probed = quantized.clone()
    by_name = {each.get_friendly_name(): each for each in probed.get_ops()}
    quantizers = [
        each
        for each in quantized.get_ops()
        if each.get_type_name() == "FakeQuantize"
        and each.input_value(0).get_node().get_type_name() != "Constant"
        and each.input_value(1).get_node().get_type_name() == "Constant"
        and each.input_value(1).get_node().data.size == 1
    ]
    if not quantizers:
        return
    results = len(probed.outputs)
    probed.add_outputs([by_name[each.get_friendly_name()].input_value(0) for each in quantizers])
    probed.reshape([-1, *faces.shape[1:]])
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    request = openvino_core().compile_model(probed, "CPU", settings).create_infer_request()
    found: list[list[NDArray[np.float32]]] = [[] for _ in quantizers]
    for start in range(0, len(faces), BATCH):
        answers = request.infer({0: faces[start : start + BATCH]})
        for i, extremes in enumerate(found):
            extremes.append(row_extremes(answers[results + i]))
    for quantizer, extremes in zip(quantizers, found, strict=True):
        wanted = row_range(np.concatenate(extremes, axis=1), quantile)
        low, high = _aligned(wanted, _ends(quantizer))
        shape = list(quantizer.input_value(1).get_shape())
        for port, value in ((1, low), (2, high), (3, low), (4, high)):
            constant = opset13.constant(np.full(shape, value, np.float32))
            quantizer.input(port).replace_source_output(constant.output(0))


def _accuracy(model: Any, rows: Iterable[tuple[NDArray[np.uint8], int]]) -> float:
    hits = [int(np.argmax(model(face[None])[0])) == label for face, label in rows]
    return float(np.mean(hits))
