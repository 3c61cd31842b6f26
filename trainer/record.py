"""What makes a measured figure reproducible: the command, the host, versions and the commit."""

import os
import platform
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from contract.provenance import commit_of_this_project

PACKAGES = ("torch", "timm", "numpy", "opencv-python-headless")


def run_record(command: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The `run` part of a result file."""
    from runtime.machine import cpu_model, library_versions

    return {
        "command": shlex.join([*command.split(), *arguments]),
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_of_this_project(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES} | library_versions(),
    }
