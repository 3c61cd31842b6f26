"""A bundle opened for inference: OpenVINO and ONNX Runtime sessions behind one small interface."""

import os
import sys

# OpenVINO's matrix tiles (AMX) cost more to set up than one face has work for: without them a
# MobileNetV3 at batch 1 is quicker in INT8. It has to stand in the environment before OpenVINO
# compiles anything. A CPU without AMX has nothing beyond this limit; a user's own setting stays.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")

# Both runtimes report their use to their makers over the network unless told not to, and keep files
# for it in the user's home. A box with a camera speaks to nobody it was not told to: ONNX Runtime
# has a switch, and OpenVINO does without the package that reports where it cannot be imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
