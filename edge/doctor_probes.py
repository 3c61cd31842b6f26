"""How `fer-edge doctor` asks the machine, apart from what it makes of the answers."""

import ctypes
import grp
import importlib
import os
import shutil
import socket
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path

import psutil
import serial.tools.list_ports

from edge.cameras.base import Camera, Clock
from edge.cameras.factory import open_camera
from edge.detector_files import find_yunet
from edge.page import listen_for
from firmware_config.dashboard_config import DashboardConfig


def _ntp_synchronised() -> bool | None:
    """Does the kernel hold its clock for synchronised? None where it does not say.

    adjtimex(2) without a mode only reads; any time daemon that keeps the clock clears the state
    that it answers with when nobody does.
    """
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    except (AttributeError, OSError):
        return None
    unsynchronised = 5  # TIME_ERROR in <sys/timex.h>
    return None if state < 0 else state != unsynchronised


def _page_answers(page: DashboardConfig) -> bool:
    """Does a dashboard of this project answer there already?"""
    scheme = "https" if page.tls_certificate else "http"
    host = f"[{page.host}]" if ":" in page.host else page.host
    # It is asked on this machine and told nothing, so whose certificate it has does not matter;
    # and a proxy of the user's would ask another machine.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(f"{scheme}://{host}:{page.port}/healthz", timeout=2) as response:
            return b'"alive"' in response.read(1000)
    except urllib.error.HTTPError as error:
        with error:  # 503: it answers that its box is silent
            return b'"alive"' in error.read(1000)
    except (OSError, ValueError, HTTPException):
        return False


def _write_something(folder: Path) -> None:
    """Raises `OSError` where a file in `folder` cannot be written; leaves nothing behind."""
    with tempfile.TemporaryFile(dir=folder) as stream:
        stream.write(bytes(4096))
        stream.flush()
        os.fsync(stream.fileno())


def _temperatures() -> dict[str, float]:
    """Degrees Celsius by sensor; empty where there is none."""
    found = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    return {
        f"{chip} {sensor.label or number}": sensor.current
        for chip, sensors in found.items()
        for number, sensor in enumerate(sensors)
    }


@dataclass(frozen=True)
class Probes:
    """Every question the checks ask; a test answers in the machine's place."""

    video_nodes: Callable[[], list[Path]] = lambda: sorted(Path("/dev").glob("video*"))
    serial_nodes: Callable[[], list[str]] = lambda: [
        port.device for port in serial.tools.list_ports.comports()
    ]
    may_use: Callable[[Path], bool] = lambda node: os.access(node, os.R_OK | os.W_OK)
    groups: Callable[[], set[str]] = lambda: {
        group.gr_name for group in grp.getgrall() if group.gr_gid in {*os.getgroups(), os.getgid()}
    }
    is_root: Callable[[], bool] = lambda: os.geteuid() == 0
    open_camera: Callable[..., Camera] = open_camera
    find_yunet: Callable[[], Path | None] = find_yunet
    import_module: Callable[[str], object] = importlib.import_module
    version: Callable[[str], str] = version
    clock: Clock = field(default_factory=Clock)
    sleep: Callable[[float], None] = time.sleep
    ntp_synchronised: Callable[[], bool | None] = _ntp_synchronised
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    write_something: Callable[[Path], None] = _write_something
    listen: Callable[[DashboardConfig], socket.socket] = listen_for
    page_answers: Callable[[DashboardConfig], bool] = _page_answers
    memory_free_bytes: Callable[[], int] = lambda: int(psutil.virtual_memory().available)
    load: Callable[[], float] = lambda: os.getloadavg()[0]
    cores: Callable[[], int] = lambda: len(os.sched_getaffinity(0))
    temperatures: Callable[[], dict[str, float]] = _temperatures
