"""`fer-quantize` as it is used: the real command on a tiny bundle.

A success costs seconds, most of it for importing NNCF, so all run in this process; what fails
early runs as the installed command. The emulator has its own tests (`test_portability.py`): here
there is none, which a check of portability reports.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from contract.bundle import Bundle, open_bundle
from contract.checksums import write_sums
from contract.manifest import read_manifest, write_manifest
from contract.metrics import fit_temperature
from quantize import cli
from quantize.calibration import divide, load_faces
from quantize.candidates import ONNX, OPENVINO
from quantize.portability import EMULATOR
from quantize.source import newest_float_bundle
from runtime.choose import choose
from runtime.session import Backend, open_session
from tests.models import make_float_bundle, make_images, rehash, tiny_graph

QUICK = ("--quick", "--no-speed")
COMMAND = shutil.which("fer-quantize", path=str(Path(sys.executable).parent))


def quantize(where: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    assert COMMAND is not None, "fer-quantize is not installed: pip install -e '.[quantize]'"
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=where,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two float bundles under runs/, and val.csv and calib.csv."""
    folder = tmp_path_factory.mktemp("project")
    make_float_bundle(folder / "runs/older/bundle", name="older", seed=1)
    os.utime(folder / "runs/older/bundle/bundle.json", (1e9, 1e9))
    texts = {"model_card.md": "# A card\n"}
    make_float_bundle(folder / "runs/study/newer/bundle", name="tiny", texts=texts)
    make_images(folder, per_class=40)
    make_images(folder, per_class=20, seed=5, split="calib")
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_emulator() -> Iterator[None]:
    found = shutil.which
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: None if name == EMULATOR else found(name))
        yield


@pytest.fixture(scope="module")
def made(project: Path) -> tuple[str, Bundle]:
    """What the command printed, and the bundle it made."""
    printed = io.StringIO()
    arguments = ["fer-quantize", "--calib", "val.csv", "--threads", "1", *QUICK]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(project)
        patch.setattr(sys, "argv", arguments)
        assert cli.run() == 0
    return printed.getvalue(), open_bundle(project / "bundles/tiny-int8")


