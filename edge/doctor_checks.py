"""What `fer-edge doctor` looks at: one function per check, each with one finding.

Whatever a check asks the machine it asks through `Probes`, so a test can make any of them fail.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, Literal

from contract.errors import UserError
from contract.tls import server_context
from edge.bundles import bundle_for_box, store_folder
from edge.cameras.base import Camera, CameraError, Device
from edge.detector_files import YUNET_SHA256, fault_of
from edge.doctor_probes import Probes
from edge.setup import cache_folder
from firmware_config.profile import Profile
from runtime import golden
from runtime.errors import SessionError, UnavailableError
from runtime.session import BACKENDS, open_session

Status = Literal["ok", "warn", "fail"]

CAMERA_WAIT_S = 10.0
LEAST_DISK_MB, LOW_DISK_MB = 50, 500
LOW_MEMORY_MB = 300
HOT_C = 80.0
EARLIEST_YEAR, LATEST_YEAR = 2025, 2100
CLOCK_WATCH_S, CLOCK_STEP_S = 0.2, 0.05


@dataclass(frozen=True)
class Finding:
    """What a check found: one line, the mend where there is something to mend, and the figures."""

    check: str
    status: Status
    what: str
    mend: str = ""
    facts: dict[str, Any] | None = None


@dataclass(frozen=True)
class Box:
    """What is examined: a profile, and the means to ask about its machine."""

    profile: Profile
    probes: Probes = field(default_factory=Probes)


def camera(box: Box) -> Finding:
    """Is it there, does it open, and does a frame come?"""
    wanted, probes = box.profile.camera, box.probes
    one = probes.open_camera(
        wanted.source, width=wanted.width, height=wanted.height, fps=wanted.fps, seed=0
    )
    nodes = [str(node) for node in probes.video_nodes()]
    facts: dict[str, Any] = {"source": one.name, "video_nodes": nodes}
    shape, fault = _first_frame(one)
    if shape is None:
        # A camera says what to do after the last colon.
        what, _, mend = fault.rpartition(": ")
        if wanted.source.startswith(("/dev/", "usb:")) or wanted.source.isdecimal():
            what += f" (there are: {' '.join(nodes)})" if nodes else " (no camera is there at all)"
        return Finding("camera", "fail", what, mend, facts)
    height, width = shape
    granted = one.granted if isinstance(one, Device) else None
    facts["granted"] = {"width": width, "height": height, **(asdict(granted) if granted else {})}
    what = f"{one.name} gives frames of {width}×{height}"
    if granted is None:
        return Finding("camera", "ok", what, facts=facts)
    what += f" at {granted.fps:.4g} fps as {granted.format or 'an unknown format'}"
    if granted.notes:
        mend = "ask for what it has: fer-edge probe lists it"
        return Finding("camera", "warn", f"{what}; {'; '.join(granted.notes)}", mend, facts)
    return Finding("camera", "ok", what, facts=facts)


def _first_frame(one: Camera) -> tuple[tuple[int, int] | None, str]:
    """Height and width of a frame; or None and why there is none."""
    outcome: list[tuple[tuple[int, int] | None, str]] = []

    def attempt() -> None:
        try:
            one.open()
            image = one.read()
            shape = None if image is None else (image.shape[0], image.shape[1])
            outcome.append((shape, f"{one.name} holds no frame: name another with --camera"))
        except (CameraError, UserError) as error:
            outcome.append((None, str(error)))
        finally:
            one.close()

    # A driver may never return from a read, and a doctor must.
    thread = threading.Thread(target=attempt, name="camera check", daemon=True)
    thread.start()
    thread.join(CAMERA_WAIT_S)
    stuck = f"{one.name} does not answer in {CAMERA_WAIT_S:g} s: unplug it and plug it in again"
    return outcome[0] if outcome else (None, stuck)


def permissions(box: Box) -> Finding:
    """May this user open the cameras and serial ports that are there?"""
    probes = box.probes
    video = [node for node in probes.video_nodes() if not probes.may_use(node)]
    ports = [node for node in map(Path, probes.serial_nodes()) if not probes.may_use(node)]
    groups = probes.groups()
    facts = {"groups": sorted(groups), "closed": [str(node) for node in (*video, *ports)]}
    if video or ports:
        needed = " and ".join([*(["video"] if video else []), *(["dialout"] if ports else [])])
        nodes = " ".join(map(str, (*video, *ports)))
        mend = f"sudo usermod -aG {needed.replace(' and ', ',')} $USER, then log in again"
        status: Status = "fail" if video else "warn"
        return Finding("permissions", status, f"this user may not open {nodes}", mend, facts)
    missing = [] if probes.is_root() else [g for g in ("video", "dialout") if g not in groups]
    if missing:
        return Finding(
            "permissions", "warn", f"this user is not in the group {' and '.join(missing)}",
            f"if a device stays closed: sudo usermod -aG {','.join(missing)} $USER", facts,
        )  # fmt: skip
    return Finding("permissions", "ok", "cameras and serial ports may be opened", facts=facts)


def detector(box: Box) -> Finding:
    """Which face detector will run, and is its file the pinned one?"""
    kind, file = box.profile.detector.kind, box.probes.find_yunet()
    if kind == "haar":
        return Finding("detector", "ok", "Haar cascade, as the profile says")
    fault = "YuNet's file is not there" if file is None else fault_of(file)
    facts = {"file": str(file or ""), "sha256_expected": YUNET_SHA256}
    if not fault:
        return Finding("detector", "ok", f"YuNet, {file}, hash as pinned", facts=facts)
    if kind == "yunet":
        return Finding("detector", "fail", fault, "fer-edge fetch-detector", facts)
    what = f"the Haar cascade stands in for YuNet: {fault}"
    return Finding("detector", "warn", what, "fer-edge fetch-detector", facts)


def runtimes(box: Box) -> Finding:
    """Do the inference runtimes import?"""
    found: dict[str, str] = {}
    faults: list[str] = []
    for name in BACKENDS:
        try:
            box.probes.import_module(name)
            found[name] = box.probes.version(name)
        except PackageNotFoundError:
            found[name] = "version unknown"  # a vendor's build goes by another name
        except Exception as error:
            # A library that is half installed raises whatever it likes.
            faults.append(f"{name} does not import: {_one_line(error)}")
    what = ", ".join([*(f"{name} {number}" for name, number in found.items()), *faults])
    wanted = box.profile.runtime.backend
    if not found or (wanted != "auto" and wanted not in found):
        return Finding("runtimes", "fail", what, "pip install --force-reinstall fer-edge", found)
    if faults:
        return Finding("runtimes", "warn", what, "pip install --force-reinstall fer-edge", found)
    return Finding("runtimes", "ok", what, facts=found)


def model(box: Box) -> Finding:
    """Is the bundle whole, and is it the one that should run?"""
    bundle, note = bundle_for_box(box.profile.runtime.bundle)
    facts = {"name": bundle.info.name, "sha256": bundle.sha256, "folder": str(bundle.folder)}
    if note:
        mend = "install it again: fer-edge bundle install BUNDLE"
        return Finding("model", "warn", note, mend, facts)
    what = f"{bundle.info.name} ({bundle.sha256[:12]}), every hash as listed"
    return Finding("model", "ok", what, facts=facts)


def golden_check(box: Box) -> Finding:
    """Does every artifact of the bundle answer here as its float model did?"""
    bundle, _ = bundle_for_box(box.profile.runtime.bundle)
    passed: list[str] = []
    failed: list[str] = []
    errors: dict[str, float] = {}
    for artifact in bundle.info.artifacts:
        for backend in BACKENDS:
            name = f"{artifact.file} on {backend}"
            try:
                session = open_session(bundle, artifact, backend, box.profile.runtime.threads)
            except UnavailableError:
                continue  # no fault: not installed, or not its format
            except SessionError as error:
                failed.append(str(error))
                continue
            try:
                errors[name] = error_here = golden.measure(session, bundle)
            except SessionError as error:
                failed.append(str(error))
                continue
            finally:
                session.close()
            if error_here <= artifact.tolerance:
                passed.append(name)
            else:
                failed.append(
                    f"{name}: mean |Δp| {error_here:.4f} is above {artifact.tolerance:.4f}"
                )
    facts = {"mean_abs_dp": errors}
    mend = "quantize it again on this machine, or install another bundle"
    if not passed:
        what = "; ".join(failed) or "no runtime reads any artifact of the bundle"
        return Finding("golden check", "fail", what, mend, facts)
    if failed:
        what = f"{len(passed)} of {len(passed) + len(failed)} pass; {'; '.join(failed)}"
        return Finding("golden check", "warn", what, mend, facts)
    return Finding("golden check", "ok", f"passed: {', '.join(passed)}", facts=facts)


def clock(box: Box) -> Finding:
    """Is UTC kept by somebody, sane, and in step with the monotonic clock?"""
    probes = box.probes
    utc, mono = probes.clock.utc_ns(), probes.clock.mono_ns()
    probes.sleep(CLOCK_WATCH_S)
    apart_s = ((probes.clock.utc_ns() - utc) - (probes.clock.mono_ns() - mono)) / 1e9
    year = time.gmtime(utc / 1e9).tm_year
    synchronised = probes.ntp_synchronised()
    facts = {"year": year, "ntp_synchronised": synchronised, "utc_stepped_s": round(apart_s, 4)}
    mend = "switch time synchronisation on: sudo timedatectl set-ntp true"
    if not EARLIEST_YEAR <= year <= LATEST_YEAR:
        return Finding("clock", "fail", f"the clock says it is the year {year}", mend, facts)
    if abs(apart_s) > CLOCK_STEP_S:
        what = f"the clock was set by {apart_s:+.2f} s while it was watched"
        return Finding("clock", "warn", what, "run the doctor again once it is settled", facts)
    if not synchronised:
        known = "is not synchronised" if synchronised is False else "may not be synchronised"
        what = f"the clock {known}: times in logs may be off"
        return Finding("clock", "warn", what, mend, facts)
    return Finding("clock", "ok", "synchronised", facts=facts)


def disk(box: Box) -> Finding:
    """Is there room where something is written, and may this user write there?"""
    folders = {"cache": cache_folder(), "bundles": store_folder()}
    if box.profile.output.session:
        folders = {"sessions": box.profile.output.session_dir, **folders}
    free: dict[str, int] = {}
    bad: list[str] = []
    for name, folder in folders.items():
        # The part of the path that is there: the rest is made when it is needed.
        there = next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())
        try:
            box.probes.write_something(there)
            free[name] = box.probes.free_bytes(there) // 2**20
        except OSError as error:
            bad.append(f"{name} in {folder} cannot be written ({error.strerror or error})")
            continue
        if free[name] < LEAST_DISK_MB:
            bad.append(f"{name} in {folder} has {free[name]} MB left")
    what = ", ".join(f"{name} {mb} MB free" for name, mb in free.items())
    facts = {"free_mb": free, "folders": {name: str(folder) for name, folder in folders.items()}}
    if bad:
        mend = "free some space, mend the rights, or name other folders"
        return Finding("disk", "fail", "; ".join(bad), mend, facts)
    if min(free.values()) < LOW_DISK_MB:
        return Finding("disk", "warn", what, "free some space", facts)
    return Finding("disk", "ok", what, facts=facts)


def serial_ports(box: Box) -> Finding:
    """Which serial ports are there? None is no fault: no device is needed."""
    ports = box.probes.serial_nodes()
    what = " ".join(ports) or "none found (needed only for a serial device)"
    return Finding("serial ports", "ok", what, facts={"ports": ports})


def dashboard_port(box: Box) -> Finding:
    """Could the dashboard listen where the profile says, with its certificate and login?"""
    wanted = box.profile.dashboard
    if not wanted.enabled:
        return Finding("dashboard port", "ok", "no dashboard is wanted")
    if wanted.tls_certificate is not None:
        try:
            server_context(wanted.tls_certificate, wanted.tls_key)
        except UserError as error:
            mend = "mend dashboard.tls_certificate and dashboard.tls_key in the profile"
            return Finding("dashboard port", "fail", str(error), mend)
    try:
        box.probes.listen(wanted).close()
    except UserError as error:
        if box.probes.page_answers(wanted):
            what = f"a dashboard answers on port {wanted.port} already: fer-edge runs"
            return Finding("dashboard port", "ok", what)
        problem, _, mend = str(error).partition("; ")
        return Finding("dashboard port", "fail", problem, mend)
    what = (
        f"{wanted.host} port {wanted.port} is free{' for HTTPS' if wanted.tls_certificate else ''}"
    )
    through = f", behind the proxy {wanted.trusted_proxy}" if wanted.trusted_proxy else ""
    return Finding("dashboard port", "ok", what + through)


def machine(box: Box) -> Finding:
    """Memory, load and temperature."""
    probes = box.probes
    free_mb = probes.memory_free_bytes() // 2**20
    load, cores = probes.load(), probes.cores()
    temperatures = probes.temperatures()
    hottest = max(temperatures.values(), default=None)
    facts = {
        "memory_free_mb": free_mb, "load": round(load, 2), "cores": cores,
        "temperatures_c": temperatures,
    }  # fmt: skip
    warmth = "" if hottest is None else f", {hottest:.0f} °C"
    what = f"{free_mb} MB of memory free, load {load:.1f} on {cores} cores{warmth}"
    if free_mb < LOW_MEMORY_MB:
        return Finding("machine", "warn", what, "end other programs", facts)
    if hottest is not None and hottest >= HOT_C:
        return Finding("machine", "warn", what, "cool it: a hot processor slows down", facts)
    if load > 2 * cores:
        return Finding("machine", "warn", what, "other work slows the box: end it", facts)
    return Finding("machine", "ok", what, facts=facts)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


CHECKS: dict[str, Callable[[Box], Finding]] = {
    "camera": camera,
    "permissions": permissions,
    "detector": detector,
    "runtimes": runtimes,
    "model": model,
    "golden check": golden_check,
    "clock": clock,
    "disk": disk,
    "serial ports": serial_ports,
    "dashboard port": dashboard_port,
    "machine": machine,
}


def examine(box: Box, checks: dict[str, Callable[[Box], Finding]] = CHECKS) -> list[Finding]:
    """Every finding, in order. A check that breaks down is a finding too, and the others go on."""
    found: list[Finding] = []
    for name, check in checks.items():
        try:
            found.append(check(box))
        except UserError as error:
            problem, _, mend = str(error).rpartition("; ")
            found.append(Finding(name, "fail", problem or str(error), mend if problem else ""))
        except Exception as error:
            # Whatever breaks in one check must not hide what the others would say.
            what = f"the check itself failed: {_one_line(error)}"
            found.append(Finding(name, "fail", what, "report it: fer-edge doctor --bundle FILE"))
    return found
