"""What a measurement depends on: the CPU and the versions of the libraries that use it."""

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# NVIDIA's own build of ONNX Runtime goes by the second name.
LIBRARIES = ("openvino", "onnxruntime", "onnxruntime-gpu")
# x86 has the first two, Arm the others. Flags belong to it: a virtual machine may hide some.
CPU_KEYS = ("model name", "flags", "CPU implementer", "CPU part", "Features")


def library_versions() -> dict[str, str]:
    """Installed inference libraries, by distribution name."""
    found: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """A short name of the CPU's model and abilities, the same for equal CPUs."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    pairs = [(key.strip(), value.strip()) for key, _, value in (x.partition(":") for x in lines)]
    facts = sorted({f"{key}: {value}" for key, value in pairs if key in CPU_KEYS})
    name = next((value for key, value in pairs if key == "model name"), platform.machine())
    return f"{name} ({hashlib.sha256(chr(10).join(facts).encode()).hexdigest()[:12]})"
