"""`fer-trainer evaluate`: runs, checkpoints and bundles, fitted on one split, judged on another."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from contract.bundle import BUNDLE_FILE, Bundle, open_bundle
from contract.checksums import write_sums
from contract.command import run_command
from contract.expressions import EXPRESSIONS
from contract.faces import prepare_face, read_image
from contract.manifest import Row, read_manifest, write_manifest
from contract.metrics import fit_temperature, softmax
from tests.models import add_artifact, grating, make_float_bundle, reference_logits, tiny_graph
from trainer.cli import main
from trainer.predictions import load_predictions
from trainer.reliability import fit

SIZE = 32


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are tested elsewhere; here fewer resamples do."""
    monkeypatch.setattr("trainer.figures.RESAMPLES", 100)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gratings noisy enough to be mistaken, in three splits and two sources; few are disgust."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(4)
    rows = []
    for split, count in {"train": 40, "calib": 150, "val": 120}.items():
        for number in range(count):
            label = number % 7 if number % 7 != 1 or number % 3 == 0 else 4
            name = f"{split}-{number}.png"
            noise = 300.0 if number % 2 else 80.0
            cv2.imwrite(str(folder / name), grating(label, rng, SIZE, noise=noise))
            source = "noisy" if number % 2 else "clean"
            rows.append(Row(name, EXPRESSIONS[label], split, source))
    write_manifest(folder / "all.csv", rows)
    return folder / "all.csv"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_float_bundle(tmp_path_factory.mktemp("models") / "bundle", size=SIZE)