def in_process(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *given: str
) -> str:
    """The command's one line of complaint; it must exit with 2."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["fer-quantize", *given])
    assert cli.run() == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "fer-quantize:" in line]
    assert len(lines) == 1
    return lines[0]


def test_the_bundle_holds_int8_first_and_float_last(
    project: Path, made: tuple[str, Bundle]
) -> None:
    printed, bundle = made
    source = open_bundle(project / "runs/study/newer/bundle")
    assert [(a.format, a.precision, a.file) for a in bundle.info.artifacts] == [
        ("openvino", "int8", "student_int8.xml"),
        ("onnx", "int8", "student_int8.onnx"),
        ("onnx", "fp16", "student.onnx"),
    ]
    assert bundle.info.name == "tiny-int8"
    assert bundle.info.golden == source.info.golden
    assert bundle.info.temperature == source.info.temperature
    assert bundle.info.input == source.info.input
    card = (bundle.folder / "model_card.md").read_text()
    assert card.startswith("# A card\n")
    made_from = bundle.info.provenance
    assert made_from.parent == source.sha256
    assert made_from.manifests["quantize"] == read_manifest(project / "val.csv").sha256
    assert bundle.info.metrics["val"] == source.info.metrics["val"]
    report = json.loads((bundle.folder / "report.json").read_text())
    assert made_from.detail["quantize"] == report
    assert report["gate"]["n"] + report["ranges"]["n"] == 280
    assert report["gate"]["rows_sha256"] != report["ranges"]["rows_sha256"]
    agreement = report["artifacts"][0]["gate"]["agreement"]
    for text in (card, (bundle.folder / "report.md").read_text()):
        assert f"{agreement:.2f}" in text
    assert (bundle.folder / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "agreement" in printed and "bundles/tiny-int8" in printed
    checked = {each["artifact"]: each for each in report["portability"]}
    assert set(checked) == {"student_int8.xml", "student_int8.onnx"}
    assert checked["student_int8.onnx"]["status"] == "skipped"
    why = checked["student_int8.onnx"]["detail"]
    assert "qemu-user-static" in why or "this CPU has no VNNI itself" in why


def test_the_reported_accuracy_is_that_of_the_files(
    project: Path, made: tuple[str, Bundle]
) -> None:
    _, bundle = made
    manifest = read_manifest(project / "val.csv")
    rows = divide(manifest.rows, 0).gate
    faces = load_faces(manifest, rows, bundle.info.input, "test")
    judged = bundle.info.provenance.detail["quantize"]["artifacts"]
    assert [each["backend"] for each in judged] == ["openvino", "onnxruntime"]
    for artifact, each in zip(bundle.info.artifacts, judged, strict=False):
        session = open_session(bundle, artifact, each["backend"], threads=1)
        predicted = session.run(faces).argmax(axis=1)
        session.close()
        accuracy = float(np.mean(predicted == manifest.labels()[list(rows)]))
        assert accuracy == pytest.approx(each["gate"]["int8"]["accuracy"])
        assert accuracy > 0.9
        assert each["gate"]["passed"]


def test_the_bundle_is_served_and_another_model_in_its_place_falls_back(
    made: tuple[str, Bundle], tmp_path: Path
) -> None:
    _, bundle = made
    chosen = choose(bundle, threads=1)
    chosen.session.close()
    assert not chosen.notes
    assert all(a.golden_error is not None for a in chosen.attempts if a.status != "unavailable")
    shutil.copytree(bundle.folder, tmp_path / "copy")
    # ONNX Runtime's tolerance is wider on a CPU without VNNI, so its stranger is a plainer one.
    for name, scale in (("near.onnx", 0.3), ("far.onnx", -1.0)):
        graph = tiny_graph(bundle.info.input, scale=scale)
        (tmp_path / name).write_bytes(graph.SerializeToString())
    another = ov.Core().read_model(tmp_path / "near.onnx")
    ov.save_model(another, tmp_path / "copy/student_int8.xml")
    shutil.copy(tmp_path / "far.onnx", tmp_path / "copy/student_int8.onnx")
    fallen_back = choose(rehash(tmp_path / "copy"), threads=1)
    fallen_back.session.close()
    assert fallen_back.artifact.precision == "fp16"
    assert any("student_int8.xml" in note and "golden" in note for note in fallen_back.notes)


def test_a_failed_gate_writes_nothing_and_says_which_bound(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = in_process(
        project, monkeypatch, capsys,
        "--calib", "val.csv", "--out", "bundles/refused", "--min-agreement", "100.5",
        *QUICK,
    )  # fmt: skip
    assert not (project / "bundles/refused").exists()
    assert "did not pass the gate" in line
    assert "beyond the bound of ≥ 100.50 % (--min-agreement)" in line


def test_temperature_served_is_of_all_calib_rows_and_the_one_judged_of_half(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    rows = read_manifest(project / "calib.csv").rows
    # Without a wrong row there is no finite temperature to fit.
    wrong = [replace(row, label="neutral") if n % 20 == 0 else row for n, row in enumerate(rows)]
    write_manifest(project / "noisy.csv", wrong)
    waived = [word for name in ("accuracy", "agreement", "macro-f1", "ece", "dp")
              for word in ("--allow", name)]  # fmt: skip
    cli.main(["--calib", "noisy.csv", "--out", "bundles/fitted", "--threads", "1", *QUICK, *waived])
    bundle = open_bundle(project / "bundles/fitted")
    confidences = bundle.info.provenance.detail["quantize"]["confidences"]
    assert "val only reports" not in confidences["temperature_from"]
    manifest = read_manifest(project / "noisy.csv")
    every = range(len(manifest.rows))
    faces, labels = load_faces(manifest, every, bundle.info.input, "test"), manifest.labels()
    logits = []
    backends: tuple[Backend, ...] = ("openvino", "onnxruntime")
    for artifact, backend in zip(bundle.info.artifacts, backends, strict=False):
        session = open_session(bundle, artifact, backend, threads=1)
        logits.append(session.run(faces))
        session.close()
    expected = fit_temperature(np.concatenate(logits), np.tile(labels, 2))
    assert bundle.info.temperature == pytest.approx(expected, rel=1e-3)
    assert bundle.info.temperature == confidences["temperature"]
    assert confidences["n"] == len(labels)
    # The gate judged what had not seen its rows.
    ranges = list(divide(manifest.rows, 0).ranges)
    held_out = fit_temperature(
        np.concatenate([each[ranges] for each in logits]), np.tile(labels[ranges], 2)
    )
    report = json.loads((project / "bundles/fitted/report.json").read_text())
    judged = [each["gate"]["int8"]["temperature"] for each in report["artifacts"]]
    assert judged == pytest.approx([held_out] * 2, rel=1e-3)
    assert held_out != pytest.approx(expected, rel=1e-3)


def test_every_candidate_is_tried_and_a_waiver_is_recorded(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny net is too small to gain by INT8, so its speed bound has to be waived."""
    monkeypatch.chdir(project)
    arguments = ["--calib", "val.csv", "--out", "bundles/slow", "--threads", "1"]
    assert cli.main([*arguments, "--allow", "speed", "--min-speed-up", "50"]) == 0
    report = json.loads((project / "bundles/slow/report.json").read_text())
    tried = [(each["backend"], each["name"]) for each in report["candidates"]]
    assert sorted(tried) == sorted((each.backend, each.name) for each in (*OPENVINO, *ONNX))
    for backend in ("openvino", "onnxruntime"):
        of_it = [each for each in report["candidates"] if each["backend"] == backend]
        assert sum(each["kept"] for each in of_it) == 1
        assert all(each["speed_up"] > 0 and each["reason"] for each in of_it)
    for each in report["artifacts"]:
        assert each["gate"]["waived"] == ["speed"]
    assert "waived" in capsys.readouterr().out


