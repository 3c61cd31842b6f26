"""`fer-trainer inspect`: where a model comes from, for people and for programs."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.command import run_command
from contract.faces import FaceInput
from contract.files import sha256_file
from contract.manifest import read_manifest
from contract.provenance import commit_of_this_project
from trainer.backbones import build
from trainer.checkpoint import save_weights
from trainer.cli import main
from trainer.config import ArcFaceConfig, DistillConfig, ModelConfig, TrainConfig
from trainer.predictions import load_predictions


def inspect(path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fer-trainer", "inspect", str(path), *flags])
        code = run_command("fer-trainer", main)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    code, out, _ = inspect(path, capsys, "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_run_says_where_it_comes_from(
    finished: Path, phase_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json(finished, capsys)
    weights = finished / "checkpoints/best.safetensors"
    history = [json.loads(line) for line in (finished / "history.jsonl").read_text().splitlines()]
    best = min(history, key=lambda line: line["calib_nll_scaled"])
    assert (found["phase"], found["seed"], found["finished"]) == ("tiny", 1337, True)
    assert (found["epoch"], found["epochs_done"]) == (best["epoch"] + 1, 4)
    assert found["commit"].removesuffix("-dirty") == commit_of_this_project().removesuffix("-dirty")
    assert found["manifest_sha256"] == read_manifest(phase_file.parent / "manifest.csv").sha256
    assert (found["sha256"], found["size_bytes"]) == (sha256_file(weights), weights.stat().st_size)
    assert found["temperature"] == load_predictions(finished / "predictions.npz").temperature
    assert found["settings"]["network"] == "test_resnet"
    assert found["settings"]["batch"] == 32  # 16 twice
    assert TrainConfig.model_validate(found["config"]).optim.epochs == 4


def test_a_checkpoint_names_its_parents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    face = FaceInput(size=32)
    model = ModelConfig(backbone="test_resnet", arcface=ArcFaceConfig(margin=0.3))
    config = TrainConfig(
        phase="student_dkd", seed=7, input=face, model=model,
        distill=DistillConfig(method="dkd", beta=2.0),
    )  # fmt: skip
    network = build(model, face, [0.0], [1.0])
    about = {
        "epoch": "9", "commit": "c0ffee", "phase": "student_dkd", "seed": "7",
        "manifest_sha256": "aa" * 32, "start_sha256": "bb" * 32, "softlabels_sha256": "cc" * 32,
        "config": config.model_dump_json(),
    }  # fmt: skip
    file = tmp_path / "w.safetensors"
    save_weights(file, network, about)
    found = as_json(file, capsys)
    for name in ("commit", "manifest_sha256", "start_sha256", "softlabels_sha256"):
        assert found[name] == about[name]
    assert (found["epoch"], found["seed"], found["phase"]) == (10, 7, "student_dkd")
    shapes = [value.shape for value in network.state_dict().values()]
    # Normalisation and running statistics are stored too, but are no parameters.
    stored = sum(torch.Size(shape).numel() for shape in shapes)
    assert found["parameters"] == sum(p.numel() for p in network.parameters()) < stored
    assert found["settings"]["arcface"] == {"margin": 0.3, "scale": 30.0}
    assert found["settings"]["distill"] == {
        "method": "dkd", "temperature": 2.0, "alpha": 0.5, "beta": 2.0,
    }  # fmt: skip


def test_a_bundle_lists_its_artifacts(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(finished / "bundle", capsys)
    of_run = as_json(finished, capsys)
    for name in ("phase", "seed", "epoch", "commit", "temperature"):
        assert found[name] == of_run[name], name
    assert found["manifests"] == {"train": of_run["manifest_sha256"]}
    (artifact,) = found["artifacts"]
    file = finished / "bundle" / artifact["file"]
    assert artifact["sha256"] == sha256_file(file)
    assert artifact["size_bytes"] == file.stat().st_size
    assert found["sha256"] == sha256_file(finished / "bundle/bundle.json")
    assert found["metrics"]["val"]["n"] == 70


@pytest.mark.parametrize("part", [".", "checkpoints/best.safetensors", "bundle"])
def test_people_get_lines_without_the_long_parts(
    finished: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = inspect(finished / part, capsys)
    assert code == 0
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (lines["phase"], lines["seed"]) == ("tiny", "1337")
    assert len(lines["sha256"]) == 64
    assert "augment" not in out
    assert len(out.splitlines()) < 25


def test_an_unfinished_run_says_so(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "predictions.npz").unlink()
    found = as_json(copied, capsys)
    assert found["finished"] is False
    assert "temperature" not in found


def test_what_is_no_model_is_one_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.safetensors").write_text("not weights")
    shutil.copytree(finished / "bundle", tmp_path / "bundle")
    (tmp_path / "bundle/student.onnx").write_bytes(b"tampered")
    cases = {
        tmp_path / "nowhere": "no such run folder, checkpoint file or bundle folder",
        tmp_path: "no checkpoint at",
        tmp_path / "text.safetensors": "not a readable checkpoint",
        tmp_path / "bundle": "does not match its hash",
        finished / "checkpoints/last.safetensors": "does not say how it was configured",
    }
    for path, message in cases.items():
        code, out, err = inspect(path, capsys)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        assert message in line
