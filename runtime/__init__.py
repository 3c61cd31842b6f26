"""A bundle opened for inference: OpenVINO and ONNX Runtime sessions behind one small interface."""

import os

# OpenVINO's matrix tiles (AMX) cost more to set up than one face has work for: without them a
# MobileNetV3 at batch 1 is quicker in INT8, which otherwise loses to float. It has to stand in the
# environment before OpenVINO compiles anything. A CPU without AMX has nothing beyond this limit,
# and a setting of the user's own stays.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")
