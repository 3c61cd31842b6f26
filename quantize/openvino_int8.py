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
from quantize.graph import nodes_by_part
from quantize.ranges import Range, row_extremes, row_range

Faces = NDArray[np.uint8]

BATCH = 16
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


def _ignored(nncf: Any, model: ov.Model, graph: Path, candidate: Candidate) -> Any:
    """NNCF's ignored scope for the parts a candidate leaves float."""
    parts = nodes_by_part(onnx.load(graph))
    wanted = {name for part in candidate.float_parts for name in parts[part]}
    # OpenVINO's frontend splits a convolution and its bias and names them after the ONNX node.
    names = [
        each.get_friendly_name()
        for each in model.get_ops()
        if each.get_friendly_name().removesuffix("/WithoutBiases") in wanted
        and each.get_type_name() in ("Convolution", "GroupConvolution", "MatMul")
    ]
    types = list(POOLING) if "squeeze-excite" in candidate.float_parts else []
    return nncf.IgnoredScope(names=names, types=types, validate=False)


def quantize_openvino(
    graph: Path,
    faces: Faces,
    xml: Path,
    candidate: Candidate,
    judged: tuple[Faces, NDArray[np.int64]],
    accuracy_drop: float,
) -> list[Path]:
    """Quantize the float ONNX `graph` with ranges from `faces` (`N×H×W×C`); write IR at `xml`.

    NNCF places the quantizers and makes the weights. Ranges are those of `quantize/ranges.py`, or
    NNCF's own with its full bias correction: the fast one is known to cost a small MobileNetV3 far
    more accuracy. An accuracy-aware candidate measures itself on `judged` (faces `M×H×W×C` and
    labels `M`) and keeps to `accuracy_drop` points. Returns the files written, the one a runtime
    opens first.
    """
    nncf = require_nncf()
    nncf.set_log_level(logging.ERROR)
    model = ov.Core().read_model(graph)
    data = nncf.Dataset([face[None] for face in faces])
    preset = "PERFORMANCE" if candidate.symmetric else "MIXED"
    fix = nncf.quantization.advanced_parameters.OverflowFix.ENABLE
    settings: dict[str, Any] = {
        "preset": nncf.QuantizationPreset[preset],
        "subset_size": len(faces),
        "fast_bias_correction": False,
        "ignored_scope": _ignored(nncf, model, graph, candidate),
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
    request = ov.Core().compile_model(probed, "CPU", settings).create_infer_request()
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