def test_an_unknown_bound_cannot_be_waived(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = in_process(project, monkeypatch, capsys, "--calib", "val.csv", "--allow", "sped")
    assert "did you mean 'speed'?" in line


def test_for_a_jetson_it_writes_symmetric_pairs_and_half_precision(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    arguments = ["--calib", "val.csv", "--out", "bundles/jetson", "--target", "jetson"]
    assert cli.main([*arguments, "--threads", "1"]) == 0
    bundle = open_bundle(project / "bundles/jetson")
    assert [(a.format, a.precision) for a in bundle.info.artifacts] == [
        ("onnx", "int8"), ("onnx", "fp16"),
    ]  # fmt: skip
    report = bundle.info.provenance.detail["quantize"]
    assert report["artifacts"][0]["gate"]["verdicts"][-1]["status"] == "not measured"


def test_an_int8_bundle_under_runs_is_passed_over(
    project: Path, made: tuple[str, Bundle], tmp_path: Path
) -> None:
    shutil.copytree(project / "runs/study/newer/bundle", tmp_path / "a/bundle")
    shutil.copytree(made[1].folder, tmp_path / "b/bundle")
    os.utime(tmp_path / "b/bundle/bundle.json", (4e9, 4e9))
    assert newest_float_bundle(tmp_path).folder == tmp_path / "a/bundle"


def test_a_teacher_is_passed_over(project: Path, tmp_path: Path) -> None:
    """It is trained for softlabels; the box gets the student."""
    for name in "ab":
        shutil.copytree(project / "runs/study/newer/bundle", tmp_path / name / "bundle")
    file = tmp_path / "b/bundle/bundle.json"
    content = json.loads(file.read_text())
    content["provenance"]["phase"] = "teacher_b3"
    file.write_text(json.dumps(content))
    write_sums(file.parent)
    os.utime(file, (4e9, 4e9))
    assert newest_float_bundle(tmp_path).folder == tmp_path / "a/bundle"


def test_no_float_bundle_under_runs(tmp_path: Path) -> None:
    make_images(tmp_path, per_class=1)
    done = quantize(tmp_path, "--calib", "val.csv")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no float bundle under runs/" in done.stderr
    assert "fer-trainer --phase student_ce" in done.stderr


def test_without_the_extra_it_says_what_to_install(project: Path, tmp_path: Path) -> None:
    (tmp_path / "nncf.py").write_text("raise ImportError('No module named nncf')")
    done = quantize(project, "--calib", "val.csv", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'fer-edge[quantize]'" in done.stderr


def test_wrong_rows_are_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(read_manifest(project / "val.csv").rows)
    write_manifest(project / "few.csv", rows[:50])
    write_manifest(project / "test.csv", [*rows[:9], replace(rows[9], split="test"), *rows[10:]])
    (project / "broken.png").write_bytes(b"no image")
    write_manifest(
        project / "unreadable.csv", [*rows[:4], replace(rows[4], path="broken.png"), *rows[5:]]
    )
    write_manifest(project / "absent.csv", [*rows[:4], replace(rows[4], path="x.png"), *rows[5:]])
    text = (project / "val.csv").read_text().replace("angry", "agnry", 1)
    (project / "label.csv").write_text(text)
    for file, expected in {
        "few.csv": "50 rows are too few",
        "test.csv": "test.csv: line 11: val/00009.png is a test row",
        "unreadable.csv": "unreadable.csv: line 6: broken.png cannot be read as an image",
        "absent.csv": "absent.csv: line 6: no image at x.png",
        "label.csv": "line 2: unknown label 'agnry', did you mean 'angry'?",
        "nowhere.csv": "no manifest at nowhere.csv",
    }.items():
        assert expected in in_process(project, monkeypatch, capsys, "--calib", file)


def test_wrong_bundles_and_places_are_one_line(
    project: Path,
    made: tuple[str, Bundle],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    newest = "runs/study/newer/bundle"
    for arguments, expected in (
        (("--model", "bundles/tiny-int8"), "is quantized already"),
        (("--model", "nowhere"), "no bundle at nowhere"),
        (("--out", newest), "is the float bundle itself"),
        (("--out", "val"), "val exists and is not a bundle"),
    ):
        line = in_process(project, monkeypatch, capsys, "--calib", "val.csv", *arguments)
        assert expected in line


def test_a_tampered_float_bundle_is_refused(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(project / "runs/study/newer/bundle", tmp_path / "bundle")
    file = tmp_path / "bundle/student.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    line = in_process(
        project, monkeypatch, capsys, "--calib", "val.csv", "--model", str(tmp_path / "bundle")
    )
    assert "student.onnx does not match its hash" in line


@pytest.mark.parametrize("arguments", [("--threads", "0"), ("--seed", "-1"), ("--seed", "x")])
def test_wrong_numbers_exit_with_2(
    arguments: tuple[str, str],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = in_process(project, monkeypatch, capsys, "--calib", "val.csv", *arguments)
    assert arguments[0] in line
