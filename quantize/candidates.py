"""The declared set of ways to quantize: small, and tried in full.

Weights for CPUs have seven bits. With eight, the 16-bit sums of the INT8 instructions of CPUs
without VNNI saturate, and the same file gives other answers there; with seven they cannot
(`quantize/portability.py` proves it on each bundle). Depthwise weights for OpenVINO, whose kernels
add no such sums, have eight, and so has TensorRT.
"""

from dataclasses import dataclass
from typing import Any, Literal

from quantize.graph import Part
from runtime.session import Backend

Target = Literal["cpu", "jetson"]
TARGETS: tuple[Target, ...] = ("cpu", "jetson")


@dataclass(frozen=True)
class Candidate:
    """One way to quantize for one runtime; `float_parts` stay float."""

    name: str
    backend: Backend
    float_parts: tuple[Part, ...] = ()
    symmetric: bool = False
    """Activations around zero, as TensorRT needs them; else ranges lie where the values do."""
    range_quantile: float | None = 0.9
    """Which of the rows' own extremes, from the least to the greatest, ends a range. None, OpenVINO
    only: NNCF's ranges, and its full bias correction."""
    accuracy_aware: bool = False
    """OpenVINO only: put the layers that cost most back to float until accuracy holds."""
    padded: bool = True
    """ONNX only: depthwise widths are padded to whole vectors, which CPUs want."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a report says of it."""
        told: dict[str, Any] = {
            "float": list(self.float_parts),
            "symmetric": self.symmetric,
            "range_quantile": self.range_quantile,
        }
        if self.accuracy_aware:
            told["accuracy_aware"] = True
        return told


OPENVINO = (
    Candidate("wide", "openvino", range_quantile=0.97),
    Candidate("middle", "openvino", range_quantile=0.94),
    Candidate("narrow", "openvino"),
    Candidate("bias-corrected", "openvino", range_quantile=None),
    Candidate("bias-corrected-symmetric", "openvino", symmetric=True, range_quantile=None),
)
# The stem has few channels: ONNX Runtime's INT8 kernels take longer for it than its float ones do.
ONNX = (
    Candidate("narrow-float-ends", "onnxruntime", ("stem", "classifier")),
    Candidate("middle-float-ends", "onnxruntime", ("stem", "classifier"), range_quantile=0.94),
    Candidate("wide-float-ends", "onnxruntime", ("stem", "classifier"), range_quantile=0.97),
    Candidate("wide-float-classifier", "onnxruntime", ("classifier",), range_quantile=0.97),
    Candidate("middle-float-classifier", "onnxruntime", ("classifier",), range_quantile=0.94),
    Candidate("narrow-float-classifier", "onnxruntime", ("classifier",)),
)
LAST_RESORT = Candidate("accuracy-aware", "openvino", range_quantile=None, accuracy_aware=True)
"""Tried only where no other OpenVINO candidate passes: it takes minutes."""
JETSON = (Candidate("tensorrt", "onnxruntime", symmetric=True, padded=False),)
"""Symmetric QDQ as TensorRT's execution provider takes it; untested on hardware."""


def candidates(backend: Backend, target: Target, quick: bool) -> tuple[Candidate, ...]:
    """What is tried for a runtime; `quick` leaves only the first, the default."""
    if target == "jetson":
        return JETSON if backend == "onnxruntime" else ()
    declared = OPENVINO if backend == "openvino" else ONNX
    return declared[:1] if quick else declared
