"""The float bundle of a run: the same answers as the network, and figures that can be repeated."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from contract import metrics
from contract.bundle import BUNDLE_FILE, Bundle, golden_inputs, open_bundle
from contract.checksums import SUMS_FILE
from contract.faces import FaceInput
from contract.manifest import Manifest, read_manifest
from trainer.backbones import NormalisedClassifier, build
from trainer.checkpoint import load_weights
from trainer.config import ModelConfig, TrainConfig
from trainer.data.cache import packed_faces
from trainer.engine import predict
from trainer.export import FLOAT_TOLERANCE, export_onnx


@pytest.fixture(scope="module")
def bundle(finished: Path) -> Bundle:
    return open_bundle(finished / "bundle")


@pytest.fixture(scope="module")
def manifest(phase_file: Path) -> Manifest:
    return read_manifest(phase_file.parent / "manifest.csv")


@pytest.fixture(scope="module")
def network(finished: Path) -> NormalisedClassifier:
    """The best averaged weights in a network made anew."""
    model = build(ModelConfig(backbone="test_resnet"), FaceInput(size=32), [0.0], [1.0])
    load_weights(finished / "checkpoints/best.safetensors", model)
    return model.eval()


def answers(bundle: Bundle, faces: np.ndarray) -> np.ndarray:
    """Logits by ONNX Runtime."""
    file = bundle.path(bundle.info.artifacts[-1])
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type) == ("faces", "tensor(uint8)")
    return np.asarray(session.run(["logits"], {"faces": faces})[0])


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_answers_as_torch_does_for_any_batch(
    bundle: Bundle, network: NormalisedClassifier, manifest: Manifest, batch: int
) -> None:
    faces = packed_faces(manifest, bundle.info.input)[:batch]
    found = answers(bundle, faces)
    assert found.shape == (batch, 7)
    assert found.dtype == np.float32
    expected = predict(network, torch.from_numpy(faces.copy())).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_golden_answers_are_the_networks(bundle: Bundle, network: NormalisedClassifier) -> None:
    golden = bundle.info.golden
    faces = golden_inputs(golden.seed, len(golden.logits), bundle.info.input)
    stored = np.array(golden.logits)
    np.testing.assert_allclose(stored, predict(network, torch.from_numpy(faces)), atol=1e-5)
    gap = np.abs(metrics.softmax(answers(bundle, faces)) - metrics.softmax(stored)).mean()
    assert gap < FLOAT_TOLERANCE / 100
    assert [artifact.tolerance for artifact in bundle.info.artifacts] == [FLOAT_TOLERANCE]


def split_rows(bundle: Bundle, manifest: Manifest, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Faces and labels of one split."""
    chosen = np.array([row.split == split for row in manifest.rows])
    return packed_faces(manifest, bundle.info.input)[chosen], manifest.labels()[chosen]


def test_the_temperature_is_fitted_on_calib(bundle: Bundle, manifest: Manifest) -> None:
    faces, labels = split_rows(bundle, manifest, "calib")
    expected = metrics.fit_temperature(answers(bundle, faces), labels)
    assert bundle.info.temperature == pytest.approx(expected, rel=1e-4)


def test_the_figures_are_those_of_the_exported_graph(bundle: Bundle, manifest: Manifest) -> None:
    faces, labels = split_rows(bundle, manifest, "val")
    p = metrics.softmax(answers(bundle, faces), bundle.info.temperature)
    expected = metrics.compute(labels, p, p.argmax(axis=1))
    stated = bundle.info.metrics["val"]
    assert stated["accuracy"] > 0.5  # the run did learn: chance is 0.14
    assert stated["n"] == 70
    assert stated["protocol"] == "gratings"
    assert stated["manifest_sha256"] == manifest.sha256
    for name in ("accuracy", "macro_f1", "nll", "brier", "ece", "adaptive_ece", "classwise_ece"):
        assert stated[name] == pytest.approx(getattr(expected, name), abs=1e-4), name
    assert stated["confusion_matrix"] == expected.confusion_matrix


def test_the_bundle_says_where_it_came_from(
    bundle: Bundle, manifest: Manifest, finished: Path
) -> None:
    info = bundle.info
    config = json.loads((finished / "config.json").read_text())
    assert config.pop("inputs") == {"manifest_sha256": manifest.sha256}
    assert info.provenance.detail["config"] == config
    assert TrainConfig.model_validate(config).input == info.input
    assert info.provenance.manifests == {"train": manifest.sha256}
    assert info.provenance.detail["rows"] == {"train": 448, "calib": 70}
    assert (info.provenance.phase, info.provenance.seed) == ("tiny", 1337)


def test_the_model_card_holds_the_figures_of_the_bundle(bundle: Bundle) -> None:
    card = (bundle.folder / "model_card.md").read_text()
    figures = bundle.info.metrics["val"]
    assert f"protocol {figures['protocol']}, n = {figures['n']}" in card
    for name in ("accuracy", "macro_f1", "nll", "ece"):
        assert re.search(rf"^\| {name} \| {figures[name]:.4f} \[", card, re.MULTILINE)
    for name, f1 in figures["per_class_f1"].items():
        assert re.search(rf"^\| {name} \| {f1:.3f} \[", card, re.MULTILINE)
    assert f"temperature {bundle.info.temperature:.3f}" in card
    assert "test_resnet" in card
    assert "448 rows" in card
    assert "could not be measured" in card  # fairness
    assert "Not for decisions about people" in card


def test_no_image_is_in_the_bundle(bundle: Bundle) -> None:
    assert {path.name for path in bundle.folder.iterdir()} == {
        BUNDLE_FILE, "student.onnx", "model_card.md", SUMS_FILE,
    }  # fmt: skip


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_input_and_stem_can_be_exported(tmp_path: Path, colour: str, stride: int) -> None:
    """Normalisation is in the graph: it takes the crop as it is."""
    face = FaceInput.model_validate({"size": 32, "colour": colour})
    settings = ModelConfig.model_validate({"backbone": "test_efficientnet", "stem_stride": stride})
    channels = face.channels
    torch.manual_seed(0)
    model = build(settings, face, [120.0, 110.0, 100.0][:channels], [60.0] * channels).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.normal_(layer.weight)
    faces = golden_inputs(1, 3, face)
    expected = predict(model, torch.from_numpy(faces)).numpy()
    by_hand = (
        torch.from_numpy(faces).float() - torch.tensor([120.0, 110.0, 100.0][:channels])
    ) / 60
    with torch.inference_mode():
        np.testing.assert_allclose(
            model.network(by_hand.permute(0, 3, 1, 2)).numpy(), expected, atol=1e-4
        )
    export_onnx(model, face, tmp_path / "x.onnx")
    session = ort.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"faces": faces})[0], expected, atol=1e-3)
