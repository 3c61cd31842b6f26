"""The doctor: every check can fail, says what and how to mend it, and hides nothing behind another.

The machine's answers are put into its mouth; the model and its golden check are real.
"""

import importlib
import json
import socket
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from contract.bundle import Bundle
from contract.errors import UserError
from contract.tls import server_context
from edge import doctor, support_bundle
from edge.cameras.base import Camera, CameraError, Clock
from edge.cli import main
from edge.doctor_checks import CHECKS, Box, Finding, examine
from edge.doctor_probes import Probes
from edge.masking import Mask
from edge.sinks.session_csv import HEADER
from firmware_config.profile import Profile, load_profile
from tests.certificates import OPENSSL, make_certificate
from tests.models import add_artifact, make_float_bundle, rehash, tiny_graph

SECOND = 1_000_000_000
IN_2026 = 1_780_000_000 * SECOND
PASSWORD, TOKEN = "hunter2-is-secret", "token-of-the-dashboard"


class Seen:
    """A camera that gives one grey frame, or what it is told to do instead."""

    live, name = True, "/dev/video0"

    def __init__(self, fault: Exception | None = None, empty: bool = False) -> None:
        self.fault, self.empty, self.closed = fault, empty, False

    def open(self) -> None:
        if self.fault:
            raise self.fault

    def read(self) -> Any:
        return None if self.empty else np.zeros((480, 640, 3), np.uint8)

    def close(self) -> None:
        self.closed = True


def stepping(*pairs: tuple[int, int]) -> Clock:
    """Clocks that show these (utc, mono) one after the other."""
    utc, mono = iter([u for u, _ in pairs]), iter([m for _, m in pairs])
    return Clock(mono_ns=lambda: next(mono), utc_ns=lambda: next(utc))


def giving(camera: Any) -> Callable[..., Camera]:
    return lambda source, **wanted: camera


@pytest.fixture
def profile(tiny: Bundle, tmp_path: Path, own_cache: Path) -> Profile:
    values = {"runtime.bundle": tiny.folder, "output.session_dir": tmp_path / "sessions"}
    return load_profile("default", {**values, "runtime.threads": 1})


