"""What makes a measured figure reproducible: the command, the host, versions and the commit."""

import os
import platform
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from contract.provenance import commit_of_this_project
from runtime.machine import cpu_model

PACKAGES = ("numpy", "opencv-python-headless", "openvino", "onnxruntime")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def run_record(command: str, arguments: Sequence[str], threads: int) -> dict[str, Any]:
    """The `run` part of a result file."""
    return {
        "command": shlex.join([*command.split(), *arguments]),
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_of_this_project(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
    }
