"""What a user may get wrong, given to the real commands: one line that mends it, and nothing done.

The line is the last on stderr; before it may stand what a normal start logs.
"""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from contract.bundle import Bundle
from tests.models import make_float_bundle
from tests.system.commands import fer_edge


def files_under(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def complaint(tmp_path: Path, cache: Path) -> Callable[..., str]:
    """Runs a command that must refuse what it is given; the line it says so with."""

    def run(*arguments: object, command: str = "fer-edge", **variables: str) -> str:
        before = files_under(tmp_path)
        done = fer_edge(*arguments, command=command, cache=cache, cwd=tmp_path, **variables)
        assert done.returncode == 2, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        lines = done.stderr.splitlines()
        assert sum(line.startswith(f"{command}: ") for line in lines) == 1
        assert lines[-1].startswith(f"{command}: ")
        assert files_under(tmp_path) == before, "it must not leave anything behind"
        return lines[-1].removeprefix(f"{command}: ")

    return run


@pytest.fixture
def edge(complaint: Callable[..., str], tiny: Bundle) -> Callable[..., str]:
    """`complaint` of a live run with a good bundle and without a page."""
    return lambda *more: complaint("--no-dashboard", "--model", tiny.folder, *more)


def test_a_camera_file_that_is_not_there(edge: Callable[..., str], tmp_path: Path) -> None:
    assert "no camera file at missing.mkv" in edge("--camera", "missing.mkv")
    assert "did you mean 'demo'" in edge("--camera", "dmeo")


def test_a_camera_file_that_is_no_video(edge: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "notes.mkv").write_text("this is not a video")
    told = edge("--camera", "notes.mkv")
    assert "notes.mkv cannot be opened" in told and "damaged or no video" in told


def test_a_folder_whose_image_cannot_be_decoded(edge: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    assert "holds no image" in edge("--camera", "shots")
    good = cv2.imencode(".png", np.zeros((48, 48, 3), np.uint8))[1].tobytes()
    (folder / "1.png").write_bytes(good[:40])
    assert f"image {Path('shots/1.png')} cannot be decoded" in edge("--camera", "shots")
    (folder / "clip.mkv").touch()
    assert "holds both images" in edge("--camera", "shots")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read(edge: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "shots"
    folder.mkdir(mode=0)
    assert "permission" in edge("--camera", "shots")
    folder.chmod(0o700)


def test_an_image_that_turns_out_to_be_damaged_ends_the_run_with_its_name(
    tmp_path: Path, cache: Path, tiny: Bundle
) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    good = cv2.imencode(".png", np.zeros((96, 96, 3), np.uint8))[1].tobytes()
    (folder / "1.png").write_bytes(good)
    (folder / "2.png").write_bytes(good[:40])
    done = fer_edge(
        "--camera", "shots", "--no-dashboard", "--no-session", "--model", tiny.folder,
        cache=cache, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "first result" in done.stderr, "the images before it are shown"
    assert done.stderr.splitlines()[-1].startswith("fer-edge: image shots/2.png cannot be decoded")


@pytest.mark.parametrize(
    ("scheme", "says"),
    [("rtps://cam:secret@host/1", "did you mean 'rtsp"), ("rtsp://", "names no host")],
)
def test_a_camera_address_that_cannot_be_meant(
    edge: Callable[..., str], scheme: str, says: str
) -> None:
    told = edge("--camera", scheme)
    assert says in told and "secret" not in told


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("val/00003.png,hapy,val,x", "unknown label 'hapy', did you mean 'happy'?"),
        ("val/00003.png,happy,vall,x", "unknown split 'vall', did you mean 'val'?"),
        ("val/none.png,happy,val,x", "no image at "),
        ("val/00003.png,happy", "the number of fields differs"),
    ],
    ids=["label", "split", "file", "fields"],
)
def test_a_wrong_row_of_a_manifest(
    line: str, says: str, complaint: Callable[..., str], manifest: Path, tiny: Bundle
) -> None:
    rows = manifest.read_text().splitlines()
    rows[4] = line
    manifest.write_text("\n".join(rows) + "\n")
    evaluate = ("evaluate", "--manifest", manifest, "--json", "out.json")
    told = complaint(*evaluate, "--model", tiny.folder)
    assert f"{manifest}: line 5: " in told and says in told


def test_a_wrong_row_stops_the_quantizer_too(
    complaint: Callable[..., str], manifest: Path, tiny: Bundle
) -> None:
    manifest.write_text(manifest.read_text().replace("00003.png", "none.png"))
    calibrate = ("--calib", manifest, "--model", tiny.folder, "--out", "int8")
    told = complaint(*calibrate, command="fer-quantize")
    assert f"{manifest}: line 5: no image at " in told


def test_a_manifest_that_is_not_there_or_is_none(
    complaint: Callable[..., str], tmp_path: Path
) -> None:
    def told(name: str) -> str:
        return complaint("evaluate", "--manifest", name, "--json", "out.json")

    assert "no manifest at none.csv" in told("none.csv")
    (tmp_path / "odd.csv").write_text("file,emotion\na.png,happy\n")
    assert "odd.csv: line 1: column 'path' is missing" in told("odd.csv")
    (tmp_path / "empty.csv").write_text("path,label,split,source\n")
    assert "no rows" in told("empty.csv")


def test_a_bundle_that_was_tampered_with(complaint: Callable[..., str], tmp_path: Path) -> None:
    folder = make_float_bundle(tmp_path / "bundle").folder
    model = folder / "student.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    told = complaint("--camera", "demo", "--no-dashboard", "--model", folder)
    assert f"{model} does not match its hash" in told
    model.unlink()
    told = complaint("--camera", "demo", "--no-dashboard", "--model", folder)
    assert f"{model} is missing" in told


def test_a_folder_that_is_no_bundle(complaint: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    for name in ("bundle", "nowhere"):
        told = complaint("--camera", "demo", "--no-dashboard", "--model", name)
        assert told == (
            f"no bundle at {name}: it has no bundle.json; "
            "name one that fer-trainer or fer-quantize wrote"
        )
    (tmp_path / "bundle" / "bundle.json").write_text("{")
    told = complaint("--camera", "demo", "--no-dashboard", "--model", "bundle")
    assert "SHA256SUMS is missing from the bundle" in told


def test_a_key_of_the_profile_that_is_not_known(
    complaint: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "box.toml").write_text("[smoothing]\ntau = 0.3\n")
    told = complaint("--camera", "demo", "--profile", "box.toml")
    assert told == "box.toml: unknown key 'smoothing.tau', did you mean 'tau_s'?"


def test_a_port_in_use_and_a_page_open_to_everyone(
    complaint: Callable[..., str], tiny: Bundle
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = complaint("--camera", "demo", "--model", tiny.folder, "--port", port)
    assert f"port {port}: address already in use" in told and "--no-dashboard" in told
    told = complaint("--camera", "demo", "--model", tiny.folder, "--host", "0.0.0.0", "--port", 0)
    assert "set FER_DASHBOARD_TOKEN" in told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--camra", "demo"], "unrecognized arguments: --camra"),
        (["evalute"], "did you mean 'evaluate'?"),
        (["--camera"], "--camera: expected one argument"),
        (["--threads", "many"], "invalid int value: 'many'"),
        (["evaluate", "--manifest", "m.csv"], "--json"),
        (["evaluate", "--manifest", "m.csv", "--json", "/dev/null/out.json"], "cannot be written"),
        (["bench", "--camera", "demo", "--json", "out.json", "--frames", "0"], "--frames 0"),
    ],
    ids=" ".join,
)
def test_a_flag_that_cannot_be_meant(
    complaint: Callable[..., str], arguments: list[str], says: str
) -> None:
    assert says in complaint(*arguments)


def test_a_session_folder_that_cannot_be_made(edge: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "shots").mkdir()
    cv2.imwrite(str(tmp_path / "shots" / "1.png"), np.zeros((48, 48, 3), np.uint8))
    told = edge("--camera", "shots", "--session-dir", "taken")
    assert "session log taken/" in told and "--session-dir" in told


def test_a_detector_that_is_demanded_and_not_there(
    complaint: Callable[..., str], tmp_path: Path, tiny: Bundle, face_image: Path
) -> None:
    (tmp_path / "models").mkdir()
    told = complaint(
        "--camera", face_image, "--no-dashboard", "--model", tiny.folder, "--detector", "yunet",
        FER_MODELS=str(tmp_path / "models"),
    )  # fmt: skip
    assert "detector yunet: no face_detection_yunet" in told and str(tmp_path / "models") in told
