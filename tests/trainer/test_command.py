"""`fer-trainer`: what it says to a mistake, and what a run folder holds."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.bundle import open_bundle
from contract.command import run_command
from contract.manifest import read_manifest
from tests.trainer.data_sets import HAPPY, SAD, Photo, ferplus
from tests.trainer.tiny import make_manifest, make_phase
from trainer.cli import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fer_trainer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fer-trainer", *map(str, arguments)])
        capsys.readouterr()
        code = run_command("fer-trainer", main)
        return code, *capsys.readouterr()

    return call


def one_line(outcome: tuple[int, str, str]) -> str:
    """The complaint of a call that must have ended in one line and exit code 2."""
    code, _, error = outcome
    assert code == 2
    line = error.splitlines()[-1]
    assert line.startswith("fer-trainer: ")
    assert "Traceback" not in error
    assert error.count("\n") == 1
    return line


def test_a_mistake_is_one_line_and_exit_code_2_in_a_real_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "--phase", "student_c"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fer-trainer: --phase student_c: no such phase, did you mean")
    assert done.stderr.count("\n") == 1


def test_mistakes_before_any_work(fer_trainer: Command, phase_file: Path) -> None:
    phase = ("--phase", phase_file)
    said = {
        "--seed": fer_trainer(*phase, "--seed", "x"),
        "--phase": fer_trainer(),
        "unknown key 'optim.epoch', did you mean 'epochs'": fer_trainer(
            *phase, "--set", "optim.epoch=3"
        ),
        "optim.epochs: input should be greater than or equal to 1": fer_trainer(
            *phase, "--epochs", 0
        ),
        "no manifest at ": fer_trainer(*phase, "--manifest", "absent.csv"),
        "device 'tpu': use auto, cpu, cuda or cuda:N": fer_trainer(
            *phase, "--device", "tpu", "--name", "a"
        ),
        "timm has no 'test_resnt', did you mean 'test_resnet'?": fer_trainer(
            *phase, "--set", "model.backbone=test_resnt", "--name", "b"
        ),
        "fer-trainer ensembel: no such command, did you mean 'ensemble'?": fer_trainer("ensembel"),
    }
    for message, outcome in said.items():
        assert message in one_line(outcome)


def test_a_manifest_without_calib_is_refused(fer_trainer: Command, tmp_path: Path) -> None:
    make_manifest(tmp_path, {"train": 40})
    line = one_line(fer_trainer("--phase", make_phase(tmp_path)))
    assert "manifest.csv: no rows of split 'calib'" in line


def test_a_finished_run_is_not_run_again(
    fer_trainer: Command, copied: Path, phase_file: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()}
    arguments = ("--phase", phase_file, "--out", copied.parent, "--name", "whole")
    code, out, _ = fer_trainer(*arguments)
    assert (code, out) == (0, f"{copied} is complete: {copied / 'bundle'}\n")
    assert before == {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()}


def test_a_run_killed_between_training_and_export_is_exported(
    fer_trainer: Command, copied: Path, finished: Path, phase_file: Path
) -> None:
    for file in sorted((copied / "bundle").iterdir()):
        file.unlink()
    (copied / "bundle").rmdir()
    code, out, _ = fer_trainer("--phase", phase_file, "--out", copied.parent, "--name", "whole")
    assert code == 0
    assert out.endswith(f"float bundle: {copied / 'bundle'}\n")
    for key in ("metrics", "golden", "temperature"):
        found, expected = (
            json.loads((run / "bundle/bundle.json").read_text())[key] for run in (copied, finished)
        )
        assert found == expected


def test_the_best_epoch_of_an_unfinished_run_can_be_exported(
    fer_trainer: Command, copied: Path, finished: Path, phase_file: Path
) -> None:
    """Beside the place of the final bundle, so that training may go on later."""
    (copied / "bundle/bundle.json").unlink()
    arguments = ("--phase", phase_file, "--out", copied.parent, "--export-best")
    code, out, _ = fer_trainer(*arguments, "--name", "whole")
    losses = [json.loads(line)["calib_nll_scaled"] for line in (copied / "history.jsonl").open()]
    made = copied / f"whole-epoch{losses.index(min(losses)) + 1}/bundle"
    assert (code, out) == (0, f"float bundle: {made}\n")
    assert open_bundle(made).info.metrics == open_bundle(finished / "bundle").info.metrics
    assert not (copied / "bundle/bundle.json").exists()

    line = one_line(fer_trainer(*arguments, "--name", "fresh"))
    assert f"{copied.parent / 'fresh'} has finished no epoch yet; train it first" in line


def test_a_run_is_not_continued_with_other_settings(
    fer_trainer: Command, copied: Path, phase_file: Path
) -> None:
    arguments = ("--phase", phase_file, "--out", copied.parent, "--name", "whole")
    line = one_line(fer_trainer(*arguments, "--epochs", 9, "--seed", 2))
    assert f"{copied} holds a run with another optim, seed; start a new one with --name" in line

    # Where and how patiently it runs is no setting of the model.
    assert fer_trainer(*arguments, "--device", "cpu", "--set", "checkpoint_every_s=9")[0] == 0

    make_manifest(copied.parent, {"train": 42, "calib": 7})
    line = one_line(fer_trainer(*arguments, "--manifest", copied.parent / "manifest.csv"))
    assert "another manifest, manifest_sha256" in line


def test_a_damaged_checkpoint_is_named(
    fer_trainer: Command, copied: Path, phase_file: Path
) -> None:
    (copied / "bundle/bundle.json").unlink()
    (copied / "checkpoints/last.safetensors").write_bytes(b"damaged")
    line = one_line(fer_trainer("--phase", phase_file, "--out", copied.parent, "--name", "whole"))
    assert "last.safetensors: not a readable checkpoint" in line


def test_the_run_folder_says_what_was_run_and_with_what(finished: Path) -> None:
    config = json.loads((finished / "config.json").read_text())
    assert (config["phase"], config["seed"], config["optim"]["epochs"]) == ("tiny", 1337, 4)
    assert config["augment"]["flip"] == 0.5  # defaults too
    environment = json.loads((finished / "environment.json").read_text())
    assert set(environment["packages"]) >= {"torch", "timm", "numpy"}
    assert len((finished / "history.jsonl").read_text().splitlines()) == 4


def test_data_import_writes_manifests_and_says_what_it_dropped(
    fer_trainer: Command, tmp_path: Path
) -> None:
    photos = [Photo("Training", f"{n}.png", (HAPPY, SAD)[n % 2], n) for n in range(40)]
    photos += [Photo("PublicTest", "v.png", SAD, 3)]
    source = ferplus(tmp_path / "source", photos, ["5.png"])
    code, out, _ = fer_trainer("data", "import", "ferplus", source, "--out", tmp_path / "out")
    assert code == 0
    assert "argmax: calib 4  train 34  val 1\n" in out
    assert "  dropped 1: training image with a twin in test\n" in out
    assert "  dropped 1: training copy of a val or test image\n" in out
    for protocol in ("argmax", "strict"):
        assert len(read_manifest(tmp_path / "out" / protocol / "manifest.csv").rows) == 39


def test_data_import_of_what_is_not_there(fer_trainer: Command, tmp_path: Path) -> None:
    absent = fer_trainer("data", "import", "ferplus", tmp_path / "absent")
    assert "absent is not a folder; name the one that holds the data set" in one_line(absent)
    empty = fer_trainer("data", "import", "muxspace", tmp_path, "--out", tmp_path / "out")
    assert "legend.csv is missing" in one_line(empty)
    assert "invalid choice: 'fer'" in one_line(fer_trainer("data", "import", "fer", tmp_path))