@pytest.fixture
def healthy(profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    """A box without a fault."""
    file = tmp_path / "yunet.onnx"
    file.write_bytes(b"as pinned")
    monkeypatch.setattr("edge.doctor_checks.fault_of", lambda path: "")
    probes = Probes(
        video_nodes=lambda: [Path("/dev/video0")],
        serial_nodes=lambda: ["/dev/ttyACM0"],
        may_use=lambda node: True,
        groups=lambda: {"video", "dialout"},
        is_root=lambda: False,
        open_camera=giving(Seen()),
        find_yunet=lambda: file,
        clock=stepping((IN_2026, 5 * SECOND), (IN_2026 + SECOND, 6 * SECOND)),
        sleep=lambda seconds: None,
        ntp_synchronised=lambda: True,
        free_bytes=lambda folder: 8 << 30,
        listen=lambda page: socket.socket(),
        memory_free_bytes=lambda: 2 << 30,
        load=lambda: 0.5,
        cores=lambda: 2,
        temperatures=lambda: {"cpu 0": 51.0, "cpu 1": 62.0},
    )
    return Box(profile, probes)


def with_probes(box: Box, **answers: Any) -> Box:
    return replace(box, probes=replace(box.probes, **answers))


def with_profile(box: Box, **values: Any) -> Box:
    profile = box.profile
    for key, value in values.items():
        section, name = key.split("__")
        changed = getattr(profile, section).model_copy(update={name: value})
        profile = profile.model_copy(update={section: changed})
    return replace(box, profile=profile)


def test_a_healthy_box_has_nothing_to_mend(healthy: Box) -> None:
    found = examine(healthy)
    assert [f.check for f in found] == list(CHECKS)
    assert [(f.status, f.mend) for f in found] == [("ok", "")] * len(CHECKS), doctor.lines(found)
    by_name = {f.check: f.what for f in found}
    assert by_name["camera"] == "/dev/video0 gives frames of 640×480"
    assert "openvino 20" in by_name["runtimes"] and "onnxruntime 1" in by_name["runtimes"]
    assert by_name["golden check"].count(" on ") == 2
    assert by_name["serial ports"] == "/dev/ttyACM0"
    assert "62 °C" in by_name["machine"]
    assert all("\n" not in line for line in doctor.lines(found))


def refused(error: Exception) -> Callable[..., Any]:
    def answer(*_: object, **__: object) -> Any:
        raise error

    return answer


GONE = CameraError("/dev/video0 is not there: plug the camera in", gone=True)
BUSY = UserError("cannot listen on 127.0.0.1 port 8080: address already in use; name another")
FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("check", "answers", "status", "says", "mend"),
    [
        ("camera", {"open_camera": giving(Seen(GONE))}, "fail",
         "/dev/video0 is not there (there are: /dev/video0)", "plug the camera in"),
        ("camera", {"open_camera": giving(Seen(GONE)), "video_nodes": list}, "fail",
         "no camera is there at all", "plug the camera in"),
        ("camera", {"open_camera": giving(Seen(empty=True))}, "fail", "no frame", "--camera"),
        ("camera", {"open_camera": refused(UserError("camera cam: unknown; one of: demo"))},
         "fail", "camera cam: unknown", "demo"),
        ("permissions", {"may_use": lambda node: False}, "fail",
         "may not open /dev/video0 /dev/ttyACM0", "usermod -aG video,dialout $USER"),
        ("permissions", {"may_use": lambda node: node.name == "video0"}, "warn",
         "may not open /dev/ttyACM0", "usermod -aG dialout $USER"),
        ("permissions", {"groups": lambda: {"video"}}, "warn", "dialout", "usermod"),
        ("detector", {"find_yunet": lambda: None}, "warn", "Haar cascade stands in", "fetch"),
        ("runtimes", {"import_module": refused(ImportError("libx.so: gone"))}, "fail",
         "openvino does not import: ImportError: libx.so: gone", "pip install"),
        ("clock", {"clock": stepping((0, 0), (SECOND, SECOND))}, "fail", "the year 1970", "ntp"),
        ("clock", {"clock": stepping((IN_2026, 0), (IN_2026 + 9 * SECOND, SECOND))}, "warn",
         "set by +8.00 s", "again"),
        ("clock", {"ntp_synchronised": lambda: False}, "warn", "is not synchronised", "set-ntp"),
        ("clock", {"ntp_synchronised": lambda: None}, "warn", "may not be", "set-ntp"),
        ("disk", {"write_something": refused(FULL)}, "fail", "No space left", "free some space"),
        ("disk", {"free_bytes": lambda folder: 10 << 20}, "fail", "has 10 MB left", "free"),
        ("disk", {"free_bytes": lambda folder: 300 << 20}, "warn", "sessions 300 MB", "free"),
        ("dashboard port", {"listen": refused(BUSY), "page_answers": lambda *_: False}, "fail",
         "port 8080: address already in use", "name another"),
        ("machine", {"memory_free_bytes": lambda: 100 << 20}, "warn", "100 MB", "programs"),
        ("machine", {"temperatures": lambda: {"soc 0": 91.0}}, "warn", "91 °C", "cool"),
        ("machine", {"load": lambda: 9.0}, "warn", "load 9.0 on 2 cores", "other work"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_fault_is_told_with_its_mend_and_the_others_are_not_touched(
    healthy: Box, check: str, answers: dict[str, Any], status: str, says: str, mend: str
) -> None:
    (found,) = examine(with_probes(healthy, **answers), {check: CHECKS[check]})
    assert (found.check, found.status) == (check, status)
    assert says in found.what and mend in found.mend, found


def test_a_check_that_breaks_down_is_a_finding_and_the_others_go_on(healthy: Box) -> None:
    found = examine(with_probes(healthy, load=refused(ZeroDivisionError("no\nload"))))
    assert [f.check for f in found] == list(CHECKS)
    broken = found[-1]
    assert (broken.check, broken.status) == ("machine", "fail")
    assert broken.what == "the check itself failed: ZeroDivisionError: no load"
    assert {f.status for f in found[:-1]} == {"ok"}


def test_a_camera_that_never_answers_is_not_waited_for(
    healthy: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    stuck = Seen()
    stuck.open = lambda: release.wait(30) and None  # type: ignore[method-assign,assignment]
    monkeypatch.setattr("edge.doctor_checks.CAMERA_WAIT_S", 0.05)
    box = with_probes(healthy, open_camera=giving(stuck))
    (found,) = examine(box, {"camera": CHECKS["camera"]})
    release.set()
    assert (found.status, "does not answer" in found.what) == ("fail", True)


def test_a_demanded_yunet_that_is_another_file_fails(
    healthy: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    box = with_profile(healthy, detector__kind="yunet")
    (found,) = examine(box, {"detector": CHECKS["detector"]})
    assert found.status == "fail" and "is not the pinned YuNet" in found.what
    (found,) = examine(with_profile(box, detector__kind="haar"), {"": CHECKS["detector"]})
    assert found.status == "ok"


def test_one_runtime_of_two_is_a_warning_unless_it_is_the_wanted_one(healthy: Box) -> None:
    def only_onnx(name: str) -> object:
        if name == "openvino":
            raise ImportError("no such module")
        return importlib.import_module(name)

    box = with_probes(healthy, import_module=only_onnx)
    assert examine(box, {"": CHECKS["runtimes"]})[0].status == "warn"
    box = with_profile(box, runtime__backend="openvino")
    assert examine(box, {"": CHECKS["runtimes"]})[0].status == "fail"


def test_a_damaged_bundle_fails_by_the_name_of_its_file(healthy: Box, tmp_path: Path) -> None:
    bundle = make_float_bundle(tmp_path / "own" / "bundle")
    file = bundle.folder / "student.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    found = examine(with_profile(healthy, runtime__bundle=bundle.folder))
    by_name = {f.check: f for f in found}
    assert by_name["model"].status == by_name["golden check"].status == "fail"
    assert "student.onnx" in by_name["model"].what and by_name["model"].mend
    assert by_name["machine"].status == "ok"


def test_an_artifact_that_answers_otherwise_is_named(healthy: Box, tmp_path: Path) -> None:
    bundle = make_float_bundle(tmp_path / "own" / "bundle")
    other = tiny_graph(bundle.info.input, seed=0, scale=0.1)
    bundle = add_artifact(bundle, other, "student_int8.onnx", "int8")
    box = with_profile(healthy, runtime__bundle=bundle.folder)
    (found,) = examine(box, {"": CHECKS["golden check"]})
    assert found.status == "warn" and found.what.startswith("2 of 4 pass; student_int8.onnx on")
    for file in bundle.folder.glob("*.onnx"):
        file.write_bytes(other.SerializeToString())
    rehash(bundle.folder)
    (found,) = examine(box, {"": CHECKS["golden check"]})
    assert found.status == "fail" and "is above" in found.what


def test_a_dashboard_that_runs_already_is_no_fault(healthy: Box) -> None:
    box = with_probes(healthy, listen=refused(BUSY), page_answers=lambda page: page.port == 8080)
    (found,) = examine(box, {"": CHECKS["dashboard port"]})
    assert found.status == "ok" and "fer-edge runs" in found.what


class Silent(BaseHTTPRequestHandler):
    """A dashboard whose box is silent."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b'{"alive": false}')

    def log_message(self, *_: object) -> None:
        """Nothing is to be told."""


@pytest.mark.parametrize(
    "encrypted",
    [
        False,
        pytest.param(
            True, marks=pytest.mark.skipif(OPENSSL is None, reason="needs openssl to make one")
        ),
    ],
)
def test_a_dashboard_that_runs_with_a_silent_box_is_known_too(
    healthy: Box, tmp_path: Path, encrypted: bool
) -> None:
    with HTTPServer(("127.0.0.1", 0), Silent) as server:
        page: dict[str, Any] = {"dashboard__port": server.server_port}
        if encrypted:
            certificate, key = make_certificate(tmp_path, "box")
            page |= {"dashboard__tls_certificate": certificate, "dashboard__tls_key": key}
            context = server_context(certificate, key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        box = with_profile(replace(healthy, probes=Probes()), **page)
        (found,) = examine(box, {"": CHECKS["dashboard port"]})
        server.shutdown()
    assert (found.status, "fer-edge runs" in found.what) == ("ok", True), found


def test_a_page_that_would_be_refused_for_its_certificate_or_proxy_says_so(
    healthy: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FER_DASHBOARD_TOKEN", raising=False)
    really = replace(healthy, probes=Probes())
    none = with_profile(really, dashboard__tls_certificate=tmp_path / "none.pem")
    (found,) = examine(none, {"": CHECKS["dashboard port"]})
    assert (found.status, "none.pem" in found.what) == ("fail", True)
    assert "dashboard.tls_certificate" in found.mend
    behind = with_profile(really, dashboard__trusted_proxy="127.0.0.1", dashboard__port=0)
    (found,) = examine(behind, {"": CHECKS["dashboard port"]})
    assert (found.status, "proxy 127.0.0.1" in found.what) == ("fail", True)
    assert found.mend.startswith("set FER_DASHBOARD_TOKEN")
    monkeypatch.setenv("FER_DASHBOARD_TOKEN", TOKEN)
    (found,) = examine(behind, {"": CHECKS["dashboard port"]})
    assert (found.status, "behind the proxy" in found.what) == ("ok", True)


def test_the_port_is_really_tried(healthy: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        box = with_profile(
            replace(healthy, probes=Probes(page_answers=lambda *_: False)), dashboard__port=port
        )
        (found,) = examine(box, {"": CHECKS["dashboard port"]})
        assert (found.status, str(port) in found.what) == ("fail", True)
    assert examine(box, {"": CHECKS["dashboard port"]})[0].status == "ok"


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_the_exit_code_and_the_json(
    status: Any, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Finding("camera", status, f"rtsp://u:{PASSWORD}@cam/1 says no", "mend it")
    monkeypatch.setattr(doctor, "examine", lambda box: [found])
    assert main(["doctor"]) == code
    line = capsys.readouterr().out
    assert line == f"{status:4}  camera          rtsp://cam/1 says no; mend: mend it\n"
    assert main(["doctor", "--json"]) == code
    shown = json.loads(capsys.readouterr().out)
    assert shown["fit"] is (code == 0)
    assert shown["findings"][0]["what"] == "rtsp://cam/1 says no"


def pictures() -> list[bytes]:
    """A picture in the forms that one might be kept in."""
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return [cv2.imencode(form, image)[1].tobytes() for form in (".jpg", ".png", ".bmp", ".webp")]


def test_the_archive_for_support_holds_no_secret_and_no_image(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = profile.output.session_dir
    sessions.mkdir()
    header = {"version": 1, "camera": f"rtsp://u:{PASSWORD}@cam/1", "token": TOKEN, "n": 7}
    (sessions / "a.csv").write_text(f"{HEADER}{json.dumps(header)}\n1,2,3,ROW\n")
    for number, picture in enumerate(pictures()):
        (sessions / f"picture{number}.csv").write_bytes(picture)
        (sessions / f"picture{number}.jpg").write_bytes(picture)
    source = f"rtsp://admin:{PASSWORD}@cam/1"
    profile = with_profile(Box(profile), camera__source=source).profile
    mask = Mask([TOKEN, PASSWORD])
    findings = doctor.report([Finding("camera", "fail", f"{source} with {TOKEN}", facts={"a": 1})])
    journal = [f"opened {source}", f"Bearer {TOKEN}", "all is well"]
    file = tmp_path / "support.tar.gz"
    names = support_bundle.pack(file, findings, profile, mask, lambda: journal)

    with tarfile.open(file) as archive:
        members = archive.getmembers()
        texts = {
            Path(m.name).name: archive.extractfile(m).read()  # type: ignore[union-attr]
            for m in members
        }
    assert list(texts) == names == [
        "doctor.json", "versions.json", "profile.json", "sessions.json", "log.txt",
    ]  # fmt: skip
    assert all(m.isfile() for m in members)
    everything = b"".join(texts.values())
    for secret in (PASSWORD.encode(), TOKEN.encode(), b"ROW"):
        assert secret not in everything
    for magic in (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"RIFF", b"GIF8", b"AVI "):
        assert magic not in everything.replace(b"IBM", b"")
    everything.decode()  # nothing but text
    assert json.loads(texts["profile.json"])["camera"]["source"] == "rtsp://cam/1"
    assert json.loads(texts["sessions.json"])["a.csv"] == {
        "version": 1, "camera": "rtsp://cam/1", "token": "…", "n": 7,
    }  # fmt: skip
    assert texts["log.txt"].decode().splitlines() == [
        "opened rtsp://cam/1",
        "Bearer …",
        "all is well",
    ]
    assert "numpy" in json.loads(texts["versions.json"])["packages"]


def test_the_command_packs_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda box: [Finding("disk", "ok", "room")])
    monkeypatch.setenv("FER_DASHBOARD_TOKEN", TOKEN)
    file = tmp_path / "here.tar.gz"
    camera = f"rtsp://u:{PASSWORD}@cam/{TOKEN}"
    assert main(["doctor", "--camera", camera, "--bundle", str(file)]) == 0
    assert f"packed for support: {file}" in capsys.readouterr().out
    with tarfile.open(file) as archive:
        text = b"".join(archive.extractfile(m).read() for m in archive)  # type: ignore[union-attr]
    assert PASSWORD.encode() not in text and TOKEN.encode() not in text
    with pytest.raises(UserError, match=r"ends in \.tar\.gz"):
        main(["doctor", "--bundle", str(tmp_path / "here.zip")])
