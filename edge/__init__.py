"""The program on the box. Never imports torch or pandas."""

import sys

# Before any file here imports an inference runtime: it sets what they read at import.
import runtime as runtime

# OpenVINO brings its converter of models along where that can be imported, which doubles the time
# its own import takes. The box converts nothing.
sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