def logits_by_hand(bundle: Bundle, manifest: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels of a split, without any of the code tested here."""
    part = read_manifest(manifest).select(split)
    images = [read_image(part.path(row)) for row in part.rows]
    faces = np.stack([prepare_face(i, bundle.info.input) for i in images if i is not None])
    return reference_logits(tiny_graph(bundle.info.input), faces), part.labels()


def command(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fer-trainer", "evaluate", *map(str, arguments)])
        return run_command("fer-trainer", main)


def evaluate(out: Path, *arguments: object) -> list[dict[str, Any]]:
    assert command(*arguments, "--json", out) == 0
    results: list[dict[str, Any]] = json.loads(out.read_text())["results"]
    return results


def test_a_bundles_figures_are_scikit_learns(
    manifest: Path, bundle: Bundle, tmp_path: Path
) -> None:
    (found,) = evaluate(tmp_path / "m.json", bundle.folder, "--manifest", manifest)
    z, labels = logits_by_hand(bundle, manifest, "calib")
    temperature = fit_temperature(z, labels)
    assert found["correction"]["temperature"] == pytest.approx(temperature, rel=1e-3)
    z, labels = logits_by_hand(bundle, manifest, "val")
    guess = z.argmax(1)
    assert 0.3 < accuracy_score(labels, guess) < 0.95, "a set without mistakes would test little"
    noisy = np.arange(120) % 2 == 1
    for block, rows in (
        (found, np.full(120, True)),
        (found["by_source"]["noisy"], noisy),
        (found["by_source"]["clean"], ~noisy),
    ):
        assert block["n"] == rows.sum()
        for part, t in (("raw", 1.0), ("scaled", temperature)):
            p = softmax(z[rows], t)
            expected = {
                "accuracy": accuracy_score(labels[rows], guess[rows]),
                "macro_f1": f1_score(labels[rows], guess[rows], average="macro", zero_division=0),
                "nll": log_loss(labels[rows], p, labels=range(7)),
            }
            for name, value in expected.items():
                assert block[part][name] == pytest.approx(value, abs=2e-4), (part, name)
        low, high = block["intervals"]["accuracy"]
        assert low <= block["scaled"]["accuracy"] <= high
        assert low < high or block["scaled"]["accuracy"] == 1
    assert (found["split"], found["fit_on"]) == ("val", "calib")
    assert found["manifest"]["sha256"] == read_manifest(manifest).sha256
    assert found["target"]["sha256"] == bundle.sha256
    assert np.sum(found["scaled"]["confusion_matrix"]) == 120


def test_the_table_shows_each_source_and_the_total(
    manifest: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = evaluate(tmp_path / "m.json", bundle.folder, "--manifest", manifest)
    lines = capsys.readouterr().out.splitlines()
    header = next(number for number, line in enumerate(lines) if "total" in line)
    assert lines[header].split() == ["clean", "noisy", "total"]
    assert lines[header + 1].split() == ["n", "60", "60", "120"]
    rows = {line.split()[0]: line for line in lines[header + 1 :] if line.strip()}
    assert set(rows) == {
        "n", "accuracy", "macro_f1", "nll", "brier", "ece_raw", "ece_scaled",
        *(f"f1_{name}" for name in EXPRESSIONS),
    }  # fmt: skip
    low, high = found["intervals"]["ece_raw"]
    assert rows["ece_raw"].endswith(f"{found['raw']['ece']:.3f} [{low:.3f}, {high:.3f}]")
    assert rows["f1_fear"].count("[") == 3
    assert "split val  protocol not stated" in "".join(lines[:header])


def test_run_checkpoint_and_bundle_say_the_same(
    finished: Path, phase_file: Path, tmp_path: Path
) -> None:
    data = phase_file.parent / "manifest.csv"
    targets = [finished, finished / "checkpoints/best.safetensors", finished / "bundle"]
    found = evaluate(tmp_path / "m.json", *targets, "--manifest", data)
    assert [each["target"]["kind"] for each in found] == ["run", "checkpoint", "bundle"]
    stored = json.loads((finished / "metrics.json").read_text())["val"]
    for each in found:
        assert each["protocol"] == "gratings"  # the phase's own, on its own manifest
        assert each["n"] == 70
        assert each["correction"]["temperature"] == pytest.approx(stored["temperature"], rel=1e-3)
        for part in ("raw", "scaled"):
            assert each[part]["confusion_matrix"] == stored[part]["confusion_matrix"]
            for name in ("nll", "brier"):
                assert each[part][name] == pytest.approx(stored[part][name], abs=1e-4)
    assert found[0]["target"]["sha256"] == found[1]["target"]["sha256"]
    assert found[2]["target"]["runs_on"].startswith("student.onnx (fp32) on ")


def test_every_temperature_is_what_it_says(
    manifest: Path, bundle: Bundle, finished: Path, tmp_path: Path
) -> None:
    given = (bundle.folder, "--manifest", manifest, "--temperature")
    (none,) = evaluate(tmp_path / "m.json", *given, "none")
    assert (none["correction"]["temperature"], none["fit_on"]) == (1.0, None)
    assert none["scaled"] == none["raw"]
    (stored,) = evaluate(tmp_path / "m.json", *given, "stored")
    assert (stored["correction"]["temperature"], stored["fit_on"]) == (0.6, None)
    z, labels = logits_by_hand(bundle, manifest, "val")
    expected = log_loss(labels, softmax(z, 0.6), labels=range(7))
    assert stored["scaled"]["nll"] == pytest.approx(expected, abs=2e-4)
    (several,) = evaluate(tmp_path / "m.json", *given, "per_class")
    made = fit(*logits_by_hand(bundle, manifest, "calib"), "per_class")
    assert list(several["correction"]["temperatures"]) == list(EXPRESSIONS)
    assert list(several["correction"]["temperatures"].values()) == pytest.approx(
        made.temperatures, rel=0.01
    )
    assert several["scaled"]["nll"] == pytest.approx(
        log_loss(labels, made.probabilities(z), labels=range(7)), abs=1e-3
    )
    (of_run,) = evaluate(
        tmp_path / "m.json", finished, "--manifest", manifest, "--temperature", "stored"
    )
    own = load_predictions(finished / "predictions.npz").temperature
    assert of_run["correction"]["temperature"] == own
    assert of_run["protocol"] == "not stated"  # this is not the manifest it was trained on


def test_logit_adjustment_takes_the_shares_of_the_training_rows(
    manifest: Path, bundle: Bundle, tmp_path: Path
) -> None:
    given = (bundle.folder, "--manifest", manifest, "--logit-adjustment", "--protocol", "noise")
    (found,) = evaluate(tmp_path / "m.json", *given, "--save-predictions", tmp_path / "p")
    train = read_manifest(manifest).select("train").labels()
    made = fit(*logits_by_hand(bundle, manifest, "calib"), "single", train)
    z, labels = logits_by_hand(bundle, manifest, "val")
    assert found["correction"]["tau"] == made.tau
    if made.tau:
        assert found["correction"]["prior"]["disgust"] == (train == 1).mean()
    guess = made.apply(z).argmax(1)
    assert found["scaled"]["accuracy"] == pytest.approx((guess == labels).mean(), abs=0.01)
    assert found["raw"]["accuracy"] == pytest.approx((z.argmax(1) == labels).mean(), abs=0.01)
    assert found["protocol"] == "noise"
    (file,) = (tmp_path / "p").iterdir()
    kept = load_predictions(file)
    np.testing.assert_allclose(kept.select("val").probabilities(), made.probabilities(z), atol=5e-3)


def test_several_models_and_manifests_leave_a_file_each_to_compare(
    manifest: Path, bundle: Bundle, finished: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    rows = read_manifest(manifest).rows
    other = manifest.parent / "half.csv"
    write_manifest(other, [row for row in rows if row.source == "noisy"])
    arguments = (bundle.folder, finished, "--manifest", manifest, "--manifest", other)
    found = evaluate(tmp_path / "m.json", *arguments, "--save-predictions", tmp_path / "p")
    assert [each["n"] for each in found] == [120, 60, 120, 60]
    files = sorted((tmp_path / "p").iterdir())
    assert len(files) == 4
    shown = capsys.readouterr().out
    assert all(str(file) in shown for file in files)
    whole = [file for file in files if read_manifest(manifest).sha256[:8] in file.name]
    opened = [load_predictions(file) for file in whole]
    assert {p.name for p in opened} == {str(bundle.folder), str(finished)}
    assert opened[0].paths == opened[1].paths
    assert set(opened[0].splits) == {"calib", "val"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fer-trainer", "compare", *map(str, whole)])
        assert run_command("fer-trainer", main) == 0
        patch.setattr(sys, "argv", ["fer-trainer", "compare", *map(str, files)])
        assert run_command("fer-trainer", main) == 2


def test_an_artifact_that_answers_otherwise_is_passed_over(
    manifest: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """An evaluation says which artifact it is of, and is not of a broken one."""
    shutil.copytree(bundle.folder, tmp_path / "b")
    face = bundle.info.input
    good = add_artifact(open_bundle(tmp_path / "b"), tiny_graph(face), "good.onnx", "int8")
    arguments = (good.folder, "--manifest", manifest)
    (found,) = evaluate(tmp_path / "m.json", *arguments)
    assert found["target"]["runs_on"].startswith("good.onnx (int8) on ")
    add_artifact(good, tiny_graph(face, scale=-1.0), "bad.onnx", "int8")
    (again,) = evaluate(tmp_path / "m.json", *arguments)
    assert again["target"]["runs_on"] == found["target"]["runs_on"]
    assert again["scaled"] == found["scaled"]


def test_mistakes_are_one_line(
    manifest: Path, bundle: Bundle, finished: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    rows = read_manifest(manifest).rows

    def written(name: str, kept: list[Row]) -> Path:
        write_manifest(manifest.parent / name, kept)
        return manifest.parent / name

    no_calib = written("no_calib.csv", [row for row in rows if row.split != "calib"])
    no_train = written("no_train.csv", [row for row in rows if row.split != "train"])
    no_fear = written("no_fear.csv", [r for r in rows if (r.split, r.label) != ("train", "fear")])
    turned = tmp_path / "turned"
    shutil.copytree(bundle.folder, turned)
    content = json.loads((turned / BUNDLE_FILE).read_text())
    content["expressions"] = content["expressions"][::-1]
    (turned / BUNDLE_FILE).write_text(json.dumps(content))
    write_sums(turned)
    (tmp_path / "empty").mkdir()
    best = finished / "checkpoints/best.safetensors"
    model = bundle.folder
    cases: list[tuple[tuple[object, ...], str]] = [
        ((model, "--manifest", manifest, "--split", "test"), "no rows of split 'test'"),
        ((model, "--manifest", no_calib), "no rows of split 'calib'; nothing can be fitted"),
        ((model, "--manifest", manifest, "--fit-on", "val"), "--fit-on val is the split"),
        ((model, "--manifest", no_train, "--logit-adjustment"), "no rows of split 'train'"),
        ((model, "--manifest", no_fear, "--logit-adjustment"), "no training row is 'fear'"),
        ((best, "--manifest", manifest, "--temperature", "stored"), "no temperature of its own"),
        ((turned, "--manifest", manifest), "in the order 'neutral surprise"),
        ((tmp_path / "nowhere", "--manifest", manifest), "no such run folder"),
        ((tmp_path / "empty", "--manifest", manifest), "no checkpoint at"),
        ((manifest, "--manifest", manifest), "not a readable checkpoint"),
        ((model, "--manifest", tmp_path / "no.csv"), "no manifest at"),
        ((model,), "--manifest"),
    ]
    for arguments, message in cases:
        assert command(*arguments) == 2, arguments
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert command(model, "--manifest", no_calib, "--temperature", "stored") == 0


def test_a_perfect_calib_split_is_named(bundle: Bundle, tmp_path: Path, capsys: Any) -> None:
    """Rows that are all right ask for a temperature of 0."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(14):
        name = f"{number}.png"
        cv2.imwrite(str(tmp_path / name), grating(number % 7, rng, SIZE, noise=0.0))
        rows.append(Row(name, EXPRESSIONS[number % 7], "calib", "x"))
    rows += [replace(row, split="val") for row in rows]
    write_manifest(tmp_path / "easy.csv", rows)
    z, labels = logits_by_hand(bundle, tmp_path / "easy.csv", "calib")
    assert (z.argmax(1) == labels).all()
    assert command(bundle.folder, "--manifest", tmp_path / "easy.csv") == 2
    assert "easy.csv: split 'calib': no finite temperature" in capsys.readouterr().err
